"""Judge a model of time to an event on rows that it never saw.

Who was lost before the horizon counts through those like them (inverse probability of censoring weights): AUROC,
Brier, calibration line and net benefit are the weighted forms of those in `metrics`, and intervals draw patients.
Concordance is Uno's C (Stat Med 2011), the integrated Brier score that of Graf et al. (Stat Med 1999); observed rates
of the calibration curve are Kaplan-Meier's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from carelake.models import bootstrap, cells
from carelake.models.matrix import Floats, Mask
from carelake.models.metrics import rounded
from carelake.models.survival.fit import SurvivalPlan
from carelake.models.survival.rows import TimedRows, kaplan_meier, weights
from carelake.models.survival.scorer import HazardScorer

__all__ = ["brier_curve", "c_index", "evaluate"]

_SMALL = 20
_BLOCK = 4_000_000


def c_index(time: Floats, event: Mask, risk: Floats, horizon: float) -> float:
    """Uno's C: how often, of two, who had the event first (by the horizon) had the higher risk; ties count half."""
    seen = np.maximum(kaplan_meier(time, ~event, np.nextafter(time, 0.0)), 0.05)
    first = np.flatnonzero(event & (time <= horizon))
    right = total = 0.0
    for part in np.array_split(first, max(1, len(first) * len(time) // _BLOCK)):
        later = time[None, :] > time[part, None]
        above = (risk[part, None] > risk[None, :]) + 0.5 * (risk[part, None] == risk[None, :])
        w = 1.0 / seen[part] ** 2
        right += float(w @ (later * above).sum(axis=1))
        total += float(w @ later.sum(axis=1))
    return right / total if total else float("nan")


def brier_curve(test: TimedRows, alive: Floats, times: Floats) -> Floats:
    """(len(times),) Brier score at each moment, of (n, len(times)) chances to be without the event then."""
    out = []
    for at, moment in enumerate(times):
        w = weights(test.time, test.event, float(moment))
        lasted = test.time > moment
        out.append(float((w * (lasted - alive[:, at]) ** 2).sum() / w.sum()))
    return np.asarray(out)


def evaluate(data: TimedRows, scorer: HazardScorer, plan: SurvivalPlan) -> dict[str, Any]:
    """Figures on the rows of ``test``; keys as those of `models.evaluate.evaluate` for risks at the horizon.

    Beside them ``c_index``, ``integrated_brier`` (both with the baselines'), ``horizon``, ``censored``.
    """
    test = data.part("test")
    risk, horizon = scorer.risk(test.x), scorer.description.horizon
    times = scorer.edges[(scorer.edges > 0) & (scorer.edges <= horizon)]
    km = np.tile(np.interp(times, scorer.edges, scorer.description.alive), (len(test), 1))
    others = {"logistic": scorer.baseline_risk(test.x)}
    drawn = _drawn(test, risk, horizon, plan.replicates)
    found = {
        **_block(test, risk, horizon),
        "c_index": c_index(test.time, test.event, risk, horizon),
        "integrated_brier": _integrated(brier_curve(test, scorer.survival(test.x, times), times), times),
        "n": len(test),
        "events": int((test.event & (test.time <= horizon)).sum()),
        "censored": int((~test.event & (test.time < horizon)).sum()),
        "patients": len(np.unique(test.subject)),
        "horizon": horizon,
        "intervals": {name: bootstrap.interval(drawn[:, at]) for at, name in enumerate(bootstrap.METRICS)},
        "baselines": {name: _baseline(test, p, risk, horizon, drawn, plan) for name, p in others.items()},
        "kaplan_meier": {"integrated_brier": _integrated(brier_curve(test, km, times), times)},
        "alert": _alert(test, risk, horizon, scorer.threshold),
        "net_benefit": _net_benefit(test, risk, horizon, plan.thresholds),
        "curve": _curve(test, risk, horizon),
        "roc": {name: _roc(test, p, horizon) for name, p in {"model": risk, **others}.items()},
        "subgroups": _subgroups(test, risk, horizon, scorer.threshold, plan.replicates),
        "importance": _importance(test, scorer),
        "methods": {
            "intervals": f"95 % percentile, {plan.replicates} bootstrap draws of patients",
            "censoring": "inverse probability of censoring weights, Kaplan-Meier; other ends count as censoring",
            "curve": "10 bins of equal count, observed by Kaplan-Meier",
            "ici": "mean distance of the bins from their observed rates, by count",
        },
        "reason": None,
    }
    out: dict[str, Any] = rounded(found)
    return out


def _outcome(test: TimedRows, horizon: float) -> tuple[Mask, Floats]:
    """Whether the event came by the horizon, and the weight with which that is known."""
    return test.event & (test.time <= horizon), weights(test.time, test.event, horizon)


def _block(test: TimedRows, p: Floats, horizon: float) -> dict[str, Any]:
    y, w = _outcome(test, horizon)
    auroc, brier, slope, intercept = bootstrap.replicate(y, p, w[None, :])[0]
    bins = _curve(test, p, horizon)
    observed = 1.0 - float(kaplan_meier(test.time, test.event, np.asarray([horizon]))[0])
    rate = float((w * y).sum() / w.sum())
    return {
        "auroc": float(auroc),
        "auprc": _auprc(y, p, w),
        "brier": float(brier),
        "brier_scaled": 1.0 - float(brier) / (rate * (1.0 - rate)),
        "calibration_slope": float(slope),
        "calibration_intercept": float(intercept),
        "observed_expected": observed / float(p.mean()),
        "ici": sum(one["n"] * abs(one["predicted"] - one["observed"]) for one in bins) / len(test),
    }


def _drawn(test: TimedRows, p: Floats, horizon: float, replicates: int) -> Floats:
    """(replicates, 4) values of `bootstrap.METRICS`; the censoring weights are those of all rows."""
    y, w = _outcome(test, horizon)
    return np.vstack([bootstrap.replicate(y, p, block * w) for block in bootstrap.weights(test.subject, replicates)])


def _baseline(
    test: TimedRows, p: Floats, risk: Floats, horizon: float, model: Floats, plan: SurvivalPlan
) -> dict[str, Any]:
    drawn = _drawn(test, p, horizon, plan.replicates)[:, 0]
    told, own = _block(test, p, horizon), _block(test, risk, horizon)
    gain = {"auroc": own["auroc"] - told["auroc"], "interval": bootstrap.interval(model[:, 0] - drawn)}
    found = {"c_index": c_index(test.time, test.event, p, horizon), "auroc_interval": bootstrap.interval(drawn)}
    return {**told, **found, "gain": gain}


def _auprc(y: Mask, p: Floats, w: Floats) -> float:
    order = np.argsort(-p, kind="stable")
    hits, rows = np.cumsum((w * y)[order]), np.cumsum(w[order])
    last = np.flatnonzero(np.append(np.diff(p[order]) != 0, True))
    recall = hits[last] / hits[-1]
    return float((np.diff(recall, prepend=0.0) * hits[last] / np.maximum(rows[last], 1e-12)).sum())


def _integrated(scores: Floats, times: Floats) -> float:
    """Mean over time from 0, where every score is 0."""
    return float(np.trapezoid(np.concatenate([[0.0], scores]), np.concatenate([[0.0], times])) / times[-1])


def _curve(test: TimedRows, p: Floats, horizon: float, bins: int = 10) -> list[dict[str, Any]]:
    """Predicted and observed (Kaplan-Meier) risk in equal-count bins, with Greenwood's 95 % interval."""
    out = []
    for part in np.array_split(np.argsort(p, kind="stable"), bins):
        alive, spread = _greenwood(test.time[part], test.event[part], horizon)
        observed = 1.0 - alive
        low, high = max(0.0, observed - 1.96 * spread), min(1.0, observed + 1.96 * spread)
        out.append(
            {"predicted": float(p[part].mean()), "observed": observed, "low": low, "high": high, "n": len(part)}
        )
    return out


def _greenwood(time: Floats, event: Mask, horizon: float) -> tuple[float, float]:
    """Kaplan-Meier's share at the horizon and its standard error."""
    alive = float(kaplan_meier(time, event, np.asarray([horizon]))[0])
    moments, place = np.unique(time, return_inverse=True)
    ended, happened = np.bincount(place), np.bincount(place, weights=event)
    at_risk = np.cumsum(ended[::-1])[::-1]
    here = (moments <= horizon) & (at_risk > happened)
    return alive, alive * float(np.sqrt((happened[here] / (at_risk[here] * (at_risk[here] - happened[here]))).sum()))


def _alert(test: TimedRows, p: Floats, horizon: float, threshold: float) -> dict[str, Any]:
    y, w = _outcome(test, horizon)
    flagged = p >= threshold
    hits, ones = float((w * (flagged & y)).sum()), float((w * y).sum())
    ppv = hits / float(w[flagged].sum()) if w[flagged].sum() else None
    return {
        "threshold": threshold,
        "flagged": float(flagged.mean()),
        "sensitivity": hits / ones if ones else None,
        "specificity": float((w * (~flagged & ~y)).sum() / (w * ~y).sum()),
        "ppv": ppv,
        "nne": 1.0 / ppv if ppv else None,
    }


def _net_benefit(test: TimedRows, p: Floats, horizon: float, thresholds: tuple[float, ...]) -> list[dict[str, float]]:
    y, w = _outcome(test, horizon)
    w = w / w.sum()
    rate, out = float((w * y).sum()), []
    for at in thresholds:
        flagged, odds = p >= at, at / (1.0 - at)
        hit, miss = float((w * (flagged & y)).sum()), float((w * (flagged & ~y)).sum())
        out.append({"threshold": at, "model": hit - miss * odds, "all": rate - (1.0 - rate) * odds})
    return out


def _roc(test: TimedRows, p: Floats, horizon: float, points: int = 60) -> list[list[float]]:
    y, w = _outcome(test, horizon)
    order = np.argsort(-p, kind="stable")
    hits, misses = np.cumsum((w * y)[order]), np.cumsum((w * ~y)[order])
    grid = np.linspace(0.0, 1.0, points)
    rates = np.interp(grid, misses / misses[-1], hits / hits[-1])
    pairs: list[list[float]] = np.column_stack([grid, rates]).round(4).tolist()
    return pairs


def _subgroups(
    test: TimedRows, risk: Floats, horizon: float, threshold: float, replicates: int
) -> list[Mapping[str, Any]]:
    out: list[Mapping[str, Any]] = []
    patients = [len(np.unique(test.subject[by == one])) for by in test.groups.values() for one in np.unique(by)]
    for name, labels in test.groups.items():
        for label in np.unique(labels):
            mask = labels == label
            part, p = test.where(mask), risk[mask]
            y, _ = _outcome(part, horizon)
            told: dict[str, Any] = {"group": name, "value": str(label), "n": len(part), "events": int(y.sum())}
            if min(y.sum(), (~y).sum()) < _SMALL:
                reason = f"fewer than {_SMALL} with or without the outcome"
                out.append(
                    {**told, **dict.fromkeys((*bootstrap.METRICS, "alert")), "intervals": {}, "reason": reason}
                )
                continue
            drawn = _drawn(part, p, horizon, replicates)
            intervals = {name: bootstrap.interval(drawn[:, at]) for at, name in enumerate(bootstrap.METRICS)}
            figures = {key: value for key, value in _block(part, p, horizon).items() if key in bootstrap.METRICS}
            alert = _alert(part, p, horizon, threshold)
            out.append({**told, **figures, "alert": alert, "intervals": intervals, "reason": None})
    return list(cells.suppressed(out, patients))


def _importance(test: TimedRows, scorer: HazardScorer, most: int = 15, enough: int = 1_000) -> list[dict[str, Any]]:
    parts, _ = scorer.contributions(test.x[:enough])
    sizes = np.abs(parts).mean(axis=0)
    first = np.argsort(-sizes, kind="stable")[:most]
    return [{"feature": test.names[at], "mean_abs_logit": float(sizes[at])} for at in first]
