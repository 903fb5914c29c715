"""Whether a constraint holds: its FHIRPath on the element that it is about."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from carelake.core import canonical
from carelake.core.errors import CarelakeError
from carelake.fhir import path
from carelake.fhir.issues import Issue
from carelake.fhir.references import target
from carelake.fhir.rules import Rule

__all__ = ["Context", "Exists", "broken"]

Exists = Callable[[str, str], bool]
"""``exists(type, id)``: whether there is such a resource where the validated one is to be kept."""


class Context:
    """The resource that a constraint is looked at in.

    Attributes:
        resource: the one that the element is of, ``%resource``.
        root: the one that ``resource`` is contained in, or itself: ``%rootResource``.
        exists: tells whether what is referred to is there; None where that is not asked.
        local: texts ``#...`` of references and uris that were met in it; None where there can be none.
        upward: `id` of those contained resources that refer to the one that contains them, by ``#``.
    """

    __slots__ = ("_types", "exists", "local", "resource", "root", "upward")

    def __init__(self, resource: dict[str, Any], above: Context | None = None, exists: Exists | None = None) -> None:
        self.resource = resource
        self.root: dict[str, Any] = above.root if above is not None else resource
        self.exists = exists
        self.local: set[str] | None = set() if above is not None or "contained" in resource else None
        self.upward: set[int] = set()
        self._types: dict[str, str] | None = above._contained if above is not None else None

    def take(self, contained: Context) -> None:
        """Note what a contained resource refers to."""
        met = contained.local or set()
        if "#" in met:
            self.upward.add(id(contained.resource))
        if self.local is not None:
            self.local |= met - {"#"}

    def contained_type(self, name: str) -> str | None:
        """The type of a contained resource by its id; None where there is none."""
        return self._contained.get(name)

    @property
    def _contained(self) -> dict[str, str]:
        # Made once: a hostile resource has as many references as contained resources.
        if self._types is None:
            listed = self.root.get("contained")
            found = [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
            self._types = {str(one["id"]): str(one.get("resourceType", "")) for one in found if "id" in one}
        return self._types


def broken(rule: Rule, value: Any, kind: str, at: str, context: Context) -> Iterator[Issue]:
    """An issue when a constraint does not hold of a value of type ``kind``, or cannot be told (for information)."""
    try:
        quick = _LINEAR.get(rule.expression)
        holds = (
            quick(value)
            if quick is not None
            else path.compile(rule.expression).holds(
                value, kind=kind, resource=context.resource, root=context.root, services=_SERVICES, filters=True
            )
        )
    except CarelakeError as error:
        said = f"Constraint {rule.key} could not be checked here ({error.code})."
        yield Issue("information", "not-supported", at, said)
        return
    if not holds:
        yield Issue(rule.severity, "invariant", at, f"{rule.human} ({rule.key})")


def _no_code_twice(observation: dict[str, Any]) -> bool:
    """As obs-7: a component is not of a code that the observation is of itself."""
    if not any(key.removeprefix("_").startswith("value") for key in observation):
        return True
    own = {canonical.dump(coding) for coding in observation.get("code", {}).get("coding", ())}
    codes = [one["code"] for one in observation.get("component", ()) if "code" in one]
    return own.isdisjoint(canonical.dump(coding) for code in codes for coding in code.get("coding", ()))


_LINEAR: dict[str, Callable[[dict[str, Any]], bool]] = {
    "value.empty() or component.code.where(coding.intersect(%resource.code.coding).exists()).empty()": _no_code_twice
}
"""Expressions that FHIRPath takes quadratic time for, and what says the same in linear time."""


def _only_its_type(reference: str) -> dict[str, Any] | None:
    """What can be told of a resource from a reference alone; constraints ask for no more."""
    found = target(reference)
    return {"resourceType": found[0]} if found is not None and found[0] else None


_SERVICES = path.Services(resolver=_only_its_type)
