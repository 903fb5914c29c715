"""The baseline of a model version: how each input and the risk were spread when the model was made.

The shapes are those of SageMaker Model Monitor (statistics.json and constraints.json in one file), with ``spread``
beside them: up to 257 points of each column's distribution function, from which drift is measured. No value of a
single patient is in it: ``min`` and ``max`` are the 0.5th and 99.5th percentile, and points are quantiles.
https://docs.aws.amazon.com/sagemaker/latest/dg/model-monitor-interpreting-statistics.html
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from carelake.core.errors import Invalid
from carelake.core.shapes import decodable
from carelake.models.matrix import Floats, Rows
from carelake.models.scorer import Scorer

__all__ = ["PREDICTION", "Baseline", "Column", "of_model", "profile"]

PREDICTION = "prediction"
"""The name of the column of risks."""
_POINTS = 257
_BUCKETS = 10
_ENOUGH_LATER = 500


class Column(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One column's distribution among its present values.

    Attributes:
        points: values in order, at most 257; all different ones where there are no more.
        below: share of present values at or under each point.
        present, missing: rows.
    """

    points: list[float]
    below: list[float]
    present: int
    missing: int

    @property
    def completeness(self) -> float:
        """Share of rows that have a value."""
        return self.present / max(1, self.present + self.missing)


class Baseline(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``baseline.json``."""

    statistics: dict[str, Any]
    constraints: dict[str, Any]
    spread: dict[str, Column]
    rows: int
    source: str
    format: int = 1

    def to_bytes(self) -> bytes:
        """JSON."""
        return msgspec.json.encode(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Baseline:
        """What `models.artifact.load` read; `Invalid` ``monitor.baseline`` when it is something else."""
        try:
            return msgspec.convert(content, decodable(cls))
        except msgspec.ValidationError:
            raise Invalid(
                "monitor.baseline", "baseline.json is not a baseline of this version; train again."
            ) from None


def of_model(data: Rows, scorer: Scorer) -> Baseline:
    """The baseline of a training set: of its test rows, which the model was not fitted on, if they are enough.

    They are the latest. Histories grow as a record does (there are more known conditions and earlier stays each
    year), so older rows would make an unchanged hospital look shifted; and their risks are not flattered by the fit.
    """
    later = data.part("test")
    chosen, source = (later, "test rows") if len(later) >= _ENOUGH_LATER else (data, "all rows")
    return profile(chosen.x, scorer.risk(chosen.x), data.names, source)


def profile(x: Floats, p: Floats, names: tuple[str, ...], source: str) -> Baseline:
    """Describe (n, p) features and (n,) risks."""
    columns = {name: x[:, at] for at, name in enumerate(names)} | {PREDICTION: p}
    spread = {name: _column(values) for name, values in columns.items()}
    return Baseline(
        statistics={
            "version": 0,
            "dataset": {"item_count": len(x)},
            "features": [_statistics(name, columns[name], column) for name, column in spread.items()],
        },
        constraints={
            "version": 0,
            "features": [_constraint(name, columns[name], column) for name, column in spread.items()],
            "monitoring_config": {
                "evaluate_constraints": "Enabled",
                "emit_metrics": "Enabled",
                "distribution_constraints": {
                    "perform_comparison": "Enabled",
                    "comparison_threshold": 0.1,
                    "comparison_method": "Robust",
                },
            },
        },
        spread=spread,
        rows=len(x),
        source=source,
    )


def _column(values: Floats) -> Column:
    known = np.sort(values[~np.isnan(values)])
    if not len(known):
        return Column([], [], 0, len(values))
    points = np.unique(known)
    if len(points) > _POINTS:
        places = np.linspace(0.005, 0.995, _POINTS) * (len(known) - 1)
        points = np.unique(known[places.round().astype(int)])
    below = np.searchsorted(known, points, side="right") / len(known)
    return Column(points.tolist(), below.tolist(), len(known), len(values) - len(known))


def _edges(known: Floats) -> tuple[float, float]:
    if not len(known):
        return 0.0, 0.0
    low, high = np.quantile(known, [0.005, 0.995])
    return float(low), float(high)


def _statistics(name: str, values: Floats, column: Column) -> dict[str, Any]:
    known = values[~np.isnan(values)]
    low, high = _edges(known)
    counts, bounds = np.histogram(np.clip(known, low, high), _BUCKETS, (low, high if high > low else low + 1.0))
    return {
        "name": name,
        "inferred_type": "Fractional",
        "numerical_statistics": {
            "common": {"num_present": column.present, "num_missing": column.missing},
            "mean": float(known.mean()) if len(known) else 0.0,
            "sum": float(known.sum()),
            "std_dev": float(known.std()) if len(known) else 0.0,
            "min": low,
            "max": high,
            "distribution": {
                "kll": {
                    "buckets": [
                        {
                            "lower_bound": float(bounds[i]),
                            "upper_bound": float(bounds[i + 1]),
                            "count": int(counts[i]),
                        }
                        for i in range(_BUCKETS)
                    ]
                }
            },
        },
    }


def _constraint(name: str, values: Floats, column: Column) -> dict[str, Any]:
    known = values[~np.isnan(values)]
    return {
        "name": name,
        "inferred_type": "Fractional",
        "completeness": round(column.completeness, 6),
        "num_constraints": {"is_non_negative": bool((known >= 0).all())},
    }
