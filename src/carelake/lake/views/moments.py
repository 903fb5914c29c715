"""Dates and times as text, in SQL: order where their precision leaves it open, and their boundaries.

As `fhir.path.temporal` and `fhir.path.boundaries`, with words that every engine has.
"""

from __future__ import annotations

from carelake.lake.views.paths import Names
from carelake.lake.views.plan import INT, TEXT, Case, Const, Expr, Let, Null, Op, Ref

__all__ = ["boundary", "compared"]

_ZERO = Const(0, INT)


def _number(value: int) -> Const:
    return Const(value, INT)


def _text(value: str) -> Const:
    return Const(value, TEXT)


def _length(text: Expr) -> Expr:
    return Op("length", (text,))


def _left(text: Expr, count: Expr) -> Expr:
    return Op("left", (text, count))


def _order(a: Expr, b: Expr, same: Expr) -> Expr:
    return Case(Op("lt", (a, b)), _number(-1), Case(Op("gt", (a, b)), _number(1), same))


def compared(names: Names, left: Expr, right: Expr, system: str) -> Expr:
    """-1, 0 or 1; null where it is open, for example ``2015`` and ``2015-02``."""
    one, other = names.new("t"), names.new("t")
    a, b = Ref(one), Ref(other)
    count = Op("least", (_length(a), _length(b)))
    if system == "Time":
        clock, exact = Op("least", (count, _number(8))), Op("ge", (count, _number(8)))
        full = _order(Op("clock", (a,)), Op("clock", (b,)), _ZERO)
    else:
        clock = Op("least", (count, _number(10)))
        exact = Op("and", (Op("gt", (_length(a), _number(10))), Op("gt", (_length(b), _number(10)))))
        full = _order(Op("moment", (a,)), Op("moment", (b,)), _ZERO)
    same = Case(Op("eq", (_length(a), _length(b))), _ZERO, Null(INT))
    partly = _order(_left(a, clock), _left(b, clock), same)
    there = Op("and", (Op("is_not_null", (a,)), Op("is_not_null", (b,))))
    return Let(one, left, Let(other, right, Case(there, Case(exact, full, partly), Null(INT))))


def boundary(names: Names, value: Expr, system: str, high: bool) -> Expr:
    """The first or last moment that a text of limited precision may stand for, to a day or a millisecond."""
    name = names.new("t")
    text = Ref(name)
    if system == "Date":
        body = _day(text, high)
    elif system == "Time":
        body = _clock(names, text, high)
    else:
        edge = "T23:59:59.999-12:00" if high else "T00:00:00.000+14:00"
        day = Op("concat", (_day(text, high), _text(edge)))
        body = Case(Op("le", (_length(text), _number(10))), day, _moment(names, text, high))
    return Let(name, value, body)


def _day(text: Expr, high: bool) -> Expr:
    year = Op("concat", (text, _text("-12-31" if high else "-01-01")))
    month = Op("month_end", (text,)) if high else Op("concat", (text, _text("-01")))
    months = Case(Op("eq", (_length(text), _number(7))), month, text)
    return Case(Op("eq", (_length(text), _number(4))), year, months)


def _fraction(rest: Expr, high: bool) -> Expr:
    """Three digits of a fraction that may have fewer or more."""
    digits = Op("extract", (rest, _text(r"^\.([0-9]+)"), _number(1)))
    return _left(Op("concat", (digits, _text("999" if high else "000"))), _number(3))


def _clock(names: Names, text: Expr, high: bool) -> Expr:
    seconds = Op("concat", (text, _text(":59" if high else ":00")))
    whole = Case(Op("eq", (_length(text), _number(5))), seconds, _left(text, _number(8)))
    rest = Op("substr", (text, _number(8)))
    return Op("concat", (whole, _text("."), _fraction(rest, high)))


def _moment(names: Names, text: Expr, high: bool) -> Expr:
    name = names.new("r")
    rest = Ref(name)
    zone = Op("extract", (rest, _text(r"(Z|[+-][0-9]{2}:[0-9]{2})$"), _number(1)))
    told = Op("replace", (Op("replace", (zone, _text("+00:00"), _text("Z"))), _text("-00:00"), _text("Z")))
    known = Case(Op("eq", (told, _text(""))), _text("-12:00" if high else "+14:00"), told)
    made = Op("concat", (_left(text, _number(19)), _text("."), _fraction(rest, high), known))
    return Let(name, Op("substr", (text, _number(19))), made)
