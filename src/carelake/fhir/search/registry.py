"""The search parameters of each resource type, and those that are not offered, with the reason.

Left out: composites, what the standard gives no expression for, ``phonetic`` (an algorithm of its own), and what is
outside of the grammar of `carelake.fhir.search.expression`. Asking for one is an error, never an unfiltered answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

from carelake.core.errors import Invalid
from carelake.fhir.definitions import SearchDefinition, element, is_resource, search_definitions
from carelake.fhir.search.expression import Misfit, Path, read

__all__ = ["COLUMNS", "SearchParameter", "parameters", "unsupported"]

COLUMNS = frozenset({"_id", "_lastUpdated"})
"""Parameters that the store answers from columns of its own; they have no index values."""


@dataclass(frozen=True, slots=True)
class SearchParameter:
    """A search parameter that has index values.

    Attributes:
        type: ``token``, ``string``, ``date``, ``number``, ``quantity``, ``reference`` or ``uri``.
        paths: where its values are, of this resource type only.
        targets: resource types that a reference may point to, empty for any.
    """

    code: str
    type: str
    paths: tuple[Path, ...]
    targets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Registry:
    offered: Mapping[str, SearchParameter]
    left_out: Mapping[str, str]


def parameters(resource_type: str) -> Mapping[str, SearchParameter]:
    """Search parameters of a resource type by code.

    Raises:
        Invalid: ``fhir.unknown_type``.
    """
    return _registry(resource_type).offered


def unsupported(resource_type: str) -> Mapping[str, str]:
    """Codes of parameters that the standard has and carelake has not, with the reason."""
    return _registry(resource_type).left_out


@cache
def _registry(resource_type: str) -> _Registry:
    if not is_resource(resource_type):
        raise Invalid("fhir.unknown_type", "FHIR R4 has no such resource type; expected for example Patient.")
    bases = {resource_type, "Resource"} | ({"DomainResource"} if "text" in element(resource_type) else set())
    offered: dict[str, SearchParameter] = {}
    left_out: dict[str, str] = {}
    for definition in search_definitions():
        if bases.isdisjoint(definition.base) or definition.code in COLUMNS:
            continue
        try:
            offered[definition.code] = _parameter(definition, bases)
        except Misfit as misfit:
            left_out[definition.code] = str(misfit)
    return _Registry(MappingProxyType(offered), MappingProxyType(left_out))


def _parameter(definition: SearchDefinition, bases: set[str]) -> SearchParameter:
    if definition.type == "composite":
        raise Misfit("composite parameters are not offered")
    if definition.type == "special":
        raise Misfit("parameters of type special are not offered")
    if definition.usage == "phonetic":
        raise Misfit("phonetic matching is not offered")
    paths = tuple(path for path in read(definition.expression) if path.root in bases)
    return SearchParameter(definition.code, definition.type, paths, definition.targets)
