"""Time, injected: nothing but this module and the monotonic timers of benchmarks asks the machine for it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

__all__ = ["Clock", "FixedClock", "SystemClock", "instant", "iso"]


class Clock(Protocol):
    """Tells the time, in UTC."""

    def now(self) -> datetime:
        """An aware datetime in UTC."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)


@dataclass
class FixedClock:
    """A clock for tests: it stands still until it is moved."""

    at: datetime

    def now(self) -> datetime:
        return self.at

    def move(self, **delta: float) -> None:
        """Move by a `timedelta` given as keywords, for example ``move(minutes=5)``."""
        self.at += timedelta(**delta)


def iso(moment: datetime) -> str:
    """A FHIR instant in UTC with milliseconds, ``2026-11-22T01:02:03.456Z``; sorts as text."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds")[:23] + "Z"


def instant(text: str) -> datetime:
    """The aware datetime of an ISO 8601 text with offset; naive text is taken as UTC.

    Raises:
        ValueError: it is none, or has no place in UTC's years 1 to 9999.
    """
    moment = datetime.fromisoformat(text)
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    try:
        moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("out of the range of years") from None
    return moment
