"""A stream to a new version of an object: sealed as it comes, visible once it is whole."""

from __future__ import annotations

import io
import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from carelake.core.clock import iso
from carelake.core.errors import Conflict
from carelake.core.permit import Permit
from carelake.vault.blobs import Blob, Sink
from carelake.vault.catalogue import Catalogue, Condition, Draft
from carelake.vault.chunks import ChunkWriter, Place, stored_size
from carelake.vault.depot import Depot
from carelake.vault.retention import guard_of, lock_of
from carelake.vault.versions import ObjectVersion

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["ObjectWriter"]


class ObjectWriter(io.RawIOBase):
    """A stream to a new object. `commit` (or a clean ``with``, or ``close`` where that commits) makes it visible."""

    def __init__(
        self,
        depot: Depot,
        catalogue: Catalogue,
        permit: Permit,
        zone: str,
        name: str,
        tags: Mapping[str, str],
        condition: Condition,
    ) -> None:
        super().__init__()
        self.commit_on_close = True
        self.version: ObjectVersion | None = None
        self._depot = depot
        self._catalogue = catalogue
        self._permit = permit
        self._condition = condition
        mode, until = lock_of(depot, zone)
        place = Place(depot.workspace, permit.account, zone, secrets.token_hex(16), depot.ids.new())
        created = iso(depot.clock.now())
        self._place = place
        self._told = ObjectVersion(
            name, zone, permit.account, place.version, 0, "", created, tags, retain_mode=mode, retain_until=until
        )
        self._chunks: ChunkWriter | None = None
        self._begun = False
        self._sha256 = ""
        self._chunks = ChunkWriter(self._sink, place, inline=depot.inline_bytes(zone))

    def writable(self) -> bool:
        return True

    def write(self, data: ReadableBuffer) -> int:
        """Take bytes; all of them, always."""
        if self._chunks is None:
            raise ValueError("I/O operation on closed file")
        return self._chunks.write(data)

    def tell(self) -> int:
        return self._chunks.size if self._chunks else self._told.size

    def finish(self) -> None:
        """Make the bytes durable: all that is left for `commit` is their row. It is `commit` that must follow.

        For who commits in a transaction that others wait for. A writer that failed to is discarded.
        """
        if self._chunks is None:
            raise Conflict("vault.discarded", "This writer was discarded; nothing of it is kept.")
        try:
            self._sha256 = self._chunks.finish(self._depot.writer(self._permit, self._place.zone))
        except BaseException:
            self.discard()
            raise

    def commit(self) -> ObjectVersion:
        """Finish the bytes and enter them in the table; a writer that failed to is discarded, and written anew.

        Raises:
            Conflict: ``vault.discarded``; and what `Objects.put` raises.
        """
        if self.version is not None:
            return self.version
        if self._chunks is None:
            raise Conflict("vault.discarded", "This writer was discarded; nothing of it is kept.")
        try:
            return self._commit(self._chunks)
        finally:
            self.discard()

    def _commit(self, chunks: ChunkWriter) -> ObjectVersion:
        depot = self._depot
        if not self._sha256:
            self.finish()
        sha256, self._sha256 = self._sha256, ""  # `Catalogue.enter` removes them where it fails
        told = replace(self._told, size=chunks.size, sha256=sha256, created=iso(depot.clock.now()))
        form = "file" if chunks.inline is None else "inline"
        draft = Draft(told, self._place.object, form, stored_size(told.size), inline=chunks.inline)
        # If the row can vanish without a word, the next open has to look for files without one.
        depot.unsure += self._catalogue.enter(self._permit, draft, self._condition) and form == "file"
        self.version = self._told = told
        return told

    def discard(self) -> None:
        """Drop what was not committed. Does nothing after `commit`."""
        if self._chunks is not None:
            self._chunks.discard()
            if self._sha256 and self._chunks.inline is None:
                self._depot.blobs.remove(self._blob)
            self._chunks, self._sha256 = None, ""
            self._depot.unsure -= self._begun
        super().close()

    def close(self) -> None:
        if self.commit_on_close and self._chunks is not None:
            try:
                self.commit()
            finally:
                self.discard()

    @property
    def _blob(self) -> Blob:
        return Blob(self._place.account, self._place.zone, self._place.object)

    def _sink(self) -> Sink:
        self._depot.presence.mark()
        sink = self._depot.blobs.create(self._blob, guard_of(self._told) if self._told.retain_mode else None)
        self._begun = True
        self._depot.unsure += 1
        return sink

    def __exit__(self, kind: object, *rest: object) -> None:
        if kind is not None:
            self.discard()
        self.close()

    def __del__(self) -> None:
        # io would close, and so commit, a writer that was merely forgotten.
        if getattr(self, "_chunks", None) is not None:
            self.discard()
