"""Time in the synthetic hospital: whole minutes since the record begins, written as FHIR dateTimes.

The hospital keeps UTC-5 all year. Formatting is two look-ups, since every resource holds one to four times.
"""

from __future__ import annotations

from datetime import date, timedelta

__all__ = ["DAY", "HOUR", "YEAR", "Calendar"]

HOUR = 60
DAY = 24 * HOUR
YEAR = 365.25 * DAY

_CLOCK = [f"T{minute // 60:02d}:{minute % 60:02d}:00-05:00" for minute in range(DAY)]


def _later(start: date, years: float) -> date:
    """The date that many years later; a fraction counts 365.25 days to the year."""
    whole = int(years)
    year = start.year + whole
    # 29 February has no anniversary in most years; the day after has one in all.
    leap_day = (start.month, start.day) == (2, 29)
    anniversary = date(year, 3, 1) if leap_day else start.replace(year=year)
    return anniversary + timedelta(days=round((years - whole) * 365.25))


class Calendar:
    """The recorded time: a burn-in of 365 days, then the window.

    Attributes:
        epoch: the date of minute 0, 365 days before ``start``.
        opens: minute at which the window opens, after the burn-in.
        closes: minute at which the record ends; nothing later is known.
    """

    BURN_IN_DAYS = 365

    def __init__(self, start: date, years: float) -> None:
        self.epoch = start - timedelta(days=self.BURN_IN_DAYS)
        self.opens = self.BURN_IN_DAYS * DAY
        self.closes = (_later(start, years) - self.epoch).days * DAY
        self._days = [(self.epoch + timedelta(days=number)).isoformat() for number in range(self.closes // DAY + 2)]

    def moment(self, minute: int) -> str:
        """A FHIR dateTime, ``2021-03-04T09:30:00-05:00``."""
        return self._days[minute // DAY] + _CLOCK[minute % DAY]

    def day(self, minute: int) -> str:
        """A FHIR date, also before the record begins."""
        number = minute // DAY
        if 0 <= number < len(self._days):
            return self._days[number]
        return (self.epoch + timedelta(days=number)).isoformat()

    def date(self, minute: int) -> date:
        """The calendar day of a minute."""
        return self.epoch + timedelta(days=minute // DAY)
