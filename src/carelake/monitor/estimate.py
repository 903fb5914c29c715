"""Performance before the outcomes are known, from calibrated risks alone (confidence-based estimation).

If risks are still calibrated, a row with risk p has the outcome with chance p: the expected confusion matrix, and
what follows from it, are sums of risks. Intervals come from resampling patients and drawing outcomes by the risks.
It sees what a shift of the inputs does to the figures. It is blind to a shift of what inputs mean (concept drift),
which it takes for none: so it stands beside the realised figures, and never in their place.
https://arxiv.org/abs/2401.08348
"""

from __future__ import annotations

from typing import Any

import numpy as np

from carelake.models import bootstrap
from carelake.models.matrix import Floats

__all__ = ["BLIND", "ENOUGH", "estimate"]

BLIND = (
    "Estimated from the risks themselves, as if they were still calibrated: it cannot see that the same inputs have "
    "come to mean another risk."
)
ENOUGH = 200
_REPLICATES = 200
_SEED = 20260103


def estimate(p: Floats, owner: np.ndarray, threshold: float) -> dict[str, Any]:
    """Expected figures of (n,) risks, whose outcomes are not known, each with its 95 % interval.

    Returns:
        ``rows``, ``figures`` (``auc``, ``recall``, ``precision``, ``true_negative_rate``, ``net_benefit``,
        ``event_rate``: ``{"value", "low", "high"}``; empty with fewer than 200 rows, and for what is no risk)
        and ``assumes``.
    """
    if len(p) < ENOUGH or p.min() < 0.0 or p.max() > 1.0:
        return {"rows": len(p), "figures": {}, "assumes": BLIND}
    alone = _expected(p, p[None, :], np.ones((1, len(p))), threshold)
    random = np.random.default_rng(_SEED)
    drawn = [
        _expected(p, (random.random(block.shape) < p).astype(np.float64), block, threshold)
        for block in bootstrap.weights(owner, _REPLICATES)
    ]
    told = {}
    for name, value in alone.items():
        many = np.concatenate([one[name] for one in drawn])
        low, high = np.nanquantile(many, [0.025, 0.975]) if np.isfinite(many).any() else (np.nan, np.nan)
        told[name] = {"value": float(value[0]), "low": float(low), "high": float(high)}
    return {"rows": len(p), "figures": told, "assumes": BLIND}


def _expected(p: Floats, happened: Floats, block: Floats, threshold: float) -> dict[str, Floats]:
    """(replicates,) figures where each row has the outcome by the part ``happened`` and weighs as ``block`` says."""
    flagged = (p >= threshold).astype(np.float64)
    ones, zeros = block * happened, block * (1.0 - happened)
    tp, fp = ones @ flagged, zeros @ flagged
    all_ones, all_zeros = ones.sum(axis=1), zeros.sum(axis=1)
    odds = threshold / (1.0 - threshold)
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "auc": _area(p, ones, zeros),
            "recall": tp / all_ones,
            "precision": tp / (tp + fp),
            "true_negative_rate": 1.0 - fp / all_zeros,
            "net_benefit": (tp - fp * odds) / block.sum(axis=1),
            "event_rate": all_ones / block.sum(axis=1),
        }


def _area(p: Floats, ones: Floats, zeros: Floats) -> Floats:
    """AUROC of rows that are events by part: how often an event ranks above none, ties counted half."""
    order = np.argsort(p, kind="stable")
    starts = np.flatnonzero(np.insert(np.diff(p[order]) != 0, 0, True))
    high = np.add.reduceat(ones[:, order], starts, axis=1)
    low = np.add.reduceat(zeros[:, order], starts, axis=1)
    under = np.cumsum(low, axis=1) - low / 2.0
    found: Floats = (high * under).sum(axis=1) / (high.sum(axis=1) * low.sum(axis=1))
    return found
