"""Which codes are in a value set, and which are under or above a code.

https://hl7.org/fhir/R4/valueset.html#compositions, https://hl7.org/fhir/R4/codesystem.html#subsumption
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import reduce
from typing import Protocol

from carelake.core.errors import Invalid, Unsupported
from carelake.fhir.terminology.model import CodeSystem, Filter, Part, ValueSet
from carelake.fhir.terminology.shipped import SHIPPED

__all__ = ["MAX_CODES", "Coded", "Library", "LocalTerminology", "Terminology"]

Coded = tuple[str, str | None]
"""A system and a code; code None for every code of the system."""

MAX_CODES = 100_000
MAX_LISTED = 1000
MAX_NESTED = 20
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
    """Where code systems and value sets come from."""

    def code_system(self, url: str) -> CodeSystem | None:
        """The code system of a url."""

    def value_set(self, url: str) -> ValueSet | None:
        """The value set of a url."""


class LocalTerminology:
    """Answers from libraries; the first that knows a url is asked.

    Raises of all methods:
        Unsupported: ``terminology.unknown_value_set``, ``terminology.unknown_code_system``,
            ``terminology.filter``, ``terminology.too_deep``.
        Invalid: ``terminology.unknown_code``, ``terminology.too_many``.
    """

    def __init__(self, *libraries: Library) -> None:
        self._libraries = libraries
        self._children: dict[str, list[list[int]]] = {}

    def expand(self, url: str) -> tuple[Coded, ...]:
        """The codes of a value set, sorted."""
        found = self._expand(url, ())
        return tuple(sorted(found, key=lambda one: (one[0], one[1] or "")))

    def below(self, system: str, code: str) -> tuple[Coded, ...]:
        """The code itself and all that it subsumes."""
        known = self._known(system)
        if system not in self._children:
            self._children[system] = _children(known)
        return tuple((system, one) for one in _walk(known, code, self._children[system]))

    def above(self, system: str, code: str) -> tuple[Coded, ...]:
        """The code itself and all that subsume it."""
        return tuple((system, one) for one in _above(self._known(system), code))

    def _known(self, url: str) -> CodeSystem:
        found = self._system(url)
        if found is None or not found.codes:
            raise _no_system(url)
        return found

    def _system(self, url: str) -> CodeSystem | None:
        each = (library.code_system(url) for library in self._libraries)
        return next((one for one in each if one is not None), None)

    def _value_set(self, url: str) -> ValueSet:
        name, _, version = url.partition("|")
        for library in self._libraries:
            found = library.value_set(name)
            if found is not None and version in ("", found.version):
                return found
        raise Unsupported(
            "terminology.unknown_value_set",
            f"{_shown('The value set', name)} is not known here; store its ValueSet resource, then search again.",
        )

    def _expand(self, url: str, within: tuple[str, ...]) -> frozenset[Coded]:
        if url in within or len(within) >= MAX_NESTED:
            raise Unsupported("terminology.too_deep", "A value set is made of itself, or of too many one in another.")
        found = self._value_set(url)
        within = (*within, url)
        taken = self._union(found.include, within)
        left = self._union(found.exclude, within)
        if not left:
            return taken
        whole = {system for system, code in taken if code is None}
        if any(system in whole for system, _ in left):
            raise _no_system(next(system for system, _ in left if system in whole))
        left_whole = {system for system, code in left if code is None}
        return frozenset(one for one in taken - left if one[0] not in left_whole)

    def _union(self, parts: Sequence[Part], within: tuple[str, ...]) -> frozenset[Coded]:
        found: set[Coded] = set()
        for part in parts:
            found |= self._part(part, within)
            if len(found) > MAX_CODES:
                raise Invalid("terminology.too_many", f"A value set has more than {MAX_CODES} codes.")
        return frozenset(found)

    def _part(self, part: Part, within: tuple[str, ...]) -> frozenset[Coded]:
        sets = [self._expand(url, within) for url in part.value_sets]
        if part.system:
            sets.insert(0, self._of_system(part))
        return reduce(_both, sets) if sets else frozenset()

    def _whole(self, url: str) -> frozenset[Coded]:
        """A system code by code where that is known and short, so that codes without a system can be found too."""
        system = self._system(url)
        if system is None or not system.complete or not 0 < len(system.codes) <= MAX_LISTED:
            return frozenset({(url, None)})
        return frozenset((url, code) for code in system.codes)

    def _of_system(self, part: Part) -> frozenset[Coded]:
        if part.withheld:
            raise _no_system(part.system)
        if part.codes is not None:
            return frozenset((part.system, code) for code in part.codes)
        if not part.filters:
            return self._whole(part.system)
        system = self._known(part.system)
        if not system.complete:
            raise _no_system(part.system)
        chosen = set(system.codes)
        for one in part.filters:
            chosen &= _filtered(system, one)
        return frozenset((part.system, code) for code in chosen)


def _both(left: frozenset[Coded], right: frozenset[Coded]) -> frozenset[Coded]:
    """What is in both; a whole system holds each of its codes."""
    whole_left = {system for system, code in left if code is None}
    whole_right = {system for system, code in right if code is None}
    of_left = {one for one in left if one in right or one[0] in whole_right}
    of_right = {one for one in right if one[0] in whole_left}
    return frozenset(of_left | of_right)


def _filtered(system: CodeSystem, told: Filter) -> set[str]:
    if told.property in ("concept", "code"):
        match told.op:
            case "is-a":
                return set(_below(system, told.value))
            case "descendent-of":
                return set(_below(system, told.value)) - {told.value}
            case "is-not-a":
                return set(system.codes).difference(_below(system, told.value))
            case "generalizes":
                return set(_above(system, told.value))
            case "=":
                return {told.value}
            case "in" | "not-in":
                listed = {code.strip() for code in told.value.split(",")}
                return listed if told.op == "in" else set(system.codes) - listed
    raise Unsupported(
        "terminology.filter", f"{_shown('The code system', system.url)} is filtered in a way that is not offered."
    )


def _below(system: CodeSystem, code: str) -> list[str]:
    return _walk(system, code, _children(system))


def _children(system: CodeSystem) -> list[list[int]]:
    children: list[list[int]] = [[] for _ in system.codes]
    for place, parents in enumerate(system.parents):
        for parent in parents:
            children[parent].append(place)
    return children


def _above(system: CodeSystem, code: str) -> list[str]:
    return _walk(system, code, system.parents)


def _walk(system: CodeSystem, code: str, edges: Sequence[Sequence[int]]) -> list[str]:
    try:
        todo = [system.codes.index(code)]
    except ValueError:
        raise Invalid(
            "terminology.unknown_code", f"{_shown('The code system', system.url)} has no such code to start from."
        ) from None
    found = dict.fromkeys(todo)
    while todo:
        for place in edges[todo.pop()]:
            if place not in found:
                found[place] = None
                todo.append(place)
    return [system.codes[place] for place in found]


def _shown(what: str, url: str) -> str:
    """With the url where it is one that ships or is widely known: others may be a caller's value."""
    known = url in _WELL_KNOWN or SHIPPED.code_system(url) is not None or SHIPPED.value_set(url) is not None
    return f"{what} {url}" if known else what


def _no_system(url: str) -> Unsupported:
    return Unsupported(
        "terminology.unknown_code_system",
        f"{_shown('The code system', url)} is needed for this and is not known here; store its CodeSystem resource.",
    )
