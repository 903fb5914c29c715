"""Closures of the binary operators (https://hl7.org/fhirpath/N1/#operations)."""

from __future__ import annotations

from collections.abc import Callable
from decimal import ROUND_DOWN, Decimal, DecimalException
from typing import Any

from carelake.fhir.path.context import Closure, Env, Services
from carelake.fhir.path.equality import all_equal, all_equivalent, contains, order
from carelake.fhir.path.errors import argument_error, singleton_error, type_error
from carelake.fhir.path.quantity import Quantity, calendar_unit, product, quotient, total
from carelake.fhir.path.temporal import Temporal, add
from carelake.fhir.path.values import Item, Items, Long, kind_of, one, string_of, truth

__all__ = ["NO_SERVICES", "OPERATORS", "arithmetic", "bounded", "is_number", "negative"]

NO_SERVICES = Services()
_TRUE: Items = [True]
_FALSE: Items = [False]
_NONE: Items = []
_GREATEST = Decimal(10) ** 28


def is_number(value: Item) -> bool:
    """Integer, Long or Decimal."""
    return value.__class__ in (int, Long) or isinstance(value, Decimal)


def bounded(value: Any) -> Items:
    """A computed number as a collection, empty where it leaves its type's range."""
    if value.__class__ is int:
        return [value] if -(2**31) <= value < 2**31 else []
    if value.__class__ is Long:
        return [value] if -(2**63) <= value < 2**63 else []
    return [value] if value.is_finite() and abs(value) < _GREATEST else []


def negative(value: Any) -> Any:
    """The number with the other sign, of the same type."""
    return Long(-value) if value.__class__ is Long else -value


# --- equality and order ---


def _equals(wanted: bool) -> Callable[[Closure, Closure, int], Closure]:
    yes, no = (_TRUE, _FALSE) if wanted else (_FALSE, _TRUE)

    def make(left: Closure, right: Closure, at: int) -> Closure:
        def equals(focus: Items, env: Env) -> Items:
            one_side = left(focus, env)
            if not one_side:
                return _NONE
            other = right(focus, env)
            if not other:
                return _NONE
            if len(other) > 1:
                env.spend(len(other), at)
            same = all_equal(one_side, other)
            return _NONE if same is None else yes if same else no

        return equals

    return make


def _equivalents(wanted: bool) -> Callable[[Closure, Closure, int], Closure]:
    def make(left: Closure, right: Closure, at: int) -> Closure:
        def equivalents(focus: Items, env: Env) -> Items:
            one_side, other = left(focus, env), right(focus, env)
            env.spend(len(other), at)
            same = all_equivalent(one_side, other)
            return _NONE if same is None else [same is wanted]

        return equivalents

    return make


def _ordered(sign: str, test: Callable[[int], bool]) -> Callable[[Closure, Closure, int], Closure]:
    def make(left: Closure, right: Closure, at: int) -> Closure:
        def ordered(focus: Items, env: Env) -> Items:
            a = one(left(focus, env), at, sign)
            b = one(right(focus, env), at, sign)
            if a is None or b is None:
                return _NONE
            found = order(a, b, at, sign)
            return _NONE if found is None else [test(found)]

        return ordered

    return make


def _membership(sign: str) -> Callable[[Closure, Closure, int], Closure]:
    def make(left: Closure, right: Closure, at: int) -> Closure:
        def membership(focus: Items, env: Env) -> Items:
            item, items = left(focus, env), right(focus, env)
            if sign == "contains":
                item, items = items, item
            if len(item) > 1:
                raise singleton_error(at, sign, len(item))
            env.spend(len(items), at)
            return [contains(items, item[0])] if item else _NONE

        return membership

    return make


# --- logic ---


def _and(left: Closure, right: Closure, at: int) -> Closure:
    def both(focus: Items, env: Env) -> Items:
        a = truth(left(focus, env), at, "and")
        if a is False:
            return _FALSE
        b = truth(right(focus, env), at, "and")
        if b is False:
            return _FALSE
        return _TRUE if a and b else _NONE

    return both


def _or(left: Closure, right: Closure, at: int) -> Closure:
    def either(focus: Items, env: Env) -> Items:
        a = truth(left(focus, env), at, "or")
        if a:
            return _TRUE
        b = truth(right(focus, env), at, "or")
        if b:
            return _TRUE
        return _NONE if a is None or b is None else _FALSE

    return either


def _xor(left: Closure, right: Closure, at: int) -> Closure:
    def one_of(focus: Items, env: Env) -> Items:
        a, b = truth(left(focus, env), at, "xor"), truth(right(focus, env), at, "xor")
        return _NONE if a is None or b is None else [a is not b]

    return one_of


def _implies(left: Closure, right: Closure, at: int) -> Closure:
    def implied(focus: Items, env: Env) -> Items:
        a = truth(left(focus, env), at, "implies")
        if a is False:
            return _TRUE
        b = truth(right(focus, env), at, "implies")
        if b:
            return _TRUE
        return _FALSE if a and b is False else _NONE

    return implied


# --- arithmetic ---


def arithmetic(sign: str, left: Item, right: Item, at: int, env: Env) -> Items:
    """The result of an operator on two values; empty on overflow, division by zero and units that do not fit.

    Raises:
        Invalid: ``fhirpath.type``.
    """
    try:
        if is_number(left) and is_number(right):
            return _numbers(sign, left, right)
        if left.__class__ is Temporal and sign in ("+", "-"):
            return _moved(sign, left, right, at)
        if sign in ("+", "-", "*", "/") and {left.__class__, right.__class__} & {Quantity}:
            return _quantities(sign, left, right, at)
    except (ZeroDivisionError, DecimalException):
        return []
    if sign == "+" and left.__class__ is str and right.__class__ is str:
        return [_joined(left, right, at, env)]
    raise type_error(at, sign, f"{kind_of(left)} and {kind_of(right)}", "two values of a kind that it takes")


def _joined(left: str, right: str, at: int, env: Env) -> str:
    env.write(len(left) + len(right), at)
    return left + right


def _numbers(sign: str, left: Any, right: Any) -> Items:
    if sign == "/":
        return bounded(Decimal(left) / Decimal(right))
    whole = not isinstance(left, Decimal) and not isinstance(right, Decimal)
    if not whole:
        left, right = Decimal(left), Decimal(right)
    value: Any
    if sign == "+":
        value = left + right
    elif sign == "-":
        value = left - right
    elif sign == "*":
        value = left * right
    elif whole:
        quotient_of = abs(left) // abs(right) * (1 if (left < 0) == (right < 0) else -1)
        value = quotient_of if sign == "div" else left - right * quotient_of
    elif sign == "div":
        return _divided(left, right)
    else:
        value = left % right
    if whole and (left.__class__ is Long or right.__class__ is Long):
        value = Long(value)
    return bounded(value)


def _divided(left: Decimal, right: Decimal) -> Items:
    value = (left / right).to_integral_value(ROUND_DOWN)
    return [int(value)] if abs(value) < 2**31 else bounded(value)


def _moved(sign: str, moment: Temporal, by: Item, at: int) -> Items:
    if by.__class__ is not Quantity:
        raise type_error(at, sign, f"{kind_of(moment)} and {kind_of(by)}", "a date or time and a duration")
    named = calendar_unit(by)
    if named is None or not named[1]:
        raise argument_error(at, "a date takes calendar durations (1 year, 2 days) or weeks and less of UCUM.")
    if abs(by.value.adjusted()) > 15:
        raise argument_error(at, "the duration is longer than all of time.")
    try:
        return [add(moment, by.value if sign == "+" else -by.value, named[0])]
    except ValueError:
        raise argument_error(at, "a time takes hours, minutes, seconds and milliseconds only.") from None
    except OverflowError:
        raise argument_error(at, "the date leaves the years 1 to 9999.") from None


def _quantities(sign: str, left: Item, right: Item, at: int) -> Items:
    pair = [Quantity(Decimal(value)) if is_number(value) else value for value in (left, right)]
    a, b = pair
    if a.__class__ is not Quantity or b.__class__ is not Quantity:
        raise type_error(at, sign, f"{kind_of(left)} and {kind_of(right)}", "two numbers or quantities")
    made = product(a, b) if sign == "*" else quotient(a, b) if sign == "/" else total(a, b, 1 if sign == "+" else -1)
    return [] if made is None or not bounded(made.value) else [made]


def _calculated(sign: str) -> Callable[[Closure, Closure, int], Closure]:
    def make(left: Closure, right: Closure, at: int) -> Closure:
        def calculated(focus: Items, env: Env) -> Items:
            a = one(left(focus, env), at, sign)
            b = one(right(focus, env), at, sign)
            return _NONE if a is None or b is None else arithmetic(sign, a, b, at, env)

        return calculated

    return make


def _concatenated(left: Closure, right: Closure, at: int) -> Closure:
    def concatenated(focus: Items, env: Env) -> Items:
        a, b = string_of(left(focus, env), at, "&"), string_of(right(focus, env), at, "&")
        return [_joined(a or "", b or "", at, env)]

    return concatenated


OPERATORS: dict[str, Callable[[Closure, Closure, int], Closure]] = {
    "=": _equals(True),
    "!=": _equals(False),
    "~": _equivalents(True),
    "!~": _equivalents(False),
    "<": _ordered("<", lambda found: found < 0),
    "<=": _ordered("<=", lambda found: found <= 0),
    ">": _ordered(">", lambda found: found > 0),
    ">=": _ordered(">=", lambda found: found >= 0),
    "in": _membership("in"),
    "contains": _membership("contains"),
    "and": _and,
    "or": _or,
    "xor": _xor,
    "implies": _implies,
    "&": _concatenated,
    **{sign: _calculated(sign) for sign in ("+", "-", "*", "/", "div", "mod")},
}
