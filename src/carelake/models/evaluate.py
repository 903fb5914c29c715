"""Judge a model on rows that it never saw, beside its baselines; or say in a sentence why that cannot be done.

What is reported follows TRIPOD+AI: discrimination, calibration (in the large, slope, smooth curve and ICI), Brier,
net benefit, alerts, subgroups, each with a patient-cluster bootstrap interval where there are rows for one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from carelake.models import bootstrap, metrics
from carelake.models.matrix import Floats, Mask, Rows
from carelake.models.scorer import Scorer
from carelake.models.train import Plan

__all__ = ["Metrics", "block", "evaluate", "insufficient", "nothing"]

Metrics = dict[str, Any]
_KEYS = ("auroc", "auprc", "brier", "calibration_slope", "calibration_intercept")
_SMALL = 20
_MAX_REPLICATED = 20_000_000


def insufficient(data: Rows, plan: Plan) -> str | None:
    """Why these rows cannot give a sound estimate, or None when they can."""
    for name in ("train", "test"):
        part = data.part(name)
        ones, zeros = part.events, len(part) - part.events
        if min(ones, zeros) < plan.enough_events:
            return (
                f"The {name} set holds {len(part)} admissions, {ones} with the outcome and {zeros} without it; "
                f"a sound estimate needs at least {plan.enough_events} of each, so there is no model and no figure."
            )
    return None


def nothing(data: Rows | None, reason: str) -> Metrics:
    """The metrics of a run that could not be judged: counts, no estimates, and the reason.

    Args:
        data: None where it did not even come to rows.
    """
    test = data.part("test") if data is not None else None
    empty = dict.fromkeys(_KEYS)
    return {
        **empty,
        "n": len(test) if test is not None else 0,
        "events": test.events if test is not None else 0,
        "baselines": {name: dict(empty) for name in ("logistic", *(data.scores if data is not None else ()))},
        "subgroups": [],
        "curve": [],
        "reason": reason,
    }


def block(y: Mask, p: Floats) -> Metrics:
    """The figures of one set of risks."""
    raw, scaled = metrics.brier(y, p)
    slope, intercept = metrics.calibration_line(y, p)
    return {
        "auroc": metrics.auroc(y, p),
        "auprc": metrics.auprc(y, p),
        "brier": raw,
        "brier_scaled": scaled,
        "calibration_slope": slope,
        "calibration_intercept": intercept,
        "observed_expected": float(y.sum() / p.sum()),
        "ici": metrics.ici(y, p),
    }


def evaluate(data: Rows, scorer: Scorer, plan: Plan) -> Metrics:
    """Figures on the rows of ``test``, rounded to 6 digits.

    Keys: those of `block` for the model, ``n``, ``events``, ``patients``, ``intervals``, ``baselines`` (a block each,
    with ``auroc_interval`` and ``gain``: the model's AUROC less its, with the interval of the difference),
    ``alert``, ``net_benefit``, ``curve``, ``roc``, ``subgroups``, ``importance``, ``methods``, ``reason`` (None).
    """
    test = data.part("test")
    risk = scorer.risk(test.x)
    replicates = max(50, min(plan.replicates, _MAX_REPLICATED // len(test)))
    drawn = bootstrap.draw(test.y, risk, test.subject, replicates)
    others = {"logistic": scorer.logistic_risk(test.x), **scorer.score_risks(test.scores)}
    found = {
        **block(test.y, risk),
        "n": len(test),
        "events": test.events,
        "patients": len(np.unique(test.subject)),
        "intervals": {name: bootstrap.interval(drawn[:, at]) for at, name in enumerate(bootstrap.METRICS)},
        "baselines": {name: _baseline(test, p, risk, drawn[:, 0], replicates) for name, p in others.items()},
        "alert": metrics.alert(test.y, risk, scorer.threshold),
        "net_benefit": metrics.net_benefit(test.y, risk, plan.thresholds),
        "curve": metrics.calibration_curve(test.y, risk),
        "roc": {name: metrics.roc(test.y, p) for name, p in {"model": risk, **others}.items()},
        "subgroups": _subgroups(test, risk, replicates),
        "importance": _importance(test, scorer),
        "methods": {
            "intervals": f"95 % percentile, {replicates} bootstrap draws of patients",
            "ici": "distance from a logistic regression on a restricted cubic spline of logit(p), 4 knots",
            "curve": "10 bins of equal count, 95 % Wilson intervals",
        },
        "reason": None,
    }
    rounded: Metrics = _rounded(found)
    return rounded


def _importance(test: Rows, scorer: Scorer, most: int = 15, enough: int = 2_000) -> list[Metrics]:
    """The features that move risks most: mean size of what each adds to the log odds, on some test rows."""
    parts, _ = scorer.contributions(test.x[:enough])
    sizes = np.abs(parts).mean(axis=0)
    return [{"feature": test.names[at], "mean_abs_logit": float(sizes[at])} for at in np.argsort(-sizes)[:most]]


def _baseline(test: Rows, p: Floats, risk: Floats, model: Floats, replicates: int) -> Metrics:
    drawn = bootstrap.draw(test.y, p, test.subject, replicates)[:, 0]
    more = metrics.auroc(test.y, risk) - metrics.auroc(test.y, p)
    gain = {"auroc": more, "interval": bootstrap.interval(model - drawn)}
    return {**block(test.y, p), "auroc_interval": bootstrap.interval(drawn), "gain": gain}


def _subgroups(test: Rows, risk: Floats, replicates: int) -> list[Metrics]:
    out = []
    for name, labels in test.groups.items():
        for label in np.unique(labels):
            out.append({"group": name, "value": str(label), **_subgroup(test, risk, labels == label, replicates)})
    return out


def _subgroup(test: Rows, risk: Floats, mask: Mask, replicates: int) -> Metrics:
    part, p = test.where(mask), risk[mask]
    found: Metrics = {"n": len(part), "events": part.events}
    if min(part.events, len(part) - part.events) < _SMALL:
        empty = dict.fromkeys(bootstrap.METRICS)
        return {**found, **empty, "intervals": {}, "reason": f"fewer than {_SMALL} with or without the outcome"}
    raw, _ = metrics.brier(part.y, p)
    slope, intercept = metrics.calibration_line(part.y, p)
    values = (metrics.auroc(part.y, p), raw, slope, intercept)
    drawn = bootstrap.draw(part.y, p, part.subject, replicates)
    intervals = {name: bootstrap.interval(drawn[:, at]) for at, name in enumerate(bootstrap.METRICS)}
    return {**found, **dict(zip(bootstrap.METRICS, values, strict=True)), "intervals": intervals, "reason": None}


def _rounded(value: Any) -> Any:
    """Six digits, and None for what is not a number: JSON knows no NaN."""
    if isinstance(value, float):
        return round(value, 6) if np.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return value
