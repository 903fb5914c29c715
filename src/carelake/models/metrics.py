"""How good are risks: discrimination, calibration, usefulness. Pure functions over outcomes and probabilities.

``y`` is (n,) bool, ``p`` is (n,) probability. Terms as in TRIPOD+AI (BMJ 2024;385:e078378). Each needs at least one
row with and one without the outcome; `evaluate` sees to that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from carelake.models.cells import SMALL
from carelake.models.logistic import logit, newton, sigmoid
from carelake.models.matrix import Floats, Mask

__all__ = [
    "alert",
    "auprc",
    "auroc",
    "brier",
    "calibration_curve",
    "calibration_line",
    "ici",
    "net_benefit",
    "roc",
    "rounded",
    "smooth_calibration",
    "smooth_curve",
    "wilson",
]


def auroc(y: Mask, p: Floats) -> float:
    """Area under the ROC curve: how often a row with the outcome ranks above one without; ties count half."""
    _, rank, count = np.unique(p, return_inverse=True, return_counts=True)
    middle = np.cumsum(count) - (count - 1) / 2.0
    ones = int(y.sum())
    return float((middle[rank][y].sum() - ones * (ones + 1) / 2.0) / (ones * (len(y) - ones)))


def auprc(y: Mask, p: Floats) -> float:
    """Average precision: the step-wise area under precision over recall."""
    order = np.argsort(-p, kind="stable")
    last = np.flatnonzero(np.append(np.diff(p[order]) != 0, True))
    hits = np.cumsum(y[order])[last].astype(np.float64)
    precision, recall = hits / (last + 1.0), hits / hits[-1]
    return float((np.diff(recall, prepend=0.0) * precision).sum())


def brier(y: Mask, p: Floats) -> tuple[float, float]:
    """Mean squared error, and the same scaled: 1 is perfect, 0 is no better than the prevalence."""
    raw = float(((p - y) ** 2).mean())
    rate = float(y.mean())
    return raw, 1.0 - raw / (rate * (1.0 - rate))


def calibration_line(y: Mask, p: Floats) -> tuple[float, float]:
    """Slope of outcome on logit(p), and calibration-in-the-large (intercept with logit(p) as offset).

    1 and 0 are perfect; a slope under 1 means that risks are too extreme; an intercept over 0, too low.
    """
    score = logit(p, 1e-6)
    ones = np.ones((len(p), 1))
    slope = newton(np.column_stack([ones, score]), y)[1] if np.ptp(score) > 1e-9 else float("nan")
    return float(slope), float(newton(ones, y, offset=score)[0])


def _spline(score: Floats, knots: Floats) -> Floats:
    """Restricted cubic spline basis (Harrell): linear beyond the outer knots."""
    first, last, before = knots[0], knots[-1], knots[-2]

    def cube(knot: float) -> Floats:
        out: Floats = np.maximum(score - knot, 0.0) ** 3
        return out

    columns = [
        (cube(k) - cube(before) * (last - k) / (last - before) + cube(last) * (before - k) / (last - before))
        / (last - first) ** 2
        for k in knots[:-2]
    ]
    return np.column_stack([np.ones(len(score)), score, *columns])


def smooth_calibration(y: Mask, p: Floats) -> Floats:
    """(n,) observed risk as a smooth function of ``p``: logistic regression on a restricted cubic spline of logit(p).

    Knots at the 5th, 35th, 65th and 95th percentile; with too few different risks it falls back to a line.
    """
    score = logit(p, 1e-6)
    knots = np.quantile(score, [0.05, 0.35, 0.65, 0.95])
    many = np.diff(knots).min() > 1e-3
    design = _spline(score, knots) if many else np.column_stack([np.ones(len(score)), score])
    return sigmoid(design @ newton(design, y, penalty=1e-4))


def smooth_curve(y: Mask, p: Floats, points: int = 40) -> list[list[float]]:
    """[predicted, observed] along the smooth calibration curve, at quantiles of the risk, for a plot."""
    order = np.argsort(p, kind="stable")
    chosen = order[np.linspace(0, len(p) - 1, min(points, len(p))).round().astype(int)]
    observed = smooth_calibration(y, p)
    pairs: list[list[float]] = np.column_stack([p[chosen], observed[chosen]]).tolist()
    return pairs


def ici(y: Mask, p: Floats) -> float:
    """Integrated calibration index (Austin and Steyerberg 2019): mean distance of ``p`` from the smooth curve."""
    return float(np.abs(smooth_calibration(y, p) - p).mean())


def calibration_curve(y: Mask, p: Floats, bins: int = 10) -> list[dict[str, float | int]]:
    """Equal-count bins by risk, of 20 rows or more: mean predicted, observed rate, its 95 % Wilson interval, n."""
    order = np.argsort(p, kind="stable")
    out: list[dict[str, float | int]] = []
    for part in np.array_split(order, max(1, min(bins, len(order) // SMALL))):
        n, rate = len(part), float(y[part].mean())
        low, high = wilson(rate, n)
        out.append({"predicted": float(p[part].mean()), "observed": rate, "low": low, "high": high, "n": n})
    return out


def wilson(rate: float, n: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's score interval of a proportion."""
    middle, spread = rate + z * z / (2 * n), z * np.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    return float((middle - spread) / (1 + z * z / n)), float((middle + spread) / (1 + z * z / n))


def net_benefit(y: Mask, p: Floats, thresholds: Sequence[float]) -> list[dict[str, float]]:
    """TP/n - FP/n * t/(1-t) at each threshold (Vickers and Elkin 2006), beside treating all; treating none is 0."""
    rate = float(y.mean())
    out = []
    for at in thresholds:
        flagged, odds = p >= at, at / (1.0 - at)
        hit, miss = float((flagged & y).mean()), float((flagged & ~y).mean())
        out.append({"threshold": at, "model": hit - miss * odds, "all": rate - (1.0 - rate) * odds})
    return out


def alert(y: Mask, p: Floats, threshold: float) -> dict[str, Any]:
    """What an alert at ``threshold`` would do: share flagged, sensitivity, specificity, PPV, and number needed to
    evaluate (1/PPV; None where nobody is flagged or no flagged row has the outcome).
    """
    flagged = p >= threshold
    hits = int((flagged & y).sum())
    ppv = hits / int(flagged.sum()) if flagged.any() else None
    return {
        "threshold": threshold,
        "flagged": float(flagged.mean()),
        "sensitivity": hits / int(y.sum()),
        "specificity": float((~flagged & ~y).sum() / (~y).sum()),
        "ppv": ppv,
        "nne": 1.0 / ppv if ppv else None,
    }


def roc(y: Mask, p: Floats, points: int = 60) -> list[list[float]]:
    """[false positive rate, true positive rate] pairs for a plot, at most ``points`` of them."""
    order = np.argsort(-p, kind="stable")
    last = np.flatnonzero(np.append(np.diff(p[order]) != 0, True))
    hits = np.cumsum(y[order])[last] / y.sum()
    misses = np.cumsum(~y[order])[last] / (~y).sum()
    grid = np.linspace(0.0, 1.0, points)
    rates: list[list[float]] = np.column_stack([grid, np.interp(grid, misses, hits)]).round(4).tolist()
    return rates


def rounded(value: Any) -> Any:
    """Six digits, and None for what is not a number: JSON knows no NaN."""
    if isinstance(value, float):
        return round(value, 6) if np.isfinite(value) else None
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return value
