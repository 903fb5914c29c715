"""Values of declared features over time: step functions that change where a row begins to count, or ends to.

Between two such moments nothing changes, so one record at each of them says all. Sums are rounded once (`math.fsum`),
so a value is the same in whatever order its rows came, and online as offline.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from carelake.features.groups.declaration import Declared, Item
from carelake.features.groups.facts import Facts

__all__ = ["Steps", "differences", "nothing", "steps", "value_at"]

_DAY = 86_400_000_000
_NEVER = np.iinfo(np.int64).max

Row = tuple[Any, ...]
"""A value for each feature of a group."""


class Steps(NamedTuple):
    """A patient's values over time.

    Attributes:
        moments: microseconds since 1970 UTC, ascending; none is before the first row is known.
        rows: the values from each of them on.
        due: the next moment at which they change if nothing else comes; None for never.
    """

    moments: list[int]
    rows: list[Row]
    due: int | None

    def at(self, moment: int) -> Row | None:
        """The values at a moment, None before there are any."""
        number = bisect_right(self.moments, moment) - 1
        return self.rows[number] if number >= 0 else None


def _slope(facts: Facts, chosen: Sequence[int]) -> float | None:
    """Per day, by least squares; None for fewer than two times."""
    if len(chosen) < 2:
        return None
    first = int(facts.time[chosen[0]])
    days = [(int(facts.time[at]) - first) / _DAY for at in chosen]
    values = [float(facts.values[at]) for at in chosen]
    mean_day, mean = math.fsum(days) / len(days), math.fsum(values) / len(values)
    below = math.fsum((day - mean_day) ** 2 for day in days)
    if below == 0:
        return None
    return math.fsum((day - mean_day) * (value - mean) for day, value in zip(days, values, strict=True)) / below


def _numbers(facts: Facts, chosen: Sequence[int]) -> list[float]:
    return [float(facts.values[at]) for at in chosen]


_TAKES: Mapping[str, Callable[[Facts, Sequence[int]], Any]] = {
    "any": lambda facts, chosen: int(bool(chosen)),
    "count": lambda facts, chosen: len(chosen),
    "distinct": lambda facts, chosen: len({facts.values[at] for at in chosen}),
    "first": lambda facts, chosen: facts.values[chosen[0]] if chosen else None,
    "last": lambda facts, chosen: facts.values[chosen[-1]] if chosen else None,
    "max": lambda facts, chosen: max(_numbers(facts, chosen), default=None),
    "mean": lambda facts, chosen: math.fsum(_numbers(facts, chosen)) / len(chosen) if chosen else None,
    "min": lambda facts, chosen: min(_numbers(facts, chosen), default=None),
    "slope": _slope,
    "sum": lambda facts, chosen: math.fsum(_numbers(facts, chosen)),
}
_NONE = np.empty(0, np.int64)
_EMPTY = Facts(_NONE, _NONE, _NONE, [])


def nothing(declared: Declared) -> Row:
    """The values of a patient of whom nothing counts."""
    return tuple(_TAKES[one.take](_EMPTY, ()) for one in declared.feature)


def value_at(one: Item, facts: Facts | None, moment: int) -> Any:
    """The value of one feature at a moment."""
    if facts is None:
        return _TAKES[one.take](_EMPTY, ())
    chosen = np.flatnonzero((facts.start <= moment) & (moment < facts.end)).tolist()
    return _TAKES[one.take](facts, chosen)


def steps(declared: Declared, facts: Sequence[Facts | None], until: int) -> Steps:
    """The values of one patient up to a moment, those that are the same as before left out.

    Args:
        facts: of each feature, None where there are none.
    """
    ways = [_one(item, own, until) for item, own in zip(declared.feature, facts, strict=True)]
    due = min((one[2] for one in ways), default=_NEVER)
    moments = sorted({moment for one in ways for moment in one[0]})
    made = Steps([], [], None if due == _NEVER else int(due))
    empty = nothing(declared)
    now = list(empty)
    places = [0] * len(ways)
    for moment in moments:
        for number, (own, values, _) in enumerate(ways):
            at = places[number]
            if at < len(own) and own[at] == moment:
                now[number], places[number] = values[at], at + 1
        row = tuple(now)
        if not made.rows or made.rows[-1] != row:
            made.moments.append(moment)
            made.rows.append(row)
    return made


def _one(item: Item, facts: Facts | None, until: int) -> tuple[list[int], list[Any], int]:
    """Moments and values of one feature, and when it changes next."""
    if facts is None:
        return [], [], _NEVER
    turns = np.unique(np.concatenate([facts.start, facts.end]))
    later = turns[(turns > until) & (turns != _NEVER)]
    moments = turns[turns <= until].tolist()
    # Rows are in the order of time: what may count at a moment lies between two of them.
    low, values = 0, []
    for moment in moments:
        high = int(np.searchsorted(facts.time, moment, side="right"))
        while low < high and facts.end[low] <= moment:
            low += 1
        part = slice(low, high)
        counts = (facts.start[part] <= moment) & (moment < facts.end[part])
        values.append(_TAKES[item.take](facts, (np.flatnonzero(counts) + low).tolist()))
    return moments, values, int(later[0]) if len(later) else _NEVER


def differences(old: Steps, new: Steps, empty: Row, until: int, online: Row | None) -> list[tuple[int, Row]]:
    """Records that make what was written before say what is true now: (moment, values), ascending.

    Args:
        old: what was written, the latest belief of each moment.
        empty: the values where there are none.
        online: what the online store says, None for nothing; a last record brings it up where it would keep that.
    """
    made: list[tuple[int, Row]] = []
    there = dict(zip(old.moments, old.rows, strict=True))
    now: Row = empty
    for moment in sorted({*old.moments, *new.moments}):
        now = there.get(moment, now)
        wanted = new.at(moment) or empty
        if wanted != now:
            made.append((moment, wanted))
            now = wanted
    latest = max([*old.moments[-1:], *(moment for moment, _ in made)], default=0)
    wanted = new.at(until) or empty
    kept = online if online is not None else empty
    if made and made[-1][0] > (old.moments[-1] if old.moments else -1):
        kept = made[-1][1]
    if kept != wanted:
        made.append((max(until, latest + 1_000), wanted))
    return made
