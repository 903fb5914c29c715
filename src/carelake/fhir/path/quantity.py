"""Quantities: a decimal with a UCUM unit or a calendar duration (https://hl7.org/fhirpath/N1/#quantity)."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction
from functools import lru_cache
from typing import Any

from carelake.fhir.path.ucum import Unit, divide, multiply, unit

__all__ = [
    "CALENDAR",
    "Quantity",
    "calendar_unit",
    "compare_quantities",
    "convert",
    "equivalent_quantities",
    "key_of_quantity",
    "product",
    "quotient",
    "total",
]

_WORDS = ("year", "month", "week", "day", "hour", "minute", "second", "millisecond")
CALENDAR = {word: word for word in _WORDS} | {word + "s": word for word in _WORDS}
"""Keyword of a calendar duration, one or many, to its name."""

_DEFINITE = {"a": "year", "mo": "month", "wk": "week", "d": "day", "h": "hour", "min": "minute", "s": "second"}
_DEFINITE["ms"] = "millisecond"
_UCUM_OF = {name: code for code, name in _DEFINITE.items()}
_SECONDS: dict[str, int | Fraction] = {
    "week": 604_800,
    "day": 86_400,
    "hour": 3600,
    "minute": 60,
    "second": 1,
    "millisecond": Fraction(1, 1000),
}


class Quantity:
    """A System.Quantity.

    Attributes:
        unit: UCUM code or, if ``calendar``, a keyword as written (``day``, ``days``).
        system: "" for UCUM and calendar; else the system of a FHIR Quantity whose units only compare with themselves.
    """

    __slots__ = ("calendar", "system", "unit", "value")

    def __init__(self, value: Decimal, unit: str = "1", calendar: bool = False, system: str = "") -> None:
        self.value = value
        self.unit = unit
        self.calendar = calendar
        self.system = system

    @property
    def text(self) -> str:
        """As FHIRPath writes it: ``4.5 'mg'``, ``4 days``."""
        number = format(self.value, "f") if abs(self.value.adjusted()) < 400 else str(self.value)
        return f"{number} {self.unit}" if self.calendar else f"{number} '{self.unit}'"

    def with_value(self, value: Decimal) -> Quantity:
        """The same unit with another value."""
        return Quantity(value, self.unit, self.calendar, self.system)

    def __repr__(self) -> str:
        return "Quantity"


def calendar_unit(quantity: Quantity) -> tuple[str, bool] | None:
    """(name of the calendar duration, whether it is one for certain: not ``a`` and ``mo``); None for other units."""
    if quantity.calendar or quantity.unit in CALENDAR:
        return CALENDAR[quantity.unit], True
    name = _DEFINITE.get(quantity.unit)
    return None if name is None else (name, name not in ("year", "month"))


def _factor(quantity: Quantity) -> tuple[str, Fraction] | None:
    """(dimension, factor to its base); years and months of the calendar have dimensions of their own."""
    if quantity.system:
        return f"{quantity.system}|{quantity.unit}", Fraction(1)
    if quantity.calendar or quantity.unit in CALENDAR:
        name = CALENDAR[quantity.unit]
        if name in ("year", "month"):
            return "calendar", Fraction(12 if name == "year" else 1)
        return "T1", Fraction(_SECONDS[name])
    measured = unit(quantity.unit)
    if measured is None or measured.special:
        # The same text is the same unit, whatever it may mean.
        return f"?{quantity.unit}", Fraction(1)
    return _dimension(measured), measured.factor


def _dimension(measured: Unit) -> str:
    return measured.dimension or "1"


def _base(quantity: Quantity) -> tuple[str, Fraction] | None:
    found = _factor(quantity)
    if found is None or not quantity.value.is_finite() or abs(quantity.value.adjusted()) > 400:
        return None
    return found[0], Fraction(quantity.value) * found[1]


def compare_quantities(left: Quantity, right: Quantity) -> int | None:
    """-1, 0 or 1, or None where the units do not compare."""
    one, other = _base(left), _base(right)
    if one is None or other is None or one[0] != other[0]:
        return None
    return (one[1] > other[1]) - (one[1] < other[1])


def key_of_quantity(quantity: Quantity) -> tuple[Any, ...]:
    """Equal for two quantities exactly where `compare_quantities` gives 0."""
    return ("Quantity", *(_base(quantity) or (quantity.unit, quantity.value)))


def equivalent_quantities(left: Quantity, right: Quantity) -> bool | None:
    """Equal once rounded to the less precise one, in the greater of the two units; None where they do not compare."""
    left, right = _definite(left), _definite(right)
    one, other = _factor(left), _factor(right)
    if one is None or other is None or one[0] != other[0]:
        return None
    greatest = max(one[1], other[1])
    a, b = _scaled(left.value, one[1] / greatest), _scaled(right.value, other[1] / greatest)
    digits = min(_significant(left.value, one[1] == greatest, a), _significant(right.value, other[1] == greatest, b))
    return _rounded(a, digits) == _rounded(b, digits)


def _definite(quantity: Quantity) -> Quantity:
    """Calendar durations are equivalent to UCUM's, years and months too."""
    if quantity.calendar or quantity.unit in CALENDAR:
        return Quantity(quantity.value, _UCUM_OF[CALENDAR[quantity.unit]])
    return quantity


def _scaled(value: Decimal, factor: Fraction) -> Decimal:
    exact = Fraction(value) * factor
    return Decimal(exact.numerator) / Decimal(exact.denominator)


def _significant(value: Decimal, unchanged: bool, scaled: Decimal) -> int:
    """Decimals to compare by: those the value has, trailing zeroes not counted."""
    return decimals(value if unchanged else scaled)


def decimals(value: Decimal) -> int:
    """Digits after the point without trailing zeroes."""
    exponent = value.normalize().as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0


def _rounded(value: Decimal, digits: int) -> Decimal:
    return value.quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP)


def _is_one(quantity: Quantity) -> bool:
    return quantity.unit == "1" and not quantity.calendar


def convert(quantity: Quantity, target: str) -> Quantity | None:
    """The same amount in another unit (UCUM code or calendar keyword); None where there is no way."""
    if _is_one(quantity):
        return Quantity(quantity.value, target, target in CALENDAR)
    wanted = Quantity(Decimal(1), target, target in CALENDAR)
    if (quantity.unit, quantity.calendar) == (wanted.unit, wanted.calendar):
        return quantity
    factor = _ratio(quantity, wanted)
    if factor is None:
        return None
    return Quantity(_scaled(quantity.value, factor), target, wanted.calendar)


_CALENDAR_DAYS = {"year": 365, "month": 30, "week": 7, "day": 1}


def _ratio(source: Quantity, target: Quantity) -> Fraction | None:
    """How many of the target's unit one of the source's is."""
    names = [CALENDAR.get(q.unit) for q in (source, target)]
    if source.calendar or target.calendar:
        # Across the two systems: within the source's own, then the unit that answers to it.
        names = [name or _DEFINITE.get(q.unit) for name, q in zip(names, (source, target), strict=True)]
        if None in names:
            return None
        if not source.calendar:
            target = Quantity(Decimal(1), _UCUM_OF[str(names[1])])
        else:
            return _calendar_ratio(str(names[0]), str(names[1]))
    one, other = _factor(source), _factor(target)
    if one is None or other is None or one[0] != other[0]:
        return None
    return one[1] / other[1]


def _calendar_ratio(source: str, target: str) -> Fraction:
    if {source, target} == {"year", "month"}:
        return Fraction(12) if source == "year" else Fraction(1, 12)

    def seconds(name: str) -> Fraction:
        return Fraction(_CALENDAR_DAYS[name] * 86_400) if name in _CALENDAR_DAYS else Fraction(_SECONDS[name])

    return Fraction(1) if source == target else seconds(source) / seconds(target)


def total(left: Quantity, right: Quantity, sign: int) -> Quantity | None:
    """The sum, in the left one's unit; None where the units do not convert."""
    if _is_one(right) and not _is_one(left):
        return left.with_value(left.value + sign * right.value)
    if _is_one(left) and not _is_one(right):
        return right.with_value(left.value + sign * right.value)
    one, other = _factor(left), _factor(right)
    if one is None or other is None or one[0] != other[0]:
        return None
    if one[0] == "calendar" and one[1] != other[1]:
        return None  # a year is only about twelve months: the author converts
    if one[1] == other[1]:
        return left.with_value(left.value + sign * right.value)
    return left.with_value(left.value + sign * _scaled(right.value, other[1] / one[1]))


@lru_cache(512)
def _combined(left: str, right: str, over: bool) -> str | None:
    return divide(left, right) if over else multiply(left, right)


def _unit_of(left: Quantity, right: Quantity, over: bool) -> tuple[str, bool] | None:
    if _is_one(right):
        return left.unit, left.calendar
    if _is_one(left) and not over:
        return right.unit, right.calendar
    if left.calendar or right.calendar or left.system or right.system:
        return None
    made = _combined(left.unit, right.unit, over)
    return None if made is None else (made, False)


def product(left: Quantity, right: Quantity) -> Quantity | None:
    """Left times right, in UCUM's product of the units; None for calendar durations."""
    made = _unit_of(left, right, False)
    return None if made is None else Quantity(left.value * right.value, *made)


def quotient(left: Quantity, right: Quantity) -> Quantity | None:
    """Left over right; None for calendar durations, and over zero."""
    made = _unit_of(left, right, True)
    return None if made is None or not right.value else Quantity(left.value / right.value, *made)
