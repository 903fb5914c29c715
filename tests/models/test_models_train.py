"""Training comes near the truth, calibrated, the same bits each time, and without a look at the test set."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from carelake.core.errors import Invalid
from carelake.models import matrix, metrics, train
from carelake.models.scorer import Scorer
from carelake.models.tuning import folds_of


def test_it_comes_near_the_true_risk(cohort: tuple, scorer: Scorer) -> None:
    data, truth = cohort
    test = data.sets == "test"
    y, p = data.y[test], scorer.risk(data.x[test])
    assert metrics.auroc(y, truth[test]) - metrics.auroc(y, p) < 0.03
    assert metrics.calibration_line(y, p)[0] == pytest.approx(1.0, abs=0.15)
    assert metrics.auroc(y, p) > metrics.auroc(y, scorer.logistic_risk(data.x[test])) - 0.002


def test_the_same_rows_give_the_same_files(cohort_of: Callable) -> None:
    data = matrix.rows(cohort_of(3_000)[0], [f"feature_{number}" for number in range(20)])
    one, two = (train.train(data, train.Plan(folds=2), training_set="t") for _ in range(2))
    assert one.text == two.text
    assert one.description == two.description


def test_labels_of_the_test_set_change_nothing(cohort_of: Callable) -> None:
    data = matrix.rows(cohort_of(3_000)[0], [f"feature_{number}" for number in range(20)])
    turned = matrix.Rows(data.names, data.x, data.y ^ (data.sets == "test"), data.subject, data.sets)
    one, two = (train.train(d, train.Plan(folds=2), training_set="t") for d in (data, turned))
    assert (one.text, one.description.stack, one.threshold) == (two.text, two.description.stack, two.threshold)


def test_folds_never_part_a_patient() -> None:
    subject = np.random.default_rng(0).integers(0, 300, 2_000)
    fold = folds_of(subject, 5, 1)
    assert all(len(np.unique(fold[subject == patient])) == 1 for patient in np.unique(subject))
    assert np.bincount(fold).min() > 300


def test_contributions_add_up_to_the_log_odds(cohort: tuple, scorer: Scorer) -> None:
    x = cohort[0].x[:500]
    parts, start = scorer.contributions(x)
    assert parts.sum(axis=1) + start == pytest.approx(scorer.logits(x), abs=1e-9)


def test_noise_alone_is_given_the_prevalence() -> None:
    random = np.random.default_rng(9)
    rows = 4_000
    sets = np.where(np.arange(rows) < 3_000, "train", "calibration")
    data = matrix.Rows(("a", "b"), random.normal(size=(rows, 2)), random.random(rows) < 0.2, np.arange(rows), sets)
    p = train.train(data, train.Plan(folds=2), training_set="t").risk(data.x)
    assert p.mean() == pytest.approx(data.y.mean(), abs=0.015)
    assert p.std() < 0.04


def test_a_calibration_set_that_is_too_small_is_left_out(cohort: tuple) -> None:
    data = cohort[0]
    few = np.flatnonzero(data.sets == "calibration")[:20]
    chosen = np.sort(np.concatenate([np.flatnonzero(data.sets == "train"), few]))
    mask = np.zeros(len(data), dtype=bool)
    mask[chosen] = True
    assert train.train(data.where(mask), train.Plan(folds=2), training_set="t").description.platt == (0.0, 1.0)


def test_one_outcome_only_cannot_be_trained_on(cohort: tuple) -> None:
    data = cohort[0]
    with pytest.raises(Invalid, match="with and without"):
        train.train(data.where(data.y), train.Plan(), training_set="t")
