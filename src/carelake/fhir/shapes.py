"""The quick yes: one compiled predicate for each type, which answers whether a resource is plainly valid.

A yes is final. A no means "not plainly": `validate` then walks the resource and says what is wrong, if anything is
(a text in ``_x`` beside a missing required value, for example, is valid and not plain). Both use the same predicates
of primitive values, and a test holds them together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from carelake.fhir.definitions import Element, codes, element, is_primitive, is_resource
from carelake.fhir.primitives import Predicate, coded, predicates

__all__ = ["Shape", "shape"]

Shape = Callable[[Any, int], bool]
"""``shape(value, room)``: whether the value is plainly valid and nests at most ``room`` levels."""


class _Nodes(dict[str, Shape | None]):
    """JSON name to shape, compiled when a resource first has the element."""

    def __init__(self, elements: Mapping[str, tuple[Element, str]]) -> None:
        super().__init__()
        self._elements = elements

    def __missing__(self, key: str) -> Shape | None:
        made = self._make(key)
        if made is not None:  # names that do not exist are not kept: a hostile source has endlessly many
            self[key] = made
        return made

    def _make(self, key: str) -> Shape | None:
        found = self._elements.get(key.removeprefix("_"))
        if found is None:
            return None
        item, kind = found
        primitive = is_primitive(kind)
        if key.startswith("_"):
            # Lists must be aligned with their `_`, choices exclude each other's, and some names have none.
            plain = primitive and item.max == "1" and not item.choice and key not in ("_id", "_url")
            return shape("Element") if plain else None
        if primitive:
            return _many_values(leaf(item, kind))
        if item.name == "contained":
            return _many(_contained)
        return shape(kind) if item.max == "1" else _many(shape(kind))


def leaf(item: Element, kind: str) -> Predicate:
    """The predicate of one value of a primitive element."""
    return coded(codes(item.codes).codes) if item.codes else predicates()[kind]


def _many(one: Shape) -> Shape:
    def many(value: Any, room: int) -> bool:
        if value.__class__ is not list or not value:
            return False
        room -= 1
        for entry in value:  # noqa: SIM110  all() over a generator takes twice as long here
            if not one(entry, room):
                return False
        return True

    return many


def _many_values(one: Predicate) -> Shape:
    def many(value: Any, room: int) -> bool:
        return value.__class__ is list and value != [] and room > 0 and all(map(one, value))

    return many


@cache
def shape(type_name: str) -> Shape:
    """The shape of a type; ``Resource`` stands for any resource."""
    if type_name == "Resource":
        return _any_resource
    found = {key: (e, kind) for e in element(type_name).values() for key, kind in e.keys.items()}
    values = {k: leaf(e, kind) for k, (e, kind) in found.items() if is_primitive(kind) and e.max == "1"}
    if is_resource(type_name):
        values["resourceType"] = type_name.__eq__
    made = _object(values, _Nodes(found), *_rules(type_name))
    if type_name == "Extension":
        return _extension(made)
    return made


def _rules(type_name: str) -> tuple[frozenset[str], tuple[tuple[frozenset[str], int], ...]]:
    elements = element(type_name).values()
    required = frozenset(e.name for e in elements if e.min and not e.choice)
    choices = tuple((frozenset(e.keys), e.min) for e in elements if e.choice)
    return required | ({"resourceType"} if is_resource(type_name) else frozenset()), choices


def _object(
    values: Mapping[str, Predicate],
    nodes: Mapping[str, Shape | None],
    required: frozenset[str],
    choices: tuple[tuple[frozenset[str], int], ...],
) -> Shape:
    value_of = values.get

    def shaped(value: Any, room: int) -> bool:
        if value.__class__ is not dict or not value or room <= 0:
            return False
        room -= 1
        for key, inner in value.items():
            good = value_of(key)
            if good is not None:
                if not good(inner):
                    return False
            else:
                node = nodes[key]
                if node is None or not node(inner, room):
                    return False
        for key in required:
            if key not in value:
                return False
        for keys, least in choices:  # noqa: SIM110
            if not least <= len(keys.intersection(value)) <= 1:
                return False
        return True

    return shaped


def _extension(made: Shape) -> Shape:
    """An extension has a value or extensions, and not both (ext-1)."""

    def extension(value: Any, room: int) -> bool:
        if not made(value, room):
            return False
        return len(value) == 2 + ("id" in value)  # url and one of the two; a `_value` goes to the careful walk

    return extension


def _any_resource(value: Any, room: int) -> bool:
    if value.__class__ is not dict:
        return False
    name = value.get("resourceType")
    return name.__class__ is str and is_resource(name) and shape(name)(value, room)


def _contained(value: Any, room: int) -> bool:
    return _any_resource(value, room) and "contained" not in value
