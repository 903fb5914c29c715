"""References inside of one resource: to what it contains, and from there to the whole (dom-3, ref-1).

https://hl7.org/fhir/R4/references.html#contained
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from carelake.fhir.constraints import Context
from carelake.fhir.issues import Issue

__all__ = ["check_reference", "unreferred"]

_DOM_3 = (
    "If the resource is contained in another resource, it SHALL be referred to from elsewhere in the resource or "
    "SHALL refer to the containing resource (dom-3)"
)
_REF_1 = "SHALL have a contained resource if a local reference is provided (ref-1)"


def check_reference(value: dict[str, Any], at: str, context: Context) -> Iterator[Issue]:
    """Note a local reference, and say when what it names is not contained. ``#`` alone is the whole resource."""
    text = value.get("reference")
    if not isinstance(text, str) or text[:1] != "#":
        return
    if context.local is not None:
        context.local.add(text)
    if context.contained_type(text[1:]) is None and not (text == "#" and context.root is not context.resource):
        yield Issue("error", "invariant", at, _REF_1)


def unreferred(value: dict[str, Any], at: str, context: Context) -> Iterator[Issue]:
    """Contained resources that nothing refers to, once all of the resource was walked."""
    local = context.local or set()
    for one in value["contained"]:
        if f"#{one.get('id', '')}" not in local and id(one) not in context.upward:
            yield Issue("error", "invariant", at, _DOM_3)
            return
