"""Closures over plain JSON that `fast` puts together: elements of one type, and tests of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from carelake.fhir.path.model import UNTYPED, Field, Type

__all__ = [
    "Nodes",
    "Quick",
    "Truth",
    "Unusual",
    "absent",
    "any_choice",
    "choice_equals",
    "getter",
    "negated",
    "one_equals",
    "one_exists",
    "single_only",
]

Quick = Callable[[Any], list[Any]]
"""From the JSON of the focus to the JSON of the result."""
Truth = Callable[[Any], "bool | None"]


class Unusual(Exception):
    """The data needs the general way."""


class Nodes(NamedTuple):
    """Elements.

    Attributes:
        get: how to get them.
        kind: their type; None for several, `UNTYPED` for resources inside, on which ``get`` raises `Unusual`.
        single: whether there is one at most.
        fresh: whether ``get`` makes a new list; else it may be one of the data's own, not to be handed out.
    """

    get: Quick
    kind: Type | None
    single: bool
    fresh: bool = True


def absent(key: str) -> Nodes:
    """Resources inside: most have none, and that is all that is told here."""

    def get(value: Any) -> list[Any]:
        if key in value:
            raise Unusual
        return []

    return Nodes(get, UNTYPED, False)


def getter(key: str, many: bool, primitive: bool) -> Quick:
    """The values of one JSON key."""
    beside = "_" + key

    def one(value: Any) -> list[Any]:
        found = value.get(key)
        if found is None:
            return []
        if found.__class__ is list:
            raise Unusual
        return [found]

    def one_primitive(value: Any) -> list[Any]:
        found = value.get(key)
        if found is None:
            if beside in value:
                raise Unusual
            return []
        if found.__class__ is list or found.__class__ is float:
            raise Unusual
        return [found]

    def all_of(value: Any) -> list[Any]:
        found = value.get(key)
        if found is None:
            return []
        if found.__class__ is not list:
            raise Unusual
        return found

    def all_primitives(value: Any) -> list[Any]:
        found = value.get(key)
        if beside in value:
            raise Unusual
        if found is None:
            return []
        if found.__class__ is not list or None in found:
            raise Unusual
        return found

    if many:
        return all_primitives if primitive else all_of
    return one_primitive if primitive else one


def any_choice(field: Field) -> Nodes:
    """A choice whatever its type: good for whether it is there, and as a result."""
    keys = tuple(field.choices or ())
    besides = frozenset("_" + key for key in keys)

    def get(value: Any) -> list[Any]:
        if not besides.isdisjoint(value):
            raise Unusual
        return [value[key] for key in keys if key in value]

    return Nodes(get, None, True)


def single_only(nodes: Nodes) -> Nodes:
    """`as` of several is an error, or a filter: the general way knows."""

    def get(value: Any) -> list[Any]:
        found = nodes.get(value)
        if len(found) > 1:
            raise Unusual
        return found

    return Nodes(get, nodes.kind, True, nodes.fresh)


def one_equals(field: Field, wanted: Any, same: bool) -> Truth:
    """Whether an element that does not repeat has this value (or, not ``same``, another)."""
    key, beside = field.key, "_" + field.key

    def equals(value: Any) -> bool | None:
        found = value.get(key)
        if found is None:
            if beside in value:
                raise Unusual
            return None
        if found.__class__ is list:
            raise Unusual
        return (found == wanted) is same

    return equals


def one_exists(field: Field, wanted: bool) -> Truth:
    """Whether an element is there; not ``wanted``, whether it is missing."""
    key, beside = field.key, "_" + field.key

    def exists(value: Any) -> bool | None:
        found = value.get(key)
        if found:
            return wanted
        if beside in value:
            raise Unusual
        return (found is None or found == []) is not wanted

    return exists


def choice_equals(get: Quick, wanted: bool, same: bool) -> Truth:
    """A choice (``deceased[x]``) and a Boolean: other types are not equal to it."""

    def equals(value: Any) -> bool | None:
        found = get(value)
        return None if not found else (len(found) == 1 and found[0] is wanted) is same

    return equals


def negated(inner: Truth) -> Truth:
    """`not()`."""

    def negated(value: Any) -> bool | None:
        found = inner(value)
        return None if found is None else not found

    return negated
