"""Drift: are these rows spread as the baseline's were? Distances that must be both large and no accident.

Three tests a column: the largest distance of the distribution functions (Kolmogorov-Smirnov, SageMaker's linf; of
words, of their shares), the population stability index over ten bins and one for missing, and completeness. A column
is reported when its distance passes the customary threshold *and* what chance could reach, at one false alarm in a
thousand checks over all columns and tests together (Bonferroni). Chance is counted in patients, not rows, where a
patient has several. With too few rows the answer is that there are too few, never that all is well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log, sqrt
from statistics import NormalDist
from typing import Any

import numpy as np

from carelake.models.cells import SMALL
from carelake.models.matrix import Floats
from carelake.monitor.baseline import PREDICTION, Baseline, counted
from carelake.monitor.spread import Column, Counts

__all__ = ["Bounds", "Check", "Distance", "compare", "judge", "linf"]

_TESTS = 4


@dataclass(frozen=True, slots=True)
class Bounds:
    """When a distance counts.

    Attributes:
        linf: of the distribution functions, SageMaker's default ``comparison_threshold``.
        psi: customary: under 0.1 stable, over 0.2 a marked shift.
        completeness: how far the share of present values may fall, and that of unknown words may rise.
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


_OTHER = {
    "data_type_check": "Values are no whole numbers, as they were in the baseline.",
    "categorical_values_check": "More values than by chance are none of the baseline's.",
    "missing_column_check": "The column of the baseline is not there.",
    "extra_column_check": "The baseline has no such column.",
}


def _describe(d: Distance, kind: str) -> str:
    if kind == "completeness_check":
        return f"Completeness {d.completeness:.3f} fell from the baseline's {d.baseline_completeness:.3f}."
    if kind in _OTHER:
        return _OTHER[kind]
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
    independent = len(x) if patients is None else patients
    if reason := _too_few(len(x), independent, bounds or Bounds()):
        return Check("NotEnoughRows", len(x), independent, (), reason)
    seen = counted(baseline.spread, x, p, names)
    return judge(baseline, seen, len(x), patients=independent, columns=(*names, PREDICTION), bounds=bounds)


def judge(
    baseline: Baseline,
    seen: Mapping[str, Counts],
    rows: int,
    *,
    patients: int,
    columns: Sequence[str] | None = None,
    bounds: Bounds | None = None,
) -> Check:
    """Compare rows that were counted by the baseline's cells, of however many days, with it.

    Args:
        columns: all that the rows have; by default those that were counted.
    """
    limits = bounds or Bounds()
    if reason := _too_few(rows, patients, limits):
        return Check("NotEnoughRows", rows, patients, (), reason)
    alpha = limits.false_alarms / (_TESTS * max(1, len(baseline.spread)))
    share = patients / rows
    found = [
        _distance(name, column, seen[name], share, alpha, limits)
        for name, column in baseline.spread.items()
        if name in seen
    ]
    found += _unmatched(baseline.spread, seen, columns if columns is not None else list(seen))
    status = "CompletedWithViolations" if any(d.kinds for d in found) else "Completed"
    return Check(status, rows, patients, tuple(found))


def _too_few(rows: int, patients: int, limits: Bounds) -> str:
    if min(rows, patients) >= limits.enough:
        return ""
    said = f"{rows} predictions of {patients} patients are" if min(rows, patients) >= SMALL else "The predictions are"
    return f"{said} too few to compare; at least {limits.enough} of each are needed, so drift is not known."


def _unmatched(spread: Mapping[str, Column], seen: Mapping[str, Counts], columns: Sequence[str]) -> list[Distance]:
    gone = [(name, "missing_column_check") for name in spread if name not in seen]
    new = [(name, "extra_column_check") for name in columns if name not in spread]
    return [Distance(name, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, (kind,)) for name, kind in gone + new]


def _distance(name: str, base: Column, seen: Counts, share: float, alpha: float, limits: Bounds) -> Distance:
    far = linf(base, seen)
    psi, bins = _psi(base, seen)
    # Chance: rows of one patient go together, so what counts is patients; the baseline is itself a sample.
    patients, then_rows = max(1.0, seen.rows * share), max(1, base.present + base.missing)
    now, then = max(1.0, seen.present * share), max(1, base.present)
    tests = base.cells if base.text else 1
    linf_bound = max(limits.linf, sqrt(-log(alpha / tests / 2) / 2 * (1 / now + 1 / then)))
    psi_bound = max(limits.psi, _chi_square(bins - 1, alpha) * (1 / patients + 1 / then_rows))
    completeness = seen.present / max(1, seen.rows)
    kinds = []
    if far > linf_bound or psi > psi_bound:
        kinds.append("baseline_drift_check")
    if base.completeness - completeness > _rise(1 - base.completeness, patients, then_rows, alpha, limits):
        kinds.append("completeness_check")
    if _strange(base, seen, now, then, alpha, limits):
        kinds.append("categorical_values_check")
    if base.whole and seen.broken:
        kinds.append("data_type_check")
    return Distance(name, far, psi, completeness, base.completeness, linf_bound, psi_bound, tuple(kinds))


def _rise(share: float, now: float, then: float, alpha: float, limits: Bounds) -> float:
    """How much a share may rise: the limit, or what chance gives."""
    error = sqrt((share * (1 - share) + 0.25 / now) * (1 / now + 1 / then))
    return max(limits.completeness, NormalDist().inv_cdf(1 - alpha) * error)


def _strange(base: Column, seen: Counts, now: float, then: float, alpha: float, limits: Bounds) -> bool:
    """Whether more values than chance gives are none of the baseline's words."""
    if not base.text or not seen.present:
        return False
    before, after = max(0.0, 1.0 - sum(base.below)), float(seen.cells[-1]) / seen.present
    return after - before > _rise(before, now, then, alpha, limits)


def linf(base: Column, seen: Counts) -> float:
    """Largest distance of the distribution functions at the baseline's points, and just under them; of words, of the
    shares.
    """
    if not (base.points or base.words) or not seen.present:
        return 0.0
    shares = seen.cells / seen.present
    if base.text:
        return float(np.abs(shares - _shares(base)).max())
    upto = np.cumsum(shares)
    worst = float(np.abs(upto[1:-1] - np.asarray(base.below)).max())
    # Beyond the last point the baseline has 1 - below[-1] left at most; before the first, nothing or below[0].
    return max(worst, float(upto[0]) - base.below[0])


def _shares(base: Column) -> Floats:
    return np.append(base.below, max(0.0, 1.0 - sum(base.below)))


def _psi(base: Column, seen: Counts, bins: int = 10) -> tuple[float, int]:
    """Population stability index over at most ten bins of equal count (of words, each), and one for missing; and how
    many bins.
    """
    total, rows = base.present + base.missing, seen.rows
    if base.text:
        expected, observed_cells = _shares(base) * base.present, seen.cells
    else:
        below = np.asarray(base.below)
        places = np.searchsorted(below, np.arange(1, bins) / bins)
        at = np.unique(np.minimum(places, max(0, len(below) - 1))) if len(below) else np.empty(0, dtype=np.intp)
        at = at[below[at] < 1.0] if len(below) else at
        expected = np.diff(below[at], prepend=0.0, append=1.0) * base.present
        observed_cells = np.diff(np.cumsum(seen.cells)[at + 1], prepend=0, append=seen.present)
    expected, observed = np.append(expected, base.missing), np.append(observed_cells, seen.missing)
    used = (expected > 0) | (observed > 0)
    p = (expected[used] + 0.5) / (total + 0.5 * used.sum())
    q = (observed[used] + 0.5) / (rows + 0.5 * used.sum())
    return float(((q - p) * np.log(q / p)).sum()), max(2, int(used.sum()))


def _chi_square(freedom: int, tail: float) -> float:
    """The value that a chi-square exceeds with chance ``tail`` (Wilson and Hilferty)."""
    part = 2.0 / (9.0 * freedom)
    return float(freedom * (1.0 - part + NormalDist().inv_cdf(1.0 - tail) * sqrt(part)) ** 3)
