"""Daily counts of a hospital: emergency visits, admissions and occupied beds, by unit; and what a forecast looks at.

A day is a UTC day. ``occupied_beds`` counts stays that hold a bed at its end. The first 30 days are left out, since
stays that began before the data did are not seen, and so is the day in which the data end. A unit is the encounter's
service; its series is used when it had one event a day or more over the last year, and all inpatient units together
are ``inpatient``. Counts are of groups, never of a patient; a series of few events a day is not kept.

`design` makes the rows of a forecast: for a day (the origin) and a horizon of 1 to 14 days, only counts up to the
origin, with the target day's weekday and season. Counts are divided by the series' own level, so that one model
learns from all series.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from carelake.core.settings import LakeSettings
from carelake.features import cohort
from carelake.lake.engines.engine import run

__all__ = ["FEATURES", "HORIZON", "MEASURES", "WORDS", "Daily", "Design", "Series", "daily", "design"]

Numbers = NDArray[np.float64]
HORIZON = 14
MEASURES = ("ed_visits", "admissions", "occupied_beds")
HISTORY = 56
"""Days of history that the first origin needs."""
_WARM_UP = 30
_YEARS = 3
_LEAST = 1.0
_MICROSECONDS = 86_400_000_000

WORDS = {
    "horizon": "Days ahead",
    "weekday": "Day of the week of the day foretold, Monday 0",
    "season_sin": "Season (sine of the day of the year)",
    "season_cos": "Season (cosine of the day of the year)",
    "measure": "What is counted: visits 0, admissions 1, beds 2",
    "level_log": "Mean of the last 56 days (logarithm)",
    "last": "Last count, of the level",
    "week": "Mean of the last 7 days, of the level",
    "month": "Mean of the last 28 days, of the level",
    "same_weekday": "Mean of the last four such weekdays, of the level",
    "last_weekday": "Count of the last such weekday, of the level",
    "weekday_origin": "Day of the week of the day of forecast, Monday 0",
    "spread": "Standard deviation of the last 28 days, of the level",
}
FEATURES = tuple(WORDS)


@dataclass(frozen=True)
class Series:
    """Counts of one unit, a number a day from ``first``."""

    unit: str
    measure: str
    first: date
    counts: Numbers

    @property
    def name(self) -> str:
        """Unit and measure."""
        return f"{self.unit}: {self.measure}"


@dataclass(frozen=True)
class Daily:
    """All series of a record, over the same days, and the names of those that are too small to foretell."""

    series: Sequence[Series]
    too_small: Sequence[str]
    first: date | None
    last: date | None


@dataclass(frozen=True)
class Design:
    """Rows of a forecast.

    Attributes:
        x: (n, len(FEATURES)), rounded to float32.
        y: (n,) the counts that came, NaN where that day is not over.
        level: (n,) the mean of the 56 days up to the origin, at least 0.5.
        naive: (n,) the count of the last such weekday: the baseline's forecast.
        series, origin, target: (n,) numbers of the series and of the days since ``first``.
    """

    x: Numbers
    y: Numbers
    level: Numbers
    naive: Numbers
    series: NDArray[np.int64]
    origin: NDArray[np.int64]
    target: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.y)

    def where(self, mask: NDArray[np.bool_]) -> Design:
        """The rows under a mask."""
        return Design(*(getattr(self, name)[mask] for name in self.__dataclass_fields__))


def daily(
    tables: Mapping[str, pa.Table], *, now: datetime | None = None, limits: LakeSettings | None = None
) -> Daily:
    """Count the encounters of the lake's flat views by day, up to the end of the data (`cohort.data_end_of`)."""
    end = cohort.data_end_of(tables, now)
    inputs = {"encounters": tables["encounters"]}
    found = run(cohort.sql("utilisation.sql"), inputs, {"data_end": end}, limits=limits)
    if not len(found):
        return Daily([], [], None, None)
    starts, ends = (_days(found, name) for name in ("start_time", "end_time"))
    last = int(end.timestamp() if end.tzinfo else (end - datetime(1970, 1, 1)).total_seconds()) // 86_400 - 1  # noqa: DTZ001
    first = max(int(np.floor(starts.min())) + _WARM_UP, last + 1 - 365 * _YEARS)
    if last - first + 1 < HISTORY:
        return Daily([], [], None, None)
    counted = _counted(found, starts, ends, first, last)
    day = date(1970, 1, 1) + timedelta(days=first)
    series = [Series(unit, measure, day, counts) for (unit, measure), counts in sorted(counted.items())]
    large = [one for one in series if one.counts[-365:].mean() >= _LEAST]
    small = [one.name for one in series if one.counts[-365:].mean() < _LEAST]
    return Daily(large, small, day, day + timedelta(days=last - first))


def _days(found: pa.Table, name: str) -> Numbers:
    """Days since 1970, with their fraction."""
    moments = found.column(name).cast(pa.timestamp("us")).cast(pa.int64()).to_numpy()
    out: Numbers = moments / _MICROSECONDS
    return out


def _counted(
    found: pa.Table, starts: Numbers, ends: Numbers, first: int, last: int
) -> dict[tuple[str, str], Numbers]:
    units = np.asarray(found.column("unit").to_pylist(), dtype=np.str_)
    visit = found.column("emergency").to_numpy(zero_copy_only=False).astype(bool)
    groups = {unit: (units == unit) & ~visit for unit in np.unique(units[~visit])} | {"inpatient": ~visit}
    out = {("emergency", "ed_visits"): _started(starts[visit], first, last)}
    for unit, mask in groups.items():
        out[str(unit), "admissions"] = _started(starts[mask], first, last)
        out[str(unit), "occupied_beds"] = _held(starts[mask], ends[mask], first, last)
    return out


def _started(starts: Numbers, first: int, last: int) -> Numbers:
    place = np.floor(starts).astype(np.int64) - first
    inside = place[(place >= 0) & (place <= last - first)]
    return np.bincount(inside, minlength=last - first + 1).astype(np.float64)


def _held(starts: Numbers, ends: Numbers, first: int, last: int) -> Numbers:
    """Stays that had begun and not ended at the end of each day."""
    midnights = np.arange(first, last + 1) + 1.0
    begun = np.searchsorted(np.sort(starts), midnights, side="left")
    over = np.searchsorted(np.sort(ends), midnights, side="left")
    return (begun - over).astype(np.float64)


def design(series: Sequence[Series], *, horizon: int = HORIZON) -> Design:
    """Rows of every origin with enough history, and every horizon."""
    parts = [_rows(at, one, horizon) for at, one in enumerate(series)]
    return Design(*(np.concatenate([getattr(p, name) for p in parts]) for name in Design.__dataclass_fields__))


def _rows(number: int, one: Series, horizon: int) -> Design:
    days = len(one.counts)
    origin = np.repeat(np.arange(HISTORY - 1, days), horizon)
    ahead = np.tile(np.arange(1, horizon + 1), days - HISTORY + 1)
    target = origin + ahead
    sums = np.concatenate([[0.0], np.cumsum(one.counts)])
    squares = np.concatenate([[0.0], np.cumsum(one.counts**2)])

    def mean(span: int) -> Numbers:
        out: Numbers = (sums[origin + 1] - sums[origin + 1 - span]) / span
        return out

    level = np.maximum(mean(56), 0.5)
    # The last such weekday that is known at the origin, and the three before it.
    back = target - 7 * (-(-ahead // 7))
    naive = one.counts[back]
    weekdays = np.mean([one.counts[back - 7 * week] for week in range(4)], axis=0)
    spread = np.sqrt(np.maximum((squares[origin + 1] - squares[origin - 27]) / 28 - mean(28) ** 2, 0.0))
    first = one.first.toordinal() - 1  # ordinal 1 was a Monday
    season = 2 * np.pi * ((one.first.timetuple().tm_yday - 1 + target) % 365.25) / 365.25
    columns = {
        "horizon": ahead,
        "weekday": (first + target) % 7,
        "season_sin": np.sin(season),
        "season_cos": np.cos(season),
        "measure": np.full(len(ahead), MEASURES.index(one.measure)),
        "level_log": np.log(level),
        "last": one.counts[origin] / level,
        "week": mean(7) / level,
        "month": mean(28) / level,
        "same_weekday": weekdays / level,
        "last_weekday": naive / level,
        "weekday_origin": (first + origin) % 7,
        "spread": spread / level,
    }
    x = np.column_stack([columns[name] for name in FEATURES]).astype(np.float32).astype(np.float64)
    y = np.where(target < days, one.counts[np.minimum(target, days - 1)], np.nan)
    return Design(x, y, level, naive, np.full(len(ahead), number), origin, target)
