"""The CapabilityStatement: what this server does, made from what it is made of.

https://hl7.org/fhir/R4/capabilitystatement.html
"""

from __future__ import annotations

from functools import cache
from typing import Any

from carelake import __version__
from carelake.fhir.definitions import resource_types
from carelake.fhir.search import parameters

__all__ = ["statement"]

# The day this interface last changed; a date of the build would make equal servers say different things.
_DATE = "2026-11-22"
_COLUMNS = {"_id": "token", "_lastUpdated": "date"}
_INTERACTIONS = ("read", "vread", "search-type")


@cache
def statement() -> dict[str, Any]:
    """The statement: read and search of every resource type, and nothing that is not there."""
    return {
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": _DATE,
        "kind": "instance",
        "software": {"name": "carelake", "version": __version__},
        "implementation": {"description": "carelake"},
        "fhirVersion": "4.0.1",
        "format": ["application/fhir+json"],
        "rest": [
            {
                "mode": "server",
                "security": {
                    "description": "A bearer token that says who, for what purpose and in which account; "
                    "every access is decided by policy and recorded."
                },
                "resource": [_resource(name) for name in sorted(resource_types())],
            }
        ],
    }


def _resource(name: str) -> dict[str, Any]:
    offered = {**_COLUMNS, **{code: found.type for code, found in parameters(name).items()}}
    return {
        "type": name,
        "interaction": [{"code": code} for code in _INTERACTIONS],
        "versioning": "versioned",
        "readHistory": True,
        "searchParam": [{"name": code, "type": kind} for code, kind in sorted(offered.items())],
    }
