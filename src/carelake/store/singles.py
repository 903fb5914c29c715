"""Single writes of several callers, kept as one page where nothing tells them apart from one (decision 0038).

Each is accounted under its own permit and fails by itself; what a page cannot do is left to be done alone, by
`write.Changes.put`, which says what a write is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection

from carelake.core.errors import CarelakeError
from carelake.core.permit import Permit
from carelake.core.records import Parsed
from carelake.fhir.search import Registry
from carelake.store import bodies
from carelake.store.keep import Current, Key, Writer, ref_of
from carelake.store.scopes import bounded
from carelake.store.symbols import Symbols, kinds_of
from carelake.store.write import Written, written
from carelake.vault.database import rows_of
from carelake.vault.groups import ALONE

__all__ = ["Single", "Singles"]

_NOW = (
    "SELECT r.id, r.seq, r.version, r.deleted, r.digest, r.updated, v.owner FROM resource r "
    "JOIN resource_version v ON v.seq = r.seq WHERE r.kind = ? AND r.id IN ({})"
)
_AT_ONCE = 16


def _anything(_version: int) -> None:
    """No condition."""


class Single(NamedTuple):
    """A resource that is to be kept under its id, by one caller.

    Attributes:
        resource: as it is to be kept, `write.stripped`; the record is made of it.
        registry: what the record's index values are of.
        fresh: the id was made for it, so nobody has it.
        expect: told the number of the current version, 0 for none or a deleted one; raises where that is another
            than the write was made for.
    """

    permit: Permit
    resource: dict[str, Any]
    record: Parsed
    registry: Registry
    fresh: bool = False
    expect: Callable[[int], None] = _anything


class Singles:
    """Keeps pages of them."""

    def __init__(self, writer: Writer, symbols: Symbols) -> None:
        self._writer = writer
        self._symbols = symbols

    def put(self, tx: Connection, page: Sequence[Single]) -> list[Any]:
        """What became of each: `Written`, the error by which it was not done, or `ALONE` of what must be done so.

        Alone are an id that was there before in the page, another account or other definitions than the first one's,
        and permits that do not see all of their account: what these may and find is asked for each.

        Raises:
            CarelakeError: nothing is to be kept of the whole page.
        """
        found: list[Any] = [ALONE] * len(page)
        chosen = _together(tx, page)
        account = page[0].permit.account
        kinds = self._symbols.find(tx, kinds_of(account), {one.record.type for one in page})
        there = self._there(tx, kinds, [page[number] for number in chosen])
        keys = {number: (kinds.get(page[number].record.type, -1), page[number].record.id) for number in chosen}
        todo = []
        for number in chosen:
            was = there.get(keys[number])
            try:
                page[number].expect(was.version if was is not None and not was.deleted else 0)
            except CarelakeError as error:
                found[number] = error
                continue
            todo.append(number)
        if todo:
            singles = [page[number] for number in todo]
            kept = self._writer.keep_each(
                tx, [one.permit for one in singles], [one.record for one in singles], there, page[0].registry
            )
            for number, now in zip(todo, kept, strict=True):
                found[number] = _told(page[number], there.get(keys[number]), now)
        return found

    def _there(self, tx: Connection, kinds: dict[str, int], page: Sequence[Single]) -> dict[Key, Current]:
        """The current versions of those that may be there."""
        wanted: dict[int, list[str]] = {}
        for one in page:
            kind = kinds.get(one.record.type)
            if kind is not None and not one.fresh:
                wanted.setdefault(kind, []).append(one.record.id)
        found = {}
        for kind, ids in wanted.items():
            for start in range(0, len(ids), _AT_ONCE):
                some = ids[start : start + _AT_ONCE]
                padded = [*some, *([""] * (_AT_ONCE - len(some)))]  # the same statement for any number of them
                for key, *row in rows_of(tx, _NOW.format(", ".join("?" * _AT_ONCE)), kind, *padded):
                    found[(kind, key)] = Current(*row)
        return found


def _together(tx: Connection, page: Sequence[Single]) -> list[int]:
    """Which of them can be kept as one page."""
    first, seen, found = page[0], set(), []
    less: dict[tuple[str, ...], bool] = {}
    for number, one in enumerate(page):
        key = (one.record.type, one.record.id)
        same = one.permit.account == first.permit.account and one.registry is first.registry
        if one.permit.scope not in less:
            less[one.permit.scope] = bounded(one.permit, tx=tx)
        if same and key not in seen and not less[one.permit.scope]:
            seen.add(key)
            found.append(number)
    return found


def _told(one: Single, was: Current | None, now: Current) -> Written:
    """What became of one that was kept, noted for its act."""
    changed = was is None or now.seq != was.seq
    one.permit.log.count(stored=int(changed), unchanged=int(not changed))
    if changed:
        one.permit.log.wrote(ref_of(now.seq, now.digest))
    made = bodies.told(one.resource, now.version, now.updated)
    created = was is None or was.deleted
    return written(one.record.type, one.record.id, now, made, created=created, changed=changed)
