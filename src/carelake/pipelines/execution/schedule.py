"""Schedules as EventBridge has them for SageMaker Pipelines: ``at(...)``, ``rate(...)`` and ``cron(...)``, in UTC.

https://docs.aws.amazon.com/scheduler/latest/UserGuide/schedule-types.html
"""

from __future__ import annotations

import calendar
import re
from datetime import UTC, date, datetime, time, timedelta

from carelake.core.errors import Invalid, Unsupported

__all__ = ["next_after"]

_RATE = re.compile(r"rate\((\d{1,6}) (minute|hour|day)s?\)")
_AT = re.compile(r"at\((\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\)")
_CRON = re.compile(r"cron\((\S+) (\S+) (\S+) (\S+) (\S+) (\S+)\)")
_PART = re.compile(r"(\*|[0-9A-Z]+)(?:-([0-9A-Z]+))?(?:/(\d{1,3}))?")
_MONTHS = {name: str(at) for at, name in enumerate(("JAN", "FEB", "MAR", "APR", "MAY", "JUN"), 1)}
_MONTHS |= {name: str(at) for at, name in enumerate(("JUL", "AUG", "SEP", "OCT", "NOV", "DEC"), 7)}
_WEEK = {name: str(at) for at, name in enumerate(("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"), 1)}
_DAYS = 366 * 8
"""How far ahead a day is looked for: a 29 February may be eight years off."""


def next_after(expression: str, moment: datetime) -> datetime | None:
    """The first time after ``moment`` that a schedule names; None for never again.

    Raises:
        Invalid: ``pipelines.schedule``. Unsupported: ``pipelines.unsupported``: ``W`` and ``#`` in a cron.
    """
    if found := _RATE.fullmatch(expression):
        number, unit = int(found[1]), found[2]
        if number:
            return moment + timedelta(**{f"{unit}s": number})
    elif found := _AT.fullmatch(expression):
        try:
            at = datetime.fromisoformat(found[1]).replace(tzinfo=UTC)
        except ValueError:
            raise _wrong() from None
        return at if at > moment else None
    elif found := _CRON.fullmatch(expression):
        return _Cron(*found.groups()).after(moment.astimezone(UTC))
    raise _wrong()


class _Cron:
    def __init__(self, minutes: str, hours: str, days: str, months: str, week: str, years: str) -> None:
        if any(mark in days + week for mark in ("W", "#")) and not set(_WEEK) & set(re.findall("[A-Z]{3}", week)):
            raise Unsupported("pipelines.unsupported", "W and # in a cron are not carried out here; name the days.")
        if (days == "?") == (week == "?"):
            raise _wrong()
        self._minutes = sorted(_numbers(minutes, 0, 59))
        self._hours = sorted(_numbers(hours, 0, 23))
        self._months = _numbers(_words(months, _MONTHS), 1, 12)
        self._years = None if years == "*" else _numbers(years, 1970, 2199)
        self._last = days == "L"
        self._days = None if days == "?" or self._last else _numbers(days, 1, 31)
        self._week = None if week == "?" else _numbers(_words(week, _WEEK), 1, 7)

    def after(self, moment: datetime) -> datetime | None:
        day = moment.date()
        for _ in range(_DAYS):
            if self._meant(day):
                for hour in self._hours:
                    for minute in self._minutes:
                        found = datetime.combine(day, time(hour, minute), UTC)
                        if found > moment:
                            return found
            day += timedelta(days=1)
        return None

    def _meant(self, day: date) -> bool:
        if day.month not in self._months or (self._years is not None and day.year not in self._years):
            return False
        if self._last:
            return day.day == calendar.monthrange(day.year, day.month)[1]
        if self._days is not None:
            return day.day in self._days
        return self._week is not None and day.isoweekday() % 7 + 1 in self._week


def _words(text: str, words: dict[str, str]) -> str:
    return re.sub("[A-Z]{3}", lambda found: words.get(found[0], found[0]), text)


def _numbers(text: str, low: int, high: int) -> frozenset[int]:
    """The numbers of one field: ``*``, ``5``, ``1-5``, ``0/15``, and lists of these."""
    found: set[int] = set()
    for part in text.split(","):
        said = _PART.fullmatch(part)
        if said is None:
            raise _wrong()
        first, last, step = said.groups()
        if not all(one is None or one == "*" or one.isdigit() for one in (first, last)) or not int(step or 1):
            raise _wrong()
        begin = low if first == "*" else int(first)
        end = int(last) if last else high if first == "*" or step else begin
        if not low <= begin <= end <= high:
            raise _wrong()
        found.update(range(begin, end + 1, int(step or 1)))
    return frozenset(found)


def _wrong() -> Invalid:
    return Invalid(
        "pipelines.schedule",
        "Not a schedule; expected at(2026-12-01T06:00:00), rate(1 day) or cron(MINUTES HOURS DAY MONTH WEEKDAY YEAR) "
        "with ? for the day or the weekday, for example cron(0 6 ? * MON-FRI *).",
    )
