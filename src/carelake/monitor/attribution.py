"""Explanation drift as SageMaker Clarify has it: did the features that move risks most change places?

The global attribution of a feature is the mean size of what it adds to the log odds. The normalised discounted
cumulative gain takes the baseline's attributions in the order that the features have now; under 0.9 is a violation.
https://docs.aws.amazon.com/sagemaker/latest/dg/clarify-model-monitor-feature-attribution-drift.html
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from carelake.models.matrix import Floats
from carelake.models.scorer import Scorer

__all__ = ["THRESHOLD", "judge", "ndcg", "of_rows"]

THRESHOLD = 0.9
_MOST = 2_000


def of_rows(scorer: Scorer, x: Floats) -> dict[str, float]:
    """Global attribution by feature, over at most 2,000 of (n, p) rows, evenly spread."""
    if not len(x):
        return {}
    rows = x[np.unique(np.linspace(0, len(x) - 1, min(len(x), _MOST)).astype(int))]
    parts, _ = scorer.contributions(rows)
    return dict(zip(scorer.names, np.abs(parts).mean(axis=0).tolist(), strict=True))


def ndcg(base: Mapping[str, float], now: Mapping[str, float]) -> float:
    """1 where the order is the same; both by feature, a feature that is not there has no attribution."""
    names = sorted(base)
    gain = np.asarray([base[name] for name in names])
    # Stable, by name: equal attributions are in the same place on both sides.
    ideal = np.argsort(-gain, kind="stable")
    order = np.argsort([-now.get(name, 0.0) for name in names], kind="stable")
    discount = 1.0 / np.log2(np.arange(len(names)) + 2.0)
    best = float(gain[ideal] @ discount)
    return float(gain[order] @ discount) / best if best else 1.0


def judge(score: float, label: str = "label0") -> list[dict[str, str]]:
    """The entries of ``constraint_violations.json`` of explainability."""
    if score >= THRESHOLD:
        return []
    return [
        {
            "label": label,
            "metric_name": "shap",
            "constraint_check_type": "feature_attribution_drift_check",
            "description": f"Feature attribution drift {score} exceeds threshold {THRESHOLD}",
        }
    ]
