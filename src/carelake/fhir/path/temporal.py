"""Dates, date-times and times that know how precise they are (https://hl7.org/fhirpath/N1/#datetime-equality)."""

from __future__ import annotations

import calendar
import re
from datetime import datetime, timedelta
from decimal import Decimal
from functools import lru_cache

__all__ = [
    "UNITS",
    "Temporal",
    "add",
    "compare",
    "from_datetime",
    "in_utc",
    "moment_of",
    "parse_date",
    "parse_datetime",
    "parse_time",
    "sort_key",
]

UNITS = ("year", "month", "day", "hour", "minute", "second", "millisecond")

_DATE = r"(\d{4})(?:-(\d\d)(?:-(\d\d))?)?"
_TIME = r"(\d\d)(?::(\d\d)(?::(\d\d)(?:\.(\d+))?)?)?"
_DATE_TEXT = re.compile(_DATE, re.ASCII).fullmatch
_TIME_TEXT = re.compile(_TIME, re.ASCII).fullmatch
_DATETIME_TEXT = re.compile(rf"{_DATE}(?:T(?:{_TIME}(Z|[+-]\d\d:\d\d)?)?)?", re.ASCII).fullmatch
_LEAST = (1, 1, 1, 0, 0, 0)
_MICRO = 6
# Two local times whose offsets are not both known may differ by this much and still be one: +14:00 and -12:00.
_SPREAD = timedelta(hours=26)


class Temporal:
    """A value of System.Date, System.DateTime or System.Time.

    Attributes:
        kind: "Date", "DateTime" or "Time".
        parts: year, month, day, hour, minute, second, as far as given; for a time from the hour on.
        fraction: digits after the second, "" for none.
        zone: minutes east of UTC, or None.
    """

    __slots__ = ("_text", "fraction", "kind", "parts", "zone")

    def __init__(
        self, kind: str, parts: tuple[int, ...], fraction: str = "", zone: int | None = None, text: str = ""
    ):
        self.kind = kind
        self.parts = parts
        self.fraction = fraction
        self.zone = zone
        self._text = text

    @property
    def text(self) -> str:
        """As FHIR writes it: ``2015-02``, ``2015-02-04T14:34:28+10:00``, ``10:30``."""
        if not self._text:
            self._text = _write(self)
        return self._text

    @property
    def digits(self) -> int:
        """`precision()`: how many digits it is given with, zone not counted."""
        years = 0 if self.kind == "Time" else 2
        return years + 2 * len(self.parts) + len(self.fraction)

    @property
    def seconds(self) -> Decimal:
        """Seconds and their fraction; the value must have seconds."""
        return Decimal(f"{self.parts[-1]}.{self.fraction or 0}")

    def __repr__(self) -> str:
        return f"{self.kind}({len(self.parts)} parts)"


def _write(value: Temporal) -> str:
    if value.kind == "Time":
        day, clock = "", value.parts
    else:
        year, rest = value.parts[0], value.parts[1:3]
        day, clock = "-".join([f"{year:04d}", *(f"{part:02d}" for part in rest)]), value.parts[3:]
    time = ":".join(f"{part:02d}" for part in clock) + ("." + value.fraction if value.fraction else "")
    if value.zone is None:
        zone = ""
    elif value.zone == 0:
        zone = "Z"
    else:
        zone = f"{'-' if value.zone < 0 else '+'}{abs(value.zone) // 60:02d}:{abs(value.zone) % 60:02d}"
    return day + ("T" if day and time else "") + time + zone


def _numbers(groups: tuple[str | None, ...]) -> tuple[int, ...]:
    return tuple(int(group) for group in groups if group is not None)


def _exists(parts: tuple[int, ...]) -> bool:
    year, month, day = (*parts, *_LEAST[len(parts) :])[:3]
    return 1 <= month <= 12 and year >= 1 and 1 <= day <= calendar.monthrange(year, month)[1]


def _is_time(parts: tuple[int, ...]) -> bool:
    return all(part < limit for part, limit in zip(parts, (24, 60, 61), strict=False))


@lru_cache(4096)
def parse_date(text: str) -> Temporal | None:
    """A System.Date of ``2015``, ``2015-02`` or ``2015-02-04``; None where there is no such day."""
    match = _DATE_TEXT(text)
    if match is None:
        return None
    parts = _numbers(match.groups())
    return Temporal("Date", parts, text=text) if _exists(parts) else None


@lru_cache(4096)
def parse_time(text: str) -> Temporal | None:
    """A System.Time of ``14``, ``14:34``, ``14:34:28`` or ``14:34:28.123``."""
    match = _TIME_TEXT(text)
    if match is None:
        return None
    parts = _numbers(match.groups()[:3])
    return Temporal("Time", parts, match[4] or "", text=text) if _is_time(parts) else None


@lru_cache(4096)
def parse_datetime(text: str) -> Temporal | None:
    """A System.DateTime, partial ones too: ``2015``, ``2015-02-04T14``, ``2015-02-04T14:34:28.123+10:00``."""
    match = _DATETIME_TEXT(text)
    if match is None or (match[4] is not None and match[3] is None):
        return None
    parts = _numbers(match.groups()[:6])
    if not _exists(parts[:3]) or not _is_time(parts[3:]):
        return None
    zone = _zone(match[8]) if match[8] else None
    return Temporal("DateTime", parts, match[7] or "", zone, text.removesuffix("T"))


def _zone(text: str) -> int:
    if text == "Z":
        return 0
    minutes = int(text[1:3]) * 60 + int(text[4:6])
    return -minutes if text[0] == "-" else minutes


def from_datetime(moment: datetime) -> Temporal:
    """An aware datetime as a System.DateTime with milliseconds."""
    offset = moment.utcoffset()
    zone = None if offset is None else round(offset.total_seconds() / 60)
    parts = (moment.year, moment.month, moment.day, moment.hour, moment.minute, moment.second)
    return Temporal("DateTime", parts, f"{moment.microsecond // 1000:03d}", zone)


def moment_of(value: Temporal) -> datetime:
    """The local time, what is not given being the least."""
    given = (2000, 1, 1, *value.parts) if value.kind == "Time" else value.parts
    year, month, day, hour, minute, second = (*given, *_LEAST[len(given) :])
    micro = int((value.fraction + "000000")[:_MICRO])
    return datetime(year, month, day, hour, minute, min(second, 59), micro)  # noqa: DTZ001 - local on purpose


def in_utc(value: Temporal) -> Temporal:
    """The same moment with offset zero, as precise as before."""
    if not value.zone or len(value.parts) < 4:
        return value
    try:
        moment = moment_of(value) - timedelta(minutes=value.zone)
    except OverflowError:
        return value
    parts = (moment.year, moment.month, moment.day, moment.hour, moment.minute, moment.second)
    return Temporal("DateTime", parts[: len(value.parts)], value.fraction, 0)


def compare(left: Temporal, right: Temporal) -> int | None:
    """-1, 0 or 1, or None where their precision or a missing time zone leaves it open. Kinds must be comparable."""
    if left.zone != right.zone:
        if left.zone is not None and right.zone is not None:
            left, right = in_utc(left), in_utc(right)
        elif len(left.parts) > 3 and len(right.parts) > 3 and left.kind != "Time":
            apart = moment_of(left) - moment_of(right)
            if abs(apart) < _SPREAD:
                return None
    a, b = left.parts, right.parts
    if a != b:
        for one, other in zip(a, b, strict=False):
            if one != other:
                return -1 if one < other else 1
        return None
    if left.fraction == right.fraction:
        return 0
    one_second, other_second = left.seconds, right.seconds
    return (one_second > other_second) - (one_second < other_second)


def sort_key(value: Temporal) -> tuple[object, ...]:
    """Equal for two values exactly where `compare` gives 0."""
    zoned = in_utc(value) if value.zone is not None else value
    kind = "Time" if value.kind == "Time" else "Date"
    return (kind, zoned.parts, zoned.fraction.rstrip("0"), value.zone is None and len(value.parts) > 3)


def add(value: Temporal, amount: Decimal, unit: str) -> Temporal:
    """A duration later (earlier if negative), as precise as before; decimals count from the second down only.

    Args:
        unit: one of `UNITS` or "week".

    Raises:
        OverflowError: beyond the years 1 to 9999.
        ValueError: a unit that a time does not have.
    """
    if value.kind == "Time":
        return _add_time(value, amount, unit)
    if unit == "week":
        amount, unit = Decimal(7 * int(amount)), "day"
    finest = UNITS[min(len(value.parts), 6) - 1]
    amount, unit = _coarsen(amount, unit, finest)
    if unit in ("year", "month"):
        return _add_months(value, int(amount) * (12 if unit == "year" else 1))
    return _shifted(value, _delta(amount, unit))


_TO_COARSER = {"month": ("year", 12), "day": ("month", 30), "hour": ("day", 24), "minute": ("hour", 60)}
_TO_COARSER |= {"second": ("minute", 60), "millisecond": ("second", 1000)}


def _coarsen(amount: Decimal, unit: str, finest: str) -> tuple[Decimal, str]:
    """A partial date takes whole units of its own precision only: 24 months are 2 years to ``@2014``."""
    limit = UNITS.index(finest)
    if finest == "second":
        return amount, unit
    while UNITS.index(unit) > limit:
        if unit == "day" and finest == "year":
            return Decimal(int(amount) // 365 if amount >= 0 else -(int(-amount) // 365)), "year"
        unit, factor = _TO_COARSER[unit]
        amount = Decimal(int(amount / factor))
    return amount, unit


def _delta(amount: Decimal, unit: str) -> timedelta:
    if unit == "millisecond":
        return timedelta(milliseconds=int(amount))
    if unit == "second":
        return timedelta(milliseconds=int(amount * 1000))
    return timedelta(**{unit + "s": int(amount)})


def _add_months(value: Temporal, months: int) -> Temporal:
    year, month = value.parts[0], value.parts[1] if len(value.parts) > 1 else 1
    total = year * 12 + month - 1 + months
    year, month = total // 12, total % 12 + 1
    if not 1 <= year <= 9999:
        raise OverflowError
    parts = (year, month, *value.parts[2:])[: len(value.parts)]
    if len(parts) > 2:
        parts = (*parts[:2], min(parts[2], calendar.monthrange(year, month)[1]), *parts[3:])
    return Temporal(value.kind, parts, value.fraction, value.zone)


def _shifted(value: Temporal, delta: timedelta) -> Temporal:
    moment = moment_of(value) + delta
    parts = (moment.year, moment.month, moment.day, moment.hour, moment.minute, moment.second)
    return Temporal(value.kind, parts[: len(value.parts)], _fraction(value, moment.microsecond), value.zone)


def _fraction(value: Temporal, micro: int) -> str:
    """As many digits as before, or milliseconds where some came to be."""
    width = max(len(value.fraction), 3 if micro and len(value.parts) in (3, 6) and value.parts else 0)
    if not width or (value.kind != "Time" and len(value.parts) < 6):
        return ""
    return (f"{micro:06d}" + value.fraction[_MICRO:])[:width].ljust(width, "0")


def _add_time(value: Temporal, amount: Decimal, unit: str) -> Temporal:
    if unit not in ("hour", "minute", "second", "millisecond"):
        raise ValueError(unit)
    finest = ("hour", "minute", "second")[len(value.parts) - 1]
    amount, unit = _coarsen(amount, unit, finest)
    on_a_day = Temporal("DateTime", (2000, 1, 1, *value.parts), value.fraction)
    delta = timedelta(milliseconds=_delta(amount, unit) // timedelta(milliseconds=1) % 86_400_000)
    later = _shifted(on_a_day, delta)
    return Temporal("Time", later.parts[3:], later.fraction)
