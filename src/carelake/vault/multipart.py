"""Large objects in parts (as S3's multipart upload): each part is sealed and durable when it is answered.

An upload has an id, which becomes the version. Its parts are blobs of their own, bound to the upload and their
number; to complete it seals the list of them, and copies nothing. What was uploaded stays until the upload is
completed or aborted, whatever happens to the process, so a broken-off upload goes on where it was.
"""

from __future__ import annotations

import io
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Row, delete, insert, select

from carelake.core.clock import iso
from carelake.core.errors import Conflict, Invalid, NotFound
from carelake.core.permit import Permit
from carelake.vault.blobs import Blob, Sink
from carelake.vault.catalogue import Catalogue, Condition, Draft
from carelake.vault.chunks import ChunkWriter, Place, stored_size
from carelake.vault.database import scope_of
from carelake.vault.depot import Depot
from carelake.vault.parts import MAX_PARTS, Piece, composite, seal_manifest
from carelake.vault.places import LOCKED
from carelake.vault.retention import locked
from carelake.vault.space import discard, give_up, parts_of, undo
from carelake.vault.tables import object_part, object_upload
from carelake.vault.versions import ObjectVersion, check_name, check_tags, open_tags, sealed_tags

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["Part", "PartWriter", "Upload", "Uploads"]

_P, _U = object_part.c, object_upload.c


@dataclass(frozen=True, slots=True)
class Part:
    """One uploaded part.

    Attributes:
        number: 1 to 10,000; parts are put together in this order.
        sha256: of its plaintext, in hex.
    """

    number: int
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Upload:
    """A begun upload.

    Attributes:
        part_bytes: size that the parts are meant to have, but for the last; what a resuming client cuts by.
    """

    id: str
    name: str = field(repr=False)
    zone: str
    created: str
    part_bytes: int


class Uploads:
    """The uploads of one open workspace. Grants: ``ZONE:write``."""

    def __init__(self, depot: Depot, catalogue: Catalogue) -> None:
        self._depot = depot
        self._catalogue = catalogue

    @property
    def part_bytes(self) -> int:
        """The size of parts that the settings say."""
        return self._depot.settings.objects.part_bytes

    def begin(
        self,
        permit: Permit,
        zone: str,
        name: str,
        *,
        tags: Mapping[str, str] | None = None,
        part_bytes: int | None = None,
    ) -> Upload:
        """Begin an upload.

        Raises:
            Invalid: ``vault.name``, ``vault.tags``. Refused: ``vault.locked``.
        """
        depot = self._depot
        depot.writer(permit, zone)
        check_name(name)
        check_tags(tags)
        if zone in LOCKED:
            raise locked(zone)
        size = self.part_bytes if part_bytes is None else part_bytes
        made = Upload(depot.ids.new(), name, zone, iso(depot.clock.now()), size)
        values = {
            "upload": made.id,
            "account": permit.account,
            "zone": zone,
            "name": name,
            "created": made.created,
            "part_bytes": made.part_bytes,
            "tags": sealed_tags(depot, permit.account, zone, made.id, tags or {}),
        }
        with depot.database.writing(permit, join=True) as connection:
            connection.execute(insert(object_upload), values)
        return made

    def parts(self, permit: Permit, zone: str, upload: str) -> list[Part]:
        """The parts that are there, by number; `NotFound` ``vault.upload``."""
        self._depot.writer(permit, zone)
        with self._depot.database.snapshot() as connection:
            self._row(connection, permit.account, zone, upload)
            return [Part(row.number, row.size, row.sha256) for row in _parts(connection, upload)]

    def list(self, permit: Permit, zone: str, name: str | None = None) -> list[Upload]:
        """Begun uploads of a zone, or of one object, oldest first."""
        self._depot.writer(permit, zone)
        query = select(object_upload).where(_U.account == permit.account, _U.zone == zone).order_by(_U.upload)
        if name is not None:
            query = query.where(_U.name == name)
        with self._depot.database.snapshot() as connection:
            return [_told(row) for row in connection.execute(query)]

    def put(self, permit: Permit, zone: str, upload: str, number: int, data: ReadableBuffer) -> Part:
        """Upload one part whole; one that is there already is replaced. See `part`."""
        with self.part(permit, zone, upload, number) as writer:
            writer.write(data)
            return writer.commit()

    def part(self, permit: Permit, zone: str, upload: str, number: int) -> PartWriter:
        """A stream to one part, in memory of one chunk; `PartWriter.commit` makes it count.

        Raises:
            Invalid: ``vault.part``. NotFound: ``vault.upload``.
        """
        self._depot.writer(permit, zone)
        if not 1 <= number <= MAX_PARTS:
            raise Invalid("vault.part", f"Parts are numbered 1 to {MAX_PARTS}; this number is not among them.")
        with self._depot.database.snapshot() as connection:
            self._row(connection, permit.account, zone, upload)
        return PartWriter(self, self._depot, permit, zone, upload, number)

    def complete(
        self,
        permit: Permit,
        zone: str,
        upload: str,
        parts: Sequence[Part] | None = None,
        *,
        tags: Mapping[str, str] | None = None,
        if_none_match: bool = False,
        if_match: str | None = None,
    ) -> ObjectVersion:
        """Put the parts together as a new version; nothing is copied.

        Args:
            parts: what the caller believes to have uploaded; None for whatever is there. Parts that are not named
                are removed.
            tags: in place of those that the upload was begun with.

        Raises:
            Conflict: ``vault.parts``: other parts are there; ``vault.precondition``.
            NotFound: ``vault.upload``. Invalid: ``vault.part``: there is none.
        """
        depot = self._depot
        depot.writer(permit, zone)
        check_tags(tags)
        with depot.database.writing(permit, join=True) as connection:
            begun = self._row(connection, permit.account, zone, upload)
            there = _parts(connection, upload)
            kept = _chosen(there, parts)
            self._drop(connection, [row for row in there if row not in kept])
            pieces = [Piece(row.object, row.bound, row.size, row.sha256) for row in kept]
            told = _version(depot, begun, pieces, tags)
            place = Place(depot.workspace, told.account, zone, told.version, told.version)
            manifest = seal_manifest(depot, place, pieces)
            stored = sum(row.stored_size for row in kept)
            draft = Draft(told, told.version, "parts", stored, manifest=manifest)
            self._catalogue.enter(permit, draft, Condition(if_none_match, if_match))
            connection.execute(delete(object_upload).where(_U.upload == upload))
        return told

    def abort(self, permit: Permit, zone: str, upload: str) -> None:
        """Give an upload up; its parts are removed."""
        self._depot.writer(permit, zone)
        with self._depot.database.writing(permit, join=True) as connection:
            self._row(connection, permit.account, zone, upload)
            self.drop(connection, upload)

    def drop(self, connection: Connection, upload: str) -> None:
        """Remove an upload and its parts; whoever calls has checked the permit."""
        connection.execute(delete(object_upload).where(_U.upload == upload))
        give_up(connection, self._depot, parts_of(connection, [upload]), {upload})

    def enter(self, permit: Permit, place: Place, part: Part) -> None:
        """The row of a part whose bytes are there; an earlier part of that number goes."""
        depot, upload = self._depot, place.version.partition(".")[0]
        blob = Blob(place.account, place.zone, place.object)
        entered = False
        try:
            with depot.database.writing(permit, join=True) as connection:
                self._row(connection, place.account, place.zone, upload)
                self._drop(connection, [row for row in _parts(connection, upload) if row.number == part.number])
                connection.execute(insert(object_part), _values(place, upload, part))
                entered = True
                scope_of(connection).undo.append(lambda: undo(depot, blob, upload))
        except BaseException:
            if not entered:
                depot.blobs.remove(blob)
            raise

    def _drop(self, connection: Connection, rows: Sequence[Row[Any]]) -> None:
        for row in rows:
            connection.execute(delete(object_part).where(_P.version == row.version, _P.number == row.number))
        discard(connection, self._depot, [Blob(r.account, r.zone, r.object, r.storage) for r in rows])

    def _row(self, connection: Connection, account: str, zone: str, upload: str) -> Row[Any]:
        query = select(object_upload).where(_U.upload == upload, _U.account == account, _U.zone == zone)
        row = connection.execute(query).first()
        if row is None:
            raise NotFound("vault.upload", "There is no such upload; it was completed, aborted or never begun.")
        return row


class PartWriter(io.RawIOBase):
    """A stream to one part; nothing of it is kept unless `commit` is called."""

    def __init__(self, uploads: Uploads, depot: Depot, permit: Permit, zone: str, upload: str, number: int) -> None:
        super().__init__()
        self._uploads = uploads
        self._depot = depot
        self._permit = permit
        self._number = number
        self._begun = False
        # The number is bound as part of the version, so that parts cannot change places.
        self._place = Place(depot.workspace, permit.account, zone, secrets.token_hex(16), f"{upload}.{number}")
        self._chunks: ChunkWriter | None = ChunkWriter(self._sink, self._place)

    def writable(self) -> bool:
        return True

    def write(self, data: ReadableBuffer) -> int:
        """Take bytes; all of them, always."""
        if self._chunks is None:
            raise ValueError("I/O operation on closed file")
        return self._chunks.write(data)

    def commit(self) -> Part:
        """Make the part durable and enter it."""
        if self._chunks is None:
            raise Conflict("vault.discarded", "This writer was discarded; nothing of it is kept.")
        try:
            sha256 = self._chunks.finish(self._depot.writer(self._permit, self._place.zone))
            part = Part(self._number, self._chunks.size, sha256)
            self._uploads.enter(self._permit, self._place, part)
        finally:
            self.close()
        return part

    def close(self) -> None:
        chunks, self._chunks = getattr(self, "_chunks", None), None
        if chunks is not None:
            chunks.discard()
            self._depot.unsure -= self._begun
        super().close()

    def _sink(self) -> Sink:
        self._depot.presence.mark()
        sink = self._depot.blobs.create(Blob(self._place.account, self._place.zone, self._place.object))
        self._begun = True
        self._depot.unsure += 1
        return sink


def _parts(connection: Connection, upload: str) -> list[Row[Any]]:
    return list(connection.execute(select(object_part).where(_P.version == upload).order_by(_P.number)))


def _chosen(there: Sequence[Row[Any]], wanted: Sequence[Part] | None) -> list[Row[Any]]:
    if wanted is not None:
        by_number = {row.number: row for row in there}
        found = [by_number.get(part.number) for part in sorted(wanted, key=lambda part: part.number)]
        told = [None if row is None else Part(row.number, row.size, row.sha256) for row in found]
        if told != sorted(wanted, key=lambda part: part.number):
            raise Conflict("vault.parts", "Other parts are there than those named; list them and upload the rest.")
        there = [row for row in found if row is not None]
    if not there:
        raise Invalid("vault.part", "An upload is completed with one part at least; this one has none.")
    return list(there)


def _version(depot: Depot, begun: Row[Any], pieces: Sequence[Piece], tags: Mapping[str, str] | None) -> ObjectVersion:
    digests = [piece.sha256 for piece in pieces]
    if tags is None:
        tags = open_tags(depot, begun.account, begun.zone, begun.upload, begun.tags)
    return ObjectVersion(
        name=begun.name,
        zone=begun.zone,
        account=begun.account,
        version=begun.upload,
        size=sum(piece.size for piece in pieces),
        sha256=digests[0] if len(digests) == 1 else composite(digests),
        created=iso(depot.clock.now()),
        tags=dict(tags),
        parts=len(digests) if len(digests) > 1 else 0,
    )


def _values(place: Place, upload: str, part: Part) -> dict[str, Any]:
    return {
        "version": upload,
        "number": part.number,
        "account": place.account,
        "zone": place.zone,
        "object": place.object,
        "bound": place.version,
        "size": part.size,
        "stored_size": stored_size(part.size),
        "sha256": part.sha256,
        "form": "file",
        "storage": "hot",
    }


def _told(row: Row[Any]) -> Upload:
    return Upload(row.upload, row.name, row.zone, row.created, row.part_bytes)
