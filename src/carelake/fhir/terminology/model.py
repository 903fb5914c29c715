"""What searches need of CodeSystem and ValueSet resources, read from them once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from carelake.core.errors import Unsupported

__all__ = ["CodeSystem", "Filter", "Part", "ValueSet", "code_system", "value_set"]

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
    """

    system: str
    codes: tuple[str, ...] | None = None
    filters: tuple[Filter, ...] = ()
    value_sets: tuple[str, ...] = ()
    withheld: bool = False


class ValueSet(msgspec.Struct, frozen=True, array_like=True):
    """What is in and what is out (https://hl7.org/fhir/R4/valueset.html)."""

    url: str
    version: str
    include: tuple[Part, ...]
    exclude: tuple[Part, ...] = ()


def code_system(resource: Mapping[str, Any]) -> CodeSystem:
    """The codes of a valid CodeSystem resource.

    Raises:
        Unsupported: ``terminology.too_deep``.
    """
    codes: dict[str, int] = {}
    edges: list[tuple[str, str]] = []
    for code, parent, concept in _concepts(resource.get("concept", ()), "", 0):
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


def _concepts(
    concepts: Iterator[Any] | list[Any], parent: str, depth: int
) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    if depth > MAX_DEPTH:
        raise Unsupported("terminology.too_deep", f"A code system is nested more than {MAX_DEPTH} deep.")
    for concept in concepts:
        yield concept["code"], parent, concept
        yield from _concepts(concept.get("concept", ()), concept["code"], depth + 1)


def value_set(resource: Mapping[str, Any]) -> ValueSet:
    """The contents of a valid ValueSet resource: its ``compose``, or without one its ``expansion``."""
    compose = resource.get("compose")
    if compose is None:
        listed: dict[str, list[str]] = {}
        for system, code in _contains(resource.get("expansion", {}).get("contains", ()), 0):
            listed.setdefault(system, []).append(code)
        include = tuple(Part(system, tuple(codes)) for system, codes in listed.items())
        return ValueSet(resource.get("url", ""), resource.get("version", ""), include)
    return ValueSet(
        resource.get("url", ""),
        resource.get("version", ""),
        tuple(map(_part, compose.get("include", ()))),
        tuple(map(_part, compose.get("exclude", ()))),
    )


def _contains(entries: Any, depth: int) -> Iterator[tuple[str, str]]:
    if depth > MAX_DEPTH:
        raise Unsupported("terminology.too_deep", f"An expansion is nested more than {MAX_DEPTH} deep.")
    for entry in entries:
        if "code" in entry and not entry.get("abstract"):
            yield entry.get("system", ""), entry["code"]
        yield from _contains(entry.get("contains", ()), depth + 1)


def _part(told: Mapping[str, Any]) -> Part:
    return Part(
        told.get("system", ""),
        tuple(concept["code"] for concept in told["concept"]) if "concept" in told else None,
        tuple(Filter(one["property"], one["op"], one["value"]) for one in told.get("filter", ())),
        tuple(told.get("valueSet", ())),
    )
