"""The report: figures where they are sound, a sentence where they are not, intervals by patients."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest

from carelake.models import bootstrap, evaluate, matrix, metrics, train
from carelake.models.scorer import Scorer


def test_every_figure_stands_beside_its_baselines(metrics: evaluate.Metrics) -> None:
    assert metrics["reason"] is None
    assert set(metrics["baselines"]) == {"logistic", "lace", "hospital"}
    for block in (metrics, *metrics["baselines"].values()):
        assert 0.5 < block["auroc"] < 1
        assert all(block[key] is not None for key in ("auprc", "brier", "calibration_slope", "calibration_intercept"))
    low, high = metrics["intervals"]["auroc"]
    assert low < metrics["auroc"] < high
    gain = metrics["baselines"]["lace"]["gain"]
    assert gain["interval"][0] < gain["auroc"] < gain["interval"][1]
    assert metrics["baselines"]["lace"]["calibration_slope"] == pytest.approx(1.0, abs=0.2)
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics


def test_subgroups_cover_all_rows_once_a_group(metrics: evaluate.Metrics) -> None:
    for name in ("sex", "race", "age_group"):
        found = [s for s in metrics["subgroups"] if s["group"] == name]
        assert sum(s["n"] for s in found) == metrics["n"]
        assert all(s["intervals"]["auroc"][0] <= s["auroc"] <= s["intervals"]["auroc"][1] for s in found)
    assert any(s["value"] == "unknown" for s in metrics["subgroups"])


def test_what_matters_is_named_first(metrics: evaluate.Metrics) -> None:
    assert {i["feature"] for i in metrics["importance"][:4]} == {"feature_0", "feature_1", "feature_5", "feature_6"}


@pytest.mark.parametrize("rows", [60, 600])
def test_too_few_cases_end_in_a_sentence_and_no_figure(cohort_of: Callable, plan: train.Plan, rows: int) -> None:
    data = matrix.rows(cohort_of(rows)[0], ["feature_0"])
    reason = evaluate.insufficient(data, plan)
    assert reason is not None
    assert "at least 100 of each" in reason
    found = evaluate.nothing(data, reason)
    assert found["auroc"] is found["brier"] is found["calibration_slope"] is None
    assert found["baselines"]["lace"]["auroc"] is None
    assert found["reason"] == reason


def test_too_few_non_events_are_too_few_as_well(cohort: tuple, plan: train.Plan) -> None:
    data = cohort[0]
    assert evaluate.insufficient(data, plan) is None
    turned = matrix.Rows(data.names, data.x, data.y | (data.sets == "test"), data.subject, data.sets)
    assert "test set" in (evaluate.insufficient(turned, plan) or "")


def test_a_small_subgroup_is_counted_but_not_estimated(cohort: tuple, scorer: Scorer, plan: train.Plan) -> None:
    data = cohort[0]
    sex = np.asarray(["other"] * 30 + ["female"] * (len(data) - 30))
    groups = {"sex": sex[::-1]}
    few = matrix.Rows(data.names, data.x, data.y, data.subject, data.sets, data.scores, groups)
    other = next(s for s in evaluate.evaluate(few, scorer, plan)["subgroups"] if s["value"] == "other")
    assert (other["n"], other["auroc"]) == (30, None)
    assert "fewer than" in other["reason"]


def _clustered(patients: int, copies: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    p = 1 / (1 + np.exp(-random.normal(-1.5, 1, patients)))
    y = random.random(patients) < p
    return np.repeat(y, copies), np.repeat(p, copies), np.repeat(np.arange(patients), copies)


def test_copies_of_a_patient_do_not_narrow_an_interval() -> None:
    once = bootstrap.draw(*_clustered(800, 1, 4), 200)
    thrice = bootstrap.draw(*_clustered(800, 3, 4), 200)
    assert thrice == pytest.approx(once, abs=1e-9)


def test_a_replicate_is_the_metric_of_the_rows_that_were_drawn() -> None:
    y, p, subject = _clustered(300, 2, 6)
    block = next(bootstrap.weights(subject, 5))
    found = bootstrap.replicate(y, p, block)
    for weights, values in zip(block.astype(int), found, strict=True):
        drawn = np.repeat(np.arange(len(y)), weights)
        slope, intercept = metrics.calibration_line(y[drawn], p[drawn])
        raw = metrics.brier(y[drawn], p[drawn])[0]
        assert values == pytest.approx([metrics.auroc(y[drawn], p[drawn]), raw, slope, intercept], abs=2e-3)


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    held = 0
    for seed in range(60):
        y, p, subject = _clustered(600, 1, 100 + seed)
        slope = bootstrap.interval(bootstrap.draw(y, p, subject, 100)[:, 2])
        held += slope is not None and slope[0] <= 1.0 <= slope[1]
    assert held >= 52
