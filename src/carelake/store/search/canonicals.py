"""Conditions that follow canonicals: references to a resource by its ``url`` (https://hl7.org/fhir/R4/references.html)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from carelake.store.search.building import Build, Row, every
from carelake.store.search.hops import Hop
from carelake.store.search.nodes import All, Tail

__all__ = ["ByUrl", "HasByUrl"]


@dataclass(frozen=True, slots=True)
class ByUrl(Hop):
    """What the row points to by its url meets a search.

    Attributes:
        params: symbols of the reference's sources.
        urls: symbols of the sources of the url, of the type pointed to.
        inner: the search of that type.
    """

    params: tuple[int, ...]
    urls: tuple[int, ...]
    inner: All
    backward: ClassVar[bool] = False
    step: ClassVar[float] = 9

    def _holds(self, build: Build, row: Row) -> str:
        link, url = build.alias(), build.alias()
        tests = every(
            (
                f"{link}.seq = {build.hidden(row.seq)}",
                build.numbers(f"{link}.param", self.params),
                build.numbers(f"{url}.param", self.urls),
                build.equal(f"{url}.value", f"{link}.target"),
                self.inner.holds(build, Row(f"{url}.seq")),
            )
        )
        return f"EXISTS (SELECT 1 FROM ix_reference {link} CROSS JOIN ix_uri {url} WHERE {tests}{build.alone})"

    def _back(self, build: Build, rows: str, tail: Tail) -> str:
        inner, url, link = build.alias(), build.alias(), build.alias()
        tests = every(
            (
                f"{url}.seq = {build.hidden(f'{inner}.seq')}",
                build.numbers(f"{url}.param", self.urls),
                build.numbers(f"{link}.param", self.params),
                build.equal(f"{link}.target", f"{url}.value"),
                tail(Row(f"{link}.seq")),
            )
        )
        return (
            f"SELECT {link}.seq AS seq FROM ({rows}) {inner} "
            f"CROSS JOIN ix_uri {url} CROSS JOIN ix_reference {link} WHERE {tests}"
        )


@dataclass(frozen=True, slots=True)
class HasByUrl(Hop):
    """Something that meets a search points to the row by its url.

    Attributes:
        urls: symbols of the sources of the url, of the row's type.
        params: symbols of the reference's sources, of the type of `inner`.
    """

    urls: tuple[int, ...]
    params: tuple[int, ...]
    inner: All
    backward: ClassVar[bool] = True
    step: ClassVar[float] = 2

    def _holds(self, build: Build, row: Row) -> str:
        link, url = build.alias(), build.alias()
        tests = every(
            (
                f"{url}.seq = {build.hidden(row.seq)}",
                build.numbers(f"{url}.param", self.urls),
                build.numbers(f"{link}.param", self.params),
                build.equal(f"{link}.target", f"{url}.value"),
                self.inner.holds(build, Row(f"{link}.seq")),
            )
        )
        return f"EXISTS (SELECT 1 FROM ix_uri {url} CROSS JOIN ix_reference {link} WHERE {tests}{build.alone})"

    def _back(self, build: Build, rows: str, tail: Tail) -> str:
        inner, link, url = build.alias(), build.alias(), build.alias()
        tests = every(
            (
                f"{link}.seq = {build.hidden(f'{inner}.seq')}",
                build.numbers(f"{link}.param", self.params),
                build.numbers(f"{url}.param", self.urls),
                build.equal(f"{url}.value", f"{link}.target"),
                tail(Row(f"{url}.seq")),
            )
        )
        return (
            f"SELECT {url}.seq AS seq FROM ({rows}) {inner} "
            f"CROSS JOIN ix_reference {link} CROSS JOIN ix_uri {url} WHERE {tests}"
        )
