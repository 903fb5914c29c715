"""Model quality in SageMaker Model Monitor's JSON: binary classification and regression.

Standard deviations are SageMaker's: five samples of 80 % of the rows, from 200 rows on, else ``"NaN"``. They take
rows of one patient for independent; `performance` has those over patients, and calibration.
https://docs.aws.amazon.com/sagemaker/latest/dg/model-monitor-model-quality-metrics.html
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from carelake.models import metrics
from carelake.models.matrix import Floats, Mask
from carelake.monitor.performance import beyond

__all__ = ["binary", "constraints", "regression", "worse"]

_FALSE_ALARMS = 0.001
_MORE, _LESS = 0.1, 0.05
"""By what part of itself an error must have grown; by what r2 must have fallen."""
_ENOUGH, _SAMPLES, _SHARE, _SEED = 200, 5, 0.8, 20260102
_POINTS = 100


def binary(y: Mask, p: Floats, threshold: float) -> dict[str, Any]:
    """``binary_classification_metrics`` of outcomes and risks; a row is 1 from the threshold on."""
    flagged = p >= threshold
    found = _with_spread(len(y), lambda rows: _scores(y[rows], p[rows], flagged[rows]))
    constant = _with_spread(len(y), lambda rows: _constant(y[rows]))
    thin = metrics.roc(y, p, _POINTS) if y.any() and not y.all() else []
    precisions, recalls = _precision_recall(y, p)
    return {
        "binary_classification_metrics": {
            "confusion_matrix": {
                real: {told: int(((y == (real == "1")) & (flagged == (told == "1"))).sum()) for told in "01"}
                for real in "01"
            },
            **found,
            **constant,
            "receiver_operating_characteristic_curve": {
                "false_positive_rates": [a for a, _ in thin],
                "true_positive_rates": [b for _, b in thin],
            },
            "precision_recall_curve": {"precisions": precisions, "recalls": recalls},
        }
    }


def regression(real: Floats, told: Floats) -> dict[str, Any]:
    """``regression_metrics`` of (n,) real and (n,) forecast values."""
    return {"regression_metrics": _with_spread(len(real), lambda rows: _errors(real[rows], told[rows]))}


def constraints(found: Mapping[str, Any]) -> dict[str, Any]:
    """What a baseline's metrics suggest: thresholds at their values."""
    kind = next(iter(found))
    less = ("recall", "precision", "accuracy", "true_positive_rate", "true_negative_rate", "auc", "f0_5", "f1", "f2")
    more = ("false_positive_rate", "false_negative_rate", "mae", "mse", "rmse")
    words = {**dict.fromkeys((*less, "r2"), "LessThanThreshold"), **dict.fromkeys(more, "GreaterThanThreshold")}
    said = {
        name: {"threshold": one["value"], "comparison_operator": words[name]}
        for name, one in found[kind].items()
        if name in words
    }
    return {"version": 0.0, kind.replace("_metrics", "_constraints"): said}


def worse(now: Mapping[str, Any], base: Mapping[str, Any]) -> list[dict[str, str]]:
    """Entries of ``constraint_violations.json`` of ``regression_metrics``: errors that grew by a tenth, an r2 that
    fell by 0.05, each by more than chance.
    """
    named = [name for name in ("mae", "mse", "rmse", "r2") if name in now and name in base]
    out = []
    for name in named:
        value, then = now[name]["value"], base[name]["value"]
        spreads = [one[name]["standard_deviation"] for one in (now, base)]
        if not all(isinstance(each, float) for each in (value, then, *spreads)):
            continue
        grown, margin = (then - value, _LESS) if name == "r2" else (value - then, _MORE * then)
        # Samples of 80 % without replacement are half as spread as the figure itself.
        if grown <= margin or not beyond(grown, *(2.0 * one for one in spreads), alpha=_FALSE_ALARMS / len(named)):
            continue
        kind = "LessThanThreshold" if name == "r2" else "GreaterThanThreshold"
        said = f"Metric {name} with {value:.4f} was {kind} '{then:.4f}', by more than a margin and more than chance."
        out.append({"constraint_check_type": kind, "description": said, "metric_name": name})
    return out


def _with_spread(n: int, figures: Callable[[Any], dict[str, float]]) -> dict[str, dict[str, Any]]:
    alone = figures(slice(None))
    if n < _ENOUGH:
        return {name: {"value": _plain(value), "standard_deviation": "NaN"} for name, value in alone.items()}
    random = np.random.default_rng(_SEED)
    drawn = [figures(random.choice(n, int(n * _SHARE), replace=False)) for _ in range(_SAMPLES)]
    return {
        name: {"value": _plain(value), "standard_deviation": _plain(np.std([one[name] for one in drawn], ddof=1))}
        for name, value in alone.items()
    }


def _plain(value: Any) -> Any:
    return float(value) if np.isfinite(value) else "NaN"


def _ratio(over: float, under: float) -> float:
    return over / under if under else 0.0


def _f(precision: float, recall: float, beta: float) -> float:
    return _ratio((1 + beta * beta) * precision * recall, beta * beta * precision + recall)


def _scores(y: Mask, p: Floats, flagged: Mask) -> dict[str, float]:
    tp, fp = float((y & flagged).sum()), float((~y & flagged).sum())
    fn, tn = float((y & ~flagged).sum()), float((~y & ~flagged).sum())
    recall, precision, specificity = _ratio(tp, tp + fn), _ratio(tp, tp + fp), _ratio(tn, tn + fp)
    return {
        "recall": recall,
        "precision": precision,
        "accuracy": _ratio(tp + tn, len(y)),
        "true_positive_rate": recall,
        "true_negative_rate": specificity,
        "false_positive_rate": _ratio(fp, fp + tn),
        "false_negative_rate": _ratio(fn, fn + tp),
        "auc": metrics.auroc(y, p) if y.any() and not y.all() else float("nan"),
        "f0_5": _f(precision, recall, 0.5),
        "f1": _f(precision, recall, 1.0),
        "f2": _f(precision, recall, 2.0),
    }


def _constant(y: Mask) -> dict[str, float]:
    """As SageMaker's example has it: the classifier that always says 1."""
    rate = float(y.mean()) if len(y) else 0.0
    found = {"recall": float(y.any()), "precision": rate, "accuracy": rate}
    found |= {name: _f(rate, found["recall"], beta) for name, beta in (("f0_5", 0.5), ("f1", 1.0), ("f2", 2.0))}
    return {f"{name}_best_constant_classifier": value for name, value in found.items()}


def _precision_recall(y: Mask, p: Floats) -> tuple[list[float], list[float]]:
    if not y.any():
        return [], []
    order = np.argsort(-p, kind="stable")
    last = np.flatnonzero(np.append(np.diff(p[order]) != 0, True))
    hits = np.cumsum(y[order])[last].astype(np.float64)
    precision, recall = hits / (last + 1.0), hits / hits[-1]
    at = np.unique(np.linspace(0, len(last) - 1, _POINTS).astype(int))
    return [1.0, *precision[at].tolist()], [0.0, *recall[at].tolist()]


def _errors(real: Floats, told: Floats) -> dict[str, float]:
    error = told - real
    mse = float((error**2).mean())
    total = float(((real - real.mean()) ** 2).mean())
    r2 = 1.0 - mse / total if total else float("nan")
    return {"mae": float(np.abs(error).mean()), "mse": mse, "rmse": mse**0.5, "r2": r2}
