"""Time to an event: on made-up rows whose hazards are known, with censoring."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from carelake.core.errors import Corrupt, Invalid
from carelake.models import scorer as scorers
from carelake.models.card import About, card, html
from carelake.models.survival.evaluate import brier_curve, c_index, evaluate
from carelake.models.survival.fit import SurvivalPlan, train
from carelake.models.survival.rows import TimedRows, kaplan_meier, periods, timed, weights
from carelake.models.survival.scorer import HazardScorer

HORIZON = 30.0


def simulated(n: int = 6_000, seed: int = 3) -> tuple[TimedRows, np.ndarray]:
    """Exponential times whose rate bends and jumps with the features; and the true risk by the horizon."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(n, 6)).astype(np.float32).astype(np.float64)
    rate = 0.006 * np.exp(0.7 * x[:, 0] + 0.9 * (x[:, 1] > 0.5) - 0.5 * x[:, 2] * (x[:, 3] > 0))
    time, lost = random.exponential(1 / rate), random.exponential(70, n)
    sets = random.choice(["train", "calibration", "test"], n, p=[0.55, 0.1, 0.35])
    groups = {"sex": random.choice(["female", "male"], n)}
    subject = random.integers(0, n * 2 // 3, n)
    sets = np.asarray([sets[s] for s in subject])  # by patient
    seen = np.maximum(np.minimum(time, lost), 0.01)
    names = tuple(f"f{at}" for at in range(6))
    return TimedRows(names, x, seen, time <= lost, subject, sets, groups), 1 - np.exp(-rate * HORIZON)


@pytest.fixture(scope="module")
def made() -> tuple[TimedRows, np.ndarray, HazardScorer]:
    data, truth = simulated()
    plan = SurvivalPlan(horizon=HORIZON, folds=3, intervals=6, follow_up=60.0)
    return data, truth, train(data, plan, training_set="trainingset:0")


def test_risks_come_near_the_truth_though_many_are_lost(made: tuple) -> None:
    data, truth, scorer = made
    test = data.sets == "test"
    risk = scorer.risk(data.x[test])
    assert np.corrcoef(risk, truth[test])[0, 1] > 0.9
    assert risk.mean() == pytest.approx(truth[test].mean(), abs=0.015)
    alive = scorer.survival(data.x[test], np.asarray([0.0, HORIZON, 60.0]))
    assert alive[:, 0] == pytest.approx(1.0)
    assert 1 - alive[:, 1] == pytest.approx(risk)
    assert (alive[:, 2] < alive[:, 1]).all()


def test_the_report_finds_it_calibrated_and_better_than_its_baseline(made: tuple) -> None:
    data, truth, scorer = made
    told = evaluate(data, scorer, SurvivalPlan(horizon=HORIZON, replicates=60))
    test = data.part("test")
    best = c_index(test.time, test.event, truth[data.sets == "test"], HORIZON)
    assert best - 0.025 < told["c_index"] < best + 0.01
    assert told["baselines"]["logistic"]["c_index"] < told["c_index"]
    assert told["integrated_brier"] < told["kaplan_meier"]["integrated_brier"]
    assert told["calibration_slope"] == pytest.approx(1.0, abs=0.15)
    assert told["calibration_intercept"] == pytest.approx(0.0, abs=0.15)
    low, high = told["intervals"]["auroc"]
    assert low < told["auroc"] < high
    assert {s["value"] for s in told["subgroups"]} == {"female", "male"}
    assert {i["feature"] for i in told["importance"][:2]} == {"f0", "f1"}
    assert told["alert"]["ppv"] * told["alert"]["nne"] == pytest.approx(1.0, abs=1e-4)
    assert told["censored"] > 200
    page = html(card(scorer, told, SurvivalPlan(horizon=HORIZON), About("trainingset:0", "pipeline")), {})
    assert page.startswith("<!doctype html>")


def test_the_same_rows_give_the_same_files_and_the_files_the_same_risks(made: tuple) -> None:
    data, _, scorer = made
    again = scorers.read(scorer.files())
    assert isinstance(again, HazardScorer)
    assert np.array_equal(again.risk(data.x), scorer.risk(data.x))
    few, plan = simulated(800)[0], SurvivalPlan(horizon=HORIZON, folds=2, intervals=3)
    one, two = (train(few, plan, training_set="trainingset:0").files() for _ in range(2))
    assert one == two


def test_contributions_add_up_to_the_log_odds(made: tuple) -> None:
    data, _, scorer = made
    parts, start = scorer.contributions(data.x[:200])
    risk = scorer.risk(data.x[:200])
    assert parts.sum(axis=1) + start == pytest.approx(np.log(risk / (1 - risk)), abs=1e-9)


def test_an_unsound_description_is_refused(made: tuple) -> None:
    files = made[2].files()
    for old, new in (
        (b'"edges":[0.0', b'"edges":[5.0'),
        (b'"horizon":30.0', b'"horizon":31.0'),
        (b'"names":[', b'"names":["g",'),
    ):
        with pytest.raises(Corrupt):
            scorers.read({**files, "model.json": files["model.json"].replace(old, new)})


def test_without_events_there_is_no_model() -> None:
    data, _ = simulated(300)
    none = TimedRows(data.names, data.x, data.time, np.zeros(300, dtype=bool), data.subject, data.sets)
    with pytest.raises(Invalid):
        train(none, SurvivalPlan(), training_set="t")


def test_kaplan_meier_and_weights_are_those_of_the_textbook() -> None:
    time = np.asarray([1.0, 2.0, 2.0, 3.0, 4.0])
    event = np.asarray([True, True, False, False, True])
    assert kaplan_meier(time, event, np.asarray([0.5, 1, 2, 3.5, 4])) == pytest.approx([1, 0.8, 0.6, 0.6, 0.0])
    # Seen just before 2: all. At 3.5, two of three were lost one after another: (1 - 1/4) * (1 - 1/2).
    assert weights(time, event, 3.5) == pytest.approx([1, 1, 0, 0, 1 / (0.75 * 0.5)])


def test_without_censoring_the_weighted_figures_are_the_plain_ones() -> None:
    random = np.random.default_rng(1)
    risk = random.random(400)
    time = random.exponential(1 / (0.01 + risk / 20))
    event = np.ones(400, dtype=bool)
    brute = [
        (risk[i] > risk[j]) + 0.5 * (risk[i] == risk[j])
        for i in range(400) for j in range(400) if time[i] < time[j] and time[i] <= HORIZON
    ]  # fmt: skip
    assert c_index(time, event, risk, HORIZON) == pytest.approx(np.mean(brute))
    rows = TimedRows(("a",), risk[:, None], time, event, np.arange(400), np.full(400, "test"))
    plain = (((time > HORIZON) - (1 - risk)) ** 2).mean()
    assert brier_curve(rows, (1 - risk)[:, None], np.asarray([HORIZON])) == pytest.approx([plain])


def test_periods_end_with_the_row() -> None:
    edges = np.asarray([0.0, 10.0, 20.0, 30.0])
    cut = periods(np.asarray([12.0, 12.0, 19.0, 40.0]), np.asarray([True, False, False, False]), edges)
    told = list(zip(cut.row.tolist(), cut.interval.tolist(), cut.y.tolist(), strict=True))
    assert told == [
        (0, 0, False), (0, 1, True), (1, 0, False), (2, 0, False), (2, 1, False), (3, 0, False), (3, 1, False),
        (3, 2, False),
    ]  # fmt: skip


def test_a_training_set_of_a_study_is_read_with_its_times() -> None:
    table = pa.table(
        {
            "subject_id": ["a", "b", "b", "c"],
            "set": ["train", "test", None, "train"],
            "label": [True, False, False, False],
            "event": ["outcome", "none", "none", "censored"],
            "days_at_risk": [3.5, 30.0, 30.0, 0.0],
            "x": [1.0, None, 2.0, 3.0],
            "sex": ["female", None, "male", "male"],
        }
    )
    rows = timed(table, ["x"])
    assert (rows.time.tolist(), rows.event.tolist()) == ([3.5, 30.0, 0.01], [True, False, False])
    assert rows.groups["sex"].tolist() == ["female", "unknown", "male"]
    assert rows.sets.tolist() == ["train", "test", "train"]
