"""Encrypted, versioned objects in zones (decision D5).

A file's name on disk is random; what it is called, and in which zone and account, stands only in the encrypted table
``object_version``. A write goes to a temporary name, is synced, renamed and then entered in the table, so an object
is there whole or not at all; what a crash leaves behind has no row and is swept at the next open.
"""

from __future__ import annotations

import io
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from carelake.core.clock import Clock, iso
from carelake.core.errors import Conflict, Corrupt
from carelake.core.ids import Ids
from carelake.core.permit import Permit
from carelake.vault.catalogue import Catalogue, ObjectVersion, check_name, locked, path_of, tags_json
from carelake.vault.chunks import ChunkReader, ChunkWriter, Place, stored_size
from carelake.vault.database import Database
from carelake.vault.disk import private_folder, publish
from carelake.vault.keyring import Keyring
from carelake.vault.places import LOCKED, ZONES, zone_of
from carelake.vault.presence import Presence
from carelake.vault.verification import Fault, verify

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["Fault", "ObjectVersion", "ObjectWriter", "Objects"]

_READ_AHEAD = 128 * 1024


class Objects:
    """The objects of one open workspace."""

    def __init__(
        self, folder: Path, *, workspace: str, keyring: Keyring, database: Database, clock: Clock, ids: Ids
    ) -> None:
        private_folder(folder)
        self._folder = folder
        self._workspace = workspace
        self._keyring = keyring
        self._database = database
        self._clock = clock
        self._ids = ids
        self._catalogue = Catalogue(database, workspace, folder)
        self._presence = Presence(folder)
        self._writing = 0

    # -- write ----------------------------------------------------------------------------------------------------

    def put(
        self,
        permit: Permit,
        zone: str,
        name: str,
        data: ReadableBuffer,
        *,
        tags: Mapping[str, str] | None = None,
    ) -> ObjectVersion:
        """Write an object whole.

        In the lake an overwrite replaces; elsewhere it makes a new version; in a locked zone it is refused. Inside a
        write transaction of this thread the object appears when that one commits.

        Raises:
            Refused: the permit has no grant ``ZONE:write``; ``vault.locked``.
            Invalid: ``vault.name``, ``vault.tags``, ``vault.zone``.
        """
        writer = self.create(permit, zone, name, tags=tags)
        try:
            writer.write(data)
            return writer.commit()
        finally:
            writer.discard()

    @contextmanager
    def writer(
        self, permit: Permit, zone: str, name: str, *, tags: Mapping[str, str] | None = None
    ) -> Iterator[ObjectWriter]:
        """A binary stream to a new object, which is there after a clean exit, and never otherwise."""
        writer = self.create(permit, zone, name, tags=tags)
        writer.commit_on_close = False
        try:
            yield writer
            writer.commit()
        finally:
            writer.discard()

    def create(self, permit: Permit, zone: str, name: str, *, tags: Mapping[str, str] | None = None) -> ObjectWriter:
        """As `writer`, for callers that cannot use ``with``: ``close`` commits, `ObjectWriter.discard` does not."""
        self._keyring.use(permit, f"{zone_of(zone)}:write", f"{permit.account}/{zone}")
        check_name(name)
        tags_json(tags)
        self._catalogue.check_unlocked(permit.account, zone, name)
        self._presence.mark()
        return ObjectWriter(self, permit, zone, name, dict(tags or {}))

    def delete(self, permit: Permit, zone: str, name: str) -> None:
        """Remove an object with all its versions; their bytes go once the deletion is committed.

        Raises:
            Refused: ``vault.locked``, or the permit has no grant ``ZONE:write``.
            NotFound: there is none, or it was deleted before.
        """
        self._keyring.use(permit, f"{zone_of(zone)}:write", f"{permit.account}/{zone}")
        if zone in LOCKED:
            raise locked(zone)
        self._presence.mark()
        self._catalogue.delete(permit, permit.account, zone, name)

    # -- read -----------------------------------------------------------------------------------------------------

    def stat(self, permit: Permit, zone: str, name: str, version: str | None = None) -> ObjectVersion:
        """What is known of an object without its bytes; `NotFound` or `Gone` where there is none."""
        self._keyring.use(permit, f"{zone_of(zone)}:read", f"{permit.account}/{zone}")
        return self._catalogue.find(permit.account, zone, name, version)[0]

    def open(self, permit: Permit, zone: str, name: str, version: str | None = None) -> io.BufferedReader:
        """A seekable binary file; only the chunks that are read are decrypted.

        Raises:
            Refused: the permit has no grant ``ZONE:read``.
            NotFound: ``vault.object``; Gone: ``vault.deleted``.
            Corrupt: ``vault.altered`` or ``vault.missing``, here or at a read.
        """
        return io.BufferedReader(self._reader(permit, zone, name, version), _READ_AHEAD)

    def get(self, permit: Permit, zone: str, name: str, version: str | None = None) -> bytes:
        """An object's bytes, whole. See `open`."""
        with self._reader(permit, zone, name, version) as reader:
            return reader.readall()

    def list(self, permit: Permit, zone: str, prefix: str = "") -> list[ObjectVersion]:
        """The newest version of each object whose name starts so, by name."""
        self._keyring.use(permit, f"{zone_of(zone)}:read", f"{permit.account}/{zone}")
        return self._catalogue.list(permit.account, zone, prefix)

    def any(self, permit: Permit, zone: str, prefix: str) -> bool:
        """Is there an object whose name starts so?"""
        self._keyring.use(permit, f"{zone_of(zone)}:read", f"{permit.account}/{zone}")
        return self._catalogue.any(permit.account, zone, prefix)

    def verify(self, permit: Permit) -> Iterator[Fault]:
        """Read and authenticate every object of every account and zone; see `verification.verify`."""
        return verify(permit, self._database, self._keyring, self._clock, self._folder, self._workspace)

    # -- housekeeping ---------------------------------------------------------------------------------------------

    def sweep(self) -> int:
        """At open: remove files without a row, if an earlier process was killed and no other one is here.

        Returns the number of files removed.
        """
        swept = 0
        if self._presence.alone() and (marks := self._presence.left_behind()):
            for folder in self._zone_folders():
                swept += self._sweep_zone(folder)
            for mark in marks:
                mark.unlink(missing_ok=True)
        self._presence.share()
        return swept

    def close(self) -> None:
        """Say that this process has left nothing half-done."""
        self._presence.leave(clean=self._writing == 0)

    def _zone_folders(self) -> Iterator[Path]:
        for account in self._folder.iterdir():
            if account.is_dir():
                yield from (account / zone for zone in ZONES if (account / zone).is_dir())

    def _sweep_zone(self, folder: Path) -> int:
        known = self._catalogue.alive(folder.parent.name, folder.name)
        swept = 0
        for path in folder.glob("*/*"):
            if path.name not in known:
                path.unlink(missing_ok=True)
                swept += 1
        return swept

    # -- inside ---------------------------------------------------------------------------------------------------

    def _reader(self, permit: Permit, zone: str, name: str, version: str | None) -> ChunkReader:
        key_name = f"{permit.account}/{zone}"
        self._keyring.use(permit, f"{zone_of(zone)}:read", key_name)
        told, place = self._catalogue.find(permit.account, zone, name, version)
        try:
            handle = os.open(path_of(self._folder, place), os.O_RDONLY)
        except FileNotFoundError:
            raise Corrupt(
                "vault.missing", "The bytes of an object are missing; restore them from a backup."
            ) from None
        reader = ChunkReader(handle, place, lambda number: self._keyring.inner(key_name, number))
        if reader.size != told.size:
            reader.close()
            raise Corrupt("vault.altered", "A stored object has another length than was entered for it.")
        return reader

    def _enter(self, permit: Permit, place: Place, told: ObjectVersion) -> None:
        unsure = self._catalogue.enter(permit, place, told, stored_size(told.size))
        # Then the next open has to look for files without a row.
        self._writing += unsure


class ObjectWriter(io.RawIOBase):
    """A stream to a new object. `commit` (or a clean ``with``, or ``close`` where that commits) makes it visible."""

    def __init__(self, objects: Objects, permit: Permit, zone: str, name: str, tags: Mapping[str, str]) -> None:
        super().__init__()
        self.commit_on_close = True
        self.version: ObjectVersion | None = None
        self._objects = objects
        self._permit = permit
        self._name = name
        self._tags = tags
        self._place = Place(objects._workspace, permit.account, zone, secrets.token_hex(16), objects._ids.new())
        self._path = path_of(objects._folder, self._place)
        self._temporary = self._path.with_suffix(".tmp")
        private_folder(self._path.parent)
        self._handle: int | None = os.open(self._temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        objects._writing += 1
        self._chunks = ChunkWriter(self._handle, self._place)

    def writable(self) -> bool:
        return True

    def write(self, data: ReadableBuffer) -> int:
        """Take bytes; all of them, always."""
        if self._handle is None:
            raise ValueError("I/O operation on closed file")
        return self._chunks.write(data)

    def tell(self) -> int:
        return self._chunks.size

    def commit(self) -> ObjectVersion:
        """Finish the file, give it its name and enter it in the table."""
        if self.version is not None:
            return self.version
        if self._handle is None:
            raise Conflict("vault.discarded", "This writer was discarded; nothing of it is kept.")
        place, objects = self._place, self._objects
        key = objects._keyring.use(self._permit, f"{place.zone}:write", f"{place.account}/{place.zone}")
        sha256 = self._chunks.finish(key)
        told = ObjectVersion(
            name=self._name,
            zone=place.zone,
            account=place.account,
            version=place.version,
            size=self._chunks.size,
            sha256=sha256,
            created=iso(objects._clock.now()),
            tags=self._tags,
        )
        publish(self._temporary, self._path)
        try:
            objects._enter(self._permit, place, told)
        except BaseException:
            self._path.unlink(missing_ok=True)
            raise
        self.version = told
        self.discard()
        return told

    def discard(self) -> None:
        """Drop what was not committed. Does nothing after `commit`."""
        if self._handle is not None:
            self._chunks.release()
            os.close(self._handle)
            self._handle = None
            self._temporary.unlink(missing_ok=True)
            self._objects._writing -= 1
        super().close()

    def close(self) -> None:
        if self.commit_on_close and self._handle is not None:
            try:
                self.commit()
            finally:
                self.discard()

    def __exit__(self, kind: object, *rest: object) -> None:
        if kind is not None:
            self.discard()
        self.close()

    def __del__(self) -> None:
        # io would close, and so commit, a writer that was merely forgotten.
        if getattr(self, "_handle", None) is not None:
            self.discard()
