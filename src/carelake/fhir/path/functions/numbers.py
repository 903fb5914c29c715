"""Math (https://hl7.org/fhirpath/N1/#math); decimals are computed with 28 digits."""

from __future__ import annotations

from collections.abc import Callable
from decimal import ROUND_CEILING, ROUND_DOWN, ROUND_FLOOR, ROUND_HALF_UP, Decimal, DecimalException
from typing import Any

from carelake.fhir.path.context import Env
from carelake.fhir.path.equality import order
from carelake.fhir.path.errors import argument_error, type_error
from carelake.fhir.path.operators import arithmetic, bounded, is_number
from carelake.fhir.path.quantity import Quantity, compare_quantities
from carelake.fhir.path.registry import eager, function
from carelake.fhir.path.values import Item, Items, Long, integer_of, kind_of, one

__all__: list[str] = []


def _number(items: Items, at: int, name: str) -> Decimal | None:
    value = one(items, at, name)
    if value is None:
        return None
    if is_number(value):
        return Decimal(value)
    raise type_error(at, name, kind_of(value), "a number")


@function("abs")
def _abs(items: Items, env: Env, at: int) -> Items:
    value = one(items, at, "abs()")
    if value is None:
        return []
    if value.__class__ is Quantity:
        return [value.with_value(abs(value.value))]
    if not is_number(value):
        raise type_error(at, "abs()", kind_of(value), "a number or a Quantity")
    return bounded(Long(abs(value)) if value.__class__ is Long else abs(value))


def _whole(name: str, rounding: str) -> None:
    @function(name)
    def work(items: Items, env: Env, at: int) -> Items:
        value = one(items, at, f"{name}()")
        if value is None or value.__class__ in (int, Long):
            return items if value is None else [value]
        try:
            if value.__class__ is Quantity:
                return [value.with_value(value.value.to_integral_value(rounding))]
            if is_number(value):
                return bounded(int(value.to_integral_value(rounding))) if value.adjusted() < 30 else []
        except DecimalException:
            return []
        raise type_error(at, f"{name}()", kind_of(value), "a number or a Quantity")


_whole("ceiling", ROUND_CEILING)
_whole("floor", ROUND_FLOOR)
_whole("truncate", ROUND_DOWN)


@eager("round", 0, 1)
def _round(items: Items, env: Env, at: int, digits: Items | None = None) -> Items:
    value = one(items, at, "round()")
    places = 0 if digits is None else integer_of(digits, at, "round()")
    if value is None or places is None:
        return []
    if places < 0:
        raise argument_error(at, "round() takes zero or more decimals.")
    if value.__class__ is Quantity:
        return [value.with_value(_rounded(value.value, places))]
    if is_number(value):
        return [_rounded(Decimal(value), places)]
    raise type_error(at, "round()", kind_of(value), "a number or a Quantity")


def _rounded(value: Decimal, places: int) -> Decimal:
    exponent = value.as_tuple().exponent
    if not isinstance(exponent, int) or -exponent <= places:
        return value
    return value.quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP)


def _function_of(name: str, work: Callable[[Decimal], Decimal]) -> None:
    @function(name)
    def apply(items: Items, env: Env, at: int) -> Items:
        value = _number(items, at, f"{name}()")
        if value is None:
            return []
        try:
            return bounded(work(value))
        except DecimalException:
            return []


_function_of("sqrt", lambda value: value.sqrt())
_function_of("ln", lambda value: value.ln())
_function_of(
    "exp", lambda value: value.exp() if abs(value) < 100 else Decimal("Infinity") if value > 0 else Decimal(0)
)


@eager("log", 1)
def _log(items: Items, env: Env, at: int, base: Items) -> Items:
    value, of = _number(items, at, "log()"), _number(base, at, "log()")
    if value is None or of is None:
        return []
    if value <= 0 or of <= 0:
        raise argument_error(at, "log() is defined for numbers and bases above zero.")
    try:
        # The last digits are noise of the two logarithms; without it 16.log(2) is 4.
        return bounded(_clean(value.ln() / of.ln()))
    except (DecimalException, ZeroDivisionError):
        return []


def _clean(value: Decimal) -> Decimal:
    return +value.quantize(Decimal(1).scaleb(min(0, value.adjusted() - 25))).normalize() if value else value


@eager("power", 1)
def _power(items: Items, env: Env, at: int, exponent: Items) -> Items:
    value, by = one(items, at, "power()"), _number(exponent, at, "power()")
    if value is None or by is None:
        return []
    if not is_number(value):
        raise type_error(at, "power()", kind_of(value), "a number")
    if value == 0 and by == 0:
        return [1]
    if abs(by) > 10_000:
        return []
    try:
        found = Decimal(value) ** by
    except DecimalException:
        return []
    whole = value.__class__ in (int, Long) and by >= 0 and by == by.to_integral_value()
    return bounded(int(found)) if whole and abs(found) < 2**31 else bounded(found)


@eager("comparable", 1)
def _comparable(items: Items, env: Env, at: int, other: Items) -> Items:
    if len(items) != 1 or len(other) != 1:
        return []
    pair = [_quantity(one(side, at, "comparable()")) for side in (items, other)]
    if pair[0] is None or pair[1] is None:
        return []
    return [compare_quantities(pair[0], pair[1]) is not None]


def _quantity(value: Item) -> Quantity | None:
    if value.__class__ is Quantity:
        return value
    return Quantity(Decimal(value)) if is_number(value) else None


def _extreme(name: str, wanted: int) -> None:
    @function(name)
    def work(items: Items, env: Env, at: int) -> Items:
        best: Any = None
        for item in items:
            value = one([item], at, f"{name}()")
            if best is None or order(value, best, at, f"{name}()") == wanted:
                best = value
        return [] if best is None else [best]


_extreme("min", -1)
_extreme("max", 1)


def _summed(items: Items, env: Env, at: int, name: str) -> Items:
    found: Items = []
    for item in items:
        value = one([item], at, name)
        if not found:
            found = [value]
            continue
        found = arithmetic("+", found[0], value, at, env)
        if not found:
            return []
    return found


@function("sum")
def _sum(items: Items, env: Env, at: int) -> Items:
    return _summed(items, env, at, "sum()")


@function("avg")
def _avg(items: Items, env: Env, at: int) -> Items:
    total = _summed(items, env, at, "avg()")
    return arithmetic("/", total[0], len(items), at, env) if total else []
