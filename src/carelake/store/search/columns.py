"""Conditions on what a resource is rather than on what it holds: its id, its time, its owner, a set of versions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from carelake.fhir.query import DateValue
from carelake.store.consents import Shown
from carelake.store.search.building import Build, Row, every, some
from carelake.store.search.nodes import Arm, Costs, Stream, Tail

__all__ = ["Consented", "Ids", "Owned", "Seqs", "Updated", "Window", "updated_test"]

_MILLISECOND = 1000
_WIDE = 50
"""Times that are read one by one."""


@dataclass(frozen=True, slots=True)
class Ids:
    """The resource has one of some ids."""

    kind: int
    ids: tuple[str, ...]

    def holds(self, build: Build, row: Row) -> str:
        if row.id:
            return build.within(row.id, self.ids)
        me = build.alias()
        tests = f"{me}.seq = {build.hidden(row.seq)} AND {self._named(build, me)}"
        return f"EXISTS (SELECT 1 FROM resource {me} WHERE {tests}{build.alone})"

    def arms(self) -> Iterator[Arm]:
        return iter(())

    def reads(self, costs: Costs) -> float:
        return float(len(self.ids))

    def streams(self, costs: Costs) -> tuple[Stream, ...]:
        return (Stream(self._select, single=True),)

    def _select(self, build: Build, tail: Tail) -> str:
        me = build.alias()
        tests = every((self._named(build, me), f"NOT {me}.deleted", tail(Row(f"{me}.seq", f"{me}.id"))))
        return f"SELECT {me}.seq AS seq FROM resource {me} WHERE {tests}"

    def _named(self, build: Build, me: str) -> str:
        return f"{me}.kind = {build(self.kind)} AND {build.within(f'{me}.id', self.ids)}"


@dataclass(frozen=True, slots=True)
class Window:
    """The next so many resources of a type after a seq, in its order."""

    kind: int
    after: int
    most: int

    def holds(self, build: Build, row: Row) -> str:
        return ""

    def arms(self) -> Iterator[Arm]:
        return iter(())

    def reads(self, costs: Costs) -> float:
        return float(self.most)

    def streams(self, costs: Costs) -> tuple[Stream, ...]:
        return (Stream(self._select, ordered=True, single=True),)

    def _select(self, build: Build, tail: Tail) -> str:
        me, row = build.alias(), build.alias()
        tests = f"{row}.kind = {build(self.kind)} AND {row}.seq > {build(self.after)}"
        inner = f"SELECT {row}.seq, {row}.id FROM resource {row} WHERE {tests} ORDER BY {row}.seq LIMIT "
        inner += build(self.most)
        where = tail(Row(f"{me}.seq", f"{me}.id"))
        # What leads is never alone, and what it is tested by holds for current resources that are there only.
        return f"SELECT {me}.seq AS seq FROM ({inner}) {me}{f' WHERE {where}' if where else ''}"


@dataclass(frozen=True, slots=True)
class Owned:
    """The resource is in the compartment of the one patient that the permit's scope allows."""

    kind: int
    owner: int

    def holds(self, build: Build, row: Row) -> str:
        me = build.alias()
        tests = f"{self._mine(build, me)} AND {me}.seq = {build.hidden(row.seq)}"
        return f"EXISTS (SELECT 1 FROM ix_owner {me} WHERE {tests}{build.alone})"

    def arms(self) -> Iterator[Arm]:
        return iter(())

    def reads(self, costs: Costs) -> float:
        # What one patient has of one type; a guess is enough, since it leads wherever nothing rarer does.
        return 64.0

    def streams(self, costs: Costs) -> tuple[Stream, ...]:
        return (Stream(self._select, ordered=True, single=True),)

    def _select(self, build: Build, tail: Tail) -> str:
        me = build.alias()
        tests = every((self._mine(build, me), tail(Row(f"{me}.seq"))))
        return f"SELECT {me}.seq AS seq FROM ix_owner {me} WHERE {tests}"

    def _mine(self, build: Build, me: str) -> str:
        return f"{me}.owner = {build(self.owner)} AND {me}.kind = {build(self.kind)}"


@dataclass(frozen=True, slots=True)
class Consented:
    """The consents of those whom the resource is about show it to the permit.

    Attributes:
        name: the type.
    """

    shown: Shown
    name: str

    def holds(self, build: Build, row: Row) -> str:
        return self.shown.current(build, build.hidden(row.seq), self.name)

    def arms(self) -> Iterator[Arm]:
        return iter(())

    def reads(self, costs: Costs) -> float:
        return math.inf

    def streams(self, costs: Costs) -> tuple[Stream, ...]:
        return ()


@dataclass(frozen=True, slots=True)
class Seqs:
    """The version is one of a set that was found beforehand."""

    found: tuple[int, ...]

    def holds(self, build: Build, row: Row) -> str:
        return build.within(build.hidden(row.seq), self.found) if self.found else "1 = 0"

    def arms(self) -> Iterator[Arm]:
        return iter(())

    def reads(self, costs: Costs) -> float:
        return float(len(self.found))

    def streams(self, costs: Costs) -> tuple[Stream, ...]:
        return (Stream(self._select, single=True),)

    def _select(self, build: Build, tail: Tail) -> str:
        me = build.alias()
        within = build.within(f"{me}.seq", self.found) if self.found else "1 = 0"
        return f"SELECT {me}.seq AS seq FROM resource_version {me} WHERE {every((within, tail(Row(f'{me}.seq'))))}"


@dataclass(frozen=True, slots=True)
class Updated:
    """``_lastUpdated``: compared by milliseconds, as ``meta.lastUpdated`` shows it.

    Attributes:
        values: alternatives.
    """

    kind: int
    values: tuple[DateValue, ...]

    def holds(self, build: Build, row: Row) -> str:
        me = build.alias()
        tests = f"{me}.kind = {build(self.kind)} AND {me}.seq = {build.hidden(row.seq)} AND {self._one(build, me)}"
        return f"EXISTS (SELECT 1 FROM resource {me}{build.by('resource_seq')} WHERE {tests}{build.alone})"

    def arms(self) -> Iterator[Arm]:
        for value in self.values:
            yield self._arm(value)

    def reads(self, costs: Costs) -> float:
        return float(sum(costs.rows(arm) for arm in self.arms()))

    def streams(self, costs: Costs) -> tuple[Stream, ...]:
        if len(self.values) > _WIDE:
            return (Stream(self._selecting(self.values), single=True),)
        return tuple(Stream(self._selecting((value,)), single=True) for value in self.values)

    def _selecting(self, values: tuple[DateValue, ...]) -> Callable[[Build, Tail], str]:
        def select(build: Build, tail: Tail) -> str:
            me = build.alias()
            mine = f"{me}.kind = {build(self.kind)} AND " + some(
                [updated_test(build, f"{me}.updated", value) for value in values]
            )
            tests = every((mine, f"NOT {me}.deleted", tail(Row(f"{me}.seq", f"{me}.id"))))
            return f"SELECT {me}.seq AS seq FROM resource {me} WHERE {tests}"

        return select

    def _one(self, build: Build, me: str) -> str:
        # The row is found by its seq, not by its time.
        return some([updated_test(build, build.hidden(f"{me}.updated"), value) for value in self.values])

    def _arm(self, value: DateValue) -> Arm:
        key = ("updated", self.kind, value.prefix, value.low, value.high)
        return _Moments("resource", self.kind, lambda build, at: updated_test(build, f"{at}.updated", value), key)


class _Moments(Arm):
    """A range of ``resource`` by type and time."""

    __slots__ = ()

    def range(self, build: Build, alias: str) -> str:
        return every((f"{alias}.kind = {build(self.param)}", self.where(build, alias)))


def _up(micros: int) -> int:
    return -(-micros // _MILLISECOND) * _MILLISECOND


def _down(micros: int) -> int:
    return micros // _MILLISECOND * _MILLISECOND


def updated_test(build: Build, at: str, value: DateValue) -> str:
    """The tests of prefixes, of the millisecond that a time is in, written so that an index finds it."""
    low, high = value.low, value.high
    match value.prefix:
        case "eq" | "ne":
            within = f"{at} >= {build(_up(low))} AND {at} < {build(_down(high))}"
            return within if value.prefix == "eq" else f"NOT ({within})"
        case "gt":
            return f"{at} >= {build(_down(high))}"
        case "lt":
            return f"{at} < {build(_up(low))}"
        case "ge":
            return f"{at} >= {build(min(_up(low), _down(high)))}"
        case "le":
            return f"{at} < {build(max(_up(low), _down(high)))}"
        case "sa":
            return f"{at} >= {build(_up(high))}"
        case "eb":
            return f"{at} < {build(_down(low))}"
    return f"{at} >= {build(_down(low))} AND {at} < {build(_up(high))}"
