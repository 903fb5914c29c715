"""FHIR R4's types as FHIRPath sees them: which elements there are, what a thing is, and what it converts to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

from carelake.fhir import definitions
from carelake.fhir.path.values import CONVERTERS

__all__ = [
    "SYSTEM_TYPES",
    "UNTYPED",
    "Field",
    "Type",
    "info_type",
    "is_type",
    "node",
    "type_named",
]

SYSTEM_TYPES = frozenset(
    {"Any", "Boolean", "String", "Integer", "Long", "Decimal", "Date", "DateTime", "Time", "Quantity"}
)
_QUANTITIES = frozenset({"Age", "Count", "Distance", "Duration", "MoneyQuantity", "SimpleQuantity"})
_SYSTEM_OF = {
    "boolean": "Boolean",
    "integer": "Integer",
    "unsignedInt": "Integer",
    "positiveInt": "Integer",
    "decimal": "Decimal",
    "date": "Date",
    "dateTime": "DateTime",
    "instant": "DateTime",
    "time": "Time",
}


class Field:
    """An element: its JSON key and type, or for a choice every key and type."""

    __slots__ = ("choices", "key", "many", "name", "type")

    def __init__(self, name: str, keys: dict[str, Type], choice: bool, many: bool) -> None:
        self.name = name
        self.many = many
        self.key, self.type = ("", UNTYPED) if choice else next(iter(keys.items()))
        self.choices = keys if choice else None


class Type:
    """A type of elements.

    Attributes:
        name: as FHIR shows it; ``BackboneElement`` for what is defined in place.
        path: its own name there, ``Patient.contact``.
        names: itself and everything it is a kind of.
        convert: from JSON to its System value, None where it has none.
        system: name of the System type it converts to, or "".
        resolves: whether the actual type is told by each value's ``resourceType``.
    """

    __slots__ = ("_fields", "_keys", "convert", "name", "names", "path", "primitive", "resolves", "system")

    def __init__(self, path: str, name: str, names: frozenset[str], system: str, primitive: bool) -> None:
        self.path = path
        self.name = name
        self.names = names
        self.system = system
        self.convert: Callable[[Any], Any] | None = CONVERTERS.get(system)
        self.primitive = primitive
        self.resolves = path in ("Resource", "DomainResource")
        self._fields: dict[str, Field] | None = None
        self._keys: dict[str, tuple[Field, Type]] | None = None

    @property
    def fields(self) -> dict[str, Field]:
        """Elements by name."""
        if self._fields is None:
            self._fields = {} if self.path in _NO_FIELDS else {f.name: f for f in _fields(self.path)}
        return self._fields

    @property
    def keys(self) -> dict[str, tuple[Field, Type]]:
        """JSON key to its element and type, every type of a choice apart."""
        if self._keys is None:
            self._keys = {key: (field, kind) for field in self.fields.values() for key, kind in _of(field)}
        return self._keys

    def __repr__(self) -> str:
        return f"Type({self.path})"


def _of(field: Field) -> Iterator[tuple[str, Type]]:
    if field.choices is None:
        yield field.key, field.type
    else:
        yield from field.choices.items()


def _fields(path: str) -> Iterator[Field]:
    known = "Element" if definitions.is_primitive(path) else path
    for element in definitions.element(known).values():
        keys = {key: type_named(kind) for key, kind in element.keys.items()}
        yield Field(element.name, keys, element.choice, element.max == "*")


_NO_FIELDS = frozenset({"", "info"})
UNTYPED = Type("", "Any", frozenset(), "", False)
"""What is in the data and not in the definitions."""

info_type = Type("info", "TypeInfo", frozenset(), "", False)
"""What ``type()`` gives."""


@cache
def type_named(path: str) -> Type:
    """The type of that name or path; `UNTYPED` where there is none."""
    if definitions.is_primitive(path):
        names = [path]
        while base := definitions.primitive(names[-1]).specialises:
            names.append(base)
        return Type(path, path, frozenset({*names, "Element"}), _SYSTEM_OF.get(path, "String"), True)
    if path in _QUANTITIES:
        known = "Quantity" if path.endswith("Quantity") else path
        return Type(known, known, frozenset({path, known, "Quantity", "Element"}), "Quantity", False)
    if path not in definitions.types():
        return UNTYPED
    elements = definitions.element(path)
    name = path
    if "." in path:
        name = "BackboneElement" if "modifierExtension" in elements else "Element"
    kinds = {path, name}
    if definitions.is_resource(path) or path in ("Resource", "DomainResource"):
        kinds |= {"Resource", "DomainResource"} if "text" in elements else {"Resource"}
    else:
        kinds |= {"Element", "BackboneElement"} if "modifierExtension" in elements else {"Element"}
    return Type(path, name, frozenset(kinds), "Quantity" if path == "Quantity" else "", False)


@cache
def is_type(name: str) -> bool:
    """Whether FHIR R4 has a type of that name."""
    return type_named(name) is not UNTYPED


def node(value: Any, kind: Type = UNTYPED) -> Any:
    """An item of a JSON value: typed by what it says of itself, else as told; plain values of no type as they are."""
    if value.__class__ is dict:
        told = value.get("resourceType")
        if told.__class__ is str:
            kind = type_named(told)
        return (value, kind, None)
    if kind is not UNTYPED:
        return (value, kind, None)
    if value.__class__ is float:
        return CONVERTERS["Decimal"](value)
    return value
