"""Whether a constraint holds: its FHIRPath on the element that it is about."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from carelake.core.errors import CarelakeError
from carelake.fhir import path
from carelake.fhir.issues import Issue
from carelake.fhir.references import target
from carelake.fhir.rules import Rule

__all__ = ["Context", "broken"]


@dataclass(frozen=True, slots=True)
class Context:
    """Where a constraint is looked at.

    Attributes:
        root: the outermost resource, ``%rootResource``.
        resource: the one that the element is of, ``%resource``; None for the root itself.
    """

    root: dict[str, Any]
    resource: dict[str, Any] | None = None

    def inside(self, resource: dict[str, Any]) -> Context:
        """The context of a contained resource, or of an entry's."""
        return self if resource is self.root else replace(self, resource=resource)

    def contained_type(self, name: str) -> str:
        """The type of a contained resource by its id, or ""."""
        for one in self.root.get("contained", ()):
            if isinstance(one, dict) and one.get("id") == name:
                return str(one.get("resourceType", ""))
        return ""


def broken(rule: Rule, value: Any, kind: str, at: str, context: Context) -> Iterator[Issue]:
    """An issue when a constraint does not hold of a value of type ``kind``, or cannot be told (for information)."""
    resource = context.resource or context.root
    test = path.compile(rule.expression)
    try:
        holds = test.holds(value, kind=kind, resource=resource, root=context.root, services=_SERVICES, filters=True)
    except CarelakeError as error:
        said = f"Constraint {rule.key} could not be checked here ({error.code})."
        yield Issue("information", "not-supported", at, said)
        return
    if not holds:
        yield Issue(rule.severity, "invariant", at, f"{rule.human} ({rule.key})")


def _only_its_type(reference: str) -> dict[str, Any] | None:
    """What can be told of a resource from a reference alone; constraints ask for no more."""
    found = target(reference)
    return {"resourceType": found[0]} if found is not None and found[0] else None


_SERVICES = path.Services(resolver=_only_its_type)
