"""Drift: are these rows spread as the baseline's were? Distances that must be both large and no accident.

Three tests a column: the largest distance of the distribution functions (Kolmogorov-Smirnov, SageMaker's linf), the
population stability index over ten bins and one for missing, and completeness. A column is reported when its
distance passes the customary threshold *and* what chance could reach, at one false alarm in a thousand checks over
all columns and tests together (Bonferroni). Chance is counted in patients, not rows, where a patient has several.
With too few rows the answer is that there are too few, never that all is well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log, sqrt
from statistics import NormalDist
from typing import Any

import numpy as np

from carelake.models.matrix import Floats
from carelake.monitor.baseline import PREDICTION, Baseline, Column

__all__ = ["Bounds", "Check", "Distance", "compare"]


@dataclass(frozen=True, slots=True)
class Bounds:
    """When a distance counts.

    Attributes:
        linf: of the distribution functions, SageMaker's default ``comparison_threshold``.
        psi: customary: under 0.1 stable, over 0.2 a marked shift.
        completeness: how far the share of present values may fall.
        false_alarms: chance that a whole check reports anything on unshifted rows, at most.
        enough: rows, and patients, under which nothing is said.
    """

    linf: float = 0.1
    psi: float = 0.2
    completeness: float = 0.1
    false_alarms: float = 0.001
    enough: int = 200


@dataclass(frozen=True, slots=True)
class Distance:
    """How far one column lies from its baseline.

    Attributes:
        kinds: SageMaker's ``constraint_check_type`` words that it violates.
        linf_bound, psi_bound: what it had to pass, chance included.
    """

    name: str
    linf: float
    psi: float
    completeness: float
    baseline_completeness: float
    linf_bound: float
    psi_bound: float
    kinds: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Check:
    """What a comparison found.

    Attributes:
        status: ``Completed``, ``CompletedWithViolations`` (SageMaker's words), or ``NotEnoughRows``.
        reason: why nothing was compared, else "".
    """

    status: str
    rows: int
    patients: int
    distances: tuple[Distance, ...]
    reason: str = ""

    @property
    def violations(self) -> list[dict[str, str]]:
        """The entries of ``constraint_violations.json``; they hold distances and no values."""
        return [
            {"feature_name": d.name, "constraint_check_type": kind, "description": _describe(d, kind)}
            for d in self.distances
            for kind in d.kinds
        ]

    def as_json(self) -> dict[str, Any]:
        """``constraint_violations.json``, with the status and the rows beside it."""
        said: dict[str, Any] = {"version": 0, "status": self.status, "rows": self.rows, "patients": self.patients}
        return {**said, "reason": self.reason or None, "violations": self.violations}


def _describe(d: Distance, kind: str) -> str:
    if kind == "completeness_check":
        return f"Completeness {d.completeness:.3f} fell from the baseline's {d.baseline_completeness:.3f}."
    return (
        f"Distance from the baseline: linf {d.linf:.3f} (bound {d.linf_bound:.3f}), "
        f"PSI {d.psi:.3f} (bound {d.psi_bound:.3f})."
    )


def compare(
    baseline: Baseline,
    x: Floats,
    p: Floats,
    names: Sequence[str],
    *,
    patients: int | None = None,
    bounds: Bounds | None = None,
) -> Check:
    """Compare (n, p) features and (n,) risks with a baseline.

    Args:
        names: features in the order of the columns of ``x``; missing and extra ones are violations.
        patients: how many different patients the rows are of; by default one each.
    """
    limits = bounds or Bounds()
    independent = len(x) if patients is None else patients
    if min(len(x), independent) < limits.enough:
        reason = (
            f"{len(x)} predictions of {independent} patients are too few to compare; at least {limits.enough} of "
            "each are needed, so drift is not known."
        )
        return Check("NotEnoughRows", len(x), independent, (), reason)
    columns = {name: x[:, at] for at, name in enumerate(names)} | {PREDICTION: p}
    alpha = limits.false_alarms / (3 * len(baseline.spread))
    found = [
        _distance(name, spread, columns[name], independent, alpha, limits)
        for name, spread in baseline.spread.items()
        if name in columns
    ]
    found += _unmatched(baseline.spread, columns)
    status = "CompletedWithViolations" if any(d.kinds for d in found) else "Completed"
    return Check(status, len(x), independent, tuple(found))


def _unmatched(spread: Mapping[str, Column], columns: Mapping[str, Floats]) -> list[Distance]:
    gone = [(name, "missing_column_check") for name in spread if name not in columns]
    new = [(name, "extra_column_check") for name in columns if name not in spread]
    return [Distance(name, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, (kind,)) for name, kind in gone + new]


def _distance(name: str, base: Column, values: Floats, patients: int, alpha: float, limits: Bounds) -> Distance:
    known = np.sort(values[~np.isnan(values)])
    rows = len(values)
    share = patients / rows
    linf = _linf(base, known)
    psi, bins = _psi(base, known, rows)
    # Chance: rows of one patient go together, so what counts is patients; the baseline is itself a sample.
    now, then = max(1.0, len(known) * share), max(1, base.present)
    linf_bound = max(limits.linf, sqrt(-log(alpha / 2) / 2 * (1 / now + 1 / then)))
    psi_bound = max(limits.psi, _chi_square(bins - 1, alpha) * (1 / patients + 1 / (base.present + base.missing)))
    completeness = len(known) / rows
    fall = base.completeness - completeness
    spread = base.completeness * (1 - base.completeness) + 0.25 / patients
    error = sqrt(spread * (1 / patients + 1 / (base.present + base.missing)))
    fall_bound = max(limits.completeness, NormalDist().inv_cdf(1 - alpha) * error)
    kinds = []
    if linf > linf_bound or psi > psi_bound:
        kinds.append("baseline_drift_check")
    if fall > fall_bound:
        kinds.append("completeness_check")
    return Distance(name, linf, psi, completeness, base.completeness, linf_bound, psi_bound, tuple(kinds))


def _linf(base: Column, known: Floats) -> float:
    """Largest distance of the distribution functions at the baseline's points, and just under them."""
    if not base.points or not len(known):
        return 0.0
    points, below = np.asarray(base.points), np.asarray(base.below)
    at = np.searchsorted(known, points, side="right") / len(known)
    worst = float(np.abs(at - below).max())
    # Beyond the last point the baseline has 1 - below[-1] left at most; before the first, nothing or below[0].
    before = float(np.searchsorted(known, points[0], side="left")) / len(known)
    return max(worst, before - float(below[0]))


def _psi(base: Column, known: Floats, rows: int, bins: int = 10) -> tuple[float, int]:
    """Population stability index over at most ten bins of equal count, and one for missing; and how many bins."""
    total = base.present + base.missing
    if not base.points:
        cuts, under = np.empty(0), np.empty(0)
    else:
        below = np.asarray(base.below)
        at = np.unique(np.minimum(np.searchsorted(below, np.arange(1, bins) / bins), len(below) - 1))
        cuts, under = np.asarray(base.points)[at], below[at]
        keep = under < 1.0
        cuts, under = cuts[keep], under[keep]
    expected = np.append(np.diff(under, prepend=0.0, append=1.0) * base.present, base.missing)
    counted = np.diff(np.searchsorted(known, cuts, side="right"), prepend=0, append=len(known))
    observed = np.append(counted, rows - len(known))
    used = (expected > 0) | (observed > 0)
    p = (expected[used] + 0.5) / (total + 0.5 * used.sum())
    q = (observed[used] + 0.5) / (rows + 0.5 * used.sum())
    return float(((q - p) * np.log(q / p)).sum()), max(2, int(used.sum()))


def _chi_square(freedom: int, tail: float) -> float:
    """The value that a chi-square exceeds with chance ``tail`` (Wilson and Hilferty)."""
    part = 2.0 / (9.0 * freedom)
    return float(freedom * (1.0 - part + NormalDist().inv_cdf(1.0 - tail) * sqrt(part)) ** 3)
