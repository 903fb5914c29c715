"""Train: a logistic model and boosted trees, weighted by cross-fitting and calibrated on later rows.

Why both: on smooth risks with 10,000 rows the logistic part loses least, on thresholds and interactions the trees
do. Their weights come from risks of patients that neither saw (five patient-grouped folds), which also undoes
the over-confidence of either; so the calibration rows need to correct little. Fixed seeds: the same rows give the
same model, bit for bit.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass

import lightgbm
import msgspec
import numpy as np

from carelake.core.errors import Invalid
from carelake.models import boosting
from carelake.models.logistic import fit_linear, newton, sigmoid
from carelake.models.matrix import Floats, Rows
from carelake.models.scorer import Description, ScoreMap, Scorer

__all__ = ["Plan", "train"]

_SEED = 20260101


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What can be chosen.

    Attributes:
        name: of the model, for example ``readmission``.
        folds: patient-grouped folds of the cross-fitting.
        alert_share: the share of patients that the ward can act on; it sets the alert threshold.
        enough_events: fewer events (or non-events) than this, in train or in test, and there is no model
            (Vergouwe 2005, Collins 2016: at least 100 of each to judge one).
        replicates: of the patient-cluster bootstrap.
        thresholds: risks at which net benefit is reported.
    """

    name: str = "readmission"
    folds: int = 5
    alert_share: float = 0.15
    enough_events: int = 100
    replicates: int = 200
    thresholds: tuple[float, ...] = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4)


@dataclass(frozen=True)
class _Crossed:
    scores: Floats  # (n, 2) log odds of the logistic part and of the trees, each row by models that did not see it
    rounds: int


def train(data: Rows, plan: Plan, *, training_set: str, words: Mapping[str, str] | None = None) -> Scorer:
    """Fit on the rows of ``train``, calibrate on those of ``calibration``; the rows of ``test`` are not looked at.

    Args:
        training_set: ref of the training set, kept in the model.
        words: readable names of features.

    Raises:
        Invalid: ``models.train`` when ``train`` holds fewer patients than folds, or one outcome only.
    """
    base, later = data.part("train"), data.part("calibration")
    if len(np.unique(base.subject)) < plan.folds or not 0 < base.events < len(base):
        raise Invalid("models.train", "Training needs patients in every fold, with and without the outcome.")
    crossed = _cross_fit(base, plan.folds)
    linear = fit_linear(base.x, base.y)
    booster = boosting.fit(base.x, base.y, crossed.rounds)
    draft = Description(
        names=list(data.names),
        words={name: words[name] for name in data.names if words and name in words},
        linear=linear,
        stack=_stack(crossed.scores, base),
        platt=(0.0, 1.0),
        scores={name: _score_map(base, name) for name in base.scores},
        threshold=0.5,
        training_set=training_set,
        rounds=crossed.rounds,
        versions={"lightgbm": lightgbm.__version__, "numpy": np.__version__, "python": platform.python_version()},
    )
    text = booster.model_to_string()
    platt = _platt(Scorer(text, draft), later)
    out_of_fold = platt[0] + platt[1] * (draft.stack[0] + crossed.scores @ np.asarray(draft.stack[1:]))
    threshold = float(np.quantile(sigmoid(out_of_fold), 1.0 - plan.alert_share))
    return Scorer(text, msgspec.structs.replace(draft, platt=platt, threshold=round(threshold, 4)))


def _folds(subject: np.ndarray, folds: int) -> np.ndarray:
    """(n,) fold of each row: patients are dealt out in a fixed shuffle, so that no patient is on both sides."""
    patients, place = np.unique(subject, return_inverse=True)
    order = np.random.default_rng(_SEED).permutation(len(patients))
    out: np.ndarray = (order % folds)[place]
    return out


def _cross_fit(base: Rows, folds: int) -> _Crossed:
    fold = _folds(base.subject, folds)
    scores, rounds = np.zeros((len(base), 2)), []
    for number in range(folds):
        inside, held = base.where(fold != number), base.where(fold == number)
        booster, best = boosting.fit_stopping(inside.x, inside.y, held.x, held.y)
        scores[fold == number, 0] = fit_linear(inside.x, inside.y).score(held.x)
        scores[fold == number, 1] = booster.predict(held.x, raw_score=True, num_iteration=best)
        rounds.append(best)
    return _Crossed(scores, round(float(np.mean(rounds))))


def _stack(scores: Floats, base: Rows) -> tuple[float, float, float]:
    """Weights of the two parts by logistic regression on cross-fitted scores, none below zero."""
    ones = np.ones((len(base), 1))
    both = newton(np.hstack([ones, scores]), base.y)
    if both[1:].min() >= 0.0:
        return float(both[0]), float(both[1]), float(both[2])
    keep = int(both[2] > both[1])
    one = newton(np.hstack([ones, scores[:, [keep]]]), base.y)
    weights = [0.0, 0.0]
    weights[keep] = max(0.0, float(one[1]))
    return float(one[0]), weights[0], weights[1]


def _platt(scorer: Scorer, later: Rows, enough: int = 30, tight: float = 0.05) -> tuple[float, float]:
    """Intercept and slope on the calibration rows, held near 0 and 1 by a prior of standard deviation ``tight``.

    A few hundred events leave either uncertain by up to a tenth, which is more than cross-fitting leaves to correct;
    thousands of events outweigh the prior. Identity with fewer than ``enough`` events or non-events.
    """
    if min(later.events, len(later) - later.events) < enough:
        return 0.0, 1.0
    design = np.column_stack([np.ones(len(later)), scorer.logits(later.x)])
    found = newton(design, later.y, penalty=tight**-2, centre=np.asarray([0.0, 1.0]))
    return float(found[0]), float(found[1])


def _score_map(base: Rows, name: str) -> ScoreMap:
    score = base.scores[name]
    known = ~np.isnan(score)
    median = float(np.median(score[known])) if known.any() else 0.0
    design = np.column_stack([np.ones(len(score)), np.where(known, score, median)])
    intercept, slope = newton(design, base.y, penalty=1e-3)
    return ScoreMap(float(intercept), float(slope), median)
