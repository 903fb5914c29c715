"""How good the answers were, on rows whose outcome is known: what SageMaker's monitor lacks, with intervals.

Discrimination, calibration (in the large, slope, smooth curve and ICI), net benefit at declared thresholds, and the
same by subgroup. Each figure has a standard deviation by resampling patients (200 draws), since a patient's rows go
together; a figure is a violation when it is worse than the baseline's by more than a margin *and* by more than
chance, at one false alarm in a thousand checks over all figures together (Bonferroni).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, sqrt
from statistics import NormalDist
from typing import Any

import numpy as np

from carelake.models import bootstrap, metrics
from carelake.models.matrix import Floats, Mask

__all__ = [
    "MARGINS",
    "THRESHOLDS",
    "Labelled",
    "baseline",
    "beyond",
    "figures",
    "judge",
    "replicates_for",
    "report",
    "too_few",
]

THRESHOLDS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)
ENOUGH = 20
"""Rows with, and rows without the outcome, under which nothing is said."""
_REPLICATES = 200
_MOST_CELLS = 20_000_000
_IDEAL = {"calibration_intercept": 0.0, "calibration_slope": 1.0}

MARGINS: Mapping[str, float] = {
    "auc": 0.02,
    "recall": 0.05,
    "precision": 0.05,
    "true_negative_rate": 0.05,
    "calibration_intercept": 0.2,
    "calibration_slope": 0.15,
    "net_benefit": 0.005,
}
"""By figure, what it must be worse than the baseline by; calibration, away from perfect by."""


@dataclass(frozen=True)
class Labelled:
    """Rows with known outcomes.

    Attributes:
        y: (n,) whether the outcome happened.
        p: (n,) the risks that were told.
        owner: (n,) a number per patient.
        threshold: risk from which an alert was raised.
    """

    y: Mask
    p: Floats
    owner: np.ndarray
    threshold: float

    def __len__(self) -> int:
        return len(self.y)

    @property
    def events(self) -> int:
        """Rows with the outcome."""
        return int(self.y.sum())

    def where(self, mask: Mask) -> Labelled:
        """The rows under a mask."""
        return Labelled(self.y[mask], self.p[mask], self.owner[mask], self.threshold)


def too_few(seen: Labelled, enough: int = ENOUGH) -> str:
    """Why nothing can be said of these rows; "" when something can."""
    if min(seen.events, len(seen) - seen.events) >= enough:
        return ""
    return (
        f"The rows with complete follow-up are too few: at least {enough} with the outcome and {enough} without it "
        "are needed, so performance is not known."
    )


def replicates_for(rows: int) -> int:
    """How often patients are drawn: 200 times, less often where there are very many rows."""
    return max(50, min(_REPLICATES, _MOST_CELLS // max(1, rows)))


def figures(seen: Labelled) -> dict[str, dict[str, float]]:
    """Each figure as ``{"value", "standard_deviation"}``: those of `MARGINS`, and ``brier``."""
    replicates = replicates_for(len(seen))
    alone = _values(seen, np.ones((1, len(seen))))
    drawn = [_values(seen, block) for block in bootstrap.weights(seen.owner, replicates)]
    found = {}
    for name, value in alone.items():
        many = np.concatenate([one[name] for one in drawn])
        many = many[np.isfinite(many)]
        spread = float(many.std(ddof=1)) if len(many) > replicates / 2 else float("nan")
        found[name] = {"value": float(value[0]), "standard_deviation": spread}
    return found


def _values(seen: Labelled, block: Floats) -> dict[str, Floats]:
    """(replicates,) values of each figure under (replicates, n) weights."""
    flagged = seen.p >= seen.threshold
    cells = np.column_stack([flagged & seen.y, flagged & ~seen.y, ~flagged & seen.y, ~flagged & ~seen.y])
    tp, fp, fn, tn = (block @ cells.astype(np.float64)).T
    auc, brier, slope, intercept = bootstrap.replicate(seen.y, seen.p, block).T
    odds = seen.threshold / (1.0 - seen.threshold)
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "auc": auc,
            "recall": tp / (tp + fn),
            "precision": tp / (tp + fp),
            "true_negative_rate": tn / (tn + fp),
            "calibration_intercept": intercept,
            "calibration_slope": slope,
            "net_benefit": (tp - fp * odds) / block.sum(axis=1),
            "brier": brier,
        }


def baseline(seen: Labelled) -> dict[str, Any]:
    """What later figures are judged by; empty when there are too few rows."""
    return {} if too_few(seen) else {"rows": len(seen), "events": seen.events, "figures": figures(seen)}


def beyond(distance: float, *spreads: float, alpha: float) -> bool:
    """Whether a distance is more than chance gives with these standard deviations, one-sided at ``alpha``."""
    error = sqrt(sum(one * one for one in spreads))
    return isfinite(error) and distance > NormalDist().inv_cdf(1.0 - alpha) * error


def judge(
    now: Mapping[str, Mapping[str, float]], base: Mapping[str, Any], *, false_alarms: float = 0.001
) -> list[dict[str, str]]:
    """The entries of ``constraint_violations.json`` of model quality."""
    alpha = false_alarms / len(MARGINS)
    out = []
    for name, margin in MARGINS.items():
        one, then = now[name], base["figures"].get(name)
        if then is None or not _worse(name, one, then, margin, alpha):
            continue
        kind = "GreaterThanThreshold" if _ideal_is_under(name, one["value"]) else "LessThanThreshold"
        said = (
            f"Metric {name} with {one['value']:.4f} +/- {one['standard_deviation']:.4f} was {kind} "
            f"'{then['value']:.4f}', by more than {margin:g} and by more than chance."
        )
        out.append({"constraint_check_type": kind, "description": said, "metric_name": name})
    return out


def _worse(name: str, one: Mapping[str, float], then: Mapping[str, float], margin: float, alpha: float) -> bool:
    value, before = one["value"], then["value"]
    if not (isfinite(value) and isfinite(before)):
        return False
    ideal = _IDEAL.get(name)
    if ideal is None:
        away, fall = before - value, before - value
    else:
        if min(before, ideal) <= value <= max(before, ideal):
            return False  # it came nearer to perfect
        # Two sides: half of the chance each.
        away, fall, alpha = abs(value - ideal), abs(value - before), alpha / 2
    return away > margin and beyond(fall, one["standard_deviation"], then["standard_deviation"], alpha=alpha)


def _ideal_is_under(name: str, value: float) -> bool:
    return name in _IDEAL and value > _IDEAL[name]


def report(
    seen: Labelled, groups: Mapping[str, np.ndarray] | None = None, thresholds: Sequence[float] = THRESHOLDS
) -> dict[str, Any]:
    """All that is told for people: figures, calibration, net benefit, what an alert did, subgroups."""
    return {
        "rows": len(seen),
        "events": seen.events,
        "patients": len(np.unique(seen.owner)),
        "figures": figures(seen),
        "calibration": _calibration(seen),
        "net_benefit": metrics.net_benefit(seen.y, seen.p, sorted({*thresholds, seen.threshold})),
        "alert": metrics.alert(seen.y, seen.p, seen.threshold),
        "subgroups": subgroups(seen, groups or {}),
    }


def _calibration(seen: Labelled) -> dict[str, Any]:
    slope, intercept = metrics.calibration_line(seen.y, seen.p)
    return {
        "slope": slope,
        "intercept": intercept,
        "ici": metrics.ici(seen.y, seen.p),
        "observed_expected": float(seen.y.sum() / max(1e-9, seen.p.sum())),
        "curve": metrics.calibration_curve(seen.y, seen.p),
    }


def subgroups(seen: Labelled, groups: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """AUROC, Brier, calibration and share flagged of each subgroup, with intervals over patients."""
    out = []
    for name, labels in groups.items():
        for label in np.unique(labels):
            out.append({"group": name, "value": str(label), **_subgroup(seen.where(labels == label))})
    return out


def _subgroup(part: Labelled) -> dict[str, Any]:
    found: dict[str, Any] = {"n": len(part), "events": part.events, "patients": len(np.unique(part.owner))}
    if reason := too_few(part):
        return {**found, **dict.fromkeys(bootstrap.METRICS), "intervals": {}, "reason": reason}
    slope, intercept = metrics.calibration_line(part.y, part.p)
    values = (metrics.auroc(part.y, part.p), metrics.brier(part.y, part.p)[0], slope, intercept)
    drawn = bootstrap.draw(part.y, part.p, part.owner, replicates_for(len(part)))
    intervals = {name: bootstrap.interval(drawn[:, at]) for at, name in enumerate(bootstrap.METRICS)}
    flagged = float((part.p >= part.threshold).mean())
    told = dict(zip(bootstrap.METRICS, values, strict=True))
    return {**found, **told, "flagged": flagged, "intervals": intervals, "reason": None}
