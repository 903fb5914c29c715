"""Alarms of a variant: from the counts of its windows to OK, ALARM or INSUFFICIENT_DATA (CloudWatch's words).

Pure functions. A distance counts when it passes both the threshold and what chance could reach; with too few rows
the answer is that there are too few, never that all is well. During a rollout scores are compared with what the old
version said of the same rows: a population that has moved moves both. Without such rows the model's baseline is the
measure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf, log, sqrt
from statistics import NormalDist
from typing import Any

import numpy as np

from carelake.core.settings import ServingSettings
from carelake.models.matrix import Floats
from carelake.serving.config import ALARMS
from carelake.serving.windows import LATENCY_MS, SCORE_BINS, edges, quantile

__all__ = ["ALARM", "INSUFFICIENT", "OK", "Alarm", "Profile", "distances", "evaluate"]

OK, ALARM, INSUFFICIENT = "OK", "ALARM", "INSUFFICIENT_DATA"
_CHANCE = 0.001
_MILLION = 1_000_000

Metrics = Mapping[str, Counter[int]]


@dataclass(frozen=True, slots=True)
class Alarm:
    """One alarm of one variant.

    Attributes:
        figures: what was measured, beside its bound; no value of a patient.
    """

    name: str
    state: str
    reason: str
    figures: Mapping[str, Any]

    def as_json(self) -> dict[str, Any]:
        """As `endpoint status` tells it."""
        return {
            "AlarmName": self.name,
            "StateValue": self.state,
            "StateReason": self.reason,
            "figures": dict(self.figures),
        }


@dataclass(frozen=True, slots=True)
class Profile:
    """What a model's ``baseline.json`` says of its scores and inputs; empty where it has none.

    Attributes:
        points, below: of the distribution function of its risks.
        completeness: share of rows that had each feature, in the model's order.
    """

    points: Sequence[float] = ()
    below: Sequence[float] = ()
    rows: int = 0
    completeness: Mapping[str, float] | None = None

    @classmethod
    def of(cls, baseline: Mapping[str, Any]) -> Profile:
        """Of a model's files."""
        spread = baseline.get("spread") or {}
        risks = spread.get("prediction") or {}
        shares = {
            name: one["present"] / max(1, one["present"] + one["missing"])
            for name, one in spread.items()
            if name != "prediction" and "present" in one
        }
        return cls(risks.get("points", ()), risks.get("below", ()), int(risks.get("present", 0)), shares or None)

    def shares(self) -> Floats | None:
        """(SCORE_BINS,) expected shares of the score's bins."""
        if not self.points:
            return None
        at = np.interp(edges(), np.asarray(self.points), np.asarray(self.below), left=0.0, right=1.0)
        found: Floats = np.diff(at, prepend=0.0, append=1.0)
        return found


def evaluate(
    metrics: Metrics,
    names: Sequence[str],
    profile: Profile,
    bounds: ServingSettings,
    which: Sequence[str] = ALARMS,
    *,
    paired: bool = True,
) -> list[Alarm]:
    """The alarms of a variant.

    Args:
        paired: look at what the old version said of the same rows.
        names: features, in the model's order.
        metrics: counts by metric and bin; see `windows`.
    """
    kinds: Mapping[str, Callable[[], Alarm]] = {
        "errors": lambda: _errors(metrics, bounds),
        "latency": lambda: _latency(metrics, bounds),
        "score-distribution": lambda: _scores(metrics, profile, bounds, paired=paired),
        "missingness": lambda: _missing(metrics, names, profile, bounds),
        "calibration": lambda: _calibration(metrics, bounds),
    }
    return [kinds[name]() for name in ALARMS if name in which]


def _errors(metrics: Metrics, bounds: ServingSettings) -> Alarm:
    failed = metrics["error"][5]
    asked = sum(metrics["latency"].values()) + failed
    figures = {"requests": asked, "failed": failed, "refused": metrics["error"][4], "bound": bounds.errors}
    if asked < bounds.enough_requests:
        return _too_few("errors", asked, bounds.enough_requests, "requests", figures)
    share = failed / asked
    return _told("errors", share > bounds.errors, f"{share:.1%} of requests failed here", {**figures, "share": share})


def _latency(metrics: Metrics, bounds: ServingSettings) -> Alarm:
    counts = [metrics["latency"][at] for at in range(len(LATENCY_MS) + 1)]
    figures: dict[str, Any] = {"requests": sum(counts), "bound_ms": bounds.latency_ms}
    if sum(counts) < bounds.enough_requests:
        return _too_few("latency", sum(counts), bounds.enough_requests, "requests", figures)
    p50, p95 = (quantile(counts, share) or 0.0 for share in (0.5, 0.95))
    figures |= {"p50_ms": _finite(p50), "p95_ms": _finite(p95)}
    return _told("latency", p95 > bounds.latency_ms, f"95 % of requests took at most {p95:g} ms", figures)


def _finite(milliseconds: float) -> float | None:
    return None if milliseconds == inf else milliseconds


def _scores(metrics: Metrics, profile: Profile, bounds: ServingSettings, *, paired: bool) -> Alarm:
    name = "score-distribution"
    here = _array(metrics["score"])
    rows = int(here.sum())
    figures: dict[str, Any] = {"rows": rows, "psi_bound": bounds.psi, "linf_bound": bounds.linf}
    measured = _measured(metrics, here, profile, paired=paired)
    for what, (psi, linf, _, _) in measured.items():
        figures[what.replace(" ", "_")] = {"psi": round(psi, 4), "linf": round(linf, 4)}
    if rows < bounds.enough or not measured:
        return _too_few(name, rows, bounds.enough, "rows, and something to compare with,", figures)
    # The first one decides: what the old version says of the same rows, where it says anything.
    what, (psi, linf, psi_chance, linf_chance) = next(iter(measured.items()))
    wrong = psi > max(bounds.psi, psi_chance) or linf > max(bounds.linf, linf_chance)
    return _told(name, wrong, f"scores lie PSI {psi:.2f}, linf {linf:.2f} from the {what}'s", figures)


def _measured(
    metrics: Metrics, here: Floats, profile: Profile, *, paired: bool
) -> dict[str, tuple[float, float, float, float]]:
    found = {}
    if paired and metrics["peer"]:
        found["old version"] = distances(_array(metrics["paired"]), _array(metrics["peer"]))
    expected = profile.shares()
    if expected is not None and here.sum():
        found["baseline"] = distances(here, expected * profile.rows)
    return found


def distances(here: Floats, other: Floats) -> tuple[float, float, float, float]:
    """PSI and largest distance of the distribution functions of two histograms, and what chance reaches of each."""
    n, m = float(here.sum()), float(other.sum())
    if not n or not m:
        return 0.0, 0.0, inf, inf
    below, under = np.cumsum(here) / n, np.cumsum(other) / m
    linf = float(np.abs(below - under).max())
    cuts = np.unique(np.searchsorted(under, np.arange(1, 10) / 10))
    p = np.diff(under[cuts], prepend=0.0, append=1.0) * m
    q = np.diff(below[cuts], prepend=0.0, append=1.0) * n
    used = (p > 0) | (q > 0)
    p, q = (p[used] + 0.5) / (m + 0.5 * used.sum()), (q[used] + 0.5) / (n + 0.5 * used.sum())
    psi = float(((q - p) * np.log(q / p)).sum())
    pairs = 1 / n + 1 / m
    return psi, linf, _chi_square(max(1, len(p) - 1)) * pairs, sqrt(-log(_CHANCE / 2) / 2 * pairs)


def _missing(metrics: Metrics, names: Sequence[str], profile: Profile, bounds: ServingSettings) -> Alarm:
    rows = metrics["rows"][0]
    figures: dict[str, Any] = {"rows": rows, "bound": bounds.missing}
    known = profile.completeness
    if rows < bounds.enough or known is None:
        return _too_few("missingness", rows, bounds.enough, "rows, and a baseline,", figures)
    falls = {
        name: (known[name] - (1 - metrics["missing"][at] / rows), _error(known[name], rows))
        for at, name in enumerate(names)
        if name in known
    }
    fallen = {name: round(fall, 4) for name, (fall, error) in falls.items() if fall > max(bounds.missing, error)}
    figures["fallen"] = fallen
    said = f"{len(fallen)} of {len(falls)} features are there less often than in the baseline"
    return _told("missingness", bool(fallen), said, figures)


def _error(share: float, rows: int) -> float:
    return NormalDist().inv_cdf(1 - _CHANCE) * sqrt(max(share * (1 - share), 0.01) / rows)


def _calibration(metrics: Metrics, bounds: ServingSettings) -> Alarm:
    """Observed events against the sum of the risks, by the normal approximation (Spiegelhalter 1986)."""
    rows, observed = metrics["labelled"][0], metrics["observed"][0]
    expected, spread = metrics["expected"][0] / _MILLION, metrics["spread"][0] / _MILLION
    figures: dict[str, Any] = {"outcomes": rows, "observed": observed, "expected": round(expected, 2)}
    figures["bound"] = bounds.calibration
    if rows < bounds.enough_outcomes or expected <= 0 or spread <= 0:
        return _too_few("calibration", rows, bounds.enough_outcomes, "outcomes", figures)
    ratio, z = observed / expected, (observed - expected) / sqrt(spread)
    figures |= {"observed_to_expected": round(ratio, 4), "z": round(z, 2)}
    off = abs(ratio - 1) > bounds.calibration and abs(z) > NormalDist().inv_cdf(1 - _CHANCE / 2)
    return _told("calibration", off, f"{observed} events where {expected:.1f} were expected", figures)


def _array(counts: Counter[int]) -> Floats:
    found = np.zeros(SCORE_BINS)
    for at, many in counts.items():
        found[at] = many
    return found


def _chi_square(freedom: int) -> float:
    """The value that a chi-square exceeds with chance `_CHANCE` (Wilson and Hilferty)."""
    part = 2.0 / (9.0 * freedom)
    return float(freedom * (1.0 - part + NormalDist().inv_cdf(1.0 - _CHANCE) * sqrt(part)) ** 3)


def _told(name: str, wrong: bool, said: str, figures: Mapping[str, Any]) -> Alarm:
    return Alarm(name, ALARM if wrong else OK, f"{said}.", figures)


def _too_few(name: str, rows: int, enough: int, of: str, figures: Mapping[str, Any]) -> Alarm:
    return Alarm(name, INSUFFICIENT, f"{rows} of the {enough} {of} that it takes.", figures)
