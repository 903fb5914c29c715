"""What each kind of check but data quality makes of predictions: its verdict, violations and SageMaker's files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np

from carelake.monitor import attribution, bias, outcomes, performance, quality
from carelake.monitor.baseline import Baseline
from carelake.monitor.drift import Bounds
from carelake.monitor.estimate import estimate
from carelake.serving import capture
from carelake.serving.endpoint import Endpoint

__all__ = ["COMPLETED", "TOO_FEW", "VIOLATIONS", "Found", "biased", "explained", "forecast", "qualified"]

COMPLETED, VIOLATIONS, TOO_FEW = "Completed", "CompletedWithViolations", "NotEnoughRows"


@dataclass(frozen=True)
class Found:
    """What a check found.

    Attributes:
        told: what a finding's body has beside the verdict.
    """

    status: str
    reason: str
    violations: Sequence[Mapping[str, str]]
    files: Mapping[str, Any]
    told: Mapping[str, Any]


def explained(endpoint: Endpoint, captured: capture.Seen, baseline: Baseline) -> Found:
    """Explanation drift: needs no outcomes."""
    rows, enough = len(captured.p), Bounds().enough
    now = attribution.of_rows(endpoint.files.scorer, captured.x)
    told = {"rows": rows}
    if rows < enough or not baseline.attributions:
        reason = f"The predictions are too few to compare explanations; at least {enough} are needed."
        why = reason if baseline.attributions else "The model's baseline has no explanations; train it again."
        return _unknown(why, told)
    score = attribution.ndcg(baseline.attributions, now)
    violations = attribution.judge(score)
    files = {
        "constraint_violations.json": {"version": "1.0", "violations": violations},
        "analysis.json": {
            "version": "1.0",
            "explanations": {"kernel_shap": {"label0": {"global_shap_values": now}}},
        },
    }
    return Found(VIOLATIONS if violations else COMPLETED, "", violations, files, {**told, "ndcg": round(score, 6)})


def qualified(joined: outcomes.Joined, baseline: Baseline, threshold: float) -> Found:
    """Model quality of risks, on stays whose follow-up has ended; an estimate of the others."""
    guess = estimate(joined.waiting, joined.waiting_owner, threshold)
    told: dict[str, Any] = {"estimate": guess, "waiting": len(joined.waiting)}
    seen = joined.seen
    told |= {"rows": len(seen), "outside": joined.outside, "late": joined.late, "replaced": joined.replaced}
    if reason := _too_few(joined):
        return _unknown(reason, told)
    told |= performance.report(seen, joined.groups)
    told["expected"] = estimate(seen.p, seen.owner, threshold)["figures"]
    found = quality.binary(seen.y, seen.p, threshold)
    files = {"statistics.json": {"version": 0.0, "dataset": {"item_count": len(seen)}, **found}}
    if not baseline.quality:
        return _unknown("The model's baseline has no figures of quality; train it again.", told, files)
    base = baseline.quality["figures"]
    violations = performance.judge(told["figures"], baseline.quality)
    files["constraints.json"] = _constraints(base)
    files["constraint_violations.json"] = {"violations": violations}
    return Found(VIOLATIONS if violations else COMPLETED, "", violations, files, _plain(told))


def _too_few(joined: outcomes.Joined) -> str:
    reason = performance.too_few(joined.seen)
    if reason and joined.late:
        reason += " Some were asked for too late after the discharge, when who came back was known in part."
    return reason


def _constraints(base: Mapping[str, Any]) -> dict[str, Any]:
    said = {
        name: {"threshold": base[name]["value"], "comparison_operator": "LessThanThreshold"}
        for name in performance.MARGINS
        if name in base and not name.startswith("calibration")
    }
    return {"version": 0.0, "binary_classification_constraints": said}


def biased(joined: outcomes.Joined, baseline: Baseline, _: float) -> Found:
    """Differences between groups, on stays whose follow-up has ended."""
    told: dict[str, Any] = {"rows": len(joined.seen)}
    if reason := _too_few(joined):
        return _unknown(reason, told)
    found = bias.with_flips(bias.baseline(joined.seen, joined.groups), joined.seen, joined.groups, joined.x)
    told["bias"] = found
    files: dict[str, Any] = {"analysis.json": bias.analysis(found)}
    if not baseline.bias:
        return _unknown("The model's baseline has no figures of bias; train it again.", told, files)
    violations = bias.judge(found, baseline.bias)
    files["constraint_violations.json"] = {"version": "1.0", "violations": violations}
    return Found(VIOLATIONS if violations else COMPLETED, "", violations, files, _plain(told))


def _unknown(reason: str, told: Mapping[str, Any], files: Mapping[str, Any] | None = None) -> Found:
    return Found(TOO_FEW, reason, [], files or {}, _plain(told))


def _plain(value: Any) -> Any:
    """Six digits, and None for what is not a number: JSON knows no NaN."""
    if isinstance(value, float):
        return round(value, 6) if isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def forecast(captured: capture.Seen, baseline: Baseline) -> Found:
    """Model quality of forecast amounts, where what came is known."""
    known = np.isfinite(captured.y)
    told: dict[str, Any] = {"rows": int(known.sum()), "waiting": int((~known).sum())}
    if known.sum() < performance.ENOUGH:
        return _unknown("What came is known of too few forecasts.", told)
    found = quality.regression(captured.y[known], captured.p[known])
    files = {"statistics.json": {"version": 0.0, "dataset": {"item_count": int(known.sum())}, **found}}
    base = baseline.quality.get("figures", {})
    if "mae" not in base:
        return _unknown("The model's baseline has no figures of its errors.", {**told, **found}, files)
    violations = quality.worse(found["regression_metrics"], base)
    files["constraints.json"] = quality.constraints({"regression_metrics": base})
    files["constraint_violations.json"] = {"violations": violations}
    status = VIOLATIONS if violations else COMPLETED
    return Found(status, "", violations, files, _plain({**told, **found}))
