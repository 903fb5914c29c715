"""Calibrate: Platt's line or an isotonic curve on the logit scale, whichever leaves the smaller ICI on strangers.

The line cannot bend, the curve needs many events: each is fitted on four fifths of the patients and judged on the
last (integrated calibration index, Austin and Steyerberg 2019), and the line is kept unless the curve does clearly
better. The curve is isotonic regression (pool adjacent violators) with at least 200 rows a step, read between the
middles of its steps, so that it keeps the order of risks.
"""

from __future__ import annotations

import msgspec
import numpy as np

from carelake.models import metrics
from carelake.models.logistic import logit, newton, sigmoid
from carelake.models.matrix import Floats, Mask

__all__ = ["Curve", "Judged", "choose", "fit_curve", "fit_line"]

_ENOUGH = 30
_ENOUGH_FOR_CURVE = 500
_ROWS_A_STEP = 200
_BETTER = 0.8
_TIED = 1e-9
_SEED = 20260104


class Curve(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A rising piecewise-linear map of log odds: through (x, y), of slope 1 beyond its ends."""

    x: list[float]
    y: list[float]

    def sound(self) -> bool:
        """Whether it is a map at all: equal lengths, in order."""
        rising = all(a < b for a, b in zip(self.x, self.x[1:], strict=False))
        level = all(a <= b for a, b in zip(self.y, self.y[1:], strict=False))
        return 0 < len(self.x) == len(self.y) and rising and level

    def __call__(self, score: Floats) -> Floats:
        """(n,) calibrated log odds."""
        inside = np.clip(score, self.x[0], self.x[-1])
        out: Floats = np.interp(inside, self.x, self.y) + (score - inside)
        return out


class Judged(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was chosen, and the ICI of each on patients that it was not fitted on (None: too few events to ask)."""

    chosen: str
    platt: float | None = None
    isotonic: float | None = None


def fit_line(score: Floats, y: Mask, tight: float = 0.05) -> tuple[float, float]:
    """Intercept and slope, held near 0 and 1 by a prior of standard deviation ``tight``.

    A few hundred events leave either uncertain by up to a tenth, which is more than cross-fitting leaves to correct;
    thousands of events outweigh the prior. Identity with fewer than 30 events or non-events.
    """
    if min(int(y.sum()), int((~y).sum())) < _ENOUGH:
        return 0.0, 1.0
    design = np.column_stack([np.ones(len(y)), score])
    found = newton(design, y, penalty=tight**-2, centre=np.asarray([0.0, 1.0]))
    return float(found[0]), float(found[1])


def fit_curve(score: Floats, y: Mask) -> Curve:
    """Isotonic regression of the outcome on the score, as a map of log odds."""
    order = np.argsort(score, kind="stable")
    steps = [(part.size, float(score[part].mean()), float(y[part].mean())) for part in _chunks(score, order)]
    merged: list[tuple[int, float, float]] = []
    for step in steps:
        merged.append(step)
        # Steps of one score are one step, too: a map has one value there.
        while len(merged) > 1 and (merged[-2][2] >= merged[-1][2] or merged[-1][1] - merged[-2][1] < _TIED):
            merged[-2:] = [_pooled(merged[-2], merged[-1])]
    sizes, middles, rates = (np.asarray(values, dtype=np.float64) for values in zip(*merged, strict=True))
    # Half an event and half a non-event more a step: no step says never or always.
    levels = np.maximum.accumulate(logit((rates * sizes + 0.5) / (sizes + 1.0)))
    return Curve(middles.tolist(), levels.tolist())


def _chunks(score: Floats, order: np.ndarray) -> list[np.ndarray]:
    """About equal parts; rows of one score stay together, so that their order in the file is of no account."""
    sizes = [len(part) for part in np.array_split(order, max(1, len(order) // _ROWS_A_STEP))]
    starts = np.flatnonzero(np.diff(score[order])) + 1
    if not len(starts):
        return [order]
    places = starts[np.minimum(np.searchsorted(starts, np.cumsum(sizes)[:-1]), len(starts) - 1)]
    return np.split(order, np.unique(places))


def _pooled(a: tuple[int, float, float], b: tuple[int, float, float]) -> tuple[int, float, float]:
    size = a[0] + b[0]
    return size, (a[0] * a[1] + b[0] * b[1]) / size, (a[0] * a[2] + b[0] * b[2]) / size


def choose(score: Floats, y: Mask, subject: np.ndarray, folds: int = 5) -> Judged:
    """Line or curve, by the ICI of risks of patients that neither saw."""
    if min(int(y.sum()), int((~y).sum())) < _ENOUGH_FOR_CURVE:
        return Judged("platt")
    patients, place = np.unique(subject, return_inverse=True)
    fold = (np.random.default_rng(_SEED).permutation(len(patients)) % folds)[place]
    # Each fold by itself: in the pool, what a fold lacks its neighbours' curves have, and any bend would look right.
    lines, curves = [], []
    for number in range(folds):
        held = fold == number
        intercept, slope = fit_line(score[~held], y[~held])
        lines.append(metrics.ici(y[held], sigmoid(intercept + slope * score[held])))
        curves.append(metrics.ici(y[held], sigmoid(fit_curve(score[~held], y[~held])(score[held]))))
    found = float(np.mean(lines)), float(np.mean(curves))
    chosen = "isotonic" if found[1] < _BETTER * found[0] else "platt"
    return Judged(chosen, round(found[0], 6), round(found[1], 6))
