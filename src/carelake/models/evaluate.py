"""Judge a model on rows that it never saw, beside its baselines; or say in a sentence why that cannot be done.

What is reported follows TRIPOD+AI: discrimination, calibration (in the large, slope, smooth curve and ICI), Brier,
net benefit, alerts, subgroups, each with a patient-cluster bootstrap interval where there are rows for one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from carelake.models import bootstrap, cells, metrics
from carelake.models.matrix import Floats, Mask, Rows
from carelake.models.scorer import Scorer
from carelake.models.train import Plan

__all__ = ["Metrics", "block", "evaluate", "insufficient", "nothing"]

Metrics = dict[str, Any]
_KEYS = ("auroc", "auprc", "brier", "calibration_slope", "calibration_intercept")
_SMALL = 20
_MAX_REPLICATED = 20_000_000
_SHAP = (
    "what each feature adds to the log odds: TreeSHAP of the trees and terms of the logistic part, by their weights; "
    "they add up to the risk"
)


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
    ``not_computable`` (baselines that the data cannot give), ``validation`` (``grouped``: cross-fitted, by patient;
    ``temporal``: the test rows, where they are later), ``alert`` (with ``intervals``), ``net_benefit``,
    ``decision_curve`` (the same, finely), ``curve``, ``smooth_curve``, ``roc``, ``subgroups``, ``importance``,
    ``explanations``, ``missing``, ``methods``, ``reason`` (None).
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
        "not_computable": dict(plan.not_computable),
        "validation": _validation(scorer, test, risk, plan),
        "alert": _alert(test, risk, scorer.threshold, replicates),
        "net_benefit": metrics.net_benefit(test.y, risk, plan.thresholds),
        "decision_curve": metrics.net_benefit(test.y, risk, [at / 100 for at in range(1, 51)]),
        "curve": metrics.calibration_curve(test.y, risk),
        "smooth_curve": metrics.smooth_curve(test.y, risk),
        "roc": {name: metrics.roc(test.y, p) for name, p in {"model": risk, **others}.items()},
        "subgroups": _subgroups(test, risk, scorer.threshold, replicates),
        "importance": (explained := _explanations(test, scorer))[0],
        "explanations": explained[1],
        "missing": _missing(test),
        "methods": {
            "intervals": f"95 % percentile, {replicates} bootstrap draws of patients",
            "ici": "distance from a logistic regression on a restricted cubic spline of logit(p), 4 knots",
            "curve": "10 bins of equal count, 95 % Wilson intervals",
        },
        "reason": None,
    }
    out: Metrics = metrics.rounded(found)
    return out


def _validation(scorer: Scorer, test: Rows, risk: Floats, plan: Plan) -> Metrics:
    """Patients grouped (cross-fitted, on the training rows), and forward in time (on the test rows)."""
    temporal: Metrics = {"reason": "The data have no dates."}
    if plan.temporal:
        temporal = {**block(test.y, risk), "n": len(test), "events": test.events}
    return {**scorer.description.validation, "temporal": temporal}


def _alert(test: Rows, risk: Floats, threshold: float, replicates: int) -> Metrics:
    """What the alert does, with intervals by patients."""
    flagged = risk >= threshold
    drawn = [
        np.column_stack([weights @ flagged, weights @ (flagged & test.y), weights @ test.y, weights.sum(axis=1)])
        for weights in bootstrap.weights(test.subject, replicates)
    ]
    alerts, hits, events, rows = np.vstack(drawn).T
    with np.errstate(divide="ignore", invalid="ignore"):
        values = {"flagged": alerts / rows, "sensitivity": hits / events, "ppv": hits / alerts, "nne": alerts / hits}
    intervals = {name: bootstrap.interval(value) for name, value in values.items()}
    return {**metrics.alert(test.y, risk, threshold), "intervals": intervals}


def _explanations(test: Rows, scorer: Scorer, most: int = 15, enough: int = 2_000) -> tuple[list[Metrics], Metrics]:
    """The features that move risks most, by mean size of what each adds to the log odds, and which way they do.

    On some test rows; of a feature's values only means over at least twenty rows are told.
    """
    x = test.x[:enough]
    parts, _ = scorer.contributions(x)
    sizes = np.abs(parts).mean(axis=0)
    first = np.argsort(-sizes, kind="stable")[:most]
    importance = [{"feature": test.names[at], "mean_abs_logit": float(sizes[at])} for at in first]
    told = [{**one, "by_value": _by_value(x[:, at], parts[:, at])} for one, at in zip(importance, first, strict=True)]
    return importance, {"method": _SHAP, "rows": len(x), "features": told}


def _by_value(values: Floats, parts: Floats, bins: int = 5) -> list[Metrics]:
    """Mean value and mean contribution of rows in order of the value, missing ones last."""
    known = np.flatnonzero(~np.isnan(values))
    order = known[np.argsort(values[known], kind="stable")]
    cuts = np.flatnonzero(np.diff(values[order])) + 1
    wanted = np.searchsorted(cuts, np.arange(1, bins) * len(order) / bins)
    places = np.unique(cuts[np.minimum(wanted, len(cuts) - 1)]) if len(cuts) else np.empty(0, dtype=np.int64)
    groups = [*np.split(order, places), np.flatnonzero(np.isnan(values))]
    return [
        {
            "value": float(values[rows].mean()) if not np.isnan(values[rows[0]]) else None,
            "logit": float(parts[rows].mean()),
            "n": len(rows),
        }
        for rows in groups
        if len(rows) >= _SMALL
    ]


def _missing(test: Rows) -> dict[str, float]:
    """Share of rows without a value, by feature that has such rows."""
    shares = np.isnan(test.x).mean(axis=0)
    return {name: float(share) for name, share in zip(test.names, shares, strict=True) if share > 0}


def _baseline(test: Rows, p: Floats, risk: Floats, model: Floats, replicates: int) -> Metrics:
    drawn = bootstrap.draw(test.y, p, test.subject, replicates)[:, 0]
    more = metrics.auroc(test.y, risk) - metrics.auroc(test.y, p)
    gain = {"auroc": more, "interval": bootstrap.interval(model - drawn)}
    return {**block(test.y, p), "auroc_interval": bootstrap.interval(drawn), "gain": gain}


def _subgroups(test: Rows, risk: Floats, threshold: float, replicates: int) -> list[Metrics]:
    out, patients = [], []
    for name, labels in test.groups.items():
        for label in np.unique(labels):
            found = _subgroup(test, risk, labels == label, threshold, replicates)
            out.append({"group": name, "value": str(label), **found})
            patients.append(len(np.unique(test.subject[labels == label])))
    return cells.suppressed(out, patients)


def _subgroup(test: Rows, risk: Floats, mask: Mask, threshold: float, replicates: int) -> Metrics:
    part, p = test.where(mask), risk[mask]
    found: Metrics = {"n": len(part), "events": part.events}
    if min(part.events, len(part) - part.events) < _SMALL:
        empty = dict.fromkeys((*bootstrap.METRICS, "alert"))
        return {**found, **empty, "intervals": {}, "reason": f"fewer than {_SMALL} with or without the outcome"}
    raw, _ = metrics.brier(part.y, p)
    slope, intercept = metrics.calibration_line(part.y, p)
    values = (metrics.auroc(part.y, p), raw, slope, intercept)
    drawn = bootstrap.draw(part.y, p, part.subject, replicates)
    intervals = {name: bootstrap.interval(drawn[:, at]) for at, name in enumerate(bootstrap.METRICS)}
    figures = {**dict(zip(bootstrap.METRICS, values, strict=True)), "alert": metrics.alert(part.y, p, threshold)}
    return {**found, **figures, "intervals": intervals, "reason": None}
