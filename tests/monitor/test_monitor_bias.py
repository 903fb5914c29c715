"""Bias metrics on examples worked by hand, those of Clarify's documentation among them; and no alarm by chance."""

from __future__ import annotations

from math import log, sqrt

import numpy as np
import pytest

from carelake.monitor import bias
from carelake.monitor.bias import Table
from carelake.monitor.performance import Labelled


def _table(tp: float, fp: float, fn: float, tn: float) -> Table:
    return Table(*(np.asarray([float(one)]) for one in (tp, fp, fn, tn)))


def _one(a: Table, d: Table) -> dict[str, float]:
    return {name: float(value[0]) for name, value in bias.metrics(a, d).items()}


def test_treatment_equality_is_that_of_the_example() -> None:
    # 100 of facet a: 8 wrongly denied, 6 wrongly approved; 50 of facet d: 5 and 2. Accuracy is the same.
    found = _one(_table(40, 6, 8, 46), _table(20, 2, 5, 23))
    assert found["TE"] == pytest.approx(5 / 2 - 8 / 6)
    assert found["AD"] == pytest.approx(0.0)


def test_conditional_rejection_and_acceptance_are_those_of_the_examples() -> None:
    # Predicted rejected: 60 of 100 and 30 of 50; observed: 50 and 40. DCR = 40/30 - 50/60.
    a, d = _table(40, 0, 10, 50), _table(10, 10, 0, 30)
    found = _one(a, d)
    assert found["DCR"] == pytest.approx(40 / 30 - 50 / 60)
    assert found["DCA"] == pytest.approx(50 / 40 - 10 / 20)
    assert found["DPPL"] == pytest.approx(0.0)


def test_a_small_example_by_hand() -> None:
    # Facet a: 10 rows, 6 with the label, 5 told; facet d: 5 rows, 1 with the label, 1 told.
    found = _one(_table(4, 1, 2, 3), _table(1, 0, 0, 4))
    assert found["CI"] == pytest.approx((10 - 5) / 15)
    assert found["DPL"] == pytest.approx(0.6 - 0.2)
    assert found["KL"] == pytest.approx(0.6 * log(0.6 / 0.2) + 0.4 * log(0.4 / 0.8))
    middle = (0.4, 0.6)
    js = 0.6 * log(0.6 / 0.4) + 0.4 * log(0.4 / 0.6) + 0.2 * log(0.2 / middle[0]) + 0.8 * log(0.8 / middle[1])
    assert found["JS"] == pytest.approx(js / 2)
    assert found["LP"] == pytest.approx(sqrt(0.4**2 + 0.4**2))
    assert (found["TVD"], found["KS"]) == (pytest.approx(0.4), pytest.approx(0.4))
    assert found["DPPL"] == pytest.approx(0.5 - 0.2)
    assert found["DI"] == pytest.approx(0.2 / 0.5)
    assert found["RD"] == pytest.approx(4 / 6 - 1.0)
    assert found["SD"] == pytest.approx(1.0 - 3 / 4)
    assert found["DAR"] == pytest.approx(4 / 5 - 1.0)
    assert found["DRR"] == pytest.approx(4 / 4 - 3 / 5)
    assert found["AD"] == pytest.approx(0.7 - 1.0)
    benefits = [1.0] * 12 + [2.0] + [0.0] * 2
    mean = sum(benefits) / 15
    assert found["GE"] == pytest.approx(sum((b / mean) ** 2 - 1 for b in benefits) / (2 * 15))


def test_nothing_of_nothing_is_nothing_and_something_of_nothing_is_infinite() -> None:
    found = _one(_table(0, 0, 3, 3), _table(0, 0, 3, 3))
    assert (found["DI"], found["DAR"], found["TE"]) == (0.0, 0.0, 0.0)
    assert _one(_table(0, 0, 3, 3), _table(3, 0, 0, 3))["DI"] == np.inf


def test_demographic_disparity_is_weighed_by_group() -> None:
    # Berkeley's paradox: within each of two departments there is none.
    d = np.asarray([True] * 60 + [False] * 60)
    group = np.asarray(["hard"] * 50 + ["easy"] * 10 + ["hard"] * 10 + ["easy"] * 50)
    runs = [(True, 10), (False, 40), (True, 8), (False, 2), (True, 2), (False, 8), (True, 40), (False, 10)]
    admitted = np.repeat(*zip(*runs, strict=True))
    weights = np.ones((1, 120))
    alone = bias.disparity(d, admitted, np.asarray(["all"] * 120), weights)[0]
    assert alone == pytest.approx(42 / 60 - 18 / 60)
    assert bias.disparity(d, admitted, group, weights)[0] == pytest.approx(0.0)


def test_the_flip_test_sees_who_would_be_told_otherwise() -> None:
    random = np.random.default_rng(1)
    x = np.concatenate([random.normal(0, 1, (200, 2)), random.normal(0, 1, (100, 2))])
    d = np.arange(300) >= 200
    told = x[:, 0] > 0
    assert abs(bias.flip_test(x, d, told)) < 0.1
    told[d] = False
    assert bias.flip_test(x, d, told) > 0.35
    assert bias.flip_test(x, ~d, told) < -0.35


def _seen(rows: int, seed: int, shift: float = 0.0) -> tuple[Labelled, dict[str, np.ndarray]]:
    random = np.random.default_rng(seed)
    patients = rows // 2
    owner = np.repeat(np.arange(patients), 2)
    sex = np.where(random.random(patients) < 0.4, "female", "male")[owner]
    level = random.normal(-1.2, 0.8, patients)[owner] + np.where(sex == "female", shift, 0.0)
    p = 1 / (1 + np.exp(-level))
    return Labelled(random.random(rows) < p, p, owner, 0.3), {"sex": sex}


def test_unchanged_differences_raise_no_alarm_and_a_new_one_does() -> None:
    base = bias.baseline(*_seen(4_000, 1))
    assert set(base["sex"]) == {"female", "male"}
    alarms = sum(bool(bias.judge(bias.baseline(*_seen(1_500, seed)), base)) for seed in range(2, 22))
    assert alarms == 0
    found = bias.judge(bias.baseline(*_seen(1_500, 30, shift=1.0)), base)
    assert {"DPL", "DPPL", "DI"} <= {one["metric_name"] for one in found}
    assert set(found[0]) == {"facet", "facet_value", "metric_name", "constraint_check_type", "description"}


def test_the_analysis_has_clarifys_shape() -> None:
    told = bias.analysis(bias.baseline(*_seen(600, 3)))
    [first, _] = told["pre_training_bias_metrics"]["facets"]["sex"]
    assert [one["name"] for one in first["metrics"]] == ["CI", "DPL", "KL", "JS", "LP", "TVD", "KS"]
    assert set(first["metrics"][0]) == {"name", "description", "value"}
    assert told["post_training_bias_metrics"]["label_value_or_threshold"] == "1"


def test_values_with_few_rows_are_left_out() -> None:
    seen, _ = _seen(600, 4)
    rare = {"race": np.asarray(["a"] * 590 + ["b"] * 10)}
    assert bias.baseline(seen, rare) == {}
