"""KLL sketches of columns that are too large to be sorted, or lie in shards: Apache DataSketches (extra `monitor`).

A sketch takes values one batch at a time in bounded memory and merges with others; out of it comes a baseline's
column, as `spread.measure` makes it of all values at once, with ranks right to `RANK_ERROR` of the rows. It holds
values of single patients (a few hundred of them, the smallest and the largest), so it stays in memory: what is kept
is the column.
https://datasketches.apache.org/docs/KLL/KLLSketch.html
"""

from __future__ import annotations

from typing import Any

import numpy as np

from carelake.core.errors import Unavailable
from carelake.models.matrix import Floats
from carelake.monitor.spread import FEW, Column, Counts

__all__ = ["RANK_ERROR", "Sketch"]

_K = 2048
RANK_ERROR = 0.0013
"""Of a rank, with 99 % confidence, at the parameter k that SageMaker has."""
_PLACES = 257


class Sketch:
    """One column's values so far."""

    def __init__(self) -> None:
        try:
            from datasketches import kll_doubles_sketch
        except ImportError:
            raise Unavailable(
                "monitor.no_datasketches", "Sketches need the package datasketches; install carelake[monitor]."
            ) from None
        self._kll: Any = kll_doubles_sketch(_K)
        self._missing = 0
        self._total, self._square = 0.0, 0.0
        self._broken, self._negative = 0, 0

    def add(self, values: Floats) -> None:
        """Take in (n,) numbers, NaN for missing."""
        known = np.ascontiguousarray(values[~np.isnan(values)])
        self._missing += len(values) - len(known)
        self._total += float(known.sum())
        self._square += float(known @ known)
        self._broken += int(np.count_nonzero(known != np.floor(known)))
        self._negative += int(np.count_nonzero(known < 0))
        self._kll.update(known)

    def merge(self, other: Sketch) -> None:
        """Take in what another shard saw."""
        self._kll.merge(other._kll)
        self._missing += other._missing
        self._total += other._total
        self._square += other._square
        self._broken += other._broken
        self._negative += other._negative

    @property
    def rows(self) -> int:
        """Rows so far."""
        return int(self._kll.n) + self._missing

    def column(self) -> Column:
        """The baseline's column: points at even ranks, each with ten rows beyond it and since the one before."""
        n = int(self._kll.n)
        if not n:
            return Column([], [], 0, self._missing)
        edge = max(0.005, FEW / n)
        ranks = np.linspace(edge, 1.0 - edge, _PLACES) if 2 * edge < 1.0 else np.asarray([0.5])
        points = np.unique(np.asarray(self._kll.get_quantiles(ranks)))
        kept: list[float] = []
        below: list[float] = []
        for point, share in zip(points.tolist(), self._kll.get_cdf(points, True)[:-1], strict=True):
            if (share - (below[-1] if below else 0.0)) * n >= FEW:
                kept.append(point)
                below.append(float(share))
        return Column(kept, below, n, self._missing, whole=not self._broken)

    def counts(self, column: Column) -> Counts:
        """What was seen, by the cells of its own column: right to `RANK_ERROR` of the rows each."""
        n = int(self._kll.n)
        upto = np.round(np.asarray([0.0, *column.below, 1.0]) * n).astype(np.int64)
        cells = np.concatenate([[0], np.diff(upto)]) if column.points else np.asarray([0, n])
        return Counts(cells, self._missing, self._total, self._square, self._broken, self._negative)
