"""Logistic regression by Newton's method: the baseline, the calibration and the recalibration of scores.

Written out, since each use needs something that scikit-learn's does not offer together: an offset, a penalty that
pulls to a given point, and coefficients that are plain numbers in a JSON file.
"""

from __future__ import annotations

import msgspec
import numpy as np

from carelake.models.matrix import Floats, Mask

__all__ = ["Linear", "fit_linear", "logit", "newton", "sigmoid"]

_REACH = 35.0  # beyond it a float64 probability is 0 or 1
_CLIP = 5.0  # standard deviations: one absurd value must not decide a risk


def sigmoid(score: Floats) -> Floats:
    """Probabilities of scores on the logit scale."""
    out: Floats = 1.0 / (1.0 + np.exp(-np.clip(score, -_REACH, _REACH)))
    return out


def logit(probability: Floats, tiny: float = 1e-9) -> Floats:
    """Log odds; probabilities nearer than ``tiny`` to 0 or 1 are moved there."""
    inside = np.clip(probability, tiny, 1.0 - tiny)
    out: Floats = np.log(inside) - np.log1p(-inside)
    return out


def newton(
    x: Floats,
    y: Mask,
    *,
    penalty: Floats | float = 0.0,
    centre: Floats | float = 0.0,
    offset: Floats | float = 0.0,
    rounds: int = 40,
) -> Floats:
    """Maximise the penalised likelihood of a logistic regression (no intercept is added).

    Args:
        x: (n, k) design matrix.
        y: (n,) outcomes.
        penalty: k weights (or one) of ``penalty / 2 * (coefficient - centre)**2``.
        offset: (n,) known part of the score.

    Returns:
        k coefficients.
    """
    width = x.shape[1]
    weight, aim = np.broadcast_to(penalty, width) + 1e-9, np.broadcast_to(centre, width)
    target = y.astype(np.float64)

    def loss(point: Floats) -> float:
        score = x @ point + offset
        return float((np.logaddexp(0.0, score) - target * score).sum() + 0.5 * (weight * (point - aim) ** 2).sum())

    at: Floats = aim.astype(np.float64)
    here = loss(at)
    for _ in range(rounds):
        mean = sigmoid(x @ at + offset)
        slope = x.T @ (target - mean) - weight * (at - aim)
        curve = (x.T * (mean * (1.0 - mean) + 1e-12)) @ x + np.diag(weight)
        step = np.linalg.solve(curve, slope)
        shrink = 1.0
        while (there := loss(at + shrink * step)) > here + 1e-9 and shrink > 1e-6:
            shrink /= 2.0
        at = at + shrink * step
        if abs(here - there) < 1e-9 * (1.0 + abs(there)):
            break
        here = there
    return at


class Linear(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A logistic model over standardised features.

    Missing values take the median, and a flag of its own where a feature was missing often enough to learn from.

    Attributes:
        medians, means, scales, coefficients: one a feature.
        missing: one a feature: added where it is missing, less its mean.
        shares: one a feature: how often it was missing in training.
    """

    medians: list[float]
    means: list[float]
    scales: list[float]
    coefficients: list[float]
    missing: list[float]
    shares: list[float]
    intercept: float

    def parts(self, x: Floats) -> Floats:
        """(n, p) what each feature adds to the score; the intercept is apart."""
        absent = np.isnan(x)
        filled = np.where(absent, self.medians, x)
        steps = np.clip((filled - self.means) / np.asarray(self.scales), -_CLIP, _CLIP)
        out: Floats = steps * self.coefficients + (absent - np.asarray(self.shares)) * self.missing
        return out

    def score(self, x: Floats) -> Floats:
        """(n,) log odds."""
        out: Floats = self.parts(x).sum(axis=1) + self.intercept
        return out


def fit_linear(x: Floats, y: Mask, *, ridge: float = 30.0, enough: float = 0.005) -> Linear:
    """Fit on (n, p) values with NaN for missing.

    Args:
        ridge: L2 penalty on standardised coefficients, in rows; the intercept is free.
        enough: a flag needs at least this share of rows missing, and of rows present.
    """
    absent = np.isnan(x)
    shares = absent.mean(axis=0)
    medians = _medians(x, shares)
    filled = np.where(absent, medians, x)
    means, scales = filled.mean(axis=0), filled.std(axis=0)
    scales = np.where(scales > 1e-12, scales, 1.0)
    flagged = np.flatnonzero((shares > enough) & (shares < 1.0 - enough))
    design = np.hstack(
        [
            np.ones((len(x), 1)),
            np.clip((filled - means) / scales, -_CLIP, _CLIP),
            absent[:, flagged] - shares[flagged],
        ]
    )
    weights = np.full(design.shape[1], ridge)
    weights[0] = 0.0
    found = newton(design, y, penalty=weights)
    width = x.shape[1]
    missing = np.zeros(width)
    missing[flagged] = found[width + 1 :]
    return Linear(
        medians.tolist(),
        means.tolist(),
        scales.tolist(),
        found[1 : width + 1].tolist(),
        missing.tolist(),
        shares.tolist(),
        float(found[0]),
    )


def _medians(x: Floats, shares: Floats) -> Floats:
    some = shares < 1.0
    medians = np.zeros(x.shape[1])
    if some.any():
        medians[some] = np.nanmedian(x[:, some], axis=0)
    return medians
