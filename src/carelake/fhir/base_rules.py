"""Walk a resource along the rules of its types: constraints, listed bindings, types of what is referred to."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from carelake.fhir.bindings import holds
from carelake.fhir.constraints import Context, broken
from carelake.fhir.definitions import Element, element, is_primitive, is_resource
from carelake.fhir.issues import Issue
from carelake.fhir.profiles.members import inside
from carelake.fhir.rules import bound, rules

__all__ = ["target_type", "walk"]

Issues = Iterator[Issue]
_LITERAL = re.compile(
    r"(?:https?://.{1,500}/)?([A-Z][A-Za-z]{2,40})/[A-Za-z0-9\-.]{1,64}(?:/_history/[A-Za-z0-9\-.]{1,64})?"
)


def walk(resource: dict[str, Any]) -> Issues:
    """Issues of a resource whose structure is right, in the order of its elements."""
    kind = str(resource["resourceType"])
    yield from _object(resource, kind, kind, Context(resource))


def _object(value: dict[str, Any], kind: str, at: str, context: Context) -> Issues:
    if is_resource(kind):
        context = context.inside(value)
    for rule in rules(kind):
        yield from broken(rule, value, kind, at, context)
    if kind == "Reference":
        return  # what it may refer to was looked at from where it stands; the rest of it is plain
    for item in element(kind).values():
        for key, of in item.keys.items():
            if key in value:
                yield from _member(value[key], item, of, kind, f"{at}.{key}", context)


def _member(value: Any, item: Element, of: str, owner: str, at: str, context: Context) -> Issues:
    path = f"{owner}.{item.name}"
    own = rules(path) if path != of else ()
    codes = bound(path)
    if is_primitive(of) and not own:
        return
    many = isinstance(value, list)
    for n, one in enumerate(value if many else (value,)):
        place = f"{at}[{n}]" if many else at
        for rule in own:
            yield from broken(rule, one, of, place, context)
        if codes is not None and not holds(one, of, codes):
            said = "No code of the value is one of the value set that is required here."
            yield Issue("error", "code-invalid", place, said)
        if of == "Reference":
            yield from _referred(one, item, place, context)
        if isinstance(one, dict):
            yield from _object(one, inside(one, of), place, context)


def _referred(value: dict[str, Any], item: Element, at: str, context: Context) -> Issues:
    found = target_type(value, context)
    if found and item.targets and "Resource" not in item.targets and found not in item.targets:
        said = f"The reference must be to {' or '.join(item.targets)}; it is to another type."
        yield Issue("error", "structure", at, said)


def target_type(value: Any, context: Context) -> str:
    """The type of the resource that a Reference is to, as far as it says itself; else ""."""
    if not isinstance(value, dict):
        return ""
    text = value.get("reference")
    if isinstance(text, str) and text.startswith("#"):
        return context.contained_type(text[1:])
    found = _LITERAL.fullmatch(text) if isinstance(text, str) else None
    if found is not None and is_resource(found[1]):
        return found[1]
    said = value.get("type")
    return said if isinstance(said, str) and is_resource(said) else ""
