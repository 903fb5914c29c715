"""History of a resource, of a type and of all (https://hl7.org/fhir/R4/http.html#history), newest first.

Of one resource the versions are a chain, each with the ``seq`` of the one before. Of a type they are read in the
order of ``updated`` by an index; a clock that is set back makes that differ from the order of writing, so a page ends
at a time and a ``seq``.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from hashlib import sha256
from heapq import nlargest
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import BigInteger, ColumnElement, Connection, Select, and_, false, literal, or_, select, true, tuple_

from carelake.core.errors import Invalid, NotFound
from carelake.core.permit import Permit
from carelake.core.shapes import decodable
from carelake.store import bodies
from carelake.store.keep import ref_of
from carelake.store.rows import Version, of_a_page, read_versions
from carelake.store.scopes import bounded, version_scope
from carelake.store.symbols import Symbols, kinds_of
from carelake.store.tables import resource_version
from carelake.store.write import Changes
from carelake.vault.slips import Slips
from carelake.vault.workspace import Vault

__all__ = ["History", "Past", "PastPage", "Span"]

COUNT = 50
MAX_COUNT = 1000
_CHUNK = 500
_MAX_TOKEN = 1024
_FOREVER = 1 << 62
_V = resource_version.c


class Past(NamedTuple):
    """One version as history tells it.

    Attributes:
        resource: as it was then; None for a deletion.
        method: ``POST`` of first versions, ``PUT`` of later ones, ``DELETE``. How a first version came is not kept.
        created: whether there was none before it, or it was deleted.
    """

    type: str
    id: str
    version: int
    updated: datetime
    resource: dict[str, Any] | None
    method: str
    created: bool


class PastPage(NamedTuple):
    """One page of a history.

    Attributes:
        total: number of all versions, where it is known.
        next: token of the page after this one, "" on the last.
    """

    total: int | None
    versions: tuple[Past, ...]
    next: str = ""


class Span(NamedTuple):
    """Which versions: microseconds since 1970 UTC.

    Attributes:
        since: only those made at this moment or later (``_since``).
        low, high: only those that were current at some moment of this range (``_at``); ``high`` is exclusive.
    """

    since: int | None = None
    low: int | None = None
    high: int | None = None


class _Place(msgspec.Struct, array_like=True, frozen=True):
    """Where a page ended."""

    updated: int
    seq: int


class History:
    """Reads histories."""

    def __init__(self, vault: Vault, symbols: Symbols, changes: Changes) -> None:
        self._vault = vault
        self._symbols = symbols
        self._changes = changes

    def page(
        self,
        permit: Permit,
        tx: Connection,
        kind: str = "",
        key: str = "",
        *,
        span: Span = Span(),  # noqa: B008 - it is frozen
        count: int | None = None,
        page: str = "",
    ) -> PastPage:
        """One page of the versions of a resource, of a type, or of all.

        Raises:
            NotFound: ``store.no_such_resource``: of one resource, where the caller may see none.
            Invalid: ``store.page``.
        """
        size = min(COUNT if count is None else count, MAX_COUNT)
        slips = Slips(permit, self._vault.keyring, "history-page", _bound(permit, kind, key, span))
        place = _place(slips, page) if page else None
        if key:
            last = self._changes.last(permit, tx, kind, key)
            if last is None:
                raise NotFound("store.no_such_resource", "There is no such resource that the caller may see.")
            found = self._chain(permit, tx, last.seq, span, place, size + 1)
            total = last.version if span == Span() and not bounded(permit, tx=tx) else None
        else:
            found = self._kinds(permit, tx, kind, span, place, size + 1)
            total = None
        more, found = len(found) > size, found[:size]
        if total is None and place is None and not more:
            total = len(found)
        following = slips.give(msgspec.msgpack.encode(found[-1])) if more and found else ""
        return PastPage(total, self._told(permit, tx, [one.seq for one in found]), following)

    def _chain(
        self, permit: Permit, tx: Connection, seq: int, span: Span, place: _Place | None, limit: int
    ) -> list[_Place]:
        """Versions of one resource, from the given one back."""
        first, before = resource_version.alias(), resource_version.alias()
        start = place if place is not None else _Place(_FOREVER, seq)
        ends = (literal(_FOREVER, BigInteger).label("until"), literal(1).label("depth"))
        begun = select(first.c.seq, first.c.previous, first.c.updated, *ends)
        chain = begun.where(first.c.seq == start.seq).cte("chain", recursive=True)
        back = select(before.c.seq, before.c.previous, before.c.updated, chain.c.updated, chain.c.depth + 1)
        # Where nothing on the way is left out, no more is walked than is asked for; the place itself is not answered.
        all_told = span.low is None and not bounded(permit, tx=tx)
        deep = chain.c.depth <= limit if all_told else true()
        chain = chain.union_all(back.where(before.c.seq == chain.c.previous, deep))
        query = (
            select(_V.updated, _V.seq)
            .join(chain, chain.c.seq == _V.seq)
            .where(version_scope(permit, tx, self._symbols), _made(span))
            .where(chain.c.until > span.low if span.low is not None else true())
        )
        if place is not None:
            query = query.where(_V.seq < place.seq)
        return [_Place(*row) for row in tx.execute(query.order_by(_V.seq.desc()).limit(limit))]

    def _kinds(
        self, permit: Permit, tx: Connection, kind: str, span: Span, place: _Place | None, limit: int
    ) -> list[_Place]:
        """Versions of one type, or of all."""
        known = self._symbols.everything(tx, kinds_of(permit.account))
        scope = version_scope(permit, tx, self._symbols)
        found: list[_Place] = []
        for symbol in [known[kind]] if kind in known else [] if kind else sorted(known.values()):
            query: Select[Any] = select(_V.updated, _V.seq).where(_V.kind == symbol, _made(span), scope)
            if span.low is not None:
                query = query.where(_V.seq.not_in(_replaced(symbol, span.low)))
            if place is not None:
                query = query.where(tuple_(_V.updated, _V.seq) < (place.updated, place.seq))
            query = query.order_by(_V.updated.desc(), _V.seq.desc()).limit(limit)
            found = _newest([*found, *(_Place(*row) for row in tx.execute(query))], limit)
        return found

    def _told(self, permit: Permit, tx: Connection, seqs: Sequence[int]) -> tuple[Past, ...]:
        read = of_a_page(read_versions(permit, tx, self._vault, self._symbols, seqs))
        opened = [one for one in read if not one.erased]
        permit.log.read(*(ref_of(one.seq, one.digest) for one in opened))
        revived = self._revived(tx, [one.seq for one in opened if one.version > 1])
        return tuple(_past(one, one.version == 1 or one.seq in revived) for one in opened)

    @staticmethod
    def _revived(tx: Connection, seqs: Sequence[int]) -> Collection[int]:
        """Those of versions that came after a deletion."""
        before = resource_version.alias()
        found: set[int] = set()
        for start in range(0, len(seqs), _CHUNK):
            query = select(_V.seq).join(before, before.c.seq == _V.previous)
            query = query.where(_V.seq.in_(seqs[start : start + _CHUNK]), before.c.deleted, ~_V.deleted)
            found.update(tx.execute(query).scalars())
        return found


def _past(one: Version, created: bool) -> Past:
    method = "DELETE" if one.deleted else "POST" if one.version == 1 else "PUT"
    body = None if one.deleted else bodies.with_meta(one.text, one.version, one.updated)
    return Past(one.type, one.id, one.version, bodies.moment(one.updated), body, method, created and not one.deleted)


def _made(span: Span) -> ColumnElement[bool]:
    """What can be told of a version by itself. One that was deleted before a range was not current in it."""
    asked: list[ColumnElement[bool]] = [true()]
    if span.since is not None:
        asked.append(_V.updated >= span.since)
    if span.high is not None:
        asked.append(_V.updated < span.high)
    if span.low is not None:
        asked.append(or_(_V.deleted == false(), _V.updated >= span.low))
    return and_(*asked)


def _replaced(kind: int, low: int) -> Select[Any]:
    """Versions of a type that were not current any more at a moment."""
    later = resource_version.alias()
    return select(later.c.previous).where(later.c.kind == kind, later.c.updated <= low)


def _newest(found: Sequence[_Place], limit: int) -> list[_Place]:
    return nlargest(limit, found, key=lambda one: (one.updated, one.seq))


def _place(slips: Slips, token: str) -> _Place:
    try:
        if len(token) > _MAX_TOKEN:
            raise ValueError
        return msgspec.msgpack.decode(slips.take(token), type=decodable(_Place))
    except (ValueError, Invalid, msgspec.MsgspecError):
        raise Invalid(
            "store.page", "This is not a page of this history; take the next link of the page before it."
        ) from None


def _bound(permit: Permit, kind: str, key: str, span: Span) -> bytes:
    return sha256(msgspec.msgpack.encode((permit.account, permit.scope, kind, key, tuple(span)))).digest()
