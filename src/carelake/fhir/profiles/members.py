"""The values of one element in an instance, each with its type and its place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from carelake.fhir.definitions import element, is_primitive, is_resource

__all__ = ["Member", "inside", "members"]


@dataclass(frozen=True, slots=True)
class Member:
    """One value.

    Attributes:
        shadow: what its ``_name`` says, for a primitive; None where nothing is said.
        kind: its type: ``Quantity``, ``Observation.component``, ``Patient``.
        at: where it is.
    """

    value: Any
    shadow: Any
    kind: str
    at: str

    @property
    def owner(self) -> dict[str, Any]:
        """What its own elements lie in."""
        found = self.shadow if is_primitive(self.kind) else self.value
        return found if isinstance(found, dict) else {}


def members(owner: dict[str, Any], kind: str, name: str, at: str) -> list[Member]:
    """The values of the element ``name`` of an ``owner`` of type ``kind``."""
    # Most elements that a profile names are not there.
    keys = [key for key in _keys(kind, name) if key[0] in owner or key[1] in owner]
    return list(_members(owner, keys, at)) if keys else []


@cache
def _keys(kind: str, name: str) -> tuple[tuple[str, str, str], ...]:
    """JSON name, name of what is said of a primitive, type: one, or one for each type of a choice."""
    found = element("Element" if is_primitive(kind) else kind).get(name)
    return tuple((key, "_" + key, of) for key, of in found.keys.items()) if found is not None else ()


def _members(owner: dict[str, Any], keys: list[tuple[str, str, str]], at: str) -> Iterator[Member]:
    for key, beside, of in keys:
        values, shadows = _listed(owner.get(key)), _listed(owner.get(beside))
        many = isinstance(owner.get(key, owner.get(beside)), list)
        for n in range(max(len(values), len(shadows))):
            value = values[n] if n < len(values) else None
            shadow = shadows[n] if n < len(shadows) else None
            yield Member(value, shadow, inside(value, of), f"{at}.{key}[{n}]" if many else f"{at}.{key}")


def inside(value: Any, kind: str) -> str:
    """The type of a value declared as ``kind``: that of a resource is told by itself."""
    if kind == "Resource" and isinstance(value, dict) and is_resource(str(value.get("resourceType"))):
        return str(value["resourceType"])
    return kind


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]
