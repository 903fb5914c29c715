"""Fit hazards of intervals by LightGBM, cross-fitted by patient, calibrated on what they did not see."""

from __future__ import annotations

import platform
from collections.abc import Mapping

import lightgbm
import msgspec
import numpy as np

from carelake.core.errors import Invalid
from carelake.models import boosting
from carelake.models.logistic import Linear, fit_linear, newton
from carelake.models.matrix import Floats
from carelake.models.survival.rows import Periods, TimedRows, kaplan_meier, periods
from carelake.models.survival.scorer import EventTime, HazardScorer
from carelake.models.tuning import folds_of

__all__ = ["SurvivalPlan", "train"]

_SEED = 20260105


class SurvivalPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What can be chosen.

    Attributes:
        horizon: days; the risk that is reported, alerted and explained is of the event until then.
        intervals: how many, of about equal counts of events, up to ``follow_up``.
        follow_up: days; where the last interval ends, 0 for the horizon.
        alert_share, replicates, thresholds, temporal: as in `train.Plan`.
    """

    name: str = "event-time"
    horizon: float = 30.0
    intervals: int = 10
    follow_up: float = 0.0
    folds: int = 5
    alert_share: float = 0.15
    enough_events: int = 100
    replicates: int = 100
    thresholds: tuple[float, ...] = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4)
    temporal: bool = True
    parameters: Mapping[str, float | int] = {}


def train(
    data: TimedRows, plan: SurvivalPlan, *, training_set: str, words: Mapping[str, str] | None = None
) -> HazardScorer:
    """Fit on the rows of ``train``, set the alert on those of ``calibration``; those of ``test`` are not looked at.

    Raises:
        Invalid: ``models.train``, when there are fewer patients than folds or no event.
    """
    base, later = data.part("train"), data.part("calibration")
    if len(np.unique(base.subject)) < plan.folds or base.events < plan.intervals or (base.time <= 0).any():
        raise Invalid(
            "models.train", "Training needs patients in every fold, events in every interval, times over 0."
        )
    edges = _edges(base, plan)
    cut = periods(base.time, base.event, edges)
    x = _with_time(base.x, cut, edges)
    score, rounds = _cross_fit(base, cut, x, plan)
    found = newton(np.column_stack([np.ones(len(score)), score]), cut.y)
    booster = boosting.fit(x, cut.y, rounds, plan.parameters)
    description = EventTime(
        names=list(data.names),
        words={name: words[name] for name in data.names if words and name in words},
        edges=edges.tolist(),
        horizon=float(plan.horizon),
        linear=_baseline(base, cut, edges),
        platt=(float(found[0]), float(found[1])),
        alive=kaplan_meier(base.time, base.event, edges).tolist(),
        threshold=0.5,
        training_set=training_set,
        rounds=rounds,
        versions={"lightgbm": lightgbm.__version__, "numpy": np.__version__, "python": platform.python_version()},
        parameters=dict(plan.parameters),
    )
    return _with_threshold(HazardScorer(boosting.text_of(booster), description), later if len(later) else base, plan)


def _with_threshold(draft: HazardScorer, rows: TimedRows, plan: SurvivalPlan) -> HazardScorer:
    cut = float(np.quantile(draft.risk(rows.x), 1.0 - plan.alert_share))
    threshold = round(cut, 4) or cut
    return HazardScorer(draft.text, msgspec.structs.replace(draft.description, threshold=threshold))


def _edges(base: TimedRows, plan: SurvivalPlan) -> Floats:
    """From 0 to the end of follow-up, by quantiles of the events' times; the horizon is one of them."""
    last = max(plan.follow_up, plan.horizon)
    times = base.time[base.event & (base.time <= last)]
    cuts = np.quantile(times, np.linspace(0, 1, plan.intervals + 1)[1:-1]).round(3)
    out: Floats = np.unique(np.concatenate([[0.0], cuts[(cuts > 0) & (cuts < last)], [plan.horizon, last]]))
    return out


def _with_time(x: Floats, cut: Periods, edges: Floats) -> Floats:
    """(m, p + 1) features of each row at risk, and the middle of its interval."""
    middles = ((edges[:-1] + edges[1:]) / 2.0).astype(np.float32).astype(np.float64)
    out: Floats = np.column_stack([x[cut.row], middles[cut.interval]])
    return out


def _cross_fit(base: TimedRows, cut: Periods, x: Floats, plan: SurvivalPlan) -> tuple[Floats, int]:
    """Log odds of hazards of patients that the trees did not see, and how many trees were best."""
    fold = folds_of(base.subject, plan.folds, _SEED)[cut.row]
    score, rounds = np.zeros(len(cut.row)), []
    for number in range(plan.folds):
        inside, held = fold != number, fold == number
        booster, best = boosting.fit_stopping(
            x[inside], cut.y[inside], x[held], cut.y[held], parameters=plan.parameters
        )
        score[held] = booster.predict(x[held], raw_score=True, num_iteration=best)
        rounds.append(best)
    return score, round(float(np.mean(rounds)))


def _baseline(base: TimedRows, cut: Periods, edges: Floats) -> Linear:
    """A logistic model of hazards with an intercept of each interval."""
    steps = np.eye(len(edges) - 1)[cut.interval]
    return fit_linear(np.hstack([base.x[cut.row], steps]), cut.y, ridge=3.0)
