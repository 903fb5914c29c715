"""The CapabilityStatement: what this server does, made from what it is made of.

https://hl7.org/fhir/R4/capabilitystatement.html
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from carelake import __version__
from carelake.apps.http.fhir import capability_operations
from carelake.apps.http.fhir.writing_checks import NOT_KEPT
from carelake.core import canonical
from carelake.fhir.compartment import COMPARTMENTS
from carelake.fhir.definitions import resource_types
from carelake.fhir.query import is_followed, pointed_types
from carelake.fhir.search import Registry, SearchParameter

__all__ = ["Codes", "rendered", "statement"]

# The day this interface last changed; a date of the build would make equal servers say different things.
_DATE = "2026-11-23"
_BULK_DATA = "http://hl7.org/fhir/uv/bulkdata/CapabilityStatement/bulk-data"
_DEFINED = "http://hl7.org/fhir/SearchParameter/"
_COLUMNS = {
    "_has": ("special", ""),
    "_id": ("token", f"{_DEFINED}Resource-id"),
    "_lastUpdated": ("date", f"{_DEFINED}Resource-lastUpdated"),
    "_list": ("special", ""),
}
_EVERYWHERE = ("_id", "_lastUpdated", "_tag", "_profile", "_security", "_source", "_text", "_content")
_INTERACTIONS = (
    "read",
    "vread",
    "update",
    "patch",
    "delete",
    "history-instance",
    "history-type",
    "create",
    "search-type",
)
_MAKING = ("create", "patch", "update")
_SYSTEM = ("transaction", "batch", "search-system", "history-system")
_DOCUMENTATION = (
    "Search with all modifiers and prefixes of R4, chains and _has of any depth, _include and _revinclude with "
    ":iterate, _sort, _count, _total, _summary, _elements; by GET and by POST (_search), in compartments "
    "(Patient/ID/Observation, Patient/ID/*) and over all types (_type). An unknown parameter is an error; with "
    "Prefer: handling=lenient it is left out, and the answer says so."
)

Parameters = Mapping[str, SearchParameter]
Codes = frozenset[tuple[str, str]]
"""Resource types and codes of search parameters."""

_kept: dict[tuple[str, Codes, bool, str], bytes] = {}
_MOST_KEPT = 16


def rendered(
    registry: Registry,
    unbuilt: Codes = frozenset(),
    *,
    security: Mapping[str, Any] | None = None,
    pretty: bool = False,
) -> bytes:
    """The statement as JSON, made once for each set of definitions.

    Args:
        unbuilt: parameters that cannot be asked for yet.
        security: how callers are let in, `carelake.apps.http.smart.security`.
    """
    key = (registry.digest, unbuilt, pretty, repr(security))
    found = _kept.get(key)
    if found is None:
        found = canonical.dump_as_given(statement(registry, unbuilt, security))
        found = msgspec.json.format(found, indent=2) if pretty else found
        if len(_kept) >= _MOST_KEPT:
            _kept.clear()
        _kept[key] = found
    return found


def statement(
    registry: Registry, unbuilt: Codes = frozenset(), security: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The statement: read and search of every resource type, and nothing that is not there."""
    names = sorted(resource_types())
    offered = {
        name: {code: one for code, one in registry.parameters(name).items() if (name, code) not in unbuilt}
        for name in names
    }
    includes, reverse = _includes(offered)
    return {
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": _DATE,
        "kind": "instance",
        "instantiates": [_BULK_DATA],
        "software": {"name": "carelake", "version": __version__},
        "implementation": {"description": "carelake"},
        "fhirVersion": "4.0.1",
        "format": ["application/fhir+json"],
        "patchFormat": ["application/json-patch+json", "application/fhir+json", "application/merge-patch+json"],
        "rest": [
            {
                "mode": "server",
                "documentation": _DOCUMENTATION,
                **({"security": dict(security)} if security else {}),
                "resource": [_resource(name, offered[name], includes[name], reverse[name]) for name in names],
                "interaction": [{"code": code} for code in _SYSTEM],
                "searchParam": _everywhere(offered["Basic"]),
                "operation": capability_operations.of_server(),
                "compartment": [
                    f"http://hl7.org/fhir/CompartmentDefinition/{one[0].lower()}{one[1:]}" for one in COMPARTMENTS
                ],
            }
        ],
    }


def _includes(offered: Mapping[str, Parameters]) -> tuple[Mapping[str, list[str]], Mapping[str, list[str]]]:
    """``Type:reference`` of what each type points by, and of what it is pointed to by."""
    forth: dict[str, list[str]] = {name: ["*"] for name in offered}
    back: dict[str, list[str]] = {name: ["*"] for name in offered}
    for name, parameters in offered.items():
        for code, parameter in sorted(parameters.items()):
            if is_followed(parameter):
                forth[name].append(f"{name}:{code}")
                for pointed in pointed_types(parameter):
                    back[pointed].append(f"{name}:{code}")
    return forth, back


def _resource(name: str, parameters: Parameters, includes: list[str], reverse: list[str]) -> dict[str, Any]:
    offered = {**_COLUMNS, **{code: (one.type, one.url) for code, one in parameters.items()}}
    kept = name not in NOT_KEPT
    return {
        "type": name,
        "interaction": [{"code": code} for code in _INTERACTIONS if kept or code not in _MAKING],
        "versioning": "versioned",
        "readHistory": True,
        "updateCreate": kept,
        "conditionalCreate": kept,
        "conditionalRead": "full-support",
        "conditionalUpdate": kept,
        "conditionalDelete": "single",
        "searchInclude": includes,
        "searchRevInclude": reverse,
        "searchParam": [_parameter(code, *told) for code, told in sorted(offered.items())],
        "operation": capability_operations.of_type(name),
    }


def _everywhere(basic: Parameters) -> list[dict[str, str]]:
    """What a search over all types takes."""
    offered = {**_COLUMNS, **{code: (basic[code].type, basic[code].url) for code in _EVERYWHERE if code in basic}}
    return [_parameter(code, *told) for code, told in sorted({**offered, "_type": ("token", "")}.items())]


def _parameter(code: str, kind: str, url: str) -> dict[str, str]:
    return {"name": code, **({"definition": url} if url else {}), "type": kind}
