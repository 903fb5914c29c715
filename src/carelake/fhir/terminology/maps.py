"""Concept maps, and which codes they lead to (https://hl7.org/fhir/R4/conceptmap-operation-translate.html)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

__all__ = ["ConceptMap", "Element", "Group", "Other", "Target", "Unmapped", "concept_map"]


class Other(msgspec.Struct, frozen=True, array_like=True):
    """Another element that a mapping depends on, or brings along."""

    property: str
    system: str
    value: str
    display: str = ""


class Target(msgspec.Struct, frozen=True, array_like=True):
    """What a code is mapped to; code "" where there is none such."""

    code: str
    equivalence: str
    display: str = ""
    comment: str = ""
    depends: tuple[Other, ...] = ()
    products: tuple[Other, ...] = ()


class Element(msgspec.Struct, frozen=True, array_like=True):
    """A code and what it is mapped to."""

    code: str
    targets: tuple[Target, ...]
    display: str = ""


class Unmapped(msgspec.Struct, frozen=True, array_like=True):
    """What holds of codes that no element names: ``provided``, ``fixed`` or ``other-map``; mode "" for nothing."""

    mode: str = ""
    code: str = ""
    display: str = ""
    url: str = ""


class Group(msgspec.Struct, frozen=True, array_like=True):
    """Mappings from one code system to one other."""

    source: str
    target: str
    elements: tuple[Element, ...]
    unmapped: Unmapped = Unmapped()
    source_version: str = ""
    target_version: str = ""


class ConceptMap(msgspec.Struct, frozen=True, array_like=True):
    """Groups of mappings (https://hl7.org/fhir/R4/conceptmap.html).

    Attributes:
        source, target: canonicals of the value sets that it maps between, "" where not said.
    """

    url: str
    version: str
    source: str
    target: str
    groups: tuple[Group, ...]


def concept_map(resource: Mapping[str, Any]) -> ConceptMap:
    """The mappings of a valid ConceptMap resource."""
    return ConceptMap(
        resource.get("url", ""),
        resource.get("version", ""),
        resource.get("sourceUri") or resource.get("sourceCanonical", ""),
        resource.get("targetUri") or resource.get("targetCanonical", ""),
        tuple(map(_group, resource.get("group", ()))),
    )


def _group(told: Mapping[str, Any]) -> Group:
    rest = told.get("unmapped", {})
    return Group(
        told.get("source", ""),
        told.get("target", ""),
        tuple(_elements(told.get("element", ()))),
        Unmapped(rest.get("mode", ""), rest.get("code", ""), rest.get("display", ""), rest.get("url", "")),
        told.get("sourceVersion", ""),
        told.get("targetVersion", ""),
    )


def _elements(listed: Iterable[Mapping[str, Any]]) -> Iterator[Element]:
    for one in listed:
        if "code" in one:
            targets = (_target(target) for target in one.get("target", ()) if "equivalence" in target)
            yield Element(one["code"], tuple(targets), one.get("display", ""))


def _target(told: Mapping[str, Any]) -> Target:
    return Target(
        told.get("code", ""),
        told["equivalence"],
        told.get("display", ""),
        told.get("comment", ""),
        tuple(map(_other, told.get("dependsOn", ()))),
        tuple(map(_other, told.get("product", ()))),
    )


def _other(told: Mapping[str, Any]) -> Other:
    return Other(told.get("property", ""), told.get("system", ""), told.get("value", ""), told.get("display", ""))
