"""Forecasts: on counts whose law is known, intervals hold what they say and the middle beats the naive forecast."""

from __future__ import annotations

from datetime import date

import numpy as np
import pytest

from carelake.core.errors import Corrupt, Invalid
from carelake.features.utilisation import FEATURES, WORDS, Design, Series, design
from carelake.models import scorer as scorers
from carelake.models.forecast.evaluate import backtest, evaluate, insufficient
from carelake.models.forecast.fit import ForecastPlan, fit
from carelake.models.forecast.scorer import ForecastScorer

PLAN = ForecastPlan(rounds=60, folds=2)
FIRST = date(2024, 1, 1)


def made_up(days: int = 520, seed: int = 4) -> list[Series]:
    """Poisson counts with a week, a season and noise of their own."""
    random = np.random.default_rng(seed)
    at = np.arange(days)
    out = []
    for unit, measure, level in (
        ("emergency", "ed_visits", 40),
        ("inpatient", "admissions", 15),
        ("x", "admissions", 4),
    ):
        week = 1 + 0.25 * np.sin(2 * np.pi * at / 7 + level)
        year = 1 + 0.15 * np.sin(2 * np.pi * at / 365)
        out.append(Series(unit, measure, FIRST, random.poisson(level * week * year).astype(float)))
    return out


@pytest.fixture(scope="module")
def rows() -> Design:
    return design(made_up())


@pytest.fixture(scope="module")
def model(rows: Design) -> ForecastScorer:
    return fit(rows, FEATURES, PLAN, 519, training_set="trainingset:0", words=WORDS)


def test_intervals_hold_what_they_say_and_beat_the_naive_forecast(rows: Design) -> None:
    told = evaluate(backtest(rows, FEATURES, PLAN), PLAN, [one.name for one in made_up()])
    assert told["nominal"] == pytest.approx(0.8)
    assert told["coverage"] == pytest.approx(0.8, abs=0.06)
    naive = told["baselines"]["seasonal_naive"]
    assert told["mase"] < 0.85 < naive["mase"]
    assert told["pinball"] < naive["pinball"]
    assert told["width"] < naive["width"]
    assert told["n"] == 3 * 14 * 2 * PLAN.fold_days
    assert sum(s["n"] for s in told["subgroups"] if s["group"] == "weekday") == told["n"]
    assert {s["value"] for s in told["subgroups"] if s["group"] == "series"} == {one.name for one in made_up()}
    assert told["intervals"]["coverage"][0] < told["coverage"] < told["intervals"]["coverage"][1]


def test_what_comes_later_changes_no_forecast() -> None:
    series = made_up()
    turned = [Series(s.unit, s.measure, s.first, np.where(np.arange(520) > 400, 999.0, s.counts)) for s in series]
    one, two = design(series), design(turned)
    early = one.origin <= 400
    assert np.array_equal(one.x[early], two.x[early])
    assert np.array_equal(one.naive[early], two.naive[early])
    fitted = [fit(d, FEATURES, PLAN, 400, training_set="t", words={}) for d in (one, two)]
    assert fitted[0].files() == fitted[1].files()


def test_a_row_looks_at_the_days_that_it_says() -> None:
    counts = np.arange(100, dtype=float)
    found = design([Series("u", "admissions", FIRST, counts)])
    at = int(np.flatnonzero((found.origin == 70) & (found.target == 80))[0])
    row = dict(zip(FEATURES, found.x[at], strict=True))
    assert (found.y[at], found.naive[at], row["horizon"]) == (80, 66, 10)  # day 80 less two weeks is the last known
    assert row["weekday"] == 80 % 7
    assert row["last"] * found.level[at] == pytest.approx(70, rel=1e-6)
    assert row["week"] * found.level[at] == pytest.approx(67, rel=1e-6)
    assert found.level[at] == pytest.approx(counts[15:71].mean())
    assert np.isnan(found.y[found.target >= 100]).all()


def test_the_files_give_the_same_forecast_again(rows: Design, model: ForecastScorer) -> None:
    again = scorers.read(model.files())
    assert isinstance(again, ForecastScorer)
    x = rows.x[np.isnan(rows.y)]
    for one, two in zip(model.interval(x), again.interval(x), strict=True):
        assert np.array_equal(one, two)
    low, middle, high = model.interval(x)
    assert ((low >= 0) & (low <= middle) & (middle <= high)).all()
    assert np.array_equal(model.risk(x), middle)


def test_an_unsound_model_is_refused(model: ForecastScorer) -> None:
    files = model.files()
    text = files["model.txt"]
    for changed in (
        text[: len(text) // 2],
        text.replace(b"objective=quantile", b"objective=l1"),
        b"junk",
        text + text,
    ):
        with pytest.raises(Corrupt):
            scorers.read({**files, "model.txt": changed})


def test_few_days_end_in_a_sentence(rows: Design) -> None:
    assert insufficient(1_000, PLAN) is None
    assert "no model and no figure" in (insufficient(100, PLAN) or "")
    with pytest.raises(Invalid):
        fit(rows, FEATURES, PLAN, 150, training_set="t", words={})
