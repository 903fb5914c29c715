"""Train: a logistic model and boosted trees, weighted by cross-fitting and calibrated on later rows; or one alone.

Why both: on smooth risks with 10,000 rows the logistic part loses least, on thresholds and interactions the trees
do. Their weights come from risks of patients that neither saw (five patient-grouped folds), which also undoes
the over-confidence of either; so the calibration rows need to correct little. Fixed seeds: the same rows give the
same model, bit for bit.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import lightgbm
import msgspec
import numpy as np

from carelake.core.errors import Invalid
from carelake.core.shapes import decodable
from carelake.models import boosting, metrics
from carelake.models.calibrate import Judged, choose, fit_curve, fit_line
from carelake.models.logistic import fit_linear, newton, sigmoid
from carelake.models.matrix import GROUPS, SCORES, Floats, Rows
from carelake.models.scorer import Description, ScoreMap, Scorer
from carelake.models.tuning import SPACE, Tried, folds_of, halve

__all__ = ["Plan", "planned", "train"]

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
        kind: ``risk`` (both, stacked), ``logistic`` or ``boosting`` (one alone).
        parameters: LightGBM's, where they differ from `boosting.PARAMETERS`.
        candidates: how many parameters of `tuning.SPACE` are tried; 0: none.
        ridge: of the logistic model.
        calibration: ``platt``, or ``auto``: line or curve, as `calibrate.choose` finds.
        scores, groups: columns that hold clinical scores and subgroups.
        temporal: whether the rows of ``test`` are later than those of ``train``.
        not_computable: scores that the report names and the data cannot give, with the reason.
    """

    name: str = "readmission"
    folds: int = 5
    alert_share: float = 0.15
    enough_events: int = 100
    replicates: int = 200
    thresholds: tuple[float, ...] = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4)
    kind: Literal["risk", "logistic", "boosting"] = "risk"
    parameters: Mapping[str, float | int] = {}
    candidates: int = 0
    ridge: float = 30.0
    calibration: Literal["platt", "auto"] = "platt"
    scores: tuple[str, ...] = SCORES
    groups: tuple[str, ...] = GROUPS
    temporal: bool = True
    not_computable: Mapping[str, str] = {}


_CHOICES = frozenset({"name", "kind", "folds", "candidates", "ridge", "calibration", "alert_share"})
_BOUNDS: Mapping[str, tuple[float, float]] = {
    "folds": (2, 50),
    "candidates": (0, 200),
    "ridge": (0, 1e9),
    "alert_share": (1e-6, 1 - 1e-6),
    "num_leaves": (2, 1_024),
    "learning_rate": (1e-6, 1),
    "min_data_in_leaf": (0, 1_000_000),
    "feature_fraction": (1e-6, 1),
    "bagging_fraction": (1e-6, 1),
    "lambda_l2": (0, 1e9),
}
_WHOLE = frozenset({"num_leaves", "min_data_in_leaf"})
_PARTS = {"risk": (0, 1), "logistic": (0,), "boosting": (1,)}


def planned(said: Mapping[str, str], base: Plan | None = None) -> Plan:
    """A plan by SageMaker's HyperParameters, which are text: the plan's own numbers and words, and LightGBM's.

    Raises:
        Invalid: ``models.hyperparameter``: none of these, no number where one belongs, or one out of bounds.
    """
    asked = {name: said[name] for name in said.keys() & _CHOICES}
    trees = {name: said[name] for name in said.keys() & SPACE.keys()}
    try:
        if unknown := sorted(said.keys() - _CHOICES - SPACE.keys()):
            raise msgspec.ValidationError(f"unknown: {', '.join(unknown)}")
        chosen = msgspec.convert(trees, dict[str, int | float], strict=False)
        told = {**msgspec.structs.asdict(base or Plan()), **asked}
        made = msgspec.convert(told, decodable(Plan), strict=False)
        if not all(_bounded(name, chosen[name] if name in chosen else getattr(made, name)) for name in said):
            raise msgspec.ValidationError("out of bounds")
    except msgspec.ValidationError:
        known = ", ".join(sorted(_CHOICES | SPACE.keys()))
        raise Invalid("models.hyperparameter", f"A hyperparameter is wrong or unknown; there are: {known}.") from None
    return msgspec.structs.replace(made, parameters={**made.parameters, **chosen})


def _bounded(name: str, value: Any) -> bool:
    low, high = _BOUNDS.get(name, (None, None))
    if low is None or high is None:
        return True
    return bool(low <= value <= high) and (name not in _WHOLE or isinstance(value, int))


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
    parameters, tried = dict(plan.parameters), list[Tried]()
    if plan.candidates and plan.kind != "logistic":
        parameters, tried = halve(base, plan.candidates, plan.parameters)
    crossed = _cross_fit(base, plan, parameters)
    stack = _stack(crossed.scores, base, _PARTS[plan.kind])
    draft = Description(
        names=list(data.names),
        words={name: words[name] for name in data.names if words and name in words},
        linear=fit_linear(base.x, base.y, ridge=plan.ridge),
        stack=stack,
        platt=(0.0, 1.0),
        scores={name: _score_map(base, name) for name in base.scores},
        threshold=0.5,
        training_set=training_set,
        rounds=crossed.rounds,
        versions={"lightgbm": lightgbm.__version__, "numpy": np.__version__, "python": platform.python_version()},
        kind=plan.kind,
        parameters=parameters,
        tuning=tried,
    )
    text = _text(base, crossed.rounds, parameters) if plan.kind != "logistic" else ""
    return _calibrated(Scorer(text, draft), base, later, stack[0] + crossed.scores @ np.asarray(stack[1:]), plan)


def _text(base: Rows, rounds: int, parameters: Mapping[str, Any]) -> str:
    return boosting.text_of(boosting.fit(base.x, base.y, rounds, parameters))


def _calibrated(draft: Scorer, base: Rows, later: Rows, crossed: Floats, plan: Plan) -> Scorer:
    """The model with its calibration, its alert threshold, and its figures on cross-fitted risks."""
    score = draft.logits(later.x) if len(later) else np.empty(0)
    platt, curve, judged = fit_line(score, later.y), None, Judged("platt")
    if plan.calibration == "auto":
        # No patient is in both; each score is by models that did not see its patient.
        every, y = np.concatenate([crossed, score]), np.concatenate([base.y, later.y])
        judged = choose(every, y, np.concatenate([base.subject, later.subject]))
        if judged.chosen == "isotonic":
            platt, curve = (0.0, 1.0), fit_curve(every, y)
    said = msgspec.structs.replace(draft.description, platt=platt, isotonic=curve, calibration=judged)
    line = platt[0] + platt[1] * crossed
    risk = sigmoid(line if curve is None else curve(line))
    cut = float(np.quantile(risk, 1.0 - plan.alert_share))
    threshold = round(cut, 4) or cut
    figures = _validation(base, risk, plan)
    return Scorer(draft.text, msgspec.structs.replace(said, threshold=threshold, validation=figures))


def _validation(base: Rows, risk: Floats, plan: Plan) -> dict[str, dict[str, float | int]]:
    raw, scaled = metrics.brier(base.y, risk)
    figures: dict[str, float | int] = {
        "auroc": metrics.auroc(base.y, risk),
        "auprc": metrics.auprc(base.y, risk),
        "brier": raw,
        "brier_scaled": scaled,
        "ici": metrics.ici(base.y, risk),
    }
    rounded = {name: round(value, 6) for name, value in figures.items()}
    return {"grouped": {**rounded, "n": len(base), "events": base.events, "folds": plan.folds}}


def _cross_fit(base: Rows, plan: Plan, parameters: Mapping[str, Any]) -> _Crossed:
    fold = folds_of(base.subject, plan.folds, _SEED)
    scores, rounds = np.zeros((len(base), 2)), [0]
    for number in range(plan.folds):
        inside, held = base.where(fold != number), base.where(fold == number)
        scores[fold == number, 0] = fit_linear(inside.x, inside.y, ridge=plan.ridge).score(held.x)
        if plan.kind == "logistic":
            continue
        booster, best = boosting.fit_stopping(inside.x, inside.y, held.x, held.y, parameters=parameters)
        scores[fold == number, 1] = booster.predict(held.x, raw_score=True, num_iteration=best)
        rounds.append(best)
    return _Crossed(scores, round(float(np.mean(rounds[1:]))) if len(rounds) > 1 else 0)


def _stack(scores: Floats, base: Rows, parts: tuple[int, ...]) -> tuple[float, float, float]:
    """Weights of the parts by logistic regression on cross-fitted scores, none below zero."""
    ones = np.ones((len(base), 1))
    found = newton(np.hstack([ones, scores[:, list(parts)]]), base.y)
    if len(parts) > 1 and found[1:].min() < 0.0:
        return _stack(scores, base, (int(found[2] > found[1]),))
    weights = [0.0, 0.0]
    for at, part in enumerate(parts, 1):
        weights[part] = max(0.0, float(found[at]))
    return float(found[0]), weights[0], weights[1]


def _score_map(base: Rows, name: str) -> ScoreMap:
    score = base.scores[name]
    known = ~np.isnan(score)
    median = float(np.median(score[known])) if known.any() else 0.0
    design = np.column_stack([np.ones(len(score)), np.where(known, score, median)])
    intercept, slope = newton(design, base.y, penalty=1e-3)
    return ScoreMap(float(intercept), float(slope), median)
