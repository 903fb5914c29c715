"""Which codes are in a value set, and which are under or above a code.

https://hl7.org/fhir/R4/valueset.html#compositions, https://hl7.org/fhir/R4/codesystem.html#subsumption
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import reduce
from typing import Any, Protocol

from carelake.core.errors import Invalid, Unsupported
from carelake.fhir.terminology.filters import filtered
from carelake.fhir.terminology.hierarchy import Hierarchy
from carelake.fhir.terminology.lexicon import Lexicon
from carelake.fhir.terminology.maps import ConceptMap
from carelake.fhir.terminology.model import CodeSystem, Part, ValueSet
from carelake.fhir.terminology.shipped import SHIPPED

__all__ = ["MAX_CODES", "Coded", "Library", "LocalTerminology", "Terminology", "shown"]

Coded = tuple[str, str | None]
"""A system and a code; code None for every code of the system."""

MAX_CODES = 100_000
MAX_LISTED = 1000
MAX_NESTED = 20
MAX_WORK = 3_000_000
"""Codes that are looked at for one question, however its value sets are made of others."""
MAX_NAMED = 1000
"""Systems, sets and maps that are looked for to answer one question."""
_WELL_KNOWN = frozenset(
    {
        "http://snomed.info/sct",
        "http://loinc.org",
        "http://www.ama-assn.org/go/cpt",
        "http://www.nlm.nih.gov/research/umls/rxnorm",
        "http://unitsofmeasure.org",
        "http://hl7.org/fhir/sid/icd-10",
        "http://hl7.org/fhir/sid/icd-10-cm",
        "http://hl7.org/fhir/sid/cvx",
        "http://hl7.org/fhir/sid/ndc",
        "urn:ietf:bcp:47",
        "urn:ietf:bcp:13",
        "urn:iso:std:iso:3166",
        "urn:iso:std:iso:4217",
    }
)


class Terminology(Protocol):
    """What searches with ``:in``, ``:not-in``, ``:above`` and ``:below`` ask."""

    def expand(self, url: str) -> Iterable[Coded]:
        """The codes of a value set, named by its canonical (``url`` or ``url|version``).

        Raises:
            Unsupported: ``terminology.unknown_value_set``, or a code system is missing.
        """

    def below(self, system: str, code: str) -> Iterable[Coded]:
        """The code itself and all that it subsumes."""

    def above(self, system: str, code: str) -> Iterable[Coded]:
        """The code itself and all that subsume it."""


class Library(Protocol):
    """Where code systems, value sets and concept maps come from; each is named by ``url`` or ``url|version``."""

    def code_system(self, url: str) -> CodeSystem | None:
        """The code system of a url."""

    def lexicon(self, url: str) -> Lexicon | None:
        """The texts of a code system."""

    def value_set(self, url: str) -> ValueSet | None:
        """The value set of a url."""

    def concept_map(self, url: str) -> ConceptMap | None:
        """The concept map of a url."""

    def maps(self, system: str, *, to: bool = False) -> Iterable[ConceptMap]:
        """The concept maps from a code system, or to it."""


class LocalTerminology:
    """Answers from libraries; the first that knows a url is asked. Made for one question: its work is bounded.

    Args:
        most_listed: a whole system is listed code by code up to this size, and a bare ``(system, None)`` beyond it.

    Raises of all methods:
        Unsupported: ``terminology.unknown_value_set``, ``terminology.unknown_code_system``,
            ``terminology.filter``, ``terminology.too_deep``.
        Invalid: ``terminology.unknown_code``, ``terminology.too_many``.
    """

    def __init__(self, *libraries: Library, most_listed: int = MAX_LISTED) -> None:
        self._libraries = libraries
        self._most_listed = most_listed
        self._trees: dict[str, Hierarchy] = {}
        self._expanded: dict[str, frozenset[Coded]] = {}
        self._work = 0
        self._named: set[tuple[str, str]] = set()

    def beside(self, library: Library) -> LocalTerminology:
        """The same with another library before the others: with what a question brings itself."""
        return LocalTerminology(library, *self._libraries, most_listed=self._most_listed)

    def expand(self, url: str) -> tuple[Coded, ...]:
        """The codes of a value set, sorted."""
        found = self._expand(url, ())
        return tuple(sorted(found, key=lambda one: (one[0], one[1] or "")))

    def below(self, system: str, code: str) -> tuple[Coded, ...]:
        """The code itself and all that it subsumes."""
        tree = self._known(system)
        self._spend(len(tree.system.codes))
        return tuple((system, one) for one in _started(tree, code, tree.below))

    def above(self, system: str, code: str) -> tuple[Coded, ...]:
        """The code itself and all that subsume it."""
        tree = self._known(system)
        self._spend(len(tree.system.codes))
        return tuple((system, one) for one in _started(tree, code, tree.above))

    def tree(self, url: str) -> Hierarchy | None:
        """The codes of a system (``url``, ``url|version``), None where it is not known."""
        if url not in self._trees:
            found = self._first("code_system", url)
            if found is None:
                return None
            self._trees[url] = Hierarchy(found)
        return self._trees[url]

    def lexicon(self, url: str) -> Lexicon | None:
        """The texts of a system (``url``, ``url|version``)."""
        found: Lexicon | None = self._first("lexicon", url)
        return found

    def concept_map(self, url: str) -> ConceptMap | None:
        """A concept map (``url``, ``url|version``)."""
        found: ConceptMap | None = self._first("concept_map", url)
        return found

    def maps(self, system: str, *, to: bool = False) -> list[ConceptMap]:
        """The concept maps from a code system, or to it; one that is stored hides one of its url that ships."""
        found: dict[str, ConceptMap] = {}
        for library in self._libraries:
            for one in library.maps(system, to=to):
                found.setdefault(one.url, one)
        return list(found.values())

    def value_set(self, url: str) -> ValueSet:
        """A value set (``url``, ``url|version``)."""
        found: ValueSet | None = self._first("value_set", url)
        if found is None:
            raise Unsupported(
                "terminology.unknown_value_set",
                f"{shown('The value set', url)} is not known here; store its ValueSet resource, then ask again.",
            )
        return found

    def members(self, told: ValueSet, within: tuple[str, ...] = ()) -> frozenset[Coded]:
        """The codes of a value set that need not be in a library."""
        taken = self._union(told.include, within)
        left = self._union(told.exclude, within)
        if not left:
            return taken
        whole = {system for system, code in taken if code is None}
        if any(system in whole for system, _ in left):
            raise _no_system(next(system for system, _ in left if system in whole))
        left_whole = {system for system, code in left if code is None}
        return frozenset(one for one in taken - left if one[0] not in left_whole)

    def _first(self, what: str, canonical: str) -> Any:
        """What the first library has under a canonical; a version that is not its newest is asked for by name."""
        self._named.add((what, canonical))
        if len(self._named) > MAX_NAMED:
            raise Invalid("terminology.too_many", f"More than {MAX_NAMED} code systems and value sets are needed.")
        url, _, version = canonical.partition("|")
        for library in self._libraries:
            ask = getattr(library, what)
            found = ask(url)
            if found is not None and version not in ("", found.version):
                found = ask(canonical)
            if found is not None and version in ("", found.version):
                return found
        return None

    def _known(self, url: str) -> Hierarchy:
        found = self.tree(url)
        if found is None or not found.system.codes:
            raise _no_system(url)
        return found

    def _expand(self, url: str, within: tuple[str, ...]) -> frozenset[Coded]:
        if url in within or len(within) >= MAX_NESTED:
            raise Unsupported("terminology.too_deep", "A value set is made of itself, or of too many one in another.")
        if url not in self._expanded:
            self._expanded[url] = self.members(self.value_set(url), (*within, url))
        return self._expanded[url]

    def _union(self, parts: Sequence[Part], within: tuple[str, ...]) -> frozenset[Coded]:
        found: set[Coded] = set()
        for part in parts:
            taken = self._part(part, within)
            self._spend(len(taken) + 10)
            found |= taken
            if len(found) > MAX_CODES:
                raise Invalid("terminology.too_many", f"A value set has more than {MAX_CODES} codes.")
        return frozenset(found)

    def _spend(self, work: int) -> None:
        self._work += work
        if self._work > MAX_WORK:
            raise Invalid("terminology.too_many", "A value set is made of too many parts to be worked out here.")

    def _part(self, part: Part, within: tuple[str, ...]) -> frozenset[Coded]:
        sets = [self._expand(url, within) for url in part.value_sets]
        self._spend(sum(map(len, sets)))
        if part.system:
            sets.insert(0, self._of_system(part))
        return reduce(_both, sets) if sets else frozenset()

    def _whole(self, part: Part) -> frozenset[Coded]:
        """A system code by code where that is known and short, so that codes without a system can be found too."""
        tree = self.tree(_versioned(part))
        if tree is None or not tree.system.complete or not 0 < len(tree.system.codes) <= self._most_listed:
            return frozenset({(part.system, None)})
        return frozenset((part.system, code) for code in tree.system.codes)

    def _of_system(self, part: Part) -> frozenset[Coded]:
        if part.withheld:
            raise _no_system(part.system)
        if part.codes is not None:
            return frozenset((part.system, code) for code in part.codes)
        if not part.filters:
            return self._whole(part)
        return frozenset((part.system, code) for code in self.chosen(part))

    def chosen(self, part: Part) -> set[str]:
        """The codes that a part takes from its system by filters."""
        tree = self._known(_versioned(part))
        system = tree.system
        if not system.complete:
            raise _no_system(part.system)
        chosen = set(system.codes)
        for one in part.filters:
            self._spend(len(system.codes))
            try:
                met = filtered(tree, one, lambda: self.lexicon(_versioned(part)))
            except KeyError:
                raise _no_code(system) from None
            if met is None:
                raise Unsupported(
                    "terminology.filter",
                    f"{shown('The code system', part.system)} is filtered in a way that is not offered.",
                )
            chosen &= met
        return chosen


def _versioned(part: Part) -> str:
    return f"{part.system}|{part.version}" if part.version else part.system


def _both(left: frozenset[Coded], right: frozenset[Coded]) -> frozenset[Coded]:
    """What is in both; a whole system holds each of its codes."""
    whole_left = {system for system, code in left if code is None}
    whole_right = {system for system, code in right if code is None}
    of_left = {one for one in left if one in right or one[0] in whole_right}
    of_right = {one for one in right if one[0] in whole_left}
    return frozenset(of_left | of_right)


def _started(tree: Hierarchy, code: str, walk: Callable[[str], list[str]]) -> list[str]:
    try:
        return walk(code)
    except KeyError:
        raise _no_code(tree.system) from None


def _no_code(system: CodeSystem) -> Invalid:
    return Invalid(
        "terminology.unknown_code", f"{shown('The code system', system.url)} has no such code to start from."
    )


def shown(what: str, url: str) -> str:
    """With the url where it is one that ships or is widely known: others may be a caller's value."""
    url = url.partition("|")[0]
    known = url in _WELL_KNOWN or SHIPPED.code_system(url) is not None or SHIPPED.value_set(url) is not None
    return f"{what} {url}" if known else what


def _no_system(url: str) -> Unsupported:
    return Unsupported(
        "terminology.unknown_code_system",
        f"{shown('The code system', url)} is needed for this and is not known here; store its CodeSystem resource.",
    )
