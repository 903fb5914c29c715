"""Model quality in SageMaker's JSON, figures with intervals over patients, estimates without outcomes."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from sklearn.metrics import f1_score, fbeta_score, ndcg_score

from carelake.monitor import attribution, kinds, performance, quality
from carelake.monitor.baseline import Baseline, profile, with_errors
from carelake.monitor.estimate import estimate
from carelake.monitor.performance import Labelled
from carelake.serving.capture import Seen


def _seen(rows: int, seed: int, *, slope: float = 1.0, lift: float = 0.0, each: int = 2) -> Labelled:
    """Rows of patients who have several, alike; ``slope`` and ``lift`` spoil the calibration."""
    random = np.random.default_rng(seed)
    patients = rows // each
    owner = np.repeat(np.arange(patients), each)
    logit = random.normal(-1.2, 1.0, patients)[owner] + random.normal(0, 0.2, rows)
    chance = 1 / (1 + np.exp(-(logit * slope + lift)))
    return Labelled(random.random(rows) < chance, 1 / (1 + np.exp(-logit)), owner, 0.3)


def test_binary_metrics_are_those_of_sagemakers_example() -> None:
    y, told = np.asarray([False, False, False, True]), np.asarray([0.1, 0.6, 0.7, 0.9])
    found = quality.binary(y, told, 0.5)["binary_classification_metrics"]
    assert found["confusion_matrix"] == {"0": {"0": 1, "1": 2}, "1": {"0": 0, "1": 1}}
    wanted = {
        "recall": 1.0, "precision": 1 / 3, "accuracy": 0.5, "recall_best_constant_classifier": 1.0,
        "precision_best_constant_classifier": 0.25, "accuracy_best_constant_classifier": 0.25,
        "true_positive_rate": 1.0, "true_negative_rate": 1 / 3, "false_positive_rate": 2 / 3,
        "false_negative_rate": 0.0, "auc": 1.0, "f0_5": 0.3846153846153846, "f1": 0.5, "f2": 0.7142857142857143,
        "f0_5_best_constant_classifier": 0.29411764705882354, "f1_best_constant_classifier": 0.4,
        "f2_best_constant_classifier": 0.625,
    }  # fmt: skip
    assert {name: found[name]["value"] for name in wanted} == pytest.approx(wanted)
    assert found["recall"]["standard_deviation"] == "NaN"
    assert set(found["receiver_operating_characteristic_curve"]) == {"false_positive_rates", "true_positive_rates"}
    assert set(found["precision_recall_curve"]) == {"precisions", "recalls"}


def test_from_two_hundred_rows_on_there_are_deviations() -> None:
    seen = _seen(400, 1)
    found = quality.binary(seen.y, seen.p, 0.3)["binary_classification_metrics"]
    assert 0.0 < found["auc"]["standard_deviation"] < 0.05
    told = seen.p >= 0.3
    assert found["f1"]["value"] == pytest.approx(f1_score(seen.y, told))
    assert found["f0_5"]["value"] == pytest.approx(fbeta_score(seen.y, told, beta=0.5))


def test_regression_metrics() -> None:
    real, told = np.asarray([1.0, 2.0, 3.0, 4.0]), np.asarray([1.5, 2.0, 2.0, 5.0])
    found = quality.regression(real, told)["regression_metrics"]
    values = {name: one["value"] for name, one in found.items()}
    assert values == pytest.approx({"mae": 0.625, "mse": 0.5625, "rmse": 0.75, "r2": 0.55})
    assert quality.constraints({"regression_metrics": found})["regression_constraints"]["r2"] == {
        "threshold": pytest.approx(0.55),
        "comparison_operator": "LessThanThreshold",
    }


def test_unchanged_performance_raises_no_alarm() -> None:
    base = performance.baseline(_seen(3_000, 1))
    alarms = sum(
        bool(performance.judge(performance.figures(_seen(800, seed, each=4)), base)) for seed in range(2, 32)
    )
    assert alarms == 0


@pytest.mark.parametrize(
    ("spoiled", "name"), [({"slope": 0.3}, "calibration_slope"), ({"lift": 1.0}, "calibration_intercept"),
                          ({"slope": 0.1}, "auc")],
)  # fmt: skip
def test_what_got_worse_is_found(spoiled: dict[str, float], name: str) -> None:
    base = performance.baseline(_seen(4_000, 1))
    found = performance.judge(performance.figures(_seen(3_000, 2, **spoiled)), base)
    assert name in {one["metric_name"] for one in found}
    assert set(found[0]) == {"constraint_check_type", "description", "metric_name"}


def test_what_came_nearer_to_perfect_is_not_worse() -> None:
    base = performance.baseline(_seen(6_000, 1, slope=0.4))
    now = performance.figures(_seen(3_000, 2, slope=0.75))
    assert abs(now["calibration_slope"]["value"] - 1) > performance.MARGINS["calibration_slope"]
    assert "calibration_slope" not in {one["metric_name"] for one in performance.judge(now, base)}


def test_rows_of_few_patients_say_less() -> None:
    many, few = _seen(2_000, 3, each=1), _seen(2_000, 3, each=40)
    wide = performance.figures(few)["recall"]["standard_deviation"]
    assert wide > 1.5 * performance.figures(many)["recall"]["standard_deviation"]


def test_with_few_events_nothing_is_said() -> None:
    seen = _seen(30, 4)
    assert "too few" in performance.too_few(seen)
    assert performance.baseline(seen) == {}
    group = performance.subgroups(_seen(400, 5), {"sex": np.asarray(["a"] * 380 + ["b"] * 20)})
    assert [one["auroc"] is None for one in group] == [False, True]


def test_the_estimate_is_near_what_comes_while_risks_are_calibrated() -> None:
    hits = 0
    for seed in range(10):
        seen = _seen(2_000, 10 + seed)
        told = estimate(seen.p, seen.owner, seen.threshold)["figures"]
        real = performance.figures(seen)
        assert told["recall"]["value"] == pytest.approx(real["recall"]["value"], abs=0.1)
        hits += sum(told[n]["low"] <= real[n]["value"] <= told[n]["high"] for n in ("auc", "recall", "precision"))
    assert hits >= 26  # 30 intervals of 95 %


def test_the_estimate_is_blind_to_a_shift_of_meaning_and_says_so() -> None:
    seen = _seen(3_000, 3, slope=0.0)
    told = estimate(seen.p, seen.owner, seen.threshold)
    assert told["figures"]["auc"]["low"] > performance.figures(seen)["auc"]["value"]
    assert "cannot see" in told["assumes"]
    assert estimate(seen.p[:50], seen.owner[:50], 0.3)["figures"] == {}


def test_attributions_that_change_places_are_found() -> None:
    # Clarify's documentation: the ranking has reversed.
    base = {"SAT score": 0.70, "GPA": 0.50, "Class rank": 0.05}
    now = {"SAT score": 0.10, "GPA": 0.20, "Class rank": 0.70}
    score = attribution.ndcg(base, now)
    assert round(score, 2) == 0.69
    names = list(base)
    assert score == pytest.approx(ndcg_score([[base[n] for n in names]], [[now[n] for n in names]]))
    [found] = attribution.judge(score)
    assert found["constraint_check_type"] == "feature_attribution_drift_check"
    assert found["description"].endswith("exceeds threshold 0.9")
    assert (attribution.ndcg(base, base), attribution.judge(1.0)) == (1.0, [])


def test_amounts_are_no_risks_and_their_errors_are_held_against_the_baseline() -> None:
    random = np.random.default_rng(1)
    amounts = random.poisson(20, 500).astype(float)
    assert estimate(amounts, np.arange(500), 0.5)["figures"] == {}
    told = tuple("2026-01-01" for _ in range(500))

    def judged(off: float, base: Baseline) -> kinds.Found:
        y = np.concatenate([(amounts + random.normal(0, off, 500))[:400], np.full(100, np.nan)])
        return kinds.forecast(Seen(np.zeros((500, 1)), amounts, np.arange(500), 0, y, told, told, told, told), base)

    bare = profile(np.zeros((500, 1)), amounts, ["x"], "all rows")
    alone = judged(2.0, bare)
    assert (alone.status, alone.told["waiting"]) == ("NotEnoughRows", 100)
    base = with_errors(bare, amounts + random.normal(0, 2.0, 500), amounts)
    assert Baseline.from_json(msgspec.json.decode(base.to_bytes())).quality["rows"] == 500
    same, off = judged(2.0, base), judged(3.0, base)
    assert (same.status, same.files["constraint_violations.json"]) == ("Completed", {"violations": []})
    assert same.files["constraints.json"]["regression_constraints"]["mae"]["comparison_operator"]
    assert off.status == "CompletedWithViolations"
    assert {one["metric_name"] for one in off.violations} >= {"mae", "rmse"}
