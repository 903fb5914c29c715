"""Rows with a time: until the event, or until nobody looked any more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from carelake.models import matrix
from carelake.models.matrix import GROUPS, Floats, Mask

__all__ = ["Periods", "TimedRows", "kaplan_meier", "periods", "timed", "weights"]

_LEAST_DAYS = 0.01


@dataclass(frozen=True)
class TimedRows:
    """Like `matrix.Rows`, with a time in place of an outcome.

    Attributes:
        x: (n, p) values, NaN where missing, rounded to float32.
        time: (n,) days until the event or the end of what was seen, over 0.
        event: (n,) whether it was the event. Other ends, death among them, count as censoring: risks are of the
            event in a world without them, and too high where they are common.
        subject: (n,) a number per patient.
        sets: (n,) ``train``, ``calibration`` or ``test``.
    """

    names: tuple[str, ...]
    x: Floats
    time: Floats
    event: Mask
    subject: NDArray[np.int64]
    sets: NDArray[np.str_]
    groups: Mapping[str, NDArray[np.str_]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.time)

    @property
    def events(self) -> int:
        """How many rows end with the event."""
        return int(self.event.sum())

    def where(self, mask: Mask) -> TimedRows:
        """The rows under a mask."""
        groups = {name: label[mask] for name, label in self.groups.items()}
        return TimedRows(
            self.names, self.x[mask], self.time[mask], self.event[mask], self.subject[mask], self.sets[mask], groups
        )

    def part(self, name: str) -> TimedRows:
        """The rows of one set."""
        return self.where(self.sets == name)


def timed(table: pa.Table, names: Sequence[str], *, groups: Sequence[str] = GROUPS) -> TimedRows:
    """Read a study's training set: as `matrix.rows`, with ``days_at_risk`` and ``event`` (``outcome`` is the event).

    Raises:
        Invalid: as `matrix.rows`; ``models.feature_missing`` where the set has no times.
    """
    rows = matrix.rows(table, names, points=(), groups=groups)
    table = table.filter(table.column("set").is_valid())
    days = matrix.features(table, ["days_at_risk"])[:, 0]
    happened = np.asarray([word == "outcome" for word in table.column("event").to_pylist()], dtype=np.bool_)
    time = np.maximum(days, _LEAST_DAYS)
    return TimedRows(rows.names, rows.x, time, happened, rows.subject, rows.sets, rows.groups)


@dataclass(frozen=True)
class Periods:
    """Rows by the intervals in which they were at risk.

    Attributes:
        row, interval: (m,) whose, and which.
        y: (m,) whether the event came in it.
    """

    row: NDArray[np.int64]
    interval: NDArray[np.int64]
    y: Mask


def periods(time: Floats, event: Mask, edges: Floats) -> Periods:
    """Cut each row's time at the edges (K + 1 of them, from 0).

    Of the interval in which somebody was lost, half and more is taken for whole, less for nothing.
    """
    starts, ends = edges[:-1], edges[1:]
    row, interval = np.nonzero(time[:, None] > starts[None, :])
    here = time[row] <= ends[interval]
    y = here & event[row]
    kept = y | (time[row] - starts[interval] >= (ends - starts)[interval] / 2.0)
    return Periods(row[kept], interval[kept], y[kept])


def kaplan_meier(time: Floats, event: Mask, at: Floats, weight: Floats | None = None) -> Floats:
    """(len(at),) share that is still without the event at each moment."""
    w = np.ones(len(time)) if weight is None else weight
    moments, place = np.unique(time, return_inverse=True)
    ended = np.bincount(place, weights=w)
    happened = np.bincount(place, weights=w * event)
    at_risk = np.cumsum(ended[::-1])[::-1]
    alive = np.cumprod(1.0 - np.divide(happened, at_risk, out=np.zeros_like(happened), where=at_risk > 0))
    out: Floats = np.concatenate([[1.0], alive])[np.searchsorted(moments, at, side="right")]
    return out


def weights(time: Floats, event: Mask, horizon: float, least: float = 0.05) -> Floats:
    """(n,) inverse probability of censoring weights for what is known at the horizon (Graf et al. 1999).

    0 for who was lost before it; otherwise one over the share that is still seen (at ``least``) at the event, or at
    the horizon.
    """
    known_until = np.minimum(time, horizon)
    # The share seen just before: ties of an event and a censoring count as the event first.
    seen = kaplan_meier(time, ~event, np.nextafter(known_until, 0.0))
    known = (time >= horizon) | event
    out: Floats = np.where(known, 1.0 / np.maximum(seen, least), 0.0)
    return out
