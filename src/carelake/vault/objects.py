"""Encrypted, versioned objects in zones (decision D5).

A file's name on disk is random; what it is called, and in which zone and account, stands only in the encrypted table
``object_version``. A write goes to a temporary name, is synced, renamed and then entered in the table, so an object
is there whole or not at all; what a crash leaves behind has no row and is swept at the next open.
"""

from __future__ import annotations

import io
import json
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Row, bindparam, delete, func, insert, select, update

from carelake.core.clock import Clock, iso
from carelake.core.errors import Conflict, Corrupt, Gone, Invalid, NotFound, Refused
from carelake.core.ids import Ids
from carelake.core.permit import Permit
from carelake.vault.chunks import ChunkReader, ChunkWriter, Place, stored_size
from carelake.vault.database import Database, scope_of
from carelake.vault.disk import private_folder, publish
from carelake.vault.keyring import Keyring
from carelake.vault.places import LOCKED, UNVERSIONED, ZONES, zone_of
from carelake.vault.presence import Presence
from carelake.vault.tables import object_version
from carelake.vault.verification import Fault, verify

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["Fault", "ObjectVersion", "ObjectWriter", "Objects"]

_MAX_NAME_BYTES = 1024
_MAX_TAGS_BYTES = 8192
_READ_AHEAD = 128 * 1024
_T = object_version.c


@dataclass(frozen=True, slots=True)
class ObjectVersion:
    """One version of one object.

    Attributes:
        size: bytes of plaintext.
        sha256: of the plaintext, in hex.
        created: FHIR instant.
    """

    name: str = field(repr=False)
    zone: str
    account: str
    version: str
    size: int
    sha256: str
    created: str
    tags: Mapping[str, str] = field(repr=False)


# Bound names differ from the columns': SQLAlchemy keeps those for the values of an update.
_PLACE = (_T.account == bindparam("in_account"), _T.zone == bindparam("in_zone"))
_NAMED = (*_PLACE, _T.name == bindparam("in_name"))
_CURRENT = select(object_version).where(*_NAMED, _T.current)
_EVER = select(_T.seq).where(*_NAMED).limit(1)
_EXACT = select(object_version).where(*_NAMED, _T.version == bindparam("in_version")).order_by(_T.seq.desc()).limit(1)
_LIST = (
    select(object_version)
    .where(*_PLACE, _T.current, _T.name >= bindparam("prefix"))
    .where(func.substr(_T.name, 1, bindparam("length")) == bindparam("prefix"))
    .order_by(_T.name)
)


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
        _check_name(name)
        said = _tags_json(tags)
        if zone in LOCKED and self._row(_CURRENT, _named(permit.account, zone, name)) is not None:
            raise _locked(zone)
        self._presence.mark()
        return ObjectWriter(self, permit, zone, name, said)

    def delete(self, permit: Permit, zone: str, name: str) -> None:
        """Remove an object with all its versions; their bytes go once the deletion is committed.

        Raises:
            Refused: ``vault.locked``, or the permit has no grant ``ZONE:write``.
            NotFound: there is none, or it was deleted before.
        """
        self._keyring.use(permit, f"{zone_of(zone)}:write", f"{permit.account}/{zone}")
        if zone in LOCKED:
            raise _locked(zone)
        _check_name(name)
        said = _named(permit.account, zone, name)
        self._presence.mark()
        with self._database.writing(permit, join=True) as connection:
            if connection.execute(_CURRENT, said).first() is None:
                raise _missing()
            paths = self._drop(connection, said, keep_rows=zone not in UNVERSIONED)
            scope_of(connection).after.append(lambda: _unlink(paths))

    # -- read -----------------------------------------------------------------------------------------------------

    def stat(self, permit: Permit, zone: str, name: str, version: str | None = None) -> ObjectVersion:
        """What is known of an object without its bytes; `NotFound` or `Gone` where there is none."""
        self._keyring.use(permit, f"{zone_of(zone)}:read", f"{permit.account}/{zone}")
        return _told(self._find(permit, zone, name, version))

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
        said = {"in_account": permit.account, "in_zone": zone, "prefix": prefix, "length": len(prefix)}
        with self._database.snapshot() as connection:
            return [_told(row) for row in connection.execute(_LIST, said)]

    def any(self, permit: Permit, zone: str, prefix: str) -> bool:
        """Is there an object whose name starts so?"""
        self._keyring.use(permit, f"{zone_of(zone)}:read", f"{permit.account}/{zone}")
        said = {"in_account": permit.account, "in_zone": zone, "prefix": prefix, "length": len(prefix)}
        return self._row(_LIST.limit(1), said) is not None

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
        alive = select(_T.object).where(_T.account == folder.parent.name, _T.zone == folder.name, ~_T.deleted)
        with self._database.snapshot() as connection:
            known = set(connection.scalars(alive))
        swept = 0
        for path in folder.glob("*/*"):
            if path.name not in known:
                path.unlink(missing_ok=True)
                swept += 1
        return swept

    # -- inside ---------------------------------------------------------------------------------------------------

    def _row(self, query: Any, said: Mapping[str, object]) -> Row[Any] | None:
        with self._database.snapshot() as connection:
            row: Row[Any] | None = connection.execute(query, said).first()
            return row

    def _find(self, permit: Permit, zone: str, name: str, version: str | None) -> Row[Any]:
        _check_name(name)
        said = _named(permit.account, zone, name)
        row = self._row(_CURRENT, said) if version is None else self._row(_EXACT, said | {"in_version": version})
        if row is not None and not row.deleted:
            return row
        if row is not None or (version is None and self._row(_EVER, said) is not None):
            raise Gone("vault.deleted", "The object was deleted.")
        raise _missing()

    def _reader(self, permit: Permit, zone: str, name: str, version: str | None) -> ChunkReader:
        key_name = f"{permit.account}/{zone}"
        self._keyring.use(permit, f"{zone_of(zone)}:read", key_name)
        row = self._find(permit, zone, name, version)
        place = Place(self._workspace, row.account, row.zone, row.object, row.version)
        try:
            handle = os.open(path_of(self._folder, place), os.O_RDONLY)
        except FileNotFoundError:
            raise Corrupt(
                "vault.missing", "The bytes of an object are missing; restore them from a backup."
            ) from None
        reader = ChunkReader(handle, place, lambda number: self._keyring.inner(key_name, number))
        if reader.size != row.size:
            reader.close()
            raise Corrupt("vault.altered", "A stored object has another length than was entered for it.")
        return reader

    def _drop(self, connection: Connection, said: dict[str, str], *, keep_rows: bool) -> Sequence[Path]:
        rows = connection.execute(select(object_version).where(*_NAMED, ~_T.deleted), said).all()
        if keep_rows:
            connection.execute(update(object_version).where(*_NAMED).values(current=False, deleted=True), said)
        else:
            connection.execute(delete(object_version).where(*_NAMED), said)
        places = [Place(self._workspace, row.account, row.zone, row.object, row.version) for row in rows]
        return [path_of(self._folder, place) for place in places]

    def _enter(self, permit: Permit, place: Place, said: dict[str, Any], path: Path) -> None:
        """The row of a published file; the object's earlier version steps back."""
        named = _named(place.account, place.zone, said["name"])
        with self._database.writing(permit, join=True) as connection:
            scope = scope_of(connection)
            scope.undo.append(lambda: path.unlink(missing_ok=True))
            if place.zone in LOCKED and connection.execute(_CURRENT, named).first() is not None:
                raise _locked(place.zone)
            if place.zone in UNVERSIONED:
                replaced = self._drop(connection, named, keep_rows=False)
                scope.after.append(lambda: _unlink(replaced))
            else:
                connection.execute(update(object_version).where(*_NAMED, _T.current).values(current=False), named)
            connection.execute(insert(object_version), said)


class ObjectWriter(io.RawIOBase):
    """A stream to a new object. `commit` (or a clean ``with``, or ``close`` where that commits) makes it visible."""

    def __init__(self, objects: Objects, permit: Permit, zone: str, name: str, tags: str) -> None:
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
        created = iso(objects._clock.now())
        row = {
            "account": place.account,
            "zone": place.zone,
            "name": self._name,
            "version": place.version,
            "object": place.object,
            "size": self._chunks.size,
            "stored_size": stored_size(self._chunks.size),
            "sha256": sha256,
            "created": created,
            "tags": self._tags,
            "current": True,
            "deleted": False,
        }
        publish(self._temporary, self._path)
        try:
            objects._enter(self._permit, place, row, self._path)
        except BaseException:
            self._path.unlink(missing_ok=True)
            raise
        self.version = ObjectVersion(
            self._name,
            place.zone,
            place.account,
            place.version,
            self._chunks.size,
            sha256,
            created,
            json.loads(self._tags),
        )
        self.discard()
        return self.version

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


def path_of(folder: Path, place: Place) -> Path:
    """Where an object's file lies below the vault's folder."""
    return folder / place.account / place.zone / place.object[:2] / place.object


def _named(account: str, zone: str, name: str) -> dict[str, str]:
    return {"in_account": account, "in_zone": zone, "in_name": name}


def _unlink(paths: Sequence[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _told(row: Row[Any]) -> ObjectVersion:
    return ObjectVersion(
        row.name, row.zone, row.account, row.version, row.size, row.sha256, row.created, json.loads(row.tags)
    )


def _check_name(name: str) -> None:
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        size = 0
    if not 0 < size <= _MAX_NAME_BYTES or "\0" in name:
        raise Invalid(
            "vault.name", f"An object's name is 1 to {_MAX_NAME_BYTES} bytes of UTF-8 without NUL; this one is not."
        )


def _tags_json(tags: Mapping[str, str] | None) -> str:
    text = json.dumps(dict(tags or {}), sort_keys=True)
    if len(text) > _MAX_TAGS_BYTES or not all(isinstance(value, str) for value in (tags or {}).values()):
        raise Invalid("vault.tags", f"Tags are text to text, at most {_MAX_TAGS_BYTES} bytes as JSON.")
    return text


def _locked(zone: str) -> Refused:
    return Refused(
        "vault.locked", f"The zone {zone} is locked: its objects are never replaced or deleted.", zone=zone
    )


def _missing() -> NotFound:
    return NotFound("vault.object", "There is no such object in this zone and account.")
