"""Which object is called what: the rows of ``object_version``, and the rules about names, locks and versions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, func, insert, select, update

from carelake.core.errors import Gone, Invalid, NotFound, Refused
from carelake.core.permit import Permit
from carelake.vault.chunks import Place
from carelake.vault.database import Database, scope_of
from carelake.vault.places import LOCKED, UNVERSIONED
from carelake.vault.tables import object_version

__all__ = ["Catalogue", "ObjectVersion", "check_name", "path_of", "tags_json"]

_MAX_NAME_BYTES = 1024
_MAX_TAGS_BYTES = 8192
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
_STORED = select(object_version).where(*_NAMED, ~_T.deleted)
_ALIVE = select(_T.object).where(*_PLACE, ~_T.deleted)
_STEP_BACK = update(object_version).where(*_NAMED, _T.current).values(current=False)
_BURY = update(object_version).where(*_NAMED).values(current=False, deleted=True)
_REMOVE = delete(object_version).where(*_NAMED)
_LIST = (
    select(object_version)
    .where(*_PLACE, _T.current, _T.name >= bindparam("prefix"), _T.name <= bindparam("above"))
    .where(func.substr(_T.name, 1, bindparam("length")) == bindparam("prefix"))
    .order_by(_T.name)
)
_FIRST = _LIST.limit(1)


class Catalogue:
    """The table, for `objects`; whoever calls has checked the permit."""

    def __init__(self, database: Database, workspace: str, folder: Path) -> None:
        self._database = database
        self._workspace = workspace
        self._folder = folder

    def find(self, account: str, zone: str, name: str, version: str | None = None) -> tuple[ObjectVersion, Place]:
        """The newest version, or the one asked for.

        Raises:
            NotFound: ``vault.object``; Gone: ``vault.deleted``.
        """
        check_name(name)
        said = _named(account, zone, name)
        row = self._first(_CURRENT, said) if version is None else self._first(_EXACT, said | {"in_version": version})
        if row is not None and not row.deleted:
            return _told(row), self._place(row)
        if row is not None or (version is None and self._first(_EVER, said) is not None):
            raise Gone("vault.deleted", "The object was deleted.")
        raise _missing()

    def list(self, account: str, zone: str, prefix: str) -> list[ObjectVersion]:
        """Newest versions of the objects whose names start so, by name."""
        with self._database.snapshot() as connection:
            return [_told(row) for row in connection.execute(_LIST, _prefixed(account, zone, prefix))]

    def any(self, account: str, zone: str, prefix: str) -> bool:
        """Is there an object whose name starts so?"""
        return self._first(_FIRST, _prefixed(account, zone, prefix)) is not None

    def alive(self, account: str, zone: str) -> set[str]:
        """Opaque names of all files that should be there."""
        with self._database.snapshot() as connection:
            return set(connection.scalars(_ALIVE, {"in_account": account, "in_zone": zone}))

    def check_unlocked(self, account: str, zone: str, name: str) -> None:
        """`Refused` ``vault.locked`` where the name is taken in a locked zone."""
        if zone in LOCKED and self._first(_CURRENT, _named(account, zone, name)) is not None:
            raise locked(zone)

    def enter(self, permit: Permit, place: Place, told: ObjectVersion, stored_size: int) -> bool:
        """The row of a published file; the object's earlier version steps back, or in the lake goes.

        Returns True if the row can vanish without a word, because it was made within a savepoint.
        """
        said = _named(told.account, told.zone, told.name)
        path = path_of(self._folder, place)
        with self._database.writing(permit, join=True) as connection:
            scope = scope_of(connection)
            scope.undo.append(lambda: path.unlink(missing_ok=True))
            if told.zone in LOCKED and connection.execute(_CURRENT, said).first() is not None:
                raise locked(told.zone)
            if told.zone in UNVERSIONED:
                self._drop(connection, said, _REMOVE)
            else:
                connection.execute(_STEP_BACK, said)
            connection.execute(insert(object_version), _row(told, place, stored_size))
            return connection.in_nested_transaction()

    def delete(self, permit: Permit, account: str, zone: str, name: str) -> None:
        """Remove an object with all its versions; their files go after the commit."""
        check_name(name)
        said = _named(account, zone, name)
        with self._database.writing(permit, join=True) as connection:
            if connection.execute(_CURRENT, said).first() is None:
                raise _missing()
            self._drop(connection, said, _REMOVE if zone in UNVERSIONED else _BURY)

    def _drop(self, connection: Connection, said: dict[str, str], statement: Any) -> None:
        paths = [path_of(self._folder, self._place(row)) for row in connection.execute(_STORED, said)]
        connection.execute(statement, said)
        scope_of(connection).after.append(lambda: _unlink(paths))

    def _first(self, query: Any, said: Mapping[str, object]) -> Row[Any] | None:
        with self._database.snapshot() as connection:
            row: Row[Any] | None = connection.execute(query, said).first()
            return row

    def _place(self, row: Row[Any]) -> Place:
        return Place(self._workspace, row.account, row.zone, row.object, row.version)


def path_of(folder: Path, place: Place) -> Path:
    """Where an object's file lies below the vault's folder."""
    return folder / place.account / place.zone / place.object[:2] / place.object


def check_name(name: str) -> None:
    """`Invalid` ``vault.name`` unless it is bounded text; what else it holds is of no matter, it names no file."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        size = 0
    if not 0 < size <= _MAX_NAME_BYTES or "\0" in name:
        raise Invalid(
            "vault.name", f"An object's name is 1 to {_MAX_NAME_BYTES} bytes of UTF-8 without NUL; this one is not."
        )


def tags_json(tags: Mapping[str, str] | None) -> str:
    """Tags as JSON; `Invalid` ``vault.tags`` when they are not bounded text."""
    given = dict(tags or {})
    text = json.dumps(given, sort_keys=True)
    if len(text) > _MAX_TAGS_BYTES or not all(isinstance(value, str) for value in given.values()):
        raise Invalid("vault.tags", f"Tags are text to text, at most {_MAX_TAGS_BYTES} bytes as JSON.")
    return text


def locked(zone: str) -> Refused:
    """The refusal to touch what is in a locked zone."""
    return Refused(
        "vault.locked", f"The zone {zone} is locked: its objects are never replaced or deleted.", zone=zone
    )


def _missing() -> NotFound:
    return NotFound("vault.object", "There is no such object in this zone and account.")


def _named(account: str, zone: str, name: str) -> dict[str, str]:
    return {"in_account": account, "in_zone": zone, "in_name": name}


def _prefixed(account: str, zone: str, prefix: str) -> dict[str, str | int]:
    # No name that starts so sorts after the prefix followed by the highest code points that fit in a name.
    above = prefix + "\U0010ffff" * (_MAX_NAME_BYTES // 4)
    return {"in_account": account, "in_zone": zone, "prefix": prefix, "length": len(prefix), "above": above}


def _told(row: Row[Any]) -> ObjectVersion:
    return ObjectVersion(
        row.name, row.zone, row.account, row.version, row.size, row.sha256, row.created, json.loads(row.tags)
    )


def _row(told: ObjectVersion, place: Place, stored_size: int) -> dict[str, Any]:
    return {
        "account": told.account,
        "zone": told.zone,
        "name": told.name,
        "version": told.version,
        "object": place.object,
        "size": told.size,
        "stored_size": stored_size,
        "sha256": told.sha256,
        "created": told.created,
        "tags": tags_json(told.tags),
        "current": True,
        "deleted": False,
    }


def _unlink(paths: Sequence[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)
