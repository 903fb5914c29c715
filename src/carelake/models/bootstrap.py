"""Intervals by resampling patients, not rows: a patient's admissions come and go together.

A replicate is a weight per row (how often its patient was drawn), so that metrics are sums over sorted rows and many
replicates are one matrix product.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from carelake.models.logistic import logit, newton
from carelake.models.matrix import Floats, Mask

__all__ = ["METRICS", "draw", "interval", "replicate", "weights"]

METRICS = ("auroc", "brier", "calibration_slope", "calibration_intercept")
_CELLS = 4_000_000
_SEED = 20260102


def weights(subject: np.ndarray, replicates: int) -> Iterator[Floats]:
    """Blocks of (some replicates, n) weights, of bounded memory; the same ones each time."""
    patients, place = np.unique(subject, return_inverse=True)
    random = np.random.default_rng(_SEED)
    block = max(1, _CELLS // max(1, len(subject)))
    for start in range(0, replicates, block):
        count = min(block, replicates - start)
        drawn = random.integers(0, len(patients), (count, len(patients)))
        drawn += np.arange(count)[:, None] * len(patients)
        often = np.bincount(drawn.ravel(), minlength=count * len(patients)).reshape(count, len(patients))
        yield often[:, place].astype(np.float64)


def replicate(y: Mask, p: Floats, block: Floats) -> Floats:
    """(replicates, 4) values of `METRICS`; NaN where a replicate holds one outcome only."""
    with np.errstate(invalid="ignore", divide="ignore"):
        total = block.sum(axis=1)
        error = block @ ((p - y) ** 2) / total
        line = _lines(y, logit(p, 1e-6), block)
        return np.column_stack([_aurocs(y, p, block), error, line])


def _aurocs(y: Mask, p: Floats, block: Floats) -> Floats:
    order = np.argsort(p, kind="stable")
    starts = np.flatnonzero(np.insert(np.diff(p[order]) != 0, 0, True))
    sorted_block, hit = block[:, order], y[order]
    ones = np.add.reduceat(sorted_block * hit, starts, axis=1)
    zeros = np.add.reduceat(sorted_block * ~hit, starts, axis=1)
    below = np.cumsum(zeros, axis=1) - zeros / 2.0
    out: Floats = (ones * below).sum(axis=1) / (ones.sum(axis=1) * zeros.sum(axis=1))
    return out


def _lines(y: Mask, score: Floats, block: Floats, rounds: int = 3) -> Floats:
    """(replicates, 2) slope and intercept-in-the-large, by Newton steps from the estimate on all rows."""
    start = newton(np.column_stack([np.ones(len(score)), score]), y, penalty=1e-6)
    large = newton(np.ones((len(score), 1)), y, offset=score)
    design = np.column_stack([np.ones(len(score)), score, score * score])
    at = np.tile(start, (len(block), 1))
    offsets = np.full(len(block), large[0])
    for _ in range(rounds):
        mean = 1.0 / (1.0 + np.exp(-np.clip(at[:, :1] + at[:, 1:] * score, -35, 35)))
        slope = (block * (y - mean)) @ design[:, :2]
        curve = (block * (mean * (1.0 - mean))) @ design
        det = curve[:, 0] * curve[:, 2] - curve[:, 1] ** 2
        step0 = (curve[:, 2] * slope[:, 0] - curve[:, 1] * slope[:, 1]) / det
        step1 = (curve[:, 0] * slope[:, 1] - curve[:, 1] * slope[:, 0]) / det
        at = at + np.column_stack([step0, step1])
        shifted = 1.0 / (1.0 + np.exp(-np.clip(offsets[:, None] + score, -35, 35)))
        offsets = offsets + (block * (y - shifted)).sum(axis=1) / (block * (shifted * (1.0 - shifted))).sum(axis=1)
    return np.column_stack([at[:, 1], offsets])


def draw(y: Mask, p: Floats, subject: np.ndarray, replicates: int) -> Floats:
    """(replicates, 4) values of `METRICS`. The same patients are drawn for every ``p``, so differences are paired."""
    return np.vstack([replicate(y, p, block) for block in weights(subject, replicates)])


def interval(values: Floats) -> list[float] | None:
    """The middle 95 %, or None where fewer than half of the replicates gave a value."""
    known = values[np.isfinite(values)]
    if len(known) * 2 < len(values) or not len(known):
        return None
    low, high = np.quantile(known, [0.025, 0.975])
    return [float(low), float(high)]
