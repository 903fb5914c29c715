"""Counters of what variants answered, a minute each, written with the captures; counts of windows add up.

    metric       bin                                     of
    rows         0                                       rows answered
    score        a step of the log odds (`SCORE_BINS`)   answers
    peer         likewise                                what the old version said of ``paired``, the same rows
    shadow       likewise                                what a shadow said; ``shadowed``: what was answered
    missing      number of the feature                   rows that lack it
    latency      a step of `LATENCY_MS`                  requests, from their beginning to their answer
    error        4 or 5                                  requests that failed, by the first digit of HTTP's status
    labelled, observed, expected, spread  0              outcomes: rows, events, sums of p and p(1-p) in millionths

Counts only: nothing here tells of one patient.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from threading import Lock

import numpy as np
from sqlalchemy import Connection, func, select

from carelake.models.matrix import Floats
from carelake.serving.tables import window as table
from carelake.vault.database import bulk

__all__ = ["LATENCY_MS", "SCORE_BINS", "Counts", "Late", "add", "edges", "histogram", "minute_of", "quantile", "sums"]

SCORE_BINS = 64
_REACH, _STEPS = 8.0, 4.0
LATENCY_MS = (0.5, 1, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 50, 75, 100, 150, 200, 300, 500, 1000, 2000, 5000, 10000)
"""Upper ends of the steps; one more is beyond the last."""

_ADD = (
    "INSERT INTO endpoint_window (account, endpoint, minute, metric, bin, many) VALUES (?, ?, ?, ?, ?, ?) "
    "ON CONFLICT (account, endpoint, minute, metric, bin) DO UPDATE SET many = endpoint_window.many + excluded.many"
)

Counts = Counter[tuple[str, str, int]]
"""By variant, metric and bin."""


def minute_of(moment: datetime) -> int:
    """Minutes since 1970 UTC."""
    return int(moment.astimezone(UTC).timestamp() // 60)


def add(tx: Connection, account: str, now: datetime, counts: Counts) -> None:
    """Add to the window of a moment, in the order of its key: two that add at once do not wait for each other."""
    minute = minute_of(now)
    bulk(tx, _ADD, [(account, one, minute, metric, at, many) for (one, metric, at), many in sorted(counts.items())])


def histogram(p: Floats) -> list[int]:
    """(n,) bins of probabilities."""
    inside = np.clip(p, 1e-9, 1 - 1e-9)
    steps = (np.log(inside / (1 - inside)) + _REACH) * _STEPS
    found: list[int] = np.clip(steps, 0, SCORE_BINS - 1).astype(int).tolist()
    return found


def edges() -> Floats:
    """(SCORE_BINS - 1,) probabilities between the bins."""
    inner: Floats = np.arange(1, SCORE_BINS) / _STEPS - _REACH
    return 1.0 / (1.0 + np.exp(-inner))


def latency_bin(seconds: float) -> int:
    """The step of a time."""
    return bisect_left(LATENCY_MS, 1000 * seconds)


def quantile(latencies: Sequence[int], share: float) -> float | None:
    """Milliseconds under which that share of requests stayed, as the upper end of its step; None of none."""
    whole = sum(latencies)
    if not whole:
        return None
    at = int(np.searchsorted(np.cumsum(latencies), share * whole))
    return float(LATENCY_MS[at]) if at < len(LATENCY_MS) else float("inf")


def sums(
    tx: Connection, account: str, endpoints: Iterable[str], since: datetime, until: datetime
) -> dict[str, dict[str, Counter[int]]]:
    """Counts by variant, metric and bin, of the windows that begin in [since, until], the first one whole."""
    query = (
        select(table.c.endpoint, table.c.metric, table.c.bin, func.sum(table.c.many))
        .where(table.c.account == account, table.c.endpoint.in_(list(endpoints)))
        .where(table.c.minute >= minute_of(since), table.c.minute <= minute_of(until))
        .group_by(table.c.endpoint, table.c.metric, table.c.bin)
    )
    found: dict[str, dict[str, Counter[int]]] = defaultdict(lambda: defaultdict(Counter))
    for endpoint, metric, at, many in tx.execute(query):
        found[endpoint][metric][at] = int(many)
    return found


class Late:
    """What is known of a request only once it was answered; it goes with the next one's counts, or the ticker's.

    A process that is killed takes the times of its last answers with it; their captures and counts are durable.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._kept: defaultdict[str, Counts] = defaultdict(Counter)

    def answered(self, account: str, endpoint: str, seconds: float) -> None:
        """Count the time of a request."""
        with self._lock:
            self._kept[account][endpoint, "latency", latency_bin(seconds)] += 1

    def failed(self, account: str, endpoint: str, status: int) -> None:
        """Count a request that failed."""
        with self._lock:
            self._kept[account][endpoint, "error", status // 100] += 1

    def take(self, account: str) -> Counts:
        """What is to be written; whoever cannot gives it `back`."""
        with self._lock:
            return self._kept.pop(account, Counter())

    def back(self, account: str, counts: Counts) -> None:
        """It was not written."""
        with self._lock:
            self._kept[account].update(counts)

    def accounts(self) -> list[str]:
        """Those of which there is something to write."""
        with self._lock:
            return list(self._kept)
