"""Tune: successive halving over a declared space of LightGBM's parameters (Jamieson and Talwalkar 2016).

All candidates are judged on a part of the patients, the better third on three times as many, until the last few
are judged on all: by log loss of patients that they did not see, three folds, each grown until it no longer improves.
The first candidate, which the plan gives, is judged on all whatever it did on a part, so that noise can cost nothing
but time. Draws and folds are fixed, so the same rows choose the same parameters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from carelake.models import boosting
from carelake.models.logistic import sigmoid
from carelake.models.matrix import Floats, Mask, Rows

__all__ = ["SPACE", "Tried", "candidates", "folds_of", "halve"]

SPACE: Mapping[str, Sequence[float | int]] = {
    "num_leaves": (4, 6, 8, 12, 16),
    "learning_rate": (0.03, 0.05),
    "min_data_in_leaf": (40, 80, 160, 320),
    "feature_fraction": (0.2, 0.3, 0.5),
    "bagging_fraction": (0.6, 0.8),
    "lambda_l2": (1.0, 10.0, 50.0),
}
_SEED = 20260103
_FOLDS = 3
_LEAST = 4_000


class Tried(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A candidate: its log loss on each share of the patients that it came to."""

    parameters: dict[str, float | int]
    losses: list[float]


def candidates(number: int, first: Mapping[str, Any] | None = None) -> list[dict[str, float | int]]:
    """The plan's own parameters, and draws of the space."""
    random = np.random.default_rng(_SEED)
    own = {**{name: boosting.PARAMETERS[name] for name in SPACE}, **(first or {})}
    drawn = [
        {name: values[int(random.integers(len(values)))] for name, values in SPACE.items()} for _ in range(number - 1)
    ]
    return [own, *({**own, **one} for one in drawn)][:number]


def folds_of(subject: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """(n,) fold of each row: patients are dealt out in a fixed shuffle, so that no patient is on both sides."""
    patients, place = np.unique(subject, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(patients))
    out: np.ndarray = (order % folds)[place]
    return out


def halve(base: Rows, number: int, first: Mapping[str, Any] | None = None) -> tuple[dict[str, Any], list[Tried]]:
    """The parameters that did best, and how all candidates did, best first."""
    tried = [Tried(parameters, []) for parameters in candidates(number, first)]
    left, out = tried, list[Tried]()
    rungs = 1 + int(np.ceil(np.log(len(tried)) / np.log(3.0) - 1e-9))
    for rung in range(rungs):
        rows = _share(base, 3.0 ** (rung + 1 - rungs))
        fold = folds_of(rows.subject, _FOLDS, _SEED + rung)
        for one in left:
            one.losses.append(round(_loss(rows, fold, one.parameters), 6))
        left = sorted(left, key=lambda one: one.losses[-1])
        if rung < rungs - 1:
            keep = max(1, -(-len(left) // 3))
            kept = [one for at, one in enumerate(left) if at < keep or one is tried[0]]
            out, left = [*(one for one in left if one not in kept), *out], kept
    return dict(left[0].parameters), [*left, *out]


def _share(base: Rows, share: float) -> Rows:
    """Some patients' rows; all where few rows would be left."""
    share = max(share, min(1.0, _LEAST / max(1, len(base))))
    if share >= 1.0:
        return base
    patients, place = np.unique(base.subject, return_inverse=True)
    drawn = np.random.default_rng(_SEED).random(len(patients)) < share
    return base.where(drawn[place])


def _loss(rows: Rows, fold: np.ndarray, parameters: Mapping[str, Any]) -> float:
    losses = []
    for number in range(_FOLDS):
        inside, held = rows.where(fold != number), rows.where(fold == number)
        booster, best = boosting.fit_stopping(inside.x, inside.y, held.x, held.y, parameters=parameters)
        score: Floats = booster.predict(held.x, raw_score=True, num_iteration=best)
        losses.append(_log_loss(held.y, score))
    return float(np.mean(losses))


def _log_loss(y: Mask, score: Floats) -> float:
    p = np.clip(sigmoid(score), 1e-9, 1 - 1e-9)
    return float(-np.where(y, np.log(p), np.log1p(-p)).mean())
