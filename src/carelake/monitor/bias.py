"""Differences between groups of patients: the pre- and post-training bias metrics of SageMaker Clarify.

A facet is an attribute, for example sex. Of each of its values, rows with it are facet *d*, all others facet *a*. The
positive label is the outcome, the positive prediction an alert. All metrics but the flip test are functions of the
two facets' confusion matrices, so that patients are resampled (200 draws) by one matrix product.
https://docs.aws.amazon.com/sagemaker/latest/dg/clarify-measure-data-bias.html
https://docs.aws.amazon.com/sagemaker/latest/dg/clarify-measure-post-training-bias.html
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite, log
from typing import Any, NamedTuple

import numpy as np

from carelake.models import bootstrap
from carelake.models.cells import SMALL
from carelake.models.matrix import Floats, Mask
from carelake.monitor.performance import Labelled, beyond, replicates_for

__all__ = [
    "POST",
    "PRE",
    "Table",
    "analysis",
    "baseline",
    "disparity",
    "figures",
    "flip_test",
    "judge",
    "metrics",
    "with_flips",
]

PRE = {
    "CI": "Class Imbalance (CI)",
    "DPL": "Difference in Positive Proportions in Labels (DPL)",
    "KL": "Kullback-Leibler Divergence (KL)",
    "JS": "Jensen-Shannon Divergence (JS)",
    "LP": "L-p Norm (LP)",
    "TVD": "Total Variation Distance (TVD)",
    "KS": "Kolmogorov-Smirnov Distance (KS)",
    "CDDL": "Conditional Demographic Disparity in Labels (CDDL)",
}
POST = {
    "DPPL": "Difference in Positive Proportions in Predicted Labels (DPPL)",
    "DI": "Disparate Impact (DI)",
    "DCA": "Difference in Conditional Acceptance (DCA)",
    "DCR": "Difference in Conditional Rejection (DCR)",
    "RD": "Recall Difference (RD)",
    "SD": "Specificity Difference (SD)",
    "DAR": "Difference in Acceptance Rates (DAR)",
    "DRR": "Difference in Rejection Rates (DRR)",
    "AD": "Accuracy Difference (AD)",
    "TE": "Treatment Equality (TE)",
    "CDDPL": "Conditional Demographic Disparity in Predicted Labels (CDDPL)",
    "FT": "Flip Test (FT)",
    "GE": "Generalized Entropy (GE)",
}
_WIDE = {"DCA": 0.25, "DCR": 0.25, "TE": 0.5, "DI": 0.2, "KL": 0.1}
_MARGIN = 0.05
_SMALL = 50
_MOST = 2_000


class Table(NamedTuple):
    """(replicates,) weights of the four kinds of rows of a facet."""

    tp: Floats
    fp: Floats
    fn: Floats
    tn: Floats


def _ratio(over: Any, under: Any) -> Floats:
    """Clarify's division: nothing of nothing is 0, something of nothing is infinite."""
    over, under = np.asarray(over, dtype=np.float64), np.asarray(under, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        found: Floats = np.where(under == 0, np.where(over == 0, 0.0, np.inf), over / under)
    return found


def _less(one: Floats, other: Floats) -> Floats:
    with np.errstate(invalid="ignore"):
        return np.where(one == other, 0.0, one - other)


def metrics(a: Table, d: Table) -> dict[str, Floats]:
    """All that follows from the two confusion matrices, (replicates,) each."""
    rows_a, rows_d = sum(a), sum(d)
    ones_a, ones_d, said_a, said_d = a.tp + a.fn, d.tp + d.fn, a.tp + a.fp, d.tp + d.fp
    q_a, q_d, r_a, r_d = (
        _ratio(*pair) for pair in ((ones_a, rows_a), (ones_d, rows_d), (said_a, rows_a), (said_d, rows_d))
    )
    zeros_a, zeros_d, unsaid_a, unsaid_d = a.fp + a.tn, d.fp + d.tn, a.fn + a.tn, d.fn + d.tn
    return {
        "CI": _ratio(rows_a - rows_d, rows_a + rows_d),
        "DPL": q_a - q_d,
        **_distances(q_a, q_d),
        "DPPL": r_a - r_d,
        "DI": _ratio(r_d, r_a),
        "DCA": _less(_ratio(ones_a, said_a), _ratio(ones_d, said_d)),
        "DCR": _less(_ratio(zeros_d, unsaid_d), _ratio(zeros_a, unsaid_a)),
        "RD": _less(_ratio(a.tp, ones_a), _ratio(d.tp, ones_d)),
        "SD": _less(_ratio(d.tn, zeros_d), _ratio(a.tn, zeros_a)),
        "DAR": _less(_ratio(a.tp, said_a), _ratio(d.tp, said_d)),
        "DRR": _less(_ratio(d.tn, unsaid_d), _ratio(a.tn, unsaid_a)),
        "AD": _less(_ratio(a.tp + a.tn, rows_a), _ratio(d.tp + d.tn, rows_d)),
        "TE": _less(_ratio(d.fn, d.fp), _ratio(a.fn, a.fp)),
        "GE": _entropy(a, d),
    }


def _distances(q_a: Floats, q_d: Floats) -> dict[str, Floats]:
    """Between the two facets' distributions of the label; a value that one has not is left out, as Clarify does."""
    pairs = [(q_a, q_d), (1.0 - q_a, 1.0 - q_d)]

    def part(p: Floats, q: Floats) -> Floats:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where((p > 0) & (q > 0), p * np.log(p / q), 0.0)

    apart = np.abs(q_a - q_d)
    mixed = [(p, q, (p + q) / 2.0) for p, q in pairs]
    return {
        "KL": np.sum([part(p, q) for p, q in pairs], axis=0),
        "JS": 0.5 * np.sum([part(p, m) + part(q, m) for p, q, m in mixed], axis=0),
        "LP": np.sqrt(2.0) * apart,
        "TVD": apart,
        "KS": apart,
    }


def _entropy(a: Table, d: Table) -> Floats:
    """Generalised entropy with alpha 2 of benefits: 0 for a missed outcome, 2 for a false alert, else 1."""
    right, false, missed = a.tp + a.tn + d.tp + d.tn, a.fp + d.fp, a.fn + d.fn
    n = right + false + missed
    mean = _ratio(right + 2.0 * false, n)
    return _ratio(_ratio(right + 4.0 * false, mean * mean) - n, 2.0 * n)


def disparity(d: Mask, positive: Mask, groups: np.ndarray, block: Floats) -> Floats:
    """(replicates,) conditional demographic disparity over the values of another attribute."""
    total = np.zeros(len(block))
    for value in np.unique(groups):
        inside = groups == value
        cells = [inside & ~positive & d, inside & ~positive, inside & positive & d, inside & positive]
        low_d, low, high_d, high = (block @ np.column_stack(cells).astype(np.float64)).T
        parts = [np.where(n > 0, _ratio(k, np.where(n > 0, n, 1.0)), 0.0) for k, n in ((low_d, low), (high_d, high))]
        total += (low + high) * (parts[0] - parts[1])
    found: Floats = total / block.sum(axis=1)
    return found


def figures(
    seen: Labelled, d: Mask, given: np.ndarray | None = None, block: Floats | None = None
) -> dict[str, Floats]:
    """(replicates,) values by short name, but for the flip test.

    Args:
        d: which rows are facet d.
        given: another attribute, that the disparity is conditioned on.
        block: (replicates, n) weights; by default each row once.
    """
    weights = np.ones((1, len(seen))) if block is None else block
    told = seen.p >= seen.threshold
    kinds = (told & seen.y, told & ~seen.y, ~told & seen.y, ~told & ~seen.y)
    a, other = (
        Table(*(weights @ np.column_stack([kind & side for kind in kinds]).astype(np.float64)).T) for side in (~d, d)
    )
    found = metrics(a, other)
    if given is not None:
        found["CDDL"] = disparity(d, seen.y, given, weights)
        found["CDDPL"] = disparity(d, told, given, weights)
    return found


def _facets(seen: Labelled, groups: Mapping[str, np.ndarray]) -> list[tuple[str, str, Mask, np.ndarray | None]]:
    """Facet, value, its rows, and the attribute to condition on; values with too few rows or patients either way are
    left out."""
    found = []
    for name, labels in groups.items():
        given = next((other for key, other in groups.items() if key != name), None)
        for value in np.unique(labels):
            d = labels == value
            enough = min(int(d.sum()), int((~d).sum())) >= _SMALL and value != "unknown"
            if enough and min(len(np.unique(seen.owner[side])) for side in (d, ~d)) >= SMALL:
                found.append((name, str(value), d, given))
    return found


def baseline(seen: Labelled, groups: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """By facet, value and short name ``{"value", "standard_deviation"}``."""
    found: dict[str, Any] = {}
    facets = _facets(seen, groups)
    drawn: list[dict[str, list[Floats]]] = [{} for _ in facets]
    if facets:
        for block in bootstrap.weights(seen.owner, replicates_for(len(seen))):
            for at, (_, _, d, given) in enumerate(facets):
                for short, values in figures(seen, d, given, block).items():
                    drawn[at].setdefault(short, []).append(values)
    for (name, value, d, given), many in zip(facets, drawn, strict=True):
        alone = figures(seen, d, given)
        found.setdefault(name, {})[value] = {
            short: {"value": _finite(alone[short][0]), "standard_deviation": _spread(np.concatenate(many[short]))}
            for short in alone
        }
    return found


def _finite(value: float) -> float | None:
    return float(value) if isfinite(value) else None


def _spread(values: Floats) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.std(ddof=1)) if len(known) * 2 > len(values) else None


def judge(now: Mapping[str, Any], base: Mapping[str, Any], *, false_alarms: float = 0.001) -> list[dict[str, str]]:
    """The entries of ``constraint_violations.json`` of bias: further from none than the baseline, beyond chance."""
    cells = [
        (facet, value, short, one, base[facet][value][short])
        for facet, values in now.items()
        for value, found in values.items()
        for short, one in found.items()
        if short in base.get(facet, {}).get(value, {})
    ]
    alpha = false_alarms / max(1, len(cells))
    return [
        {
            "facet": facet,
            "facet_value": value,
            "metric_name": short,
            "constraint_check_type": "bias_drift_check",
            "description": f"Value {one['value']} does not meet the constraint requirement: the baseline has "
            f"{then['value']}, and it lies further from none by more than chance.",
        }
        for facet, value, short, one, then in cells
        if _further(short, one, then, alpha)
    ]


def _further(short: str, one: Mapping[str, Any], then: Mapping[str, Any], alpha: float) -> bool:
    if None in (one["value"], then["value"], one["standard_deviation"], then["standard_deviation"]):
        return False
    value, before, spread = one["value"], then["value"], (one["standard_deviation"], then["standard_deviation"])
    if short == "DI":  # a ratio: none is 1
        if min(value, before) <= 0:
            return False
        value, before, spread = log(value), log(before), (spread[0] / value, spread[1] / before)
    far = abs(value) - abs(before)
    return far > _WIDE.get(short, _MARGIN) and beyond(far, *spread, alpha=alpha / 2)


def flip_test(x: Floats, d: Mask, told: Mask, neighbours: int = 5) -> float:
    """Would rows of facet d be told otherwise as their nearest neighbours in facet a? (F+ - F-) / n_d.

    F+ counts rows without an alert whose neighbours have one, F- the reverse. Columns are put on one scale and
    missing values at their median; at most 2,000 rows of each facet are compared.
    """
    from sklearn.neighbors import KNeighborsClassifier

    middle = np.nanmedian(np.where(np.isnan(x).all(axis=0), 0.0, x), axis=0)
    filled = np.where(np.isnan(x), middle, x)
    scaled = (filled - filled.mean(axis=0)) / np.where(filled.std(axis=0) > 0, filled.std(axis=0), 1.0)
    a_rows, d_rows = np.flatnonzero(~d)[:_MOST], np.flatnonzero(d)[:_MOST]
    near = KNeighborsClassifier(n_neighbors=neighbours if len(a_rows) > 10 else 1)
    flipped = near.fit(scaled[a_rows], told[a_rows]).predict(scaled[d_rows]).astype(bool)
    own = told[d_rows]
    return float(((~own & flipped).sum() - (own & ~flipped).sum()) / len(d_rows))


def with_flips(
    found: Mapping[str, Any], seen: Labelled, groups: Mapping[str, np.ndarray], x: Floats
) -> dict[str, Any]:
    """What `baseline` found, with the flip test beside it; it has no deviation, so nothing is judged by it."""
    told = seen.p >= seen.threshold
    out = {facet: {value: dict(shorts) for value, shorts in values.items()} for facet, values in found.items()}
    for facet, values in out.items():
        for value, shorts in values.items():
            score = flip_test(x, groups[facet] == value, told)
            shorts["FT"] = {"value": score, "standard_deviation": None}
    return out


def analysis(found: Mapping[str, Any], label: str = "label") -> dict[str, Any]:
    """Clarify's ``analysis.json`` of what `baseline` found."""

    def section(words: Mapping[str, str]) -> dict[str, Any]:
        facets = {
            facet: [
                {
                    "value_or_threshold": value,
                    "metrics": [
                        {"name": short, "description": words[short], "value": one["value"]}
                        for short, one in shorts.items()
                        if short in words
                    ],
                }
                for value, shorts in values.items()
            ]
            for facet, values in found.items()
        }
        return {"label": label, "label_value_or_threshold": "1", "facets": facets}

    return {"version": "1.0", "pre_training_bias_metrics": section(PRE), "post_training_bias_metrics": section(POST)}
