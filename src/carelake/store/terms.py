"""Value sets, code systems and concept maps that are resources of the record, for searches and operations.

What is stored goes before what ships; of several with one url the newest counts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from threading import Lock
from typing import Any

import msgspec

from carelake.fhir.query import Query, parse
from carelake.fhir.query.texts import escape, is_id
from carelake.fhir.terminology import SHIPPED, LocalTerminology, ResourceLibrary
from carelake.fhir.terminology.lexicon import Lexicon, lexicon
from carelake.fhir.terminology.model import CodeSystem, code_system
from carelake.store.search.answers import SearchResult, Shown

__all__ = ["Systems", "stored_terminology"]

_MAPS = 100
"""Stored concept maps from one code system that are looked into."""
_NEWEST = [("_sort", "-_lastUpdated"), ("_count", "1"), ("_total", "none")]
_MOST_CODES = 500_000

System = tuple[CodeSystem, Lexicon]


class Systems:
    """Code systems that were taken apart lately, by the digest of their body: a large one takes a second.

    Whether a caller may see one was decided before: it was found in their scope.
    """

    def __init__(self, most_codes: int = _MOST_CODES) -> None:
        self._most = most_codes
        self._lock = Lock()
        self._kept: dict[bytes, System] = {}

    def read(self, found: Shown) -> System:
        """The codes and texts of a CodeSystem."""
        key = hashlib.sha256(msgspec.json.encode(found.raw)).digest()
        with self._lock:
            kept = self._kept.pop(key, None)
            if kept is not None:
                self._kept[key] = kept
                return kept
        resource = found.resource
        made = (code_system(resource), lexicon(resource))
        with self._lock:
            self._kept[key] = made
            self._shrink()
        return made

    def _shrink(self) -> None:
        """Let go of those that were not asked for the longest."""
        size = sum(len(system.codes) + 1 for system, _ in self._kept.values())
        for key in list(self._kept):
            if size <= self._most:
                return
            size -= len(self._kept.pop(key)[0].codes) + 1


def stored_terminology(
    answers: Callable[[Query], SearchResult], systems: Systems | None = None, **more: int
) -> LocalTerminology:
    """The terminology of a record.

    Args:
        answers: answers a search of ValueSet, CodeSystem or ConceptMap, within the scope of who asks.
        more: of `LocalTerminology`.
    """
    known = systems or Systems()

    def first(kind: str, canonical: str) -> Shown | None:
        url, _, version = canonical.partition("|")
        asked = [("url", escape(url)), *([("version", escape(version))] if version else []), *_NEWEST]
        if kind == "ValueSet" and url.startswith("ValueSet/") and is_id(url[9:]):
            asked = [("_id", url[9:])]  # an address goes before a name
        found = answers(parse(kind, asked)).found if url else ()
        return found[0] if found else None

    def find(kind: str, canonical: str) -> dict[str, Any] | None:
        found = first(kind, canonical)
        return None if found is None else found.resource

    def read(canonical: str) -> System | None:
        found = first("CodeSystem", canonical)
        return None if found is None else known.read(found)

    def maps(system: str, to: bool) -> list[dict[str, Any]]:
        name = "target-system" if to else "source-system"
        asked = [(name, escape(system)), ("_sort", "-_lastUpdated"), ("_count", str(_MAPS)), ("_total", "none")]
        return answers(parse("ConceptMap", asked)).matches if system else []

    return LocalTerminology(ResourceLibrary(find, maps, read), SHIPPED, **more)
