"""The search parameters of each resource type: the standard's, US Core's and custom ones.

Every definition of R4 is offered but ``_query`` and what names an element that R4 has not; ``_content`` only where it
is switched on. `Registry.unsupported` has the reasons; asking for one of those is an error, never an answer without.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from types import MappingProxyType
from typing import Any

import msgspec

from carelake.core.errors import Invalid
from carelake.fhir.definitions import (
    SearchDefinition,
    core_search_definitions,
    element,
    is_resource,
    search_definitions,
)
from carelake.fhir.search.expression import Misfit
from carelake.fhir.search.parameters import SearchParameter, made
from carelake.fhir.search.sources import Source

__all__ = ["BASE", "COLUMNS", "RULES", "Registry", "bases_of", "known_definitions", "parameters", "unsupported"]

COLUMNS = frozenset({"_id", "_lastUpdated"})
"""Parameters that the store answers from columns of its own; they have no index values."""
RULES = 3
"""Number of the rules that make rows of values; what was indexed by others must be built again."""


@dataclass(frozen=True, slots=True)
class _Offer:
    parameters: Mapping[str, SearchParameter]
    unsupported: Mapping[str, str]
    shadowed: Mapping[str, str]
    sources: Mapping[str, Source]


class Registry:
    """Search parameters by resource type; immutable and quick to make, the types are compiled when asked for.

    Args:
        custom: definitions beyond the standard's (`carelake.fhir.search.definition`).
        content: whether ``_content`` is indexed (setting ``search.content``).
    """

    def __init__(self, custom: Sequence[SearchDefinition] = (), *, content: bool = False) -> None:
        self.custom = tuple(sorted(custom, key=lambda one: (one.url, one.code)))
        self.content = content
        self._offers: dict[str, _Offer] = {}
        self._digest = ""
        self.plans: dict[object, Any] = {}
        """What `carelake.fhir.search.extractor` compiled for it."""

    def parameters(self, resource_type: str) -> Mapping[str, SearchParameter]:
        """Search parameters of a resource type by code; `COLUMNS` are not among them.

        Raises:
            Invalid: ``fhir.unknown_type``.
        """
        return self._offer(resource_type).parameters

    def unsupported(self, resource_type: str) -> Mapping[str, str]:
        """Codes of parameters that are defined but not offered, with the reason."""
        return self._offer(resource_type).unsupported

    def shadowed(self, resource_type: str) -> Mapping[str, str]:
        """Urls of custom definitions that are not in force for the type, with the reason: their code is taken."""
        return self._offer(resource_type).shadowed

    def sources(self, resource_type: str) -> Mapping[str, Source]:
        """Every source of the type by name, but those for modifiers (`Source.sides`), which go with their own."""
        return self._offer(resource_type).sources

    @property
    def digest(self) -> str:
        """Name of the set of definitions and rules: equal ones give equal rows."""
        if not self._digest:
            told = (RULES, search_definitions(), core_search_definitions(), self.custom, self.content)
            self._digest = sha256(msgspec.msgpack.encode(told)).hexdigest()
        return self._digest

    def _offer(self, resource_type: str) -> _Offer:
        found = self._offers.get(resource_type)
        if found is None:
            found = self._offers[resource_type] = _offer(resource_type, self.custom, self.content)
        return found


@cache
def known_definitions() -> Mapping[str, SearchDefinition]:
    """The standard's and US Core's definitions by url."""
    return MappingProxyType({one.url: one for one in (*search_definitions(), *core_search_definitions())})


def bases_of(resource_type: str) -> set[str]:
    """The names that a resource type goes by in expressions: its own and those it specialises."""
    return {resource_type, "Resource"} | ({"DomainResource"} if "text" in element(resource_type) else set())


def _offer(resource_type: str, custom: tuple[SearchDefinition, ...], content: bool) -> _Offer:
    if not is_resource(resource_type):
        raise Invalid("fhir.unknown_type", "FHIR R4 has no such resource type; expected for example Patient.")
    bases = bases_of(resource_type)
    known = {**{one.url: one for one in custom}, **known_definitions()}
    offered: dict[str, SearchParameter] = {}
    left_out: dict[str, str] = {}
    shadowed: dict[str, str] = {}
    for one in (*search_definitions(), *core_search_definitions(), *custom):
        if bases.isdisjoint(one.base):
            continue
        if one.code in COLUMNS or one.code in offered or one.code in left_out:
            if one.url not in known_definitions():
                shadowed[one.url] = f"the code {one.code} is already that of another definition"
            continue
        try:
            offered[one.code] = made(one, resource_type, bases, known, content)
        except Misfit as misfit:
            left_out[one.code] = str(misfit)
    sources = {source.name: source for one in offered.values() for source in one.sources}
    return _Offer(
        MappingProxyType(offered), MappingProxyType(left_out), MappingProxyType(shadowed), MappingProxyType(sources)
    )


BASE = Registry()
"""The standard's parameters and US Core's."""


def parameters(resource_type: str) -> Mapping[str, SearchParameter]:
    """As `Registry.parameters` of `BASE`."""
    return BASE.parameters(resource_type)


def unsupported(resource_type: str) -> Mapping[str, str]:
    """As `Registry.unsupported` of `BASE`."""
    return BASE.unsupported(resource_type)
