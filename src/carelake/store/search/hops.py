"""What all conditions that follow a reference share: the search at its other end, and when that is found once.

A hop is tested for a row by walking to its other end; or it leads: the other end is found first and walked back from.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, ClassVar

from carelake.store.search.building import Build, Row
from carelake.store.search.nodes import All, Arm, Costs, Node, Stream, Tail, union

__all__ = ["Hop"]

_WAYS = 3
"""Hops of `ways` from which on a search is found as a whole, not tested for each row."""


class Hop:
    """A condition on what a row points to, or on what points to it.

    Attributes:
        inner: the search of the type at the other end.
        backward: whether one row may have many at the other end, so that ways multiply there and back.
        step: about how many index rows are read for each that `inner` finds.
    """

    __slots__ = ()
    inner: All
    backward: ClassVar[bool]
    step: ClassVar[float]

    def holds(self, build: Build, row: Row) -> str:
        return _whole(build, self, row) or self._holds(build, row)

    def arms(self) -> Iterator[Arm]:
        yield from self.inner.arms()

    def reads(self, costs: Costs) -> float:
        inner = self.inner.reads(costs)
        return inner + min(inner, costs.size(self.inner.kind)) * self._step(costs)

    def streams(self, costs: Costs) -> tuple[Stream, ...]:
        return (Stream(partial(self._rows, costs), often=True),)

    def _rows(self, costs: Costs, build: Build, tail: Tail) -> str:
        return self._back(build, _found(build, self.inner, costs), tail)

    def _step(self, costs: Costs) -> float:
        return self.step

    def _holds(self, build: Build, row: Row) -> str:
        """SQL that walks from the row to the other end and tests it there."""
        raise NotImplementedError

    def _back(self, build: Build, rows: str, tail: Tail) -> str:
        """The select of the rows that the other ends, those of ``rows``, lead back to."""
        raise NotImplementedError


def _ways(node: Any) -> int:
    """How often the ways to one row may multiply below a condition: there and back by references, again and again."""
    below = max(map(_ways, (*getattr(node, "parts", ()), *filter(None, (getattr(node, "inner", None),)))), default=0)
    return below + int(node.backward or below > 0) if isinstance(node, Hop) else below


def _found(build: Build, inner: All, costs: Costs) -> str:
    """All rows that meet a nested search, each once where they might come in many ways."""
    streams = inner.streams(costs)
    rows = union(build, (each.select(build, lambda row: "") for each in streams))
    if not any(stream.often for stream in streams):
        return rows
    me = build.alias()
    once = f"SELECT DISTINCT {me}.seq AS seq FROM ({rows}) {me}"
    # PostgreSQL joins by loops here, and would find the rows anew for each one of the other side.
    return once if build.sqlite else f"WITH {me} AS MATERIALIZED ({once}) SELECT {me}.seq AS seq FROM {me}"


def _whole(build: Build, node: Node, row: Row) -> str:
    """The row is one of all that meet a condition, found once for the statement; "" where it is tested alone."""
    if build.costs is None or _ways(node) < _WAYS:
        return ""
    rows = union(build, (each.select(build, lambda row: "") for each in node.streams(build.costs)))
    test = f"{build.hidden(row.seq)} IN ({rows})"
    return test if build.sqlite else f"({test}) IS TRUE"  # a bare one would be made a join
