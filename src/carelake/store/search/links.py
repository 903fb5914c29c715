"""Conditions that follow references: chains, ``_has`` and lists, as joins of any depth.

The scope of the permit holds for every resource on the way.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from carelake.store.search.building import Build, Row, every
from carelake.store.search.hops import Hop
from carelake.store.search.nodes import All, Arm, Costs, Stream, Tail

__all__ = ["Chain", "Has", "Listed"]


@dataclass(frozen=True, slots=True)
class Chain(Hop):
    """What the row points to meets a search.

    Attributes:
        kind: symbol of the type that the reference is on.
        params: symbols of the reference's sources.
        type: symbol, as references have it, of the type pointed to.
        inner: the search of that type.
    """

    kind: int
    params: tuple[int, ...]
    type: int
    inner: All
    backward: ClassVar[bool] = False
    step: ClassVar[float] = 9

    def _holds(self, build: Build, row: Row) -> str:
        link, to = build.alias(), build.alias()
        tests = every(
            (
                f"{link}.seq = {build.hidden(row.seq)}",
                build.numbers(f"{link}.param", self.params),
                f"{link}.type = {build(self.type)}",
                f"{to}.kind = {build(self.inner.kind)} AND {to}.id = {link}.target AND NOT {to}.deleted",
                self.inner.holds(build, Row(f"{to}.seq", f"{to}.id")),
            )
        )
        return f"EXISTS (SELECT 1 FROM ix_reference {link} CROSS JOIN resource {to} WHERE {tests}{build.alone})"

    def _step(self, costs: Costs) -> float:
        return 1 + max(1.0, costs.size(self.kind) / max(1, costs.size(self.inner.kind)))

    def _back(self, build: Build, rows: str, tail: Tail) -> str:
        inner, to, link = build.alias(), build.alias(), build.alias()
        tests = every(
            (
                f"{to}.kind = {build(self.inner.kind)} AND {to}.seq = {build.hidden(f'{inner}.seq')}",
                build.numbers(f"{link}.param", self.params),
                build.like(f"{link}.target", f"{to}.id"),
                f"{link}.type = {build(self.type)}",
                tail(Row(f"{link}.seq")),
            )
        )
        return (
            f"SELECT {link}.seq AS seq FROM ({rows}) {inner} "
            f"CROSS JOIN resource {to} CROSS JOIN ix_reference {link} WHERE {tests}"
        )


@dataclass(frozen=True, slots=True)
class Has(Hop):
    """Something that meets a search points to the row.

    Attributes:
        kind: symbol of the row's type.
        type: symbol, as references have it, of the row's type.
        params: symbols of the reference's sources, of the type of `inner`.
    """

    kind: int
    type: int
    params: tuple[int, ...]
    inner: All
    backward: ClassVar[bool] = True
    step: ClassVar[float] = 2

    def _holds(self, build: Build, row: Row) -> str:
        link = build.alias()
        tests = (
            build.numbers(f"{link}.param", self.params),
            f"{link}.type = {build(self.type)}",
            self.inner.holds(build, Row(f"{link}.seq")),
        )
        return _pointed(build, row, self.kind, link, tests)

    def _back(self, build: Build, rows: str, tail: Tail) -> str:
        inner, link, to = build.alias(), build.alias(), build.alias()
        tests = every(
            (
                f"{link}.seq = {build.hidden(f'{inner}.seq')}",
                build.numbers(f"{link}.param", self.params),
                f"{link}.type = {build(self.type)}",
                f"{to}.kind = {build(self.kind)} AND {to}.id = {link}.target AND NOT {to}.deleted",
                tail(Row(f"{to}.seq", f"{to}.id")),
            )
        )
        return (
            f"SELECT {to}.seq AS seq FROM ({rows}) {inner} "
            f"CROSS JOIN ix_reference {link} CROSS JOIN resource {to} WHERE {tests}"
        )


@dataclass(frozen=True, slots=True)
class Listed:
    """The row is an entry of one of some lists.

    Attributes:
        lists: ``seq`` of the lists' current versions.
        params: symbols of the sources of a list's entries.
    """

    kind: int
    type: int
    params: tuple[int, ...]
    lists: tuple[int, ...]

    def holds(self, build: Build, row: Row) -> str:
        link = build.alias()
        return _pointed(build, row, self.kind, link, self._entries(build, link))

    def arms(self) -> Iterator[Arm]:
        return iter(())

    def reads(self, costs: Costs) -> float:
        return 100.0 * len(self.lists)

    def streams(self, costs: Costs) -> tuple[Stream, ...]:
        def select(build: Build, tail: Tail) -> str:
            link, to = build.alias(), build.alias()
            tests = every(
                (
                    *self._entries(build, link),
                    f"{to}.kind = {build(self.kind)} AND {to}.id = {link}.target AND NOT {to}.deleted",
                    tail(Row(f"{to}.seq", f"{to}.id")),
                )
            )
            return f"SELECT {to}.seq AS seq FROM ix_reference {link} CROSS JOIN resource {to} WHERE {tests}"

        return (Stream(select),)

    def _entries(self, build: Build, link: str) -> tuple[str, ...]:
        return (
            build.within(f"{link}.seq", self.lists),
            build.numbers(f"{link}.param", self.params),
            f"{link}.type = {build(self.type)}",
        )


def _pointed(build: Build, row: Row, kind: int, link: str, tests: tuple[str, ...]) -> str:
    """There is a row of ``ix_reference`` that points to the row and meets the tests."""
    if row.id:
        told = every((build.like(f"{link}.target", row.id), *tests))
        return f"EXISTS (SELECT 1 FROM ix_reference {link} WHERE {told}{build.alone})"
    me = build.alias()
    found = f"{me}.kind = {build(kind)} AND {me}.seq = {build.hidden(row.seq)}"
    told = every((found, build.like(f"{link}.target", f"{me}.id"), *tests))
    return f"EXISTS (SELECT 1 FROM resource {me} CROSS JOIN ix_reference {link} WHERE {told}{build.alone})"
