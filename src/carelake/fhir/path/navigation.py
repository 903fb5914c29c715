"""Steps from elements to their children, over the JSON form of FHIR (https://hl7.org/fhir/R4/json.html)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

from carelake.fhir.path.context import Closure, Env
from carelake.fhir.path.errors import name_error
from carelake.fhir.path.model import UNTYPED, Field, Type, is_type, node, type_named
from carelake.fhir.path.values import Items

__all__ = ["child_nodes", "leading", "member", "primitive_part"]


def leading(name: str, at: int) -> Closure:
    """The name that starts a path: the type of the focus (``Patient.name``), else an element of it."""
    step = member(name, at)
    if not name[:1].isupper():
        return step

    def start(focus: Items, env: Env) -> Items:
        if len(focus) == 1 and focus[0].__class__ is tuple:
            if name in focus[0][1].names:
                return focus
            if env.strict and is_type(name):
                raise name_error(at, "the path starts with another type than that of the data.")
        return step(focus, env)

    return start


def member(name: str, at: int) -> Closure:
    """The children of that name of each item."""

    def step(items: Items, env: Env) -> Items:
        found: Items = []
        for item in items:
            if item.__class__ is tuple:
                value, kind, _ = item
                if value.__class__ is dict:
                    field = kind.fields.get(name)
                    if field is not None and field.choices is None:
                        inner = value.get(field.key)
                        beside = value.get("_" + name)
                        if inner is not None or beside is not None:
                            _gather(found, inner, beside, field.type)
                    else:
                        _unusual(found, item, name, field, env, at)
                else:
                    found += primitive_part(item, name)
                    if env.strict and not found and name not in ("id", "extension", "value"):
                        raise name_error(at, f"{kind.name} has no such element.")
            elif env.strict:
                raise name_error(at, "a value of a System type has no elements.")
        return found

    return step


def _gather(found: Items, inner: Any, beside: Any, kind: Type) -> None:
    """Add the nodes of an element's JSON, which may repeat, and of the object beside it if it is a primitive."""
    if inner.__class__ is list:
        if beside is not None:
            _beside(found, inner, beside, kind)
        elif kind.resolves:
            found += [node(value, kind) for value in inner]
        elif kind.primitive:
            found += [(value, kind, None) for value in inner if value is not None]
        else:
            found += [(value, kind, None) for value in inner]
    elif inner is None and beside.__class__ is list:
        found += [(None, kind, extra) for extra in beside if extra is not None]
    elif kind.resolves:
        found.append(node(inner, kind))
    else:
        found.append((inner, kind, beside))


def _beside(found: Items, inner: list[Any], beside: Any, kind: Type) -> None:
    """Values and what is beside them, place by place; either may be null."""
    extras = beside if beside.__class__ is list else [beside]
    for value, extra in zip_longest(inner, extras):
        if value is not None or extra is not None:
            found.append((value, kind, extra))


def _unusual(found: Items, item: Any, name: str, field: Field | None, env: Env, at: int) -> None:
    value, kind, _ = item
    if field is not None and field.choices is not None:
        for key, chosen in _present(value, field):
            _gather(found, value.get(key), value.get("_" + key), chosen)
        return
    if kind is UNTYPED:
        _untyped(found, value, name)
    elif not kind.fields:
        inner = value.get(name)  # type(): its parts are plain values
        if inner is not None:
            found.append(inner)
    elif env.strict:
        raise name_error(at, f"{kind.path} has no such element.")
    elif name in value and name not in kind.keys and name != "resourceType":
        _untyped(found, value, name)


def _present(value: dict[str, Any], field: Field) -> Iterator[tuple[str, Type]]:
    """(key, type) of a choice that the data has."""
    choices = field.choices or {}
    if len(choices) <= len(value):
        for key, kind in choices.items():
            if key in value or "_" + key in value:
                yield key, kind
        return
    for plain in dict.fromkeys(key.removeprefix("_") for key in value):
        chosen = choices.get(plain)
        if chosen is not None:
            yield plain, chosen


_SUFFIXES_WORDS = """
Base64Binary Boolean Canonical Code Date DateTime Decimal Id Instant Integer Markdown Oid PositiveInt String
Time UnsignedInt Uri Url Uuid Address Age Annotation Attachment CodeableConcept Coding ContactPoint Count
Distance Duration HumanName Identifier Money Period Quantity Range Ratio Reference SampledData Signature Timing
ContactDetail Contributor DataRequirement Expression ParameterDefinition RelatedArtifact TriggerDefinition
UsageContext Dosage Meta
"""
_SUFFIXES = _SUFFIXES_WORDS.split()


def _untyped(found: Items, value: dict[str, Any], name: str) -> None:
    """Data that the definitions do not know: by its key, or by those that a choice of that name would have."""
    inner = value.get(name)
    if inner is not None:
        for one in inner if inner.__class__ is list else [inner]:
            if one is not None:
                found.append(node(one))
        return
    for suffix in _SUFFIXES:
        inner = value.get(name + suffix)
        if inner is not None:
            path = suffix if is_type(suffix) else suffix[0].lower() + suffix[1:]
            _gather(found, inner, None, type_named(path))
            return


def primitive_part(item: Any, name: str) -> Items:
    """Elements of a primitive: its ``value``, and ``id`` and ``extension`` of what is beside it."""
    value, kind, extra = item
    if name == "value":
        return [] if value is None or kind.convert is None else [kind.convert(value)]
    found: Items = []
    if extra.__class__ is dict and name in ("id", "extension"):
        inner = extra.get(name)
        if inner is not None:
            _gather(found, inner, None, type_named("Extension" if name == "extension" else "string"))
    return found


def child_nodes(item: Any) -> Items:
    """All children of an item, in the order of its JSON."""
    if item.__class__ is not tuple:
        return []
    value, kind, _ = item
    if value.__class__ is not dict:
        return primitive_part(item, "id") + primitive_part(item, "extension")
    found: Items = []
    keys = kind.keys
    for key, inner in value.items():
        known = keys.get(key)
        if known is not None:
            _gather(found, inner, value.get("_" + key) if known[1].primitive else None, known[1])
        elif key[:1] == "_" and (known := keys.get(key[1:])) is not None:
            if key[1:] not in value:
                _gather(found, None, inner, known[1])
        elif key != "resourceType":
            _other(found, value, key, kind)
    return found


def _other(found: Items, value: dict[str, Any], key: str, kind: Type) -> None:
    if kind.fields or kind is UNTYPED:
        _untyped(found, value, key)
    else:
        found.append(value[key])
