"""What searches need of CodeSystem and ValueSet resources, read from them once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from carelake.core.errors import Unsupported

__all__ = ["CodeSystem", "Filter", "Part", "ValueSet", "code_system", "concepts", "value_set"]

MAX_DEPTH = 50


class CodeSystem(msgspec.Struct, frozen=True, array_like=True):
    """Codes and what each is under (https://hl7.org/fhir/R4/codesystem.html).

    Attributes:
        complete: whether all of its codes are here.
        codes: codes in their order.
        parents: for each code the places of its parents in `codes`.
    """

    url: str
    version: str
    complete: bool
    codes: tuple[str, ...]
    parents: tuple[tuple[int, ...], ...]


class Filter(msgspec.Struct, frozen=True, array_like=True):
    """``concept is-a X``: a test of the codes of a system."""

    property: str
    op: str
    value: str


class Part(msgspec.Struct, frozen=True, array_like=True):
    """What a value set takes in, or leaves out: codes of one system that are in all of `value_sets`.

    Attributes:
        system: "" where only other value sets are named.
        codes: None for all of the system that meet the filters.
        withheld: codes are listed, but may not be shipped (decision D16).
        version: of the system, "" for whichever is here.
        displays: for each of `codes` the display that the value set gives it, "" for none; empty where it gives none.
    """

    system: str
    codes: tuple[str, ...] | None = None
    filters: tuple[Filter, ...] = ()
    value_sets: tuple[str, ...] = ()
    withheld: bool = False
    version: str = ""
    displays: tuple[str, ...] = ()


class ValueSet(msgspec.Struct, frozen=True, array_like=True):
    """What is in and what is out (https://hl7.org/fhir/R4/valueset.html).

    Attributes:
        inactive: whether codes that are not used any more are in; None where it does not say.
    """

    url: str
    version: str
    include: tuple[Part, ...]
    exclude: tuple[Part, ...] = ()
    name: str = ""
    title: str = ""
    status: str = ""
    inactive: bool | None = None


def code_system(resource: Mapping[str, Any]) -> CodeSystem:
    """The codes of a valid CodeSystem resource.

    Raises:
        Unsupported: ``terminology.too_deep``.
    """
    codes: dict[str, int] = {}
    edges: list[tuple[str, str]] = []
    for code, parent, concept in concepts(resource):
        codes.setdefault(code, len(codes))
        if parent:
            edges.append((code, parent))
        for told in concept.get("property", ()):
            other = told.get("valueCode", "")
            if other and told.get("code") in ("parent", "subsumedBy"):
                edges.append((code, other))
            elif other and told.get("code") == "child":
                edges.append((other, code))
    parents: list[dict[int, None]] = [{} for _ in codes]
    for code, parent in edges:
        if code in codes and parent in codes and code != parent:
            parents[codes[code]][codes[parent]] = None
    return CodeSystem(
        resource.get("url", ""),
        resource.get("version", ""),
        resource.get("content") == "complete",
        tuple(codes),
        tuple(map(tuple, parents)),
    )


def concepts(resource: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Each code of a valid CodeSystem resource with the one that it stands under, "" for none, and what it is.

    Raises:
        Unsupported: ``terminology.too_deep``.
    """
    return _concepts(resource.get("concept", ()), "", 0)


def _concepts(
    concepts: Iterator[Any] | list[Any], parent: str, depth: int
) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    if depth > MAX_DEPTH:
        raise Unsupported("terminology.too_deep", f"A code system is nested more than {MAX_DEPTH} deep.")
    for concept in concepts:
        code = concept.get("code", "")  # valid without, where extensions stand in for it
        if code:
            yield code, parent, concept
        yield from _concepts(concept.get("concept", ()), code or parent, depth + 1)


def value_set(resource: Mapping[str, Any]) -> ValueSet:
    """The contents of a valid ValueSet resource: its ``compose``, or without one its ``expansion``."""
    compose = resource.get("compose")
    exclude = tuple(map(_part, (compose or {}).get("exclude", ())))
    if compose is None:
        include = _listed(resource.get("expansion", {}))
    else:
        include = tuple(map(_part, compose.get("include", ())))
    return ValueSet(
        resource.get("url", ""),
        resource.get("version", ""),
        include,
        exclude,
        resource.get("name", ""),
        resource.get("title", ""),
        resource.get("status", ""),
        (compose or {}).get("inactive"),
    )


def _listed(expansion: Mapping[str, Any]) -> tuple[Part, ...]:
    listed: dict[str, dict[str, str]] = {}
    for system, code, display in _contains(expansion.get("contains", ()), 0):
        listed.setdefault(system, {}).setdefault(code, display)
    return tuple(Part(system, tuple(codes), displays=_displays(codes.values())) for system, codes in listed.items())


def _displays(told: Iterable[str]) -> tuple[str, ...]:
    found = tuple(told)
    return found if any(found) else ()


def _contains(entries: Any, depth: int) -> Iterator[tuple[str, str, str]]:
    if depth > MAX_DEPTH:
        raise Unsupported("terminology.too_deep", f"An expansion is nested more than {MAX_DEPTH} deep.")
    for entry in entries:
        if "code" in entry and not entry.get("abstract"):
            yield entry.get("system", ""), entry["code"], entry.get("display", "")
        yield from _contains(entry.get("contains", ()), depth + 1)


def _part(told: Mapping[str, Any]) -> Part:
    listed = [concept for concept in told.get("concept", ()) if "code" in concept]
    return Part(
        told.get("system", ""),
        tuple(concept["code"] for concept in listed) if "concept" in told else None,
        tuple(map(_filter, told.get("filter", ()))),
        tuple(url or "" for url in told.get("valueSet", ())),
        version=told.get("version", ""),
        displays=_displays(concept.get("display", "") for concept in listed),
    )


def _filter(told: Mapping[str, Any]) -> Filter:
    return Filter(told.get("property", ""), told.get("op", ""), told.get("value", ""))
