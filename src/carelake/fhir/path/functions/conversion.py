"""toX and convertsToX (https://hl7.org/fhirpath/N1/#conversion)."""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from carelake.fhir.path.context import Env
from carelake.fhir.path.formats import parse_with
from carelake.fhir.path.operators import is_number
from carelake.fhir.path.quantity import CALENDAR, Quantity, convert
from carelake.fhir.path.registry import eager, function
from carelake.fhir.path.temporal import Temporal, parse_date, parse_datetime, parse_time
from carelake.fhir.path.values import Item, Items, Long, one, string_of

__all__: list[str] = []

_INTEGER = re.compile(r"[+-]?\d{1,20}", re.ASCII).fullmatch
_DECIMAL = re.compile(r"[+-]?\d{1,1000}(?:\.\d{1,1000})?", re.ASCII).fullmatch
_QUANTITY = re.compile(r"([+-]?\d{1,1000}(?:\.\d{1,1000})?)\s*(?:'([^']+)'|([a-zA-Z]+))?", re.ASCII).fullmatch
_YES = frozenset({"true", "t", "yes", "y", "1", "1.0"})
_NO = frozenset({"false", "f", "no", "n", "0", "0.0"})


def to_boolean(value: Item) -> bool | None:
    """System.Boolean of a value."""
    if value.__class__ is bool:
        return value
    if is_number(value):
        return None if value not in (0, 1) else bool(value == 1)
    if value.__class__ is str:
        lowered = value.lower()
        return True if lowered in _YES else False if lowered in _NO else None
    return None


def _whole(limit: int, made: type[int]) -> Callable[[Item], int | None]:
    def to_whole(value: Item) -> int | None:
        if value.__class__ in (int, Long):
            return made(value) if -limit <= value < limit else None
        if value.__class__ is bool:
            return made(value)
        if value.__class__ is str and _INTEGER(value) and -limit <= int(value) < limit:
            return made(value)
        return None

    return to_whole


def to_decimal(value: Item) -> Decimal | None:
    """System.Decimal of a value."""
    if value.__class__ is bool:
        return Decimal("1.0") if value else Decimal("0.0")
    if is_number(value):
        return Decimal(value)
    return Decimal(value) if value.__class__ is str and _DECIMAL(value) else None


def to_text(value: Item) -> str | None:
    """System.String of a value."""
    if value.__class__ is str:
        return value
    if value.__class__ is bool:
        return "true" if value else "false"
    if isinstance(value, Decimal):
        return format(value, "f") if abs(value.adjusted()) < 1000 else str(value)
    if is_number(value):
        return str(int(value))
    return value.text if isinstance(value, Temporal | Quantity) else None


def to_date(value: Item) -> Temporal | None:
    """System.Date of a value; the day of a date-time as it is written, whatever its zone."""
    if value.__class__ is Temporal and value.kind != "Time":
        return value if value.kind == "Date" else Temporal("Date", value.parts[:3])
    return parse_date(value) if value.__class__ is str else None


def to_datetime(value: Item) -> Temporal | None:
    """System.DateTime of a value."""
    if value.__class__ is Temporal and value.kind != "Time":
        return value if value.kind == "DateTime" else Temporal("DateTime", value.parts)
    return parse_datetime(value) if value.__class__ is str else None


def to_time(value: Item) -> Temporal | None:
    """System.Time of a value."""
    if value.__class__ is Temporal and value.kind == "Time":
        return value
    return parse_time(value.removeprefix("T")) if value.__class__ is str else None


def to_quantity(value: Item) -> Quantity | None:
    """System.Quantity of a value."""
    if value.__class__ is Quantity:
        return value
    if value.__class__ is bool or is_number(value):
        number = to_decimal(value)
        return None if number is None else Quantity(number)
    match = _QUANTITY(value) if value.__class__ is str else None
    if match is None:
        return None
    number, unit, word = Decimal(match[1]), match[2], match[3]
    if word:
        return Quantity(number, word, True) if word in CALENDAR else None
    return Quantity(number, unit or "1")


def _declare(name: str, work: Callable[[Item], Any]) -> None:
    @function(f"to{name}")
    def to(items: Items, env: Env, at: int) -> Items:
        value = one(items, at, f"to{name}()")
        found = None if value is None else work(value)
        return [] if found is None else [found]

    @function(f"convertsTo{name}")
    def converts(items: Items, env: Env, at: int) -> Items:
        value = one(items, at, f"convertsTo{name}()")
        return [] if value is None else [work(value) is not None]


_declare("Boolean", to_boolean)
_declare("Integer", _whole(2**31, int))
_declare("Long", _whole(2**63, Long))
_declare("Decimal", to_decimal)
_declare("String", to_text)
_declare("Time", to_time)


def _declare_with(name: str, work: Callable[[Item, str | None], Any]) -> None:
    """A conversion that may be told a format or unit."""

    def told(items: Items, argument: Items | None, at: int, said: str) -> tuple[Item, str | None, bool]:
        value = one(items, at, said)
        option = None if argument is None else string_of(argument, at, said)
        return value, option, value is None or (argument is not None and option is None)

    @eager(f"to{name}", 0, 1)
    def to(items: Items, env: Env, at: int, argument: Items | None = None) -> Items:
        value, option, nothing = told(items, argument, at, f"to{name}()")
        found = None if nothing else work(value, option)
        return [] if found is None else [found]

    @eager(f"convertsTo{name}", 0, 1)
    def converts(items: Items, env: Env, at: int, argument: Items | None = None) -> Items:
        value, option, nothing = told(items, argument, at, f"convertsTo{name}()")
        return [] if nothing else [work(value, option) is not None]


def _quantity_in(value: Item, unit: str | None) -> Quantity | None:
    found = to_quantity(value)
    return found if found is None or unit is None else convert(found, unit)


def _dated(plain: Callable[[Item], Temporal | None], kind: str) -> Callable[[Item, str | None], Temporal | None]:
    def work(value: Item, form: str | None) -> Temporal | None:
        if form is None or value.__class__ is not str:
            return plain(value)
        return parse_with(value, form, kind)

    return work


_declare_with("Quantity", _quantity_in)
_declare_with("Date", _dated(to_date, "Date"))
_declare_with("DateTime", _dated(to_datetime, "DateTime"))
