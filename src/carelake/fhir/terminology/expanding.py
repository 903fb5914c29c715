"""``$expand``: the codes of a value set with their displays, page by page.

https://hl7.org/fhir/R4/valueset-operation-expand.html. Expansions are flat: no code stands under another.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from carelake.core.errors import Invalid, Unsupported
from carelake.fhir.terminology.expansion import LocalTerminology, shown
from carelake.fhir.terminology.lexicon import Concept, Designation
from carelake.fhir.terminology.model import Part, ValueSet

__all__ = ["MAX_FILTER", "MAX_PAGE", "Expanding", "compose", "expand"]

MAX_PAGE = 5000
"""Codes in one answer; a longer expansion is asked for in pages."""

MAX_FILTER = 1000
"""Characters of a text to filter by."""

_NOTHING = Concept()


@dataclass(frozen=True)
class Expanding:
    """How a value set is to be expanded.

    Attributes:
        text: plain text, not an expression: each of its words is in the code, or in one of its texts.
        active: whether codes that are not used any more are left out.
        abstract: whether codes that only group others are in.
        designated: uses and languages, as tokens, of the designations that are wanted; empty for all.
        without: systems that are left out.
        versions: the version that a system must have.
    """

    text: str = ""
    offset: int = 0
    count: int | None = None
    active: bool = False
    abstract: bool = True
    designations: bool = False
    designated: Collection[str] = ()
    language: str = ""
    without: Sequence[str] = ()
    versions: Sequence[str] = field(default_factory=tuple)


def expand(known: LocalTerminology, told: ValueSet, asked: Expanding) -> dict[str, Any]:
    """The ``ValueSet.expansion`` but for its identifier and time.

    Raises:
        Invalid: ``terminology.too_costly``, more than `MAX_PAGE` codes without a ``count``, or a text to filter by
            of more than `MAX_FILTER` characters.
        Unsupported: ``terminology.unknown_code_system`` and others of `LocalTerminology`, ``terminology.version``.
    """
    if len(asked.text) > MAX_FILTER:
        raise Invalid("terminology.too_costly", f"The filter has more than {MAX_FILTER} characters.")
    _versioned(known, asked.versions)
    listed = list(_entries(known, told, asked))
    used = _used(known, listed)
    if asked.count is None and len(listed) - asked.offset > MAX_PAGE:
        raise Invalid(
            "terminology.too_costly",
            f"The expansion has more than {MAX_PAGE} codes; ask for pages of it by offset and count, or filter it.",
        )
    end = len(listed) if asked.count is None else asked.offset + min(asked.count, MAX_PAGE)
    paged = asked.count is not None or asked.offset > 0
    return {
        "total": len(listed),
        **({"offset": asked.offset} if paged else {}),
        "parameter": used,
        **_some("contains", [entry for _, entry in listed[asked.offset : end]]),
    }


def _some(name: str, listed: list[Any]) -> dict[str, Any]:
    return {name: listed} if listed else {}


def _contains(entry: dict[str, Any], concept: Concept, words: Collection[str]) -> bool:
    """Whether each word is in the code or in one of its texts, whatever the case."""
    held = "\n".join([entry["code"], entry.get("display", ""), *concept.texts()]).casefold()
    return all(word in held for word in words)


def _versioned(known: LocalTerminology, versions: Iterable[str]) -> None:
    for told in versions:
        system, bar, _ = told.partition("|")
        if bar and known.tree(system) is not None and known.tree(told) is None:
            raise Unsupported(
                "terminology.version", f"{shown('The code system', system)} is not here in that version."
            )


def _entries(known: LocalTerminology, told: ValueSet, asked: Expanding) -> Iterator[tuple[str, dict[str, Any]]]:
    words = dict.fromkeys(asked.text.casefold().split())
    listed = _listed(told)
    left_out = {system.partition("|")[0] for system in asked.without}
    active = asked.active or told.inactive is False
    for system, codes in _in_order(known, told, listed).items():
        if system in left_out:
            continue
        describe = _describer(known, system)
        named = listed.get(system, {})
        for code in codes:
            concept = describe(code)
            if (active and concept.inactive) or (concept.abstract and not asked.abstract):
                continue
            entry = _entry(system, code, concept, named.get(code, ""), asked)
            if not words or _contains(entry, concept, words):
                yield system, entry


def _listed(told: ValueSet) -> dict[str, dict[str, str]]:
    """The codes that a value set lists, by system and in its order, with the displays that it gives them."""
    found: dict[str, dict[str, str]] = {}
    for part in told.include:
        of_system = found.setdefault(part.system, {})
        for code, text in zip(part.codes or (), part.displays or ("",) * len(part.codes or ()), strict=True):
            of_system[code] = text or of_system.get(code, "")
    return found


def _in_order(
    known: LocalTerminology, told: ValueSet, listed: Mapping[str, Mapping[str, str]]
) -> dict[str, list[str]]:
    """Codes by system, as the value set names these; those of a system in the system's own order."""
    found: dict[str, list[str]] = {}
    for system, code in known.members(told):
        if code is None:
            raise Unsupported(
                "terminology.unknown_code_system",
                f"{shown('The code system', system)} is in the value set as a whole, and its codes are not here.",
            )
        found.setdefault(system, []).append(code)
    named = [system for system in listed if system in found]
    return {
        system: _sorted(known, listed.get(system, {}), system, found[system])
        for system in dict.fromkeys([*named, *sorted(found)])
    }


def _sorted(known: LocalTerminology, listed: Iterable[str], system: str, codes: list[str]) -> list[str]:
    own = {code: place for place, code in enumerate(listed)}
    tree = known.tree(system)
    places = tree.places if tree is not None else {}
    last = len(own) + len(places)
    return sorted(codes, key=lambda code: (own.get(code, len(own)), places.get(code, last), code))


def _describer(known: LocalTerminology, system: str) -> Callable[[str], Concept]:
    tree, words = known.tree(system), known.lexicon(system)
    if tree is None or words is None:
        return lambda code: _NOTHING
    concepts, places = words.concepts, tree.places

    def describe(code: str) -> Concept:
        at = places.get(code)
        return _NOTHING if at is None or at >= len(concepts) else concepts[at]

    return describe


def _entry(system: str, code: str, concept: Concept, named: str, asked: Expanding) -> dict[str, Any]:
    entry: dict[str, Any] = {"system": system} if system else {}
    entry |= {"abstract": True} if concept.abstract else {}
    entry |= {"inactive": True} if concept.inactive else {}
    entry["code"] = code
    display = concept.display_in(asked.language) if asked.language else named or concept.display
    entry |= {"display": display or named} if display or named else {}
    wanted = [one for one in concept.designations if asked.designations and _wanted(one, asked.designated)]
    return entry | _some("designation", [_designation(one) for one in wanted])


def _wanted(one: Designation, tokens: Collection[str]) -> bool:
    """Whether it is for one of some uses (``system|code``) or languages (``urn:ietf:bcp:47|de``, ``de``)."""
    if not tokens:
        return True
    said = {one.language, f"urn:ietf:bcp:47|{one.language}", one.use[1], f"{one.use[0]}|{one.use[1]}"} - {""}
    return not said.isdisjoint(tokens)


def _designation(one: Designation) -> dict[str, Any]:
    use = {name: text for name, text in zip(("system", "code", "display"), one.use, strict=True) if text}
    return {
        **({"language": one.language} if one.language else {}),
        **({"use": use} if use else {}),
        "value": one.value,
    }


def _used(known: LocalTerminology, listed: Iterable[tuple[str, Any]]) -> list[dict[str, Any]]:
    """Which version of each system was used."""
    found = []
    for system in dict.fromkeys(system for system, _ in listed):
        words = known.lexicon(system)
        if words is not None and words.version:
            found.append({"name": "version", "valueUri": f"{system}|{words.version}"})
    return found


def compose(told: ValueSet) -> dict[str, Any]:
    """The definition of a value set, as its resource has it.

    Raises:
        Unsupported: ``terminology.withheld``: it lists codes that may not be shipped.
    """
    if any(part.withheld for part in (*told.include, *told.exclude)):
        raise Unsupported(
            "terminology.withheld", "The value set lists codes of a system whose licence does not let them ship."
        )
    found = {"include": [_include(part) for part in told.include]}
    return found | _some("exclude", [_include(part) for part in told.exclude])


def _include(part: Part) -> dict[str, Any]:
    said: dict[str, Any] = {"system": part.system} if part.system else {}
    said |= {"version": part.version} if part.version else {}
    texts = part.displays or ("",) * len(part.codes or ())
    listed = [
        {"code": code, **({"display": text} if text else {})}
        for code, text in zip(part.codes or (), texts, strict=True)
    ]
    filters = [{"property": one.property, "op": one.op, "value": one.value} for one in part.filters]
    return said | _some("concept", listed) | _some("filter", filters) | _some("valueSet", list(part.value_sets))
