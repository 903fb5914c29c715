"""Create, update and delete of single resources (https://hl7.org/fhir/R4/http.html#create, #update, #delete).

Each is one step of the caller's transaction. Writers are served one after another, so what is looked at here is still
so when it is written.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, select

from carelake.core import canonical
from carelake.core.errors import Conflict, Gone, Invalid, NotFound, Refused
from carelake.core.permit import Permit
from carelake.core.records import IndexValues, Parsed
from carelake.fhir import compartment
from carelake.fhir.search import BASE, Registry, extract
from carelake.fhir.validate import Exists, Mode, checker
from carelake.store import bodies
from carelake.store.keep import Current, Kept, digest_of, ref_of
from carelake.store.scopes import bounded, covers, scoped, version_scope
from carelake.store.sights import sight_of
from carelake.store.symbols import Symbols, kinds_of
from carelake.store.tables import resource_version
from carelake.vault.database import rows_of

__all__ = ["Changes", "Written", "parsed", "stripped", "tombstone", "written"]

_V = resource_version.c
_NOW = (
    "SELECT r.seq, r.version, r.deleted, r.digest, r.updated, v.owner FROM resource r "
    "JOIN resource_version v ON v.seq = r.seq WHERE r.kind = ? AND r.id = ?"
)

_ANY = "cruds"
"""Letters of interactions: what a grant for any of them shows is in sight of a write."""

Keep = Callable[[Permit, Connection, Sequence[Parsed], Registry | None], Kept]
"""Keeps a page in the caller's transaction; its index values are of the account's current registry, if of any."""


class Written(NamedTuple):
    """What became of a write.

    Attributes:
        resource: as a read would answer it now; None when it is deleted.
        ref: of the version that is current now.
        updated: when that version was made, UTC.
        created: whether there was none before, or it was deleted.
        changed: whether there is a new version; what equals the current one makes none.
    """

    resource: dict[str, Any] | None
    ref: str
    type: str
    id: str
    version: int
    updated: datetime
    created: bool
    changed: bool


def stripped(resource: dict[str, Any]) -> dict[str, Any]:
    """A resource without what the record itself says of it: ``meta.versionId`` and ``meta.lastUpdated``."""
    told = resource.get("meta")
    if not isinstance(told, dict):
        return resource
    own = ("versionId", "_versionId", "lastUpdated", "_lastUpdated")
    meta = {name: value for name, value in told.items() if name not in own}
    if meta or not told:
        return {**resource, "meta": meta}
    return {name: value for name, value in resource.items() if name != "meta"}


def parsed(
    resource: dict[str, Any],
    level: Mode = "structure",
    exists: Exists | None = None,
    registry: Registry = BASE,
    *,
    valid: bool = False,
) -> Parsed:
    """A resource ready to be kept, validated; it needs an id.

    Args:
        level: what is asked of it; callers at a door take the setting ``validation.write``.
        exists: tells whether what it refers to is there, where that is asked (``validation.references``).
        registry: what its index values are extracted by.
        valid: it was validated already.

    Raises:
        Invalid: ``store.invalid_resource`` with FHIRPath and reason, never the value.
    """
    issue = None if valid else checker(level, exists=exists)(resource)
    if issue is not None:
        message = f"{issue.expression}: {issue.message}" if issue.expression else issue.message
        raise Invalid("store.invalid_resource", message, reason=issue.code, expression=issue.expression)
    if "id" not in resource:
        raise Invalid("store.no_id", "The resource has no id; give it one, or create it.")
    text = canonical.dump(resource)
    return Parsed(
        resource["resourceType"],
        resource["id"],
        compartment.owner(resource),
        bodies.pack(text),
        hashlib.sha256(text).digest(),
        extract(resource, registry, loose=level == "minimal"),
        0,
        0,
        0,
        0,
    )


def tombstone(kind: str, key: str, owner: str) -> Parsed:
    """What is kept of a deletion: a version without a body."""
    return Parsed(kind, key, owner, b"", b"", IndexValues(), 0, 0, 0, 0)


class Changes:
    """Single writes."""

    def __init__(self, symbols: Symbols, keep: Keep) -> None:
        self._symbols = symbols
        self._keep = keep

    def version(self, permit: Permit, tx: Connection, kind: str, key: str) -> int:
        """Number of the current version; 0 where there is none that the caller may see, or it is deleted."""
        now = self.last(permit, tx, kind, key)
        return now.version if now is not None and not now.deleted else 0

    def put(
        self,
        permit: Permit,
        tx: Connection,
        record: Parsed,
        registry: Registry,
        resource: dict[str, Any],
        *,
        expected: int | None = None,
        create: bool = True,
        fresh: bool = False,
    ) -> Written:
        """Keep a resource under its id.

        Args:
            registry: the account's current one, by which the record's index values are.
            resource: what the record was made of, `stripped`.
            fresh: the id was made here and now, so nobody has it.

        Raises:
            Conflict: ``store.version_conflict``.
            NotFound: ``store.no_such_resource``; `Gone` ``store.deleted``.
            Refused: ``store.outside_scope``; the transaction must then be left, not committed.
        """
        there = None if fresh else self._now(tx, permit, record.type, record.id)
        was = self._in_sight(permit, tx, there)
        _expect(was, expected)
        if was is None and not fresh and not (create and self._may_make(permit, tx, record, there)):
            raise NotFound("store.no_such_resource", "There is no such resource or version that the caller may see.")
        if was is not None and was.deleted and not create:
            raise Gone("store.deleted", "The resource was deleted; an earlier version can still be read.")
        letter = "c" if was is None or was.deleted else "u"
        _inside(permit, record)
        self._covered(permit, tx, record.type, was, letter)
        kept = self._keep(permit, tx, [record], registry)
        now = _after(there, kept)
        if bounded(permit, consents=False) and not self._sees(permit, tx, now, letter, consents=False):
            raise _outside()
        made = bodies.told(resource, now.version, now.updated)
        return written(record.type, record.id, now, made, created=letter == "c", changed=bool(kept.stored))

    def as_it_is(self, permit: Permit, tx: Connection, kind: str, key: str, made: dict[str, Any] | None) -> Written:
        """What there is already, as a write that changed nothing."""
        now = self.last(permit, tx, kind, key)
        if now is None or now.deleted:
            raise NotFound("store.no_such_resource", "There is no such resource or version that the caller may see.")
        return written(kind, key, now, made, created=False, changed=False)

    def delete(
        self, permit: Permit, tx: Connection, kind: str, key: str, *, expected: int | None = None
    ) -> Written | None:
        """Delete a resource: a version that says so. None where there was none; errors as `put`."""
        was = self.last(permit, tx, kind, key)
        _expect(was, expected)
        if was is None:
            return None
        self._covered(permit, tx, kind, was, "d")
        owner = self._symbols.texts(tx, (was.owner,)).get(was.owner, "")
        record = tombstone(kind, key, owner)
        kept = self._keep(permit, tx, [record], None)
        return written(kind, key, _after(was, kept), None, created=False, changed=bool(kept.stored))

    def _now(self, tx: Connection, permit: Permit, kind: str, key: str) -> Current | None:
        symbol = self._symbols.key(tx, kinds_of(permit.account), kind)
        return next((Current(*row) for row in rows_of(tx, _NOW, symbol, key)), None)

    def last(self, permit: Permit, tx: Connection, kind: str, key: str) -> Current | None:
        """The current version, deleted or not; None where there is none that the caller may see."""
        return self._in_sight(permit, tx, self._now(tx, permit, kind, key))

    def _in_sight(self, permit: Permit, tx: Connection, now: Current | None) -> Current | None:
        letters = _ANY if permit.action == "record:write" else ""
        return (
            now if now is not None and (not bounded(permit, tx=tx) or self._sees(permit, tx, now, letters)) else None
        )

    def _sees(
        self, permit: Permit, tx: Connection, now: Current, letters: str = "", *, consents: bool = True
    ) -> bool:
        told = version_scope(permit, tx, self._symbols, letters, consents=consents)
        query = select(_V.seq).where(_V.seq == now.seq, told)
        if not now.deleted:  # a deleted one has no row in any index
            query = query.where(scoped(permit, tx, self._symbols, _V.seq, letters, consents=consents))
        return tx.execute(query).first() is not None

    def _covered(self, permit: Permit, tx: Connection, kind: str, was: Current | None, letter: str) -> None:
        """Let pass an interaction (c, u or d) that the scope is for, on what it is for."""
        there = was is not None and not was.deleted and bounded(permit, tx=tx)
        hidden = there and was is not None and not self._sees(permit, tx, was, letter)
        if hidden or not covers(permit, kind, letter):
            raise _outside()

    def _may_make(self, permit: Permit, tx: Connection, record: Parsed, there: Current | None) -> bool:
        """Whether an id that the caller sees nothing under may be taken.

        In the sight of one patient it may be another's: to take it or to be told that it is taken are both wrong.
        What consents alone withhold is never written over; an id that nobody has may be taken for all that.
        """
        if there is not None and self._sees(permit, tx, there, _ANY, consents=False):
            return False
        own = record.type == "Patient" and record.id == sight_of(permit).owner
        return own or not bounded(permit, record.type, _ANY, consents=False)


def _expect(was: Current | None, expected: int | None) -> None:
    if expected is not None and (was is None or was.deleted or was.version != expected):
        raise Conflict(
            "store.version_conflict",
            "The resource is not at the version that the write was made for; read it again and redo the change.",
        )


def _inside(permit: Permit, record: Parsed) -> None:
    """Keep what is written where the caller may see it."""
    owner = sight_of(permit).owner
    if owner is not None and record.owner != owner:
        raise _outside()


def _outside() -> Refused:
    return Refused(
        "store.outside_scope",
        "The permit does not reach so far: the resource is, or would be, outside of what it is for. Nothing is kept.",
    )


def _after(there: Current | None, kept: Kept) -> Current:
    """The current version after one resource was kept."""
    if not kept.stored:
        assert there is not None  # or it would have been stored
        return there
    version, owner = (there.version, there.owner) if there is not None else (0, 0)
    return Current(kept.last, version + 1, False, digest_of(kept.refs[0]), kept.updated, owner)


def written(
    kind: str, key: str, now: Current, made: dict[str, Any] | None, *, created: bool, changed: bool
) -> Written:
    """A write that was kept, or found nothing to change, as it is told."""
    ref, when = ref_of(now.seq, bytes(now.digest)), bodies.moment(now.updated)
    return Written(made, ref, kind, key, now.version, when, created, changed)
