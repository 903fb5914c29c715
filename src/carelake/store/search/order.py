"""The order of matches: sort keys, those without a value last, then ``seq``.

A resource with several values counts by the one that comes first. A page goes on behind the keys of the last match of
the page before it, so that it does not matter what became of that match.

There are two ways. *Gather*: find all matches, look up their keys, sort. *Walk*: read the first key's index in its
order and test each row, until the page is full; what has no value of that key comes after them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from carelake.store.search.building import Build, Row, every, some
from carelake.store.search.nodes import Arm, Stream, Tail, union
from carelake.store.tables import HEAD

__all__ = ["COLUMNS", "Key", "Last", "ended", "gathered", "walked"]

COLUMNS = {
    "ix_token": ("code", "system"),
    "ix_string": ("value", "given"),
    "ix_date": ("low", "high"),
    "ix_quantity": ("low", "high", "system", "code"),
    "ix_reference": ("target", "type"),
    "ix_uri": ("value",),
    "ix_part": ("text", "low", "high", "system", "unit"),
}
"""What rows of a table are sorted by: their whole key, so that an index has the order."""
_TEXTS = frozenset({("ix_token", "code"), ("ix_string", "value"), ("ix_reference", "target"), ("ix_uri", "value")})
_TEXTS |= {("ix_part", "text")}
_PARTS = "ix_part"
"""Of its rows several may be equal but for the element that they are of."""

Last = tuple[tuple[tuple[Any, ...] | None, ...], int]
"""Where a page ended: the values of each key, None for a match that has none, and the seq."""


@dataclass(frozen=True, slots=True)
class Key:
    """One sort key.

    Attributes:
        table: an index table, or ``resource`` for ``_id`` and ``_lastUpdated``.
        params: symbols of the sources; of ``resource`` the symbol of the type.
        columns: what is compared, in order.
        target: symbol of the type that references must point to, 0 for any.
        arms: ranges that the rows are in, instead of all of the sources.
    """

    table: str
    params: tuple[int, ...]
    columns: tuple[str, ...]
    descending: bool = False
    target: int = 0
    arms: tuple[Arm, ...] = ()

    @staticmethod
    def of(arms: Sequence[Arm]) -> Key:
        """The rows of ranges of one table, in its order."""
        table = arms[0].table
        return Key(table, tuple(sorted({arm.param for arm in arms})), COLUMNS[table], arms=tuple(arms))

    @property
    def always(self) -> bool:
        """Whether every match has a value."""
        return self.table == "resource"

    def values(self, build: Build, at: str, *, derived: bool = False) -> list[str]:
        """The expressions compared; PostgreSQL finds texts by their heads.

        Args:
            derived: of the rows of `rows`, where heads are columns.
        """
        found: list[str] = []
        for column in self.columns:
            if not build.sqlite and (self.table, column) in _TEXTS:
                found.append(f"{at}.{column}_head" if derived else f"left({at}.{column}, {HEAD})")
            found.append(f"{at}.{column}")
        return found

    def rows(self, build: Build, start: str, most: int | None) -> str:
        """The rows of its index in its order.

        Args:
            start: a row value that they begin with, "" for all.
            most: how many at the most.
        """
        sign = "<=" if self.descending else ">="
        arms = []
        for one in self.arms or self.params:
            me = build.alias()
            values = self.values(build, me)
            begun = f"{_row(values)} {sign} {start}" if start else ""
            heads = [f"{value} AS {column}" for value, column in zip(values, self._names(build), strict=True)]
            shown = [f"{me}.seq AS seq", f"{me}.{'id AS key' if self.always else 'param AS param'}", *heads]
            if self.table == _PARTS:
                shown.append(f"{me}.item AS item")
            arms.append(f"SELECT {', '.join(shown)} FROM {self._leading(build, me, one, begun)}")
        down = " DESC" if self.descending else ""
        order = ", ".join([*(f"{place + 3}{down}" for place in range(len(self._names(build)))), "1"])
        tail = f" ORDER BY {order}" + (f" LIMIT {build(most)}" if most is not None else "")
        if not build.sqlite and len(arms) > 1:
            arms = [
                f"({arm}{tail})" for arm in arms
            ]  # PostgreSQL merges what comes in order; SQLite does so by itself
        # Ranges may overlap, sources do not.
        return (" UNION " if self.arms else " UNION ALL ").join(arms) + tail

    def _leading(self, build: Build, me: str, one: Arm | int, begun: str) -> str:
        """The table and the tests of a range, or of all rows of a source."""
        if isinstance(one, Arm):
            return f"{one.rows(build, me)} WHERE {every((one.range(build, me), begun))}"
        own = f"{me}.kind = {build(one)} AND NOT {me}.deleted" if self.always else f"{me}.param = {build(one)}"
        pointed = f"{me}.type = {build(self.target)}" if self.target else ""
        index = build.by("resource_updated") if self.columns == ("updated",) else ""
        return f"{self.table} {me}{index} WHERE {every((own, pointed, begun))}"

    def _names(self, build: Build) -> list[str]:
        return [value.partition(".")[2] for value in self.values(build, "x", derived=True)]

    def mine(self, build: Build, at: str) -> str:
        """The rows are this key's."""
        if self.always:
            return f"{at}.kind = {build(self.params[0])}"
        if self.arms:
            return some([arm.range(build, at) for arm in self.arms])
        pointed = f"{at}.type = {build(self.target)}" if self.target else ""
        return every((build.numbers(f"{at}.param", self.params), pointed))

    def best(self, build: Build, at: str) -> str:
        """The row is the one that its version counts by."""
        if self.always:
            return ""
        other = build.alias()
        sign = ">" if self.descending else "<"
        columns = (*self.columns, "param", *(("item",) if self.table == _PARTS else ()))
        theirs, ours = (", ".join(f"{name}.{column}" for column in columns) for name in (other, at))
        tests = every(
            (f"{other}.seq = {build.hidden(f'{at}.seq')}", self.mine(build, other), f"({theirs}) {sign} ({ours})")
        )
        return f"NOT EXISTS (SELECT 1 FROM {self.table} {other} WHERE {tests}{build.alone})"

    def joined(self, build: Build, at: str, seq: str) -> str:
        """The join of a version's best row, if it has one."""
        tests = every((f"{at}.seq = {seq}", self.mine(build, at), self.best(build, at)))
        return f" LEFT JOIN {self.table} {at} ON {tests}"


def gathered(build: Build, streams: Sequence[Stream], keys: Sequence[Key], last: Last | None, limit: int) -> str:
    """The statement that finds all matches first; its columns are ``seq`` and the keys' values."""
    found = union(build, (stream.select(build, _nothing) for stream in streams))
    single = len(streams) == 1 and streams[0].single
    names = [build.alias() for _ in keys]
    joins = "".join(key.joined(build, name, "m.seq") for key, name in zip(keys, names, strict=True))
    values = [key.values(build, name) for key, name in zip(keys, names, strict=True)]
    order = [part for key, name in zip(keys, names, strict=True) for part in _order(build, key, name)]
    where = f" WHERE {_after(build, keys, names, 'm.seq', last)}" if last is not None else ""
    shown = ", ".join(["m.seq", *(one for each in values for one in each)])
    matches = found if single else f"SELECT DISTINCT u.seq AS seq FROM ({found}) u"
    tail = f"ORDER BY {', '.join([*order, 'm.seq'])} LIMIT {build(limit)}"
    return f"SELECT {shown} FROM ({matches}) m{joins}{where} {tail}"


def walked(build: Build, tests: Tail, keys: Sequence[Key], last: Last | None, limit: int, most: int | None) -> str:
    """The statement that reads the first key's index; matches without a value of it are not in its rows.

    Args:
        most: how many rows of the index are read at the most; None for all.
    """
    first, *others = keys
    names = ["k", *(build.alias() for _ in others)]
    joins = "".join(key.joined(build, name, "k.seq") for key, name in zip(others, names[1:], strict=True))
    start = _start(build, last)
    after = _after(build, keys, names, "k.seq", last, walked=True) if last is not None else ""
    here = Row("k.seq", "k.key" if first.always else "")
    where = every((after, tests(here), first.best(build, "k")))
    values = [first.values(build, "k", derived=True)]
    values += [key.values(build, name) for key, name in zip(others, names[1:], strict=True)]
    down = " DESC" if first.descending else ""
    order = [f"{value}{down}" for value in values[0]]
    order += [part for key, name in zip(others, names[1:], strict=True) for part in _order(build, key, name)]
    shown = ", ".join(["k.seq", *(one for each in values for one in each)])
    tail = f" WHERE {where}" if where else ""
    return (
        f"SELECT {shown} FROM ({first.rows(build, start, most)}) k{joins}{tail} "
        f"ORDER BY {', '.join([*order, 'k.seq'])} LIMIT {build(limit)}"
    )


def ended(build: Build, first: Key, last: Last | None, most: int) -> str:
    """The statement that tells the values where a walk of so many rows ended; no row where it came to its end."""
    values = ", ".join(first.values(build, "k", derived=True))
    down = " DESC" if first.descending else ""
    order = ", ".join(f"{value}{down}" for value in first.values(build, "k", derived=True))
    rows = first.rows(build, _start(build, last), most)
    return f"SELECT {values} FROM ({rows}) k ORDER BY {order} LIMIT 1 OFFSET {build(most - 1)}"


def _start(build: Build, last: Last | None) -> str:
    return "" if last is None else _row([build(value) for value in last[0][0] or ()])


def _order(build: Build, key: Key, name: str) -> list[str]:
    down = " DESC" if key.descending else ""
    values = [f"{value}{down}" for value in key.values(build, name)]
    return values if key.always else [f"({name}.seq IS NULL)", *values]


def _row(values: Sequence[str]) -> str:
    return values[0] if len(values) == 1 else f"({', '.join(values)})"


def _after(
    build: Build, keys: Sequence[Key], names: Sequence[str], seq: str, last: Last, *, walked: bool = False
) -> str:
    """What comes after a match with those values.

    Args:
        walked: the first key's rows are those of `Key.rows`, so that all of them have a value.
    """
    found: list[str] = []
    same: list[str] = []
    for place, (key, name, values) in enumerate(zip(keys, names, last[0], strict=True)):
        if values is None:
            same.append(f"{name}.seq IS NULL")
            continue
        here = walked and place == 0
        ours, theirs = _row(key.values(build, name, derived=here)), _row([build(value) for value in values])
        beyond = f"{ours} {'<' if key.descending else '>'} {theirs}"
        if not key.always and not here:
            beyond = some([beyond, f"{name}.seq IS NULL"])
        found.append(every((*same, beyond)))
        same.append(f"{ours} = {theirs}")
    found.append(every((*same, f"{seq} > {build(last[1])}")))
    return some(found)


def _nothing(row: Row) -> str:
    return ""
