"""Fit quantiles of counts, and widen or narrow their interval until it holds what it says (conformalised quantiles).

The trees are fitted on days up to a cut; the days after it show how far counts fall outside the interval, and by
that much it is moved, apart for near and far days (Romano, Patterson and Candes 2019). Days that follow each other
are alike, so that theory's guarantee holds no more than nearly: the backtest says what was held.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Protocol

import lightgbm
import msgspec
import numpy as np
from numpy.typing import NDArray

from carelake.core.errors import Invalid
from carelake.models import boosting
from carelake.models.forecast.scorer import Forecast, ForecastScorer
from carelake.models.matrix import Floats

__all__ = ["BANDS", "ForecastPlan", "Targets", "fit"]

BANDS = ((1, 3), (4, 7), (8, 14))
"""Days ahead that share a margin."""
_TREES: Mapping[str, float | int | str] = {
    "objective": "quantile",
    "num_leaves": 8,
    "min_data_in_leaf": 120,
    "learning_rate": 0.05,
    "feature_fraction": 0.8,
    "lambda_l2": 1.0,
}


class ForecastPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What can be chosen.

    Attributes:
        quantiles: lower, middle, upper; the outer two make the interval.
        rounds: trees of each.
        calibration_days: the last days of those known, which set the margins and train nothing.
        folds: origins of the backtest: times at which all is fitted anew on what was known.
        fold_days: days of origins that each is judged on.
        enough_days: of origins for training, without which there is no model.
    """

    name: str = "utilisation"
    quantiles: tuple[float, float, float] = (0.1, 0.5, 0.9)
    rounds: int = 150
    calibration_days: int = 84
    folds: int = 3
    fold_days: int = 42
    enough_days: int = 120


class Targets(Protocol):
    """What came, beside what it was looked at from: arrays of n rows (`features.utilisation.Design`)."""

    @property
    def x(self) -> Floats: ...
    @property
    def y(self) -> Floats: ...
    @property
    def level(self) -> Floats: ...
    @property
    def naive(self) -> Floats: ...
    @property
    def series(self) -> NDArray[np.int64]: ...
    @property
    def origin(self) -> NDArray[np.int64]: ...
    @property
    def target(self) -> NDArray[np.int64]: ...


def fit(
    rows: Targets,
    names: tuple[str, ...],
    plan: ForecastPlan,
    upto: int,
    *,
    training_set: str,
    words: Mapping[str, str],
) -> ForecastScorer:
    """Fit on what was known at the end of day ``upto``: rows whose target is not later.

    Raises:
        Invalid: ``models.train``, with too few days.
    """
    cut = upto - plan.calibration_days
    early = rows.target <= cut
    # No origin of the margins' rows is a day that trained.
    late = (rows.origin > cut) & (rows.target <= upto)
    if len(np.unique(rows.origin[early])) < plan.enough_days or not late.any():
        raise Invalid(
            "models.train", f"A forecast needs {plan.enough_days} days to learn from, and some to judge by."
        )
    scaled = rows.y / rows.level
    texts = [
        boosting.text_of(boosting.fit(rows.x[early], scaled[early], plan.rounds, {**_TREES, "alpha": alpha}))
        for alpha in plan.quantiles
    ]
    draft = Forecast(
        names=list(names),
        words=dict(words),
        quantiles=list(plan.quantiles),
        margins=[0.0] * BANDS[-1][1],
        level="level_log",
        horizon="horizon",
        training_set=training_set,
        rounds=plan.rounds,
        versions={"lightgbm": lightgbm.__version__, "numpy": np.__version__, "python": platform.python_version()},
        parameters={name: value for name, value in _TREES.items() if not isinstance(value, str)},
    )
    margins = _margins(ForecastScorer(texts, draft), rows, late, plan)
    return ForecastScorer(texts, msgspec.structs.replace(draft, margins=margins))


def _margins(draft: ForecastScorer, rows: Targets, late: np.ndarray, plan: ForecastPlan) -> list[float]:
    """By days ahead, how far the interval must move to hold its share: the (n + 1)-th of n ranks of misses."""
    share = plan.quantiles[2] - plan.quantiles[0]
    low, _, high = draft.interval(rows.x[late])
    ahead = rows.target[late] - rows.origin[late]
    misses = np.maximum(low - rows.y[late], rows.y[late] - high) / rows.level[late]
    out = []
    for first, last in BANDS:
        found = misses[(ahead >= first) & (ahead <= last)]
        rank = min(1.0, share * (1.0 + 1.0 / max(1, len(found))))
        margin = float(np.quantile(found, rank, method="higher")) if len(found) else 0.0
        out += [round(margin, 6)] * (last - first + 1)
    return out
