"""Structural validation of R4 resources (https://hl7.org/fhir/R4/validation.html, "structure" and "cardinality").

What is checked: types and names, JSON kinds, cardinality, choices, formats of primitives, extensions of primitives,
contained resources, narrative, codes of required bindings that the core package lists. The rest is in `validate`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from itertools import islice
from typing import Any

from carelake.fhir.definitions import Element, element, is_primitive, is_resource
from carelake.fhir.issues import Issue
from carelake.fhir.primitives import json_kind, predicates
from carelake.fhir.shapes import leaf, shape

__all__ = ["MAX_DEPTH", "MAX_ISSUES", "check", "issues", "too_deep"]

MAX_DEPTH = 100
MAX_ISSUES = 100


def check(resource: Any, *, max_depth: int = MAX_DEPTH) -> Issue | None:
    """The first issue of a resource, or None: the hot path of reading.

    Args:
        resource: parsed JSON, as `core.canonical.load` gives it.
        max_depth: levels of objects and arrays, the resource itself included.
    """
    if _plain(resource, max_depth):
        return None
    return next(iter(_walk(resource, max_depth, 1)), None)


def issues(resource: Any, *, max_depth: int = MAX_DEPTH) -> list[Issue]:
    """Every issue of a resource, at most `MAX_ISSUES`; an empty list is a resource of the right structure."""
    if _plain(resource, max_depth):
        return []
    return _walk(resource, max_depth, MAX_ISSUES)


def _plain(resource: Any, max_depth: int) -> bool:
    try:
        return shape("Resource")(resource, max_depth)
    except RecursionError:  # a limit set beyond what Python can follow
        return False


def _walk(resource: Any, max_depth: int, most: int) -> list[Issue]:
    try:
        return list(islice(_resource(resource, "", max_depth), most))
    except RecursionError:
        return [too_deep()]


def too_deep() -> Issue:
    """The issue of a resource that nests more deeply than can be followed."""
    return _error("structure", "", _TOO_DEEP)


def _error(code: str, at: str, message: str) -> Issue:
    return Issue("error", code, at, message)


Issues = Iterator[Issue]

_TOO_DEEP = "Nested more deeply than the limit (setting ingest.max_depth)."

# A name is shown only when it looks like an element's name: a key of hostile input may say anything.
_SHOWABLE = re.compile(r"_?[a-z][A-Za-z0-9]{0,39}").fullmatch


@cache
def _allowed(type_name: str) -> dict[str, tuple[Element, str]]:
    return {key: (item, kind) for item in element(type_name).values() for key, kind in item.keys.items()}


def _resource(value: Any, at: str, room: int, *, inside: bool = False) -> Issues:
    if not isinstance(value, dict):
        yield _error("structure", at, "A resource must be a JSON object.")
        return
    name = value.get("resourceType")
    if not isinstance(name, str):
        yield _error("required", at, "A resource must say its type as a string in resourceType.")
        return
    if not is_resource(name):
        yield _error("not-supported", at, "The resourceType is not a resource type of FHIR R4.")
        return
    if inside and "contained" in value:
        yield _error("structure", f"{at}.contained", "A contained resource must not contain resources itself.")
        return
    yield from _object(value, name, at or name, room)


def _object(value: Any, type_name: str, at: str, room: int) -> Issues:
    if not isinstance(value, dict):
        yield _error("structure", at, f"Expected a JSON object ({type_name}).")
    elif not value:
        yield _error("structure", at, "An object must not be empty; leave the element out.")
    elif room <= 0:
        yield _error("structure", at, _TOO_DEEP)
    else:
        for key, inner in value.items():
            yield from _member(value, key, inner, type_name, at, room - 1)
        yield from _missing(value, type_name, at)


def _member(owner: dict[str, Any], key: str, inner: Any, type_name: str, at: str, room: int) -> Issues:
    bare = key.removeprefix("_")
    found = _allowed(type_name).get(bare)
    if key == "resourceType" and is_resource(type_name):
        return
    if found is None or (key != bare and not _has_shadow(type_name, bare, found[1])):
        shown = _SHOWABLE(key) is not None
        name = f"{type_name} has no element of this name" + ("" if shown else " (the name is not shown)")
        yield _error("structure", f"{at}.{key}" if shown else at, f"{name}; names are case-sensitive.")
        return
    item, kind = found
    place = f"{at}.{bare}"
    if key != bare:
        yield from _shadow(owner.get(bare), inner, item, place, room)
    elif item.max == "1":
        yield from _one(inner, item, kind, place, room)
    else:
        yield from _list(inner, owner.get("_" + key), item, kind, place, room)


def _has_shadow(type_name: str, name: str, kind: str) -> bool:
    # Ids of elements and the url of an extension are attributes in XML, and can have no extensions.
    attribute = (name == "id" and not is_resource(type_name)) or (type_name == "Extension" and name == "url")
    return is_primitive(kind) and not attribute


def _one(inner: Any, item: Element, kind: str, at: str, room: int) -> Issues:
    if isinstance(inner, list):
        yield _error("structure", at, "Expected one value, not a JSON array.")
    elif inner is None:
        yield _error("structure", at, "null stands for nothing here; leave the element out.")
    elif is_primitive(kind):
        yield from _value(inner, item, kind, at)
    elif kind == "Resource":
        yield from _resource(inner, at, room, inside=item.name == "contained")
    else:
        yield from _object(inner, kind, at, room)
        yield from _extension_rule(inner, kind, at)


def _list(inner: Any, shadow: Any, item: Element, kind: str, at: str, room: int) -> Issues:
    if not isinstance(inner, list):
        yield _error("structure", at, "The element repeats: expected a JSON array.")
        return
    if not inner:
        yield _error("structure", at, "An array must not be empty; leave the element out.")
    if room <= 0:
        yield _error("structure", at, _TOO_DEEP)
        return
    primitive = is_primitive(kind)
    for n, entry in enumerate(inner):
        # A null keeps a place for what `_element` says about a value that is missing.
        if entry is None and primitive and isinstance(shadow, list) and n < len(shadow) and shadow[n] is not None:
            continue
        yield from _one(entry, item, kind, f"{at}[{n}]", room - 1)


def _shadow(values: Any, inner: Any, item: Element, at: str, room: int) -> Issues:
    if item.max == "1":
        yield from _object(inner, "Element", at, room)
        return
    if not isinstance(inner, list) or not inner:
        yield _error("structure", at, "Extensions of a repeating element's values must be a JSON array, not empty.")
        return
    if isinstance(values, list) and len(values) != len(inner):
        yield _error("structure", at, "The array of extensions must be as long as the array of values.")
    for n, entry in enumerate(inner):
        has_value = isinstance(values, list) and n < len(values) and values[n] is not None
        if entry is not None:
            yield from _object(entry, "Element", f"{at}[{n}]", room - 1)
        elif not has_value:
            yield _error("structure", f"{at}[{n}]", "An entry must have a value or extensions.")


def _value(inner: Any, item: Element, kind: str, at: str) -> Issues:
    if leaf(item, kind)(inner):
        return
    if inner == "":
        yield _error("value", at, "A string must not be empty; leave the element out.")
    elif not _right_kind(inner, json_kind(kind)):
        yield _error("value", at, f"Expected a JSON {json_kind(kind)} ({kind}).")
    elif item.codes and predicates()[kind](inner):
        yield _error("code-invalid", at, f"The code is not one of the value set {item.codes}, which is required.")
    elif kind in ("string", "markdown") and len(inner) > 1:
        yield _error("value", at, f"The text has control characters or more than 1 MB ({kind}).")
    else:
        yield _error("value", at, f"The value has not the form or range of a {kind} of FHIR R4.")


def _right_kind(inner: Any, kind: str) -> bool:
    if kind == "boolean":
        return isinstance(inner, bool)
    if kind == "string":
        return isinstance(inner, str)
    return not isinstance(inner, (bool, str, dict, list))


def _missing(value: dict[str, Any], type_name: str, at: str) -> Issues:
    for item in element(type_name).values():
        present = [key for key in item.keys if key in value or "_" + key in value]
        place = f"{at}.{item.name}"
        if not present and item.min:
            yield _error("required", place, "The element is required and is missing.")
        if len(present) > 1:
            yield _error("structure", place, f"Only one type of {item.name}[x] may be given.")


def _extension_rule(value: Any, kind: str, at: str) -> Issues:
    if kind != "Extension" or not isinstance(value, dict):
        return
    has_value = any(key.removeprefix("_").startswith("value") for key in value)
    if has_value == ("extension" in value):
        yield _error("invariant", at, "An extension must have a value or extensions, and not both (ext-1).")
