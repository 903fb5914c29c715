"""One page of a search, as every door makes it: read, decided for all types that it touches, answered, told.

A search says something about every type whose content decides on the answer: those of chains, of ``_has``, and those
that includes may bring. Each must be allowed to the caller, else the whole search is refused (decision 0031).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from carelake.access.gate import Gate
from carelake.core.permit import Permit
from carelake.fhir.bundle import search_entry
from carelake.fhir.query import Query
from carelake.fhir.search.registry import Registry
from carelake.store.resources import Resources
from carelake.store.search import SearchResult

__all__ = ["Found", "Searchable", "entries", "find"]


class Searchable(Protocol):
    """What a search needs of a workspace."""

    gate: Gate

    @property
    def resources(self) -> Resources:
        """The record."""
        ...


@dataclass(frozen=True, slots=True)
class Found:
    """A search as it was understood, and a page of what it found."""

    query: Query
    result: SearchResult


def find(
    door: Searchable,
    permit: Permit,
    read: Callable[[Registry], Query],
    page: str = "",
    sized: Callable[[Query], Query] = lambda query: query,
) -> Found:
    """One page of matches.

    Args:
        permit: for ``record:search``; it is widened to all types that the search touches.
        read: makes the query of the account's search parameters.
        page: `SearchResult.next` of the page before.
        sized: gives it another page size than was asked for; what it was asked for stays in `Found.query`.

    Raises:
        Refused: ``access.denied``.
        Invalid, Unsupported, Conflict: as `carelake.fhir.query.parse` and `Resources.search`.
    """
    registry = door.resources.registry(permit)
    query = read(registry)
    wider = door.gate.widen(permit, query.kinds())
    return Found(query, door.resources.search(wider, sized(query), page))


def entries(found: Found, base: str) -> Iterator[dict[str, Any]]:
    """The page's entries: matches in order, what was included, and what is to be said about the search.

    Values of resources are `msgspec.Raw`: to be encoded as they are.

    Args:
        base: the server's address without slash at the end; with it each entry has its ``fullUrl``.
    """
    for mode, shown in (("match", found.result.found), ("include", found.result.along)):
        for one in shown:
            yield search_entry(one.raw, mode, base)
    issues = [*_ignored(found.query.ignored), *_cut_off(found.result)]
    if issues:
        yield search_entry({"resourceType": "OperationOutcome", "issue": issues}, "outcome")


def _ignored(names: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {
            "severity": "warning",
            "code": "not-supported",
            "details": {"text": "search.ignored"},
            "diagnostics": f"Left out: {name}, not offered or without a value. The answer is not narrowed by it.",
        }
        for name in dict.fromkeys(names)
    ]


def _cut_off(result: SearchResult) -> list[dict[str, Any]]:
    if not result.cut:
        return []
    said = (
        "More is included than one page may bring; some of it was left out. Ask for fewer matches at once (_count)."
    )
    return [
        {"severity": "warning", "code": "too-costly", "details": {"text": "search.include_cut"}, "diagnostics": said}
    ]
