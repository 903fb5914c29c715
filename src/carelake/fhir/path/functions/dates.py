"""The current moment, parts of dates and spans between them (https://hl7.org/fhirpath/N1/#current-date-and-time-functions)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from carelake.fhir.path.context import Env
from carelake.fhir.path.errors import argument_error, type_error
from carelake.fhir.path.registry import eager, function
from carelake.fhir.path.temporal import UNITS, Temporal, from_datetime, in_utc, moment_of
from carelake.fhir.path.values import Item, Items, kind_of, one, string_of

__all__: list[str] = []


@function("now")
def _now(items: Items, env: Env, at: int) -> Items:
    return [from_datetime(env.now)]


@function("today")
def _today(items: Items, env: Env, at: int) -> Items:
    return [Temporal("Date", (env.now.year, env.now.month, env.now.day))]


@function("timeOfDay")
def _time_of_day(items: Items, env: Env, at: int) -> Items:
    whole = from_datetime(env.now)
    return [Temporal("Time", whole.parts[3:], whole.fraction)]


# --- parts ---


def _part(name: str, work: Callable[[Temporal], Any]) -> None:
    @function(name)
    def apply(items: Items, env: Env, at: int) -> Items:
        value = one(items, at, f"{name}()")
        found = work(value) if value.__class__ is Temporal else None
        return [] if found is None else [found]


def _at(n: int) -> Callable[[Temporal], int | None]:
    """The n-th of year, month, day, hour, minute, second."""

    def part(value: Temporal) -> int | None:
        place = n - 3 if value.kind == "Time" else n
        return value.parts[place] if 0 <= place < len(value.parts) else None

    return part


for _n, _name in enumerate(("yearOf", "monthOf", "dayOf", "hourOf", "minuteOf", "secondOf")):
    _part(_name, _at(_n))
_part("millisecondOf", lambda value: int((value.fraction + "000")[:3]) if value.fraction else None)
_part("timezoneOffsetOf", lambda value: None if value.zone is None else _hours(value.zone))
_part("dateOf", lambda value: None if value.kind == "Time" else Temporal("Date", value.parts[:3]))
_part(
    "timeOf",
    lambda value: (
        Temporal("Time", value.parts[3:], value.fraction)
        if value.kind == "DateTime" and len(value.parts) > 3
        else None
    ),
)


def _hours(minutes: int) -> Decimal:
    hours = Decimal(minutes) / 60
    return hours.quantize(Decimal("0.1")) if hours == hours.quantize(Decimal("0.1")) else hours


# --- spans ---

_OF_TIME = ("hour", "minute", "second", "millisecond")
_STEP = {
    "week": timedelta(weeks=1),
    "day": timedelta(days=1),
    "hour": timedelta(hours=1),
    "minute": timedelta(minutes=1),
    "second": timedelta(seconds=1),
    "millisecond": timedelta(milliseconds=1),
}


def _span(name: str, work: Callable[[datetime, datetime, str], int]) -> None:
    @eager(name, 2)
    def apply(items: Items, env: Env, at: int, other: Items, precision: Items) -> Items:
        start, end = one(items, at, f"{name}()"), one(other, at, f"{name}()")
        told = string_of(precision, at, f"{name}()")
        if start is None or end is None or told is None:
            return []
        _check(start, end, told, at, f"{name}()")
        if any(_precise(value) < _needed(told) for value in (start, end)):
            return []
        if told in _OF_TIME:
            start, end = (in_utc(value) if value.zone is not None else value for value in (start, end))
        return [work(moment_of(start), moment_of(end), told)]


def _check(start: Item, end: Item, told: str, at: int, name: str) -> None:
    for value in (start, end):
        if value.__class__ is not Temporal:
            raise type_error(at, name, kind_of(value), "a Date, DateTime or Time")
    if (start.kind == "Time") != (end.kind == "Time"):
        raise type_error(at, name, f"{start.kind} and {end.kind}", "two dates or two times")
    of_time = start.kind == "Time"
    of_date = "Date" in (start.kind, end.kind)
    known = told in _STEP or told in ("year", "month")
    if not known or (of_time and told not in _OF_TIME) or (of_date and told in _OF_TIME):
        raise argument_error(at, f"{name} takes a precision that both values may have, such as day or hour.")


def _precise(value: Temporal) -> int:
    return len(value.parts) + (3 if value.kind == "Time" else 0) + bool(value.fraction)


def _needed(unit: str) -> int:
    return 3 if unit == "week" else UNITS.index(unit) + 1


def _whole_periods(start: datetime, end: datetime, unit: str) -> int:
    if unit in ("year", "month"):
        sign = 1 if start <= end else -1
        early, late = (start, end) if sign > 0 else (end, start)
        months = (late.year - early.year) * 12 + late.month - early.month
        if (late.day, late.time()) < (early.day, early.time()):
            months -= 1
        return sign * (months if unit == "month" else months // 12)
    gap = end - start
    count = abs(gap) // _STEP[unit]
    return count if gap >= timedelta(0) else -count


def _boundaries(start: datetime, end: datetime, unit: str) -> int:
    if unit == "year":
        return end.year - start.year
    if unit == "month":
        return (end.year - start.year) * 12 + end.month - start.month
    floor = datetime(1, 1, 1) - timedelta(0)  # noqa: DTZ001 - both sides are local
    if unit == "week":
        # 31 December of the year 0 would be a Sunday, and weeks start there.
        return ((end - floor).days + 1) // 7 - ((start - floor).days + 1) // 7
    return (end - floor) // _STEP[unit] - (start - floor) // _STEP[unit]


_span("duration", _whole_periods)
_span("difference", _boundaries)
