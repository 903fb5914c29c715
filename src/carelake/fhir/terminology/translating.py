"""``$translate``: what concept maps map a code to (https://hl7.org/fhir/R4/conceptmap-operation-translate.html)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from carelake.core.errors import Invalid
from carelake.fhir.terminology.maps import ConceptMap, Element, Group, Other, Target

__all__ = ["MAX_MATCHES", "Asked", "Match", "answer", "translate"]

MAX_MATCHES = 1000
_MAX_MAPS = 50
_NOT_A_MATCH = frozenset({"unmatched", "disjoint"})
_INVERSE = {"wider": "narrower", "narrower": "wider", "subsumes": "specializes", "specializes": "subsumes"}

Chain = Callable[[str], ConceptMap | None]
"""Finds the map that another hands over to (``other-map``)."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be translated.

    Attributes:
        source, target: value sets that the map must be between, "" for any; of a reverse translation the other way.
        target_system: code system that is sought, "" for any.
        depends: property, system and value of elements that are known beside it.
    """

    system: str
    code: str
    version: str = ""
    source: str = ""
    target: str = ""
    target_system: str = ""
    reverse: bool = False
    depends: Collection[tuple[str, str, str]] = ()


@dataclass(frozen=True, slots=True)
class Match:
    """A code that it is mapped to, or that no code is: ``code`` "" then."""

    equivalence: str
    system: str
    code: str
    display: str
    source: str
    version: str = ""
    products: tuple[Other, ...] = ()


def translate(maps: Iterable[ConceptMap], asked: Asked, chain: Chain = lambda url: None) -> tuple[list[Match], bool]:
    """The matches in the order of the maps, and whether some were left out for what they depend on.

    Raises:
        Invalid: ``terminology.too_many``.
    """
    found: list[Match] = []
    hidden = False
    known = {*asked.depends, *((name, "", value) for name, _, value in asked.depends)}
    for one in maps:
        if not _between(one, asked):
            continue
        for match, depends in _matches(one, asked, chain, set()):
            if _met(depends, known):
                found.append(match)
            else:
                hidden = True
            if len(found) > MAX_MATCHES:
                raise Invalid("terminology.too_many", f"The code is mapped to more than {MAX_MATCHES} others.")
    return list(dict.fromkeys(found)), hidden


def _between(one: ConceptMap, asked: Asked) -> bool:
    ends = (one.target, one.source) if asked.reverse else (one.source, one.target)
    return all(not wanted or wanted == end for wanted, end in zip((asked.source, asked.target), ends, strict=True))


def _met(depends: Sequence[Other], known: Collection[tuple[str, str, str]]) -> bool:
    return all((one.property, one.system, one.value) in known for one in depends)


def _matches(
    one: ConceptMap, asked: Asked, chain: Chain, seen: set[str]
) -> Iterator[tuple[Match, tuple[Other, ...]]]:
    for group in one.groups:
        here, there = (group.target, group.source) if asked.reverse else (group.source, group.target)
        if here != asked.system or asked.target_system not in ("", there):
            continue
        if asked.version and asked.version != (
            (group.target_version if asked.reverse else group.source_version) or asked.version
        ):
            continue
        if asked.reverse:
            yield from _back(one, group, asked.code)
        else:
            yield from _forth(one, group, asked, chain, seen)


def _forth(
    one: ConceptMap, group: Group, asked: Asked, chain: Chain, seen: set[str]
) -> Iterator[tuple[Match, tuple[Other, ...]]]:
    named = [element for element in group.elements if element.code == asked.code]
    for element in named:
        for target in element.targets:
            yield _match(one, group, target), target.depends
    if named:
        return
    rest = group.unmapped
    if rest.mode == "provided":
        yield Match("equal", group.target, asked.code, "", one.url, group.target_version), ()
    elif rest.mode == "fixed":
        yield Match("inexact", group.target, rest.code, rest.display, one.url, group.target_version), ()
    elif rest.mode == "other-map" and rest.url not in seen and len(seen) < _MAX_MAPS:
        seen.add(rest.url)  # each is asked once, however many hand over to it
        other = chain(rest.url)
        if other is not None:
            yield from _matches(other, asked, chain, seen)


def _match(one: ConceptMap, group: Group, target: Target) -> Match:
    return Match(
        target.equivalence,
        group.target,
        target.code,
        target.display,
        one.url,
        group.target_version,
        target.products,
    )


def _back(one: ConceptMap, group: Group, code: str) -> Iterator[tuple[Match, tuple[Other, ...]]]:
    for element in group.elements:
        for target in element.targets:
            if target.code == code:
                yield _reversed(one, group, element, target), target.depends


def _reversed(one: ConceptMap, group: Group, element: Element, target: Target) -> Match:
    said = _INVERSE.get(target.equivalence, target.equivalence)
    return Match(said, group.source, element.code, element.display, one.url, group.source_version)


def answer(matches: Sequence[Match], hidden: bool, display: Callable[[str, str], str]) -> list[dict[str, Any]]:
    """The parameters of the answer.

    Args:
        display: of a system and a code, "" where it is not known; for matches that have none in their map.
    """
    good = any(one.equivalence not in _NOT_A_MATCH and one.code for one in matches)
    said = "" if good else "No map that is known here maps the code to another."
    if hidden:
        said = f"{said} Some mappings depend on other elements, which were not given.".strip()
    told: list[dict[str, Any]] = [{"name": "result", "valueBoolean": good}]
    told += [{"name": "message", "valueString": said}] if said else []
    return told + [_part(one, display) for one in matches]


def _part(one: Match, display: Callable[[str, str], str]) -> dict[str, Any]:
    parts: list[dict[str, Any]] = [{"name": "equivalence", "valueCode": one.equivalence}]
    if one.code:
        coding = {"system": one.system, "version": one.version, "code": one.code}
        coding["display"] = one.display or display(one.system, one.code)
        parts.append({"name": "concept", "valueCoding": {name: text for name, text in coding.items() if text}})
    parts += [_product(other) for other in one.products if other.property]
    return {"name": "match", "part": parts + ([{"name": "source", "valueUri": one.source}] if one.source else [])}


def _product(other: Other) -> dict[str, Any]:
    coding = {"system": other.system, "code": other.value, "display": other.display}
    return {
        "name": "product",
        "part": [
            {"name": "element", "valueUri": other.property},
            {"name": "concept", "valueCoding": {name: text for name, text in coding.items() if text}},
        ],
    }
