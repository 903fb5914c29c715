"""``statistics.json`` and ``constraints.json`` of SageMaker Model Monitor, out of baselines and counts.

The ten buckets and the sketch of a column are made of its counts between the baseline's points, so they hold no value
of a single patient: ``min`` and ``max`` are the baseline's first and last point, each with ten rows at or beyond it.
https://docs.aws.amazon.com/sagemaker/latest/dg/model-monitor-byoc-statistics.html
"""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt
from typing import Any

import numpy as np

from carelake.models.matrix import Floats
from carelake.monitor.spread import Column, Counts

__all__ = ["constraints", "statistics"]

_BUCKETS = 10
_SKETCH = {"c": 0.64, "k": 2048.0}
_LIGHTEST = 4
"""Items of the sketch stand for at least two to this power of rows."""


def statistics(spread: Mapping[str, Column], seen: Mapping[str, Counts], rows: int) -> dict[str, Any]:
    """``statistics.json`` of what was counted."""
    features = [_words(n, spread[n], c) if spread[n].text else _numbers(n, spread[n], c) for n, c in seen.items()]
    return {"version": 0, "dataset": {"item_count": rows}, "features": features}


def constraints(spread: Mapping[str, Column], seen: Mapping[str, Counts]) -> dict[str, Any]:
    """``constraints.json`` that a baseline suggests."""
    return {
        "version": 0,
        "features": [_constraint(name, column, seen[name]) for name, column in spread.items()],
        "monitoring_config": {
            "evaluate_constraints": "Enabled",
            "emit_metrics": "Enabled",
            "datatype_check_threshold": 1.0,
            "domain_content_threshold": 1.0,
            "distribution_constraints": {
                "perform_comparison": "Enabled",
                "comparison_threshold": 0.1,
                "comparison_method": "Robust",
                "categorical_comparison_threshold": 0.1,
                "categorical_drift_method": "LInfinity",
            },
        },
    }


def _constraint(name: str, column: Column, seen: Counts) -> dict[str, Any]:
    said: dict[str, Any] = {
        "name": name,
        "inferred_type": _type(column, seen),
        "completeness": round(column.completeness, 6),
    }
    if column.text:
        return {**said, "string_constraints": {"domains": list(column.words)}}
    return {**said, "num_constraints": {"is_non_negative": seen.negative == 0}}


def _type(column: Column, seen: Counts) -> str:
    if not seen.present:
        return "Unknown"
    if column.text:
        return "String"
    return "Fractional" if seen.broken else "Integral"


def _common(seen: Counts) -> dict[str, int]:
    return {"num_present": seen.present, "num_missing": seen.missing}


def _words(name: str, column: Column, seen: Counts) -> dict[str, Any]:
    buckets: list[dict[str, Any]] = [
        {"value": word, "count": int(number)} for word, number in zip(column.words, seen.cells[:-1], strict=True)
    ]
    if seen.cells[-1]:
        buckets.append({"value": "(other)", "count": int(seen.cells[-1])})
    told = {"common": _common(seen), "distinct_count": float(sum(b["count"] > 0 for b in buckets))}
    return {
        "name": name,
        "inferred_type": _type(column, seen),
        "string_statistics": {**told, "distribution": {"categorical": {"buckets": buckets}}},
    }


def _numbers(name: str, column: Column, seen: Counts) -> dict[str, Any]:
    n = max(1, seen.present)
    mean = seen.total / n
    points = np.asarray(column.points, dtype=np.float64)
    low, high = (column.points[0], column.points[-1]) if column.points else (0.0, 0.0)
    return {
        "name": name,
        "inferred_type": _type(column, seen),
        "numerical_statistics": {
            "common": _common(seen),
            "mean": mean,
            "sum": seen.total,
            "std_dev": sqrt(max(0.0, seen.square / n - mean * mean)),
            "min": low,
            "max": high,
            "distribution": {"kll": {"buckets": _buckets(points, seen), "sketch": _sketch(points, seen)}},
        },
    }


def _values(points: Floats) -> Floats:
    """What stands for each cell: its upper point; the last one for what lies above."""
    if not len(points):
        return np.zeros(2)
    return np.concatenate([points[:1], points, points[-1:]])


def _buckets(points: Floats, seen: Counts) -> list[dict[str, Any]]:
    low, high = (float(points[0]), float(points[-1])) if len(points) else (0.0, 0.0)
    high = high if high > low else low + 1.0
    counts, bounds = np.histogram(_values(points), _BUCKETS, (low, high), weights=seen.cells)
    return [
        {"lower_bound": float(bounds[i]), "upper_bound": float(bounds[i + 1]), "count": float(counts[i])}
        for i in range(_BUCKETS)
    ]


def _sketch(points: Floats, seen: Counts) -> dict[str, Any]:
    """A KLL sketch with items at its heavy levels only: an item of level h stands for 2^h rows.

    A cell of 37 rows is an item of 32 and one of 4 in binary; what is lighter than 16 is carried on to the next
    cell, so the ranks are right to 16 rows.
    """
    levels: list[list[float]] = []
    carried = 0
    for value, number in zip(_values(points).tolist(), seen.cells.tolist(), strict=True):
        carried += number
        for level in range(_LIGHTEST, carried.bit_length()):
            if carried >> level & 1:
                levels += [[] for _ in range(level + 1 - len(levels))]
                levels[level].append(value)
        carried &= (1 << _LIGHTEST) - 1
    return {"parameters": dict(_SKETCH), "data": levels}
