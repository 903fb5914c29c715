"""A search as a tree of conditions over versions, each of which can be tested for a row, and may lead to rows.

``holds`` gives SQL that tests one row by keys, so its cost does not depend on how many rows meet the condition.
``streams`` gives SQL that finds all rows that meet it. A conjunction is led by its part with the fewest rows and
tests the others for each; `carelake.store.search.costs` tells which that is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any, Protocol

from carelake.store.search.building import Build, Row, every, some

__all__ = [
    "All",
    "AnyOf",
    "Arm",
    "Costs",
    "Every",
    "Node",
    "Not",
    "Nothing",
    "Rows",
    "Stream",
    "Tail",
    "any_of",
    "rows_of",
    "union",
]

_WIDE = 50
"""Ranges that are read one by one; a statement has a bound on its selects."""
_COMPOUND = 200

Tail = Callable[[Row], str]
"""Conditions that a row of a stream must meet too, "" for none."""


class Costs(Protocol):
    """How many rows things have, as far as it matters."""

    def rows(self, arm: Arm) -> int:
        """Index rows that an arm reads, at most the bound up to which they were counted."""
        ...

    def size(self, kind: int) -> int:
        """About how many resources there are of a type."""
        ...


@dataclass(frozen=True, slots=True)
class Stream:
    """One way to rows.

    Attributes:
        select: the statement, given what else must hold; its one column is ``seq``.
        ordered: whether the database reads it in the order of ``seq``, so that it can stop early.
        single: whether a row comes once.
        often: whether a row may come many times: once for each way to it.
    """

    select: Callable[[Build, Tail], str]
    ordered: bool = False
    single: bool = False
    often: bool = False


class Node(Protocol):
    """A condition."""

    def holds(self, build: Build, row: Row) -> str:
        """SQL that is true where the row meets the condition."""
        ...

    def arms(self) -> Iterator[Arm]:
        """The index ranges whose sizes decide how it is best met."""
        ...

    def reads(self, costs: Costs) -> float:
        """About how many index rows its streams read; infinite where it has none."""
        ...

    def streams(self, costs: Costs) -> tuple[Stream, ...]:
        """Selects whose union is all rows that meet it; () where it can only be tested."""
        ...


@dataclass(frozen=True, slots=True)
class Arm:
    """A range of one index table.

    Attributes:
        where: tests of the columns after ``param``, given the alias of the table.
        key: what it was made of, equal for equal ranges.
        ordered: the whole key before ``seq`` is fixed.
        gap: the one column that is not fixed before ``seq``, where the others are; "" otherwise.
        index: what it is read by when it leads, "" for the table's own order.
    """

    table: str
    param: int
    where: Callable[[Build, str], str]
    key: tuple[Any, ...] = field(compare=False)
    ordered: bool = False
    gap: str = ""
    index: str = ""

    def range(self, build: Build, alias: str) -> str:
        """All tests of the range."""
        return every((f"{alias}.param = {build(self.param)}", self.where(build, alias)))

    def at(self, value: int) -> Arm:
        """With the gap filled, which makes it ordered."""
        column, where = self.gap, self.where

        def filled(build: Build, alias: str) -> str:
            return every((where(build, alias), f"{alias}.{column} = {build(value)}"))

        return replace(self, where=filled, key=(*self.key, value), ordered=True, gap="")

    def rows(self, build: Build, alias: str) -> str:
        """Its table under an alias, read by its index."""
        return f"{self.table} {alias}{build.by(self.index) if self.index else ''}"

    def select(self, build: Build, tail: Tail) -> str:
        """Its rows."""
        alias = build.alias()
        tests = every((self.range(build, alias), tail(Row(f"{alias}.seq"))))
        return f"SELECT {alias}.seq AS seq FROM {self.rows(build, alias)} WHERE {tests}"

    def head(self, build: Build, tail: Tail, most: int) -> str:
        """Those of its first rows by seq that meet the tail; it must be ordered."""
        alias, me = build.alias(), build.alias()
        first = f"SELECT {alias}.seq FROM {self.table} {alias} WHERE {self.range(build, alias)} ORDER BY {alias}.seq"
        tests = tail(Row(f"{me}.seq"))
        return f"SELECT {me}.seq AS seq FROM ({first} LIMIT {build(most)}) {me}{f' WHERE {tests}' if tests else ''}"

    def count(self, build: Build, most: int) -> str:
        """SQL of the number of its rows, counted up to a bound."""
        alias = build.alias()
        # In the order of the index: it ends when enough are counted.
        order = f" ORDER BY {alias}.seq" if self.ordered and not build.sqlite else ""
        inner = f"SELECT 1 FROM {self.rows(build, alias)} WHERE {self.range(build, alias)}{order} LIMIT {build(most)}"
        return f"(SELECT count(*) FROM ({inner}) c)"


@dataclass(frozen=True, slots=True)
class Rows:
    """There is a row in one of some ranges."""

    ranges: tuple[Arm, ...]

    def holds(self, build: Build, row: Row) -> str:
        if not self.ranges:
            return "1 = 0"
        tests = []
        for table, arms in groupby(sorted(self.ranges, key=lambda arm: arm.table), key=lambda arm: arm.table):
            tests.append(_probe(build, row, table, list(arms)))
        return some(tests)

    def arms(self) -> Iterator[Arm]:
        yield from self.ranges

    def reads(self, costs: Costs) -> float:
        return float(sum(costs.rows(arm) for arm in self.ranges))

    def streams(self, costs: Costs) -> tuple[Stream, ...]:
        if len(self.ranges) <= _WIDE:
            return tuple(Stream(arm.select, arm.ordered, single=arm.ordered) for arm in self.ranges)
        together: dict[tuple[str, int], list[Arm]] = {}
        for arm in self.ranges:
            together.setdefault((arm.table, arm.param), []).append(arm)
        return tuple(Stream(_united(arms).select) for arms in together.values())


def _united(arms: Sequence[Arm]) -> Arm:
    """Ranges of one source as one."""

    def where(build: Build, alias: str) -> str:
        return some([arm.where(build, alias) or "1 = 1" for arm in arms])

    return replace(arms[0], where=where, ordered=False, gap="", index="")


def _probe(build: Build, row: Row, table: str, arms: Sequence[Arm]) -> str:
    alias = build.alias()
    seq = f"{alias}.seq = {build.hidden(row.seq)}"
    params = sorted({arm.param for arm in arms})
    if len(params) == 1:
        tests = some(list(dict.fromkeys(arm.where(build, alias) or "1 = 1" for arm in arms)))
    else:
        tests = some([arm.range(build, alias) for arm in arms])
    head = f"{seq} AND {build.numbers(f'{alias}.param', params)}"
    return f"EXISTS (SELECT 1 FROM {table} {alias} WHERE {every((head, tests))}{build.alone})"


@dataclass(frozen=True, slots=True)
class Nothing:
    """No row meets it."""

    def holds(self, build: Build, row: Row) -> str:
        return "1 = 0"

    def arms(self) -> Iterator[Arm]:
        return iter(())

    def reads(self, costs: Costs) -> float:
        return 0.0

    def streams(self, costs: Costs) -> tuple[Stream, ...]:
        return (Stream(lambda build, tail: "SELECT 0 AS seq WHERE 1 = 0", ordered=True, single=True),)


@dataclass(frozen=True, slots=True)
class Not:
    """The row does not meet a condition."""

    inner: Node

    def holds(self, build: Build, row: Row) -> str:
        return f"NOT ({self.inner.holds(build, row)})"

    def arms(self) -> Iterator[Arm]:
        return iter(())

    def reads(self, costs: Costs) -> float:
        return float("inf")

    def streams(self, costs: Costs) -> tuple[Stream, ...]:
        return ()


@dataclass(frozen=True, slots=True)
class AnyOf:
    """One of several conditions holds."""

    parts: tuple[Node, ...]

    def holds(self, build: Build, row: Row) -> str:
        return some([part.holds(build, row) for part in self.parts]) if self.parts else "1 = 0"

    def arms(self) -> Iterator[Arm]:
        for part in self.parts:
            yield from part.arms()

    def reads(self, costs: Costs) -> float:
        return sum(part.reads(costs) for part in self.parts)

    def streams(self, costs: Costs) -> tuple[Stream, ...]:
        found = [part.streams(costs) for part in self.parts]
        return tuple(stream for streams in found for stream in streams) if all(found) else ()


@dataclass(frozen=True, slots=True)
class Every:
    """All current resources of a type: what leads where nothing else does."""

    kind: int

    def holds(self, build: Build, row: Row) -> str:
        return ""

    def arms(self) -> Iterator[Arm]:
        return iter(())

    def reads(self, costs: Costs) -> float:
        return float(costs.size(self.kind))

    def streams(self, costs: Costs) -> tuple[Stream, ...]:
        return (Stream(self.select, ordered=True, single=True),)

    def select(self, build: Build, tail: Tail) -> str:
        alias = build.alias()
        tests = every(
            (f"{alias}.kind = {build(self.kind)}", f"NOT {alias}.deleted", tail(Row(f"{alias}.seq", f"{alias}.id")))
        )
        return f"SELECT {alias}.seq AS seq FROM resource {alias} WHERE {tests}"


@dataclass(frozen=True, slots=True)
class All:
    """Every one of several conditions holds, for resources of one type."""

    base: Every
    parts: tuple[Node, ...]

    @property
    def kind(self) -> int:
        return self.base.kind

    def holds(self, build: Build, row: Row) -> str:
        return every(part.holds(build, row) for part in self.parts) or "1 = 1"

    def arms(self) -> Iterator[Arm]:
        for part in self.parts:
            yield from part.arms()

    def reads(self, costs: Costs) -> float:
        return self._led(costs)[0]

    def leader(self, costs: Costs) -> Node:
        """The part with the fewest rows; all resources of the type where no part leads to any."""
        return self._led(costs)[1]

    def _led(self, costs: Costs) -> tuple[float, Node]:
        # Each part is asked once: those of a nested search ask theirs, so twice would double with every hop.
        weighed = [(part.reads(costs), part) for part in self.parts]
        able = [one for one in weighed if one[0] != float("inf")]
        return min(able, key=lambda one: one[0], default=None) or (self.base.reads(costs), self.base)

    def streams(self, costs: Costs) -> tuple[Stream, ...]:
        return self.led_by(self.leader(costs), costs)

    def led_by(self, leader: Node, costs: Costs) -> tuple[Stream, ...]:
        """The streams of a part, with the others tested on the way."""
        others = tuple(part for part in self.parts if part is not leader)
        return tuple(_tested(stream, others) for stream in leader.streams(costs))


def _tested(stream: Stream, others: Sequence[Node]) -> Stream:
    if not others:
        return stream

    def select(build: Build, tail: Tail) -> str:
        def both(row: Row) -> str:
            return every((tail(row), *(part.holds(build, row) for part in others)))

        return stream.select(build, both)

    return replace(stream, select=select)


def any_of(nodes: Iterable[Node]) -> Node:
    """One of some conditions holds."""
    found = [node for node in nodes if not isinstance(node, Nothing)]
    if not found:
        return Nothing()
    return found[0] if len(found) == 1 else AnyOf(tuple(found))


def rows_of(arms: Sequence[Arm]) -> Node:
    """There is a row in one of some ranges, each counted once."""
    return Rows(tuple({arm.key: arm for arm in arms}.values())) if arms else Nothing()


def union(build: Build, selects: Iterable[str]) -> str:
    """Rows of several selects, some of them perhaps more than once."""
    listed, me = list(selects), build.alias()
    while len(listed) > _COMPOUND:  # a statement of SQLite unites 500 at the most
        pages = (listed[start : start + _COMPOUND] for start in range(0, len(listed), _COMPOUND))
        listed = [f"SELECT {me}.seq AS seq FROM ({' UNION ALL '.join(page)}) {me}" for page in pages]
    return " UNION ALL ".join(listed)
