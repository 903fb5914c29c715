"""What collections hold, and the way from a FHIR element to the value it stands for and back.

An item is a value of the System types (`str`, `bool`, `int`, `Long`, `Decimal`, `Temporal`, `Quantity`) or a node: a
tuple ``(value, type, extra)`` of an element's JSON, its `Type` and, for a primitive, the object beside it that holds
its id and extensions (``_birthDate``) or None. Tuples, since a path makes very many of them.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from carelake.fhir.path.errors import singleton_error, type_error
from carelake.fhir.path.quantity import Quantity
from carelake.fhir.path.temporal import Temporal, parse_date, parse_datetime, parse_time

if TYPE_CHECKING:
    from carelake.fhir.path.model import Type

__all__ = [
    "CONVERTERS",
    "Item",
    "Items",
    "Long",
    "Node",
    "integer_of",
    "kind_of",
    "one",
    "string_of",
    "system",
    "truth",
    "unwrap",
]

Item = Any
Items = list[Any]
Node = tuple[Any, "Type", Any]

_UCUM = "http://unitsofmeasure.org"
_FALSE_TRUE = ((False,), (True,))


class Long(int):
    """A System.Long: 64 bits."""

    __slots__ = ()


def _text(value: Any) -> Any:
    return value


def _integer(value: Any) -> Any:
    return value


def _decimal(value: Any) -> Any:
    if isinstance(value, Decimal):
        return value
    if value.__class__ is bool:
        return value
    return Decimal(str(value)) if isinstance(value, int | float) else value


def _temporal(parse: Callable[[str], Temporal | None]) -> Callable[[Any], Any]:
    def convert(value: Any) -> Any:
        found = parse(value) if value.__class__ is str else None
        return value if found is None else found  # a text that is no date stays a text

    return convert


def _quantity(value: Any) -> Any:
    """A Quantity as a System.Quantity; None where a comparator or a missing value makes it another thing."""
    number = value.get("value")
    if number is None or "comparator" in value or number.__class__ is bool:
        return None
    code, told = value.get("code"), value.get("system")
    if code is not None and told == _UCUM:
        return Quantity(_decimal(number), code)
    if code is not None and told is not None:
        return Quantity(_decimal(number), code, system=str(told))
    return Quantity(_decimal(number), code or value.get("unit") or "1")


CONVERTERS: dict[str, Callable[[Any], Any]] = {
    "String": _text,
    "Boolean": _text,
    "Integer": _integer,
    "Decimal": _decimal,
    "Date": _temporal(parse_date),
    "DateTime": _temporal(parse_datetime),
    "Time": _temporal(parse_time),
    "Quantity": _quantity,
}
"""System type to the function from JSON to a value of it."""


def system(item: Item) -> Item:
    """The System value of an item; what has none is given back as it is."""
    if item.__class__ is not tuple:
        return item
    convert = item[1].convert
    if convert is None or item[0] is None:
        return item
    value = convert(item[0])
    return item if value is None else value


_KINDS = {str: "String", bool: "Boolean", int: "Integer", Long: "Long", Quantity: "Quantity"}


def kind_of(item: Item) -> str:
    """Name of an item's type for messages and tests: of its System type, or of FHIR's as ``FHIR.Patient``."""
    if item.__class__ is tuple:
        return f"FHIR.{item[1].name}"
    found = _KINDS.get(item.__class__)
    if found is not None:
        return found
    if isinstance(item, Decimal):
        return "Decimal"
    if isinstance(item, Temporal):
        return item.kind
    return "Any"


def one(items: Items, at: int, what: str) -> Item:
    """The System value of the single item; None for none.

    Raises:
        Invalid: ``fhirpath.singleton``.
    """
    if len(items) == 1:
        item = items[0]
        if item.__class__ is not tuple:
            return item
        # A primitive that has extensions and no value is there, but is nothing to compute with.
        return None if item[0] is None and item[1].primitive else system(item)
    if items:
        raise singleton_error(at, what, len(items))
    return None


def truth(items: Items, at: int, what: str) -> bool | None:
    """A collection as a Boolean: its one item, true where that is something else, None for none."""
    if len(items) == 1:
        item = items[0]
        value = system(item) if item.__class__ is tuple else item
        return value if value.__class__ is bool else True
    if items:
        raise singleton_error(at, what, len(items))
    return None


def string_of(items: Items, at: int, what: str) -> str | None:
    """The single String; None for none.

    Raises:
        Invalid: ``fhirpath.singleton``, ``fhirpath.type``.
    """
    value = one(items, at, what)
    if value is None or value.__class__ is str:
        return value
    raise type_error(at, what, kind_of(value), "a String")


def integer_of(items: Items, at: int, what: str) -> int | None:
    """The single Integer; None for none."""
    value = one(items, at, what)
    if value is None or value.__class__ is int or value.__class__ is Long:
        return value
    raise type_error(at, what, kind_of(value), "an Integer")


def unwrap(item: Item) -> Any:
    """The plain Python value of an item: JSON of an element, or text of a date, time or quantity."""
    kind = item.__class__
    if kind is tuple:
        return item[2] if item[0] is None else item[0]
    if kind is Temporal or kind is Quantity:
        return item.text
    return int(item) if kind is Long else item
