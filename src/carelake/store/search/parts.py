"""Composites on repeated elements: the components' rows must be of one and the same element."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from carelake.store.search.building import Build, Row, every
from carelake.store.search.nodes import Arm, Costs, Stream, Tail

__all__ = ["Parts"]


@dataclass(frozen=True, slots=True)
class Parts:
    """There is an element whose components are in these ranges of ``ix_part``, one range for each component."""

    ranges: tuple[Arm, ...]

    def holds(self, build: Build, row: Row) -> str:
        first, *others = self.ranges
        me = build.alias()
        tests = (f"{me}.seq = {build.hidden(row.seq)}", first.range(build, me), self._met(build, me, others))
        return f"EXISTS (SELECT 1 FROM ix_part {me} WHERE {every(tests)}{build.alone})"

    def arms(self) -> Iterator[Arm]:
        yield from self.ranges

    def reads(self, costs: Costs) -> float:
        return float(min(costs.rows(arm) for arm in self.ranges))

    def streams(self, costs: Costs) -> tuple[Stream, ...]:
        leader = min(self.ranges, key=costs.rows)
        others = [arm for arm in self.ranges if arm is not leader]

        def select(build: Build, tail: Tail) -> str:
            me = build.alias()
            tests = (leader.range(build, me), self._met(build, me, others), tail(Row(f"{me}.seq")))
            return f"SELECT {me}.seq AS seq FROM ix_part {me} WHERE {every(tests)}"

        return (Stream(select),)

    def _met(self, build: Build, me: str, others: list[Arm]) -> str:
        tests = []
        for arm in others:
            other = build.alias()
            same = f"{other}.seq = {build.hidden(f'{me}.seq')} AND {other}.item = {me}.item"
            tests.append(
                f"EXISTS (SELECT 1 FROM ix_part {other} WHERE {every((same, arm.range(build, other)))}{build.alone})"
            )
        return every(tests)
