"""Create, update and delete of single resources (https://hl7.org/fhir/R4/http.html#create, #update, #delete)."""

from __future__ import annotations

import hashlib
from typing import Any

from carelake.core import canonical
from carelake.core.errors import Invalid
from carelake.core.records import IndexValues, Parsed
from carelake.fhir import compartment
from carelake.fhir.search import BASE, Registry, extract
from carelake.fhir.validate import Exists, Mode, checker
from carelake.store import bodies

__all__ = ["parsed", "tombstone"]


def parsed(
    resource: dict[str, Any], level: Mode = "structure", exists: Exists | None = None, registry: Registry = BASE
) -> Parsed:
    """A resource ready to be kept, validated; it needs an id.

    Args:
        level: what is asked of it; callers at a door take the setting ``validation.write``.
        exists: tells whether what it refers to is there, where that is asked (``validation.references``).
        registry: what its index values are extracted by.

    Raises:
        Invalid: ``store.invalid_resource`` with FHIRPath and reason, never the value.
    """
    issue = checker(level, exists=exists)(resource)
    if issue is not None:
        message = f"{issue.expression}: {issue.message}" if issue.expression else issue.message
        raise Invalid("store.invalid_resource", message, reason=issue.code, expression=issue.expression)
    if "id" not in resource:
        raise Invalid("store.no_id", "The resource has no id; give it one, or create it.")
    text = canonical.dump(resource)
    return Parsed(
        resource["resourceType"],
        resource["id"],
        compartment.owner(resource),
        bodies.pack(text),
        hashlib.sha256(text).digest(),
        extract(resource, registry, loose=level == "minimal"),
        0,
        0,
        0,
        0,
    )


def tombstone(kind: str, key: str, owner: str) -> Parsed:
    """What is kept of a deletion: a version without a body."""
    return Parsed(kind, key, owner, b"", b"", IndexValues(), 0, 0, 0, 0)
