"""Value sets and code systems that are resources of the record, for ``:in``, ``:not-in``, ``:above`` and ``:below``.

What is stored goes before what ships; of several with one url the newest counts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from carelake.fhir.query import Query, parse
from carelake.fhir.query.texts import escape
from carelake.fhir.terminology import SHIPPED, LocalTerminology, ResourceLibrary

__all__ = ["stored_terminology"]

_NEWEST = [("_sort", "-_lastUpdated"), ("_count", "1"), ("_total", "none")]


def stored_terminology(matches: Callable[[Query], list[dict[str, Any]]]) -> LocalTerminology:
    """The terminology of a record.

    Args:
        matches: answers a search of ValueSet or CodeSystem, within the scope of who asks.
    """

    def find(kind: str, url: str) -> dict[str, Any] | None:
        found = matches(parse(kind, [("url", escape(url)), *_NEWEST])) if url else []
        return found[0] if found else None

    return LocalTerminology(ResourceLibrary(find), SHIPPED)
