"""Judge a forecast as it would have been made: at several times in the past, fitted anew on what was known then.

Beside it stands the seasonal naive forecast (the count of the last such weekday) with intervals of the same make:
the quantiles of its own misses on the days that set the margins. MASE is Hyndman and Koehler's (2006), the scale
being the seasonal naive's mean miss on the days before; pinball loss is that of the quantiles, of the level.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from carelake.core.errors import Invalid
from carelake.models import bootstrap
from carelake.models.forecast.fit import BANDS, ForecastPlan, Targets, fit
from carelake.models.forecast.scorer import ForecastScorer
from carelake.models.matrix import Floats
from carelake.models.metrics import rounded

__all__ = ["Held", "backtest", "evaluate", "insufficient"]

_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_SMALL = 50
_REPLICATES = 200


@dataclass(frozen=True)
class Held:
    """Forecasts held against what came: columns of n rows.

    Attributes:
        columns: ``y``, ``low``, ``middle``, ``high`` (counts), ``naive``, ``naive_low``, ``naive_high``, ``scale``
            (the seasonal naive's mean miss before), ``level``, ``origin``, ``ahead`` (days), ``series``, ``weekday``.
    """

    columns: Mapping[str, np.ndarray]

    def __getitem__(self, name: str) -> np.ndarray:
        return self.columns[name]

    def __len__(self) -> int:
        return len(self.columns["y"])

    def where(self, mask: np.ndarray) -> Held:
        """The rows under a mask."""
        return Held({name: values[mask] for name, values in self.columns.items()})


def insufficient(days: int, plan: ForecastPlan) -> str | None:
    """Why so many days of origins cannot give a sound estimate, or None when they can."""
    needed = plan.enough_days + plan.calibration_days + plan.folds * plan.fold_days + BANDS[-1][1]
    if days >= needed:
        return None
    return (
        f"There are {days} days that a forecast could look back from; a sound estimate needs {needed}, "
        "so there is no model and no figure."
    )


def backtest(rows: Targets, names: tuple[str, ...], plan: ForecastPlan) -> Held:
    """Forecasts of the last ``folds * fold_days`` origins whose targets are over, each fold by a fit of its own."""
    last = int(rows.target[~np.isnan(rows.y)].max())
    parts = []
    for fold in range(plan.folds):
        cut = last - BANDS[-1][1] - (plan.folds - fold) * plan.fold_days
        scorer = fit(rows, names, plan, cut, training_set="", words={})
        here = (rows.origin >= cut) & (rows.origin < cut + plan.fold_days)
        parts.append(_held(scorer, rows, here, cut, plan))
    if not parts:
        raise Invalid("models.train", "A backtest needs at least one fold.")
    return Held({name: np.concatenate([part[name] for part in parts]) for name in parts[0].columns})


def _held(scorer: ForecastScorer, rows: Targets, here: np.ndarray, cut: int, plan: ForecastPlan) -> Held:
    low, middle, high = scorer.interval(rows.x[here])
    naive, naive_low, naive_high = _naive(rows, here, cut, plan)
    columns = {
        "y": rows.y[here], "low": low, "middle": middle, "high": high,
        "naive": naive, "naive_low": naive_low, "naive_high": naive_high,
        "scale": _scale(rows, here, cut), "level": rows.level[here],
        "origin": rows.origin[here], "ahead": rows.target[here] - rows.origin[here],
        "series": rows.series[here], "weekday": rows.x[here][:, scorer.names.index("weekday")].astype(int),
    }  # fmt: skip
    return Held(columns)


def _naive(rows: Targets, here: np.ndarray, cut: int, plan: ForecastPlan) -> tuple[Floats, Floats, Floats]:
    """The seasonal naive forecast and its interval, by days ahead."""
    late = (rows.origin > cut - plan.calibration_days) & (rows.target <= cut)
    misses, ahead = (rows.y - rows.naive) / rows.level, rows.target - rows.origin
    low, high = np.zeros(int(here.sum())), np.zeros(int(here.sum()))
    for first, last in BANDS:
        band = (ahead >= first) & (ahead <= last)
        ends = np.quantile(misses[late & band], [plan.quantiles[0], plan.quantiles[2]])
        mine = band[here]
        low[mine], high[mine] = ends
    naive, level = rows.naive[here], rows.level[here]
    return naive, np.maximum(naive + low * level, 0.0), np.maximum(naive + high * level, 0.0)


def _scale(rows: Targets, here: np.ndarray, cut: int) -> Floats:
    """Of each row, the mean miss of the seasonal naive forecast of its series, a week ahead, up to the cut."""
    before = (rows.target <= cut) & (rows.target - rows.origin == 7)
    misses = np.abs(rows.y - rows.naive)
    out = np.ones(int(here.sum()))
    for series in np.unique(rows.series):
        mine = misses[before & (rows.series == series)]
        out[rows.series[here] == series] = max(float(mine.mean()) if len(mine) else 1.0, 1e-6)
    return out


def evaluate(held: Held, plan: ForecastPlan, series: Sequence[str]) -> dict[str, Any]:
    """Figures of a backtest, rounded to 6 digits.

    Keys: `_block`'s for the model, ``n``, ``origins``, ``nominal`` (what the interval should hold), ``intervals`` (of
    the coverage and the MASE, by draws of weeks of origins), ``baselines`` (``seasonal_naive``), ``by_horizon``,
    ``subgroups`` (series; weekday), ``methods``, ``reason`` (None).
    """
    found = {
        **_block(held, plan),
        "n": len(held),
        "origins": len(np.unique(held["origin"])),
        "nominal": plan.quantiles[2] - plan.quantiles[0],
        "intervals": _intervals(held),
        "baselines": {"seasonal_naive": _block(_as_naive(held), plan)},
        "by_horizon": [
            {
                "from": first,
                "to": last,
                **_block(held.where((held["ahead"] >= first) & (held["ahead"] <= last)), plan),
            }
            for first, last in BANDS
        ],
        "subgroups": [
            *(_group("series", name, held.where(held["series"] == at), plan) for at, name in enumerate(series)),
            *(_group("weekday", name, held.where(held["weekday"] == at), plan) for at, name in enumerate(_WEEKDAYS)),
        ],
        "methods": {
            "backtest": f"{plan.folds} times in the past, fitted anew on what was known, {plan.fold_days} days each",
            "intervals": f"95 % percentile, {_REPLICATES} bootstrap draws of weeks of origins",
            "interval": "LightGBM quantiles, conformalised on the days before each time",
        },
        "reason": None,
    }
    out: dict[str, Any] = rounded(found)
    return out


def _ahead(held: Held, first: int, last: int) -> Held:
    return held.where((held["ahead"] >= first) & (held["ahead"] <= last))


def _as_naive(held: Held) -> Held:
    named = {"middle": "naive", "low": "naive_low", "high": "naive_high"}
    return Held({**held.columns, **{name: held[other] for name, other in named.items()}})


def _block(held: Held, plan: ForecastPlan) -> dict[str, Any]:
    """The figures of one set of forecasts.

    ``coverage`` of the interval and what lies under and over it, ``mae``, ``mase``; and of the level: ``width``,
    ``pinball`` (mean of the quantiles), ``bias``.
    """
    y, low, middle, high = (held[name] for name in ("y", "low", "middle", "high"))
    losses = [_pinball(y, q, alpha) for q, alpha in zip((low, middle, high), plan.quantiles, strict=True)]
    return {
        "coverage": float(((y >= low) & (y <= high)).mean()),
        "under": float((y < low).mean()),
        "over": float((y > high).mean()),
        "width": float(((high - low) / held["level"]).mean()),
        "mae": float(np.abs(y - middle).mean()),
        "mase": float((np.abs(y - middle) / held["scale"]).mean()),
        "pinball": float(np.mean([(loss / held["level"]).mean() for loss in losses])),
        "bias": float(((middle - y) / held["level"]).mean()),
    }


def _pinball(y: Floats, q: Floats, alpha: float) -> Floats:
    out: Floats = np.maximum(alpha * (y - q), (alpha - 1.0) * (y - q))
    return out


def _intervals(held: Held) -> dict[str, Any]:
    inside = (held["y"] >= held["low"]) & (held["y"] <= held["high"])
    misses = np.abs(held["y"] - held["middle"]) / held["scale"]
    drawn = [
        np.column_stack([block @ inside, block @ misses]) / block.sum(axis=1, keepdims=True)
        for block in bootstrap.weights(held["origin"] // 7, _REPLICATES)
    ]
    coverage, mase = np.vstack(drawn).T
    return {"coverage": bootstrap.interval(coverage), "mase": bootstrap.interval(mase)}


def _group(group: str, value: str, held: Held, plan: ForecastPlan) -> dict[str, Any]:
    told = {"group": group, "value": value, "n": len(held)}
    if len(held) < _SMALL:
        return {**told, "coverage": None, "reason": f"fewer than {_SMALL} forecasts"}
    baseline = _block(_as_naive(held), plan)
    return {**told, **_block(held, plan), "seasonal_naive_mase": baseline["mase"], "reason": None}
