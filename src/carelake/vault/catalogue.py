"""Which object is called what: the rows of ``object_version``, and the rules about names, locks and versions.

A version is in one of four forms: ``file``, a blob of its own; ``inline``, its sealed bytes beside its row;
``parts``, a sealed list of blobs; ``marker``, no bytes: the object counts as deleted. Whoever calls has checked the
permit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, func, insert, select, update

from carelake.core.errors import Conflict, Gone, NotFound
from carelake.core.permit import Permit
from carelake.vault.blobs import Blob
from carelake.vault.chunks import Place
from carelake.vault.database import scope_of
from carelake.vault.depot import Depot
from carelake.vault.places import LOCKED, UNVERSIONED
from carelake.vault.retention import check_free, locked
from carelake.vault.space import blobs_of, give_up, parts_of, undo
from carelake.vault.tables import object_inline, object_manifest, object_part, object_upload, object_version
from carelake.vault.versions import MAX_NAME_BYTES, ObjectVersion, check_name, row_of, told
from carelake.vault.vouched import voucher

__all__ = ["ANY", "Catalogue", "Condition", "Draft", "Held"]

_T = object_version.c


@dataclass(frozen=True, slots=True)
class Condition:
    """What must be so for a write to count.

    Attributes:
        none: there is no such object now.
        match: this is its current version.
    """

    none: bool = False
    match: str | None = None

    def check(self, row: Row[Any] | None) -> None:
        """`Conflict` ``vault.precondition`` where the current row is not as asked for."""
        alive = row is not None and not row.deleted
        if (self.none and alive) or (self.match is not None and (not alive or row.version != self.match)):  # type: ignore[union-attr]
            raise Conflict(
                "vault.precondition",
                "The object is not in the state that was asked for: another write came first. Read it and try again.",
            )


ANY = Condition()


@dataclass(frozen=True, slots=True)
class Draft:
    """A version that is about to be entered.

    Attributes:
        object: its blob's opaque name; for ``parts`` an unused one.
        inline: its sealed bytes, for the form ``inline``.
        manifest: key version and sealed list, for the form ``parts``.
        parts: rows of ``object_part`` to make, for the form ``parts``.
    """

    told: ObjectVersion
    object: str
    form: str
    stored_size: int
    inline: bytes | None = None
    manifest: tuple[int, bytes] | None = None
    parts: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Held:
    """A version as it is held: what is known of it, and what leads to its bytes."""

    told: ObjectVersion
    row: Row[Any]
    place: Place
    sealed: bytes | None


# Bound names differ from the columns': SQLAlchemy keeps those for the values of an update.
_PLACE = (_T.account == bindparam("in_account"), _T.zone == bindparam("in_zone"))
_NAMED = (*_PLACE, _T.name == bindparam("in_name"))
_WITH_BYTES = select(object_version, object_inline.c.sealed).outerjoin(
    object_inline, object_inline.c.object == _T.object
)
_OPEN = _WITH_BYTES.where(*_NAMED, _T.current)
_OPEN_EXACT = _WITH_BYTES.where(*_NAMED, _T.version == bindparam("in_version"))
_CURRENT = select(object_version).where(*_NAMED, _T.current)
_EVER = select(_T.seq).where(*_NAMED).limit(1)
_EXACT = select(object_version).where(*_NAMED, _T.version == bindparam("in_version"))
_ALL = select(object_version).where(*_NAMED).order_by(_T.seq.desc())
_NEWEST = _ALL.where(~_T.deleted).limit(1)
_STORED = select(object_version).where(*_NAMED, ~_T.deleted)
_STEP_BACK = update(object_version).where(*_NAMED, _T.current).values(current=False)
_STEP_FORWARD = update(object_version).where(_T.seq == bindparam("in_seq")).values(current=True)
_BURY = update(object_version).where(*_NAMED).values(current=False, deleted=True)
_BURY_ONE = update(object_version).where(_T.seq == bindparam("in_seq")).values(current=False, deleted=True)
_REMOVE = delete(object_version).where(*_NAMED)
_UNMARK = delete(object_version).where(*_NAMED, _T.form == "marker")
_U = object_upload.c
_BEGUN = (
    _U.account == bindparam("in_account"),
    _U.zone == bindparam("in_zone"),
    _U.name == bindparam("in_name"),
)
_UPLOADS = select(_U.upload).where(*_BEGUN)
_UNBEGIN = delete(object_upload).where(*_BEGUN)
_LIST = (
    select(object_version)
    .where(*_PLACE, _T.current, ~_T.deleted, _T.name >= bindparam("prefix"), _T.name <= bindparam("above"))
    .where(func.substr(_T.name, 1, bindparam("length")) == bindparam("prefix"))
    .order_by(_T.name)
)
_FIRST = _LIST.limit(1)


class Catalogue:
    """The table, for the modules of the object store."""

    def __init__(self, depot: Depot) -> None:
        self._depot = depot
        self._database = depot.database

    # -- read -----------------------------------------------------------------------------------------------------

    def find(self, account: str, zone: str, name: str, version: str | None = None) -> Held:
        """The current version, or the one asked for.

        Raises:
            NotFound: ``vault.object``; Gone: ``vault.deleted``.
        """
        check_name(name)
        said = _named(account, zone, name)
        row = (
            self._first(_OPEN, said) if version is None else self._first(_OPEN_EXACT, said | {"in_version": version})
        )
        if row is not None and not row.deleted:
            place = Place(self._depot.workspace, row.account, row.zone, row.object, row.version)
            return Held(self.told(row), row, place, row.sealed)
        if row is not None or (version is None and self._first(_EVER, said) is not None):
            raise _gone()
        raise _missing()

    def versions(self, account: str, zone: str, name: str) -> list[ObjectVersion]:
        """Every version of an object that has bytes, and every delete marker, newest first."""
        check_name(name)
        with self._database.snapshot() as connection:
            rows = list(connection.execute(_ALL, _named(account, zone, name)))
        if not rows:
            raise _missing()
        return [self.told(row) for row in rows if not row.deleted or row.form == "marker"]

    def list(self, account: str, zone: str, prefix: str) -> list[ObjectVersion]:
        """Current versions of the objects whose names start so, by name."""
        with self._database.snapshot() as connection:
            return [self.told(row) for row in connection.execute(_LIST, _prefixed(account, zone, prefix))]

    def any(self, account: str, zone: str, prefix: str) -> bool:
        """Is there an object whose name starts so?"""
        return self._first(_FIRST, _prefixed(account, zone, prefix)) is not None

    def check(self, account: str, zone: str, name: str, condition: Condition) -> None:
        """Fail early where `enter` would fail: the name is taken in a locked zone, or the condition does not hold."""
        if zone in LOCKED or condition != ANY:
            row = self._first(_CURRENT, _named(account, zone, name))
            _check_entry(zone, row, condition)

    def _first(self, query: Any, said: Mapping[str, object]) -> Row[Any] | None:
        with self._database.snapshot() as connection:
            row: Row[Any] | None = connection.execute(query, said).first()
            return row

    def told(self, row: Row[Any]) -> ObjectVersion:
        """What a row of ``object_version`` tells of."""
        return told(row, self._depot)

    # -- write ----------------------------------------------------------------------------------------------------

    def enter(self, permit: Permit, draft: Draft, condition: Condition = ANY) -> bool:
        """The row of a version whose bytes are there; the earlier version steps back, or in the lake goes.

        Returns True if the row can vanish without a word, because it was made within a savepoint.

        Raises:
            Conflict: ``vault.precondition``; Refused: ``vault.locked``, or what `check_free` raises of the lake.
        """
        new = draft.told
        blob = Blob(new.account, new.zone, draft.object) if draft.form == "file" else None
        try:
            with self._database.writing(permit, join=True) as connection:
                self._make_room(connection, new, condition)
                self._insert(connection, draft)
                if blob is not None:
                    written, blob = blob, None
                    scope_of(connection).undo.append(lambda: undo(self._depot, written, new.version))
                return connection.in_nested_transaction()
        except BaseException:
            if blob is not None:
                self._depot.blobs.remove(blob)
            raise

    def _make_room(self, connection: Connection, new: ObjectVersion, condition: Condition) -> None:
        said = _named(new.account, new.zone, new.name)
        row = connection.execute(_CURRENT, said).first()
        _check_entry(new.zone, row, condition)
        if row is None:
            return
        if new.zone in UNVERSIONED:
            self._drop_all(connection, said, forget=True)
        else:
            connection.execute(_STEP_BACK, said)

    def _insert(self, connection: Connection, draft: Draft) -> None:
        values = row_of(draft.told, self._depot) | {"object": draft.object, "form": draft.form}
        values |= {"stored_size": draft.stored_size, "voucher": voucher(self._depot, values)}
        connection.execute(insert(object_version), values)
        if draft.inline is not None:
            connection.execute(insert(object_inline), {"object": draft.object, "sealed": draft.inline})
        if draft.manifest is not None:
            number, sealed = draft.manifest
            said = {"version": draft.told.version, "key_version": number, "sealed": sealed}
            connection.execute(insert(object_manifest), said)
        if draft.parts:
            connection.execute(insert(object_part), list(draft.parts))

    def mark(self, permit: Permit, marker: ObjectVersion, condition: Condition = ANY) -> None:
        """Enter a delete marker: the object counts as deleted, its versions stay.

        Raises:
            NotFound: there is none, or it is deleted already.
        """
        said = _named(marker.account, marker.zone, marker.name)
        with self._database.writing(permit, join=True) as connection:
            row = connection.execute(_CURRENT, said).first()
            if row is None or row.deleted:
                raise _missing()
            condition.check(row)
            connection.execute(_STEP_BACK, said)
            values = row_of(marker, self._depot) | {"object": marker.version, "form": "marker", "deleted": True}
            values |= {"stored_size": 0, "voucher": voucher(self._depot, values)}
            connection.execute(insert(object_version), values)

    def delete(self, permit: Permit, account: str, zone: str, name: str, *, forget: bool) -> int:
        """Remove all versions of an object; their bytes go after the commit.

        Args:
            forget: remove the rows as well, and with them the name, also that of begun uploads; otherwise reading
                tells that it is gone.

        Returns the number of versions. Raises `NotFound` where there is nothing; what `check_free` raises.
        """
        check_name(name)
        said = _named(account, zone, name)
        with self._database.writing(permit, join=True) as connection:
            if connection.execute(_EVER if forget else _CURRENT, said).first() is None:
                raise _missing()
            gone = self._drop_all(connection, said, forget=forget or zone in UNVERSIONED)
            if forget:
                self._drop_uploads(connection, said)
            return gone

    def delete_version(self, permit: Permit, account: str, zone: str, name: str, version: str) -> None:
        """Remove one version, or a delete marker; the newest of those left becomes the current one.

        Raises:
            NotFound, Gone: there is none; and what `check_free` raises.
        """
        check_name(name)
        said = _named(account, zone, name)
        with self._database.writing(permit, join=True) as connection:
            row = self.exact(connection, account, zone, name, version, markers=True)
            check_free(row, self._depot.clock)
            self._drop(connection, [row])
            if row.form == "marker" or zone in UNVERSIONED:
                connection.execute(delete(object_version).where(_T.seq == row.seq))
            else:
                connection.execute(_BURY_ONE, {"in_seq": row.seq})
            if row.current:
                left = (one for one in connection.execute(_ALL, said) if not one.deleted or one.form == "marker")
                newest = next(left, None)
                if newest is not None:
                    connection.execute(_STEP_FORWARD, {"in_seq": newest.seq})

    def exact(
        self,
        connection: Connection,
        account: str,
        zone: str,
        name: str,
        version: str | None,
        *,
        markers: bool = False,
    ) -> Row[Any]:
        """The row of a version, or of the current one, inside a transaction; `NotFound` or `Gone` otherwise."""
        check_name(name)
        said = _named(account, zone, name)
        if version is None:
            row = connection.execute(_CURRENT, said).first()
        else:
            row = connection.execute(_EXACT, said | {"in_version": version}).first()
        if row is None and (version is not None or connection.execute(_EVER, said).first() is None):
            raise _missing()
        if row is None or (row.deleted and not (markers and row.form == "marker")):
            raise _gone()
        return row

    def hidden(self, connection: Connection, account: str, zone: str, name: str) -> Row[Any]:
        """The version that a delete marker hides.

        Raises:
            Conflict: ``vault.not_deleted``; NotFound; Gone, where no version has bytes any more.
        """
        check_name(name)
        said = _named(account, zone, name)
        current = connection.execute(_CURRENT, said).first()
        if current is not None and not current.deleted:
            raise Conflict(
                "vault.not_deleted", "The object is not deleted; name the version that is to be the current one."
            )
        row = connection.execute(_NEWEST, said).first()
        if row is None:
            raise _gone() if current is not None or connection.execute(_EVER, said).first() else _missing()
        return row

    def _drop_all(self, connection: Connection, said: dict[str, str], *, forget: bool) -> int:
        rows = list(connection.execute(_STORED, said))
        for row in rows:
            check_free(row, self._depot.clock)
        self._drop(connection, rows)
        connection.execute(_REMOVE if forget else _UNMARK, said)
        if not forget:
            connection.execute(_BURY, said)
        return len(rows)

    def _drop_uploads(self, connection: Connection, said: dict[str, str]) -> None:
        uploads = list(connection.scalars(_UPLOADS, said))
        if uploads:
            connection.execute(_UNBEGIN, said)
            give_up(connection, self._depot, parts_of(connection, uploads), set(uploads))

    def _drop(self, connection: Connection, rows: Iterable[Row[Any]]) -> None:
        give_up(connection, self._depot, blobs_of(connection, rows), {row.version for row in rows})


def _check_entry(zone: str, row: Row[Any] | None, condition: Condition) -> None:
    if zone in LOCKED and row is not None:
        raise locked(zone)
    condition.check(row)


def _missing() -> NotFound:
    return NotFound("vault.object", "There is no such object in this zone and account.")


def _gone() -> Gone:
    return Gone("vault.deleted", "The object was deleted.")


def _named(account: str, zone: str, name: str) -> dict[str, str]:
    return {"in_account": account, "in_zone": zone, "in_name": name}


def _prefixed(account: str, zone: str, prefix: str) -> dict[str, str | int]:
    # No name that starts so sorts after the prefix followed by the highest code points that fit in a name.
    above = prefix + "\U0010ffff" * (MAX_NAME_BYTES // 4)
    return {"in_account": account, "in_zone": zone, "prefix": prefix, "length": len(prefix), "above": above}
