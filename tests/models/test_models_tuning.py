"""Tuning finds parameters on patients that they did not see; calibration bends only where bending helps."""

from __future__ import annotations

import numpy as np
import pytest

from carelake.core.errors import Invalid
from carelake.models import calibrate, matrix, metrics, train
from carelake.models import scorer as scorers
from carelake.models.logistic import sigmoid
from carelake.models.tuning import SPACE, candidates, halve


def test_candidates_are_of_the_space_and_the_first_is_the_plans() -> None:
    own = {"num_leaves": 12, "max_bin": 31}
    found = candidates(6, own)
    assert (found[0]["num_leaves"], found[0]["max_bin"], len(found)) == (12, 31, 6)
    assert all(one[name] in values for one in found[1:] for name, values in SPACE.items())
    assert found == candidates(6, own)
    assert all(one["max_bin"] == 31 for one in found)


def test_halving_gives_up_the_worse_on_a_part_and_always_asks_the_first(cohort: tuple) -> None:
    base = cohort[0].part("train").where(np.arange(4_000) < 800)
    first = {"num_leaves": 2, "learning_rate": 0.5}
    best, tried = halve(base, 4, first)
    assert best == tried[0].parameters
    assert [len(one.losses) for one in tried] == sorted((len(one.losses) for one in tried), reverse=True)
    own = next(one for one in tried if one.parameters["num_leaves"] == 2)
    assert len(own.losses) == 3
    assert tried[0].losses[-1] <= own.losses[-1]
    assert min(len(one.losses) for one in tried) == 1


def test_a_tuned_model_says_what_was_tried(cohort_of) -> None:
    data = matrix.rows(cohort_of(1_200)[0], [f"feature_{number}" for number in range(20)])
    plan = train.Plan(folds=2, candidates=2, kind="boosting")
    made = train.train(data, plan, training_set="t")
    assert len(made.description.tuning) == 2
    assert made.description.parameters == made.description.tuning[0].parameters
    assert made.description.stack[1] == 0.0
    assert 0.5 < made.description.validation["grouped"]["auroc"] < 1


def test_a_logistic_model_has_no_trees(cohort: tuple) -> None:
    data = cohort[0]
    made = train.train(data, train.Plan(folds=2, kind="logistic", calibration="auto"), training_set="t")
    files = made.files()
    assert list(files) == ["model.json"]
    again = scorers.read(files)
    assert np.array_equal(again.risk(data.x), made.risk(data.x))
    parts, start = again.contributions(data.x[:50])
    assert parts.sum(axis=1) + start == pytest.approx(again.logits(data.x[:50]), abs=1e-9)


def drawn(bent: bool, rows: int = 12_000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(2)
    score = random.normal(-1.5, 1.2, rows)
    truth = np.where(score > -1.0, -1.0 + 0.1 * (score + 1.0), score * 1.3) if bent else score
    return score, random.random(rows) < sigmoid(truth), np.arange(rows)


def test_a_straight_score_keeps_its_line_and_a_bent_one_gets_a_curve() -> None:
    assert calibrate.choose(*drawn(False)).chosen == "platt"
    score, y, subject = drawn(True)
    judged = calibrate.choose(score, y, subject)
    assert judged.chosen == "isotonic"
    assert judged.isotonic < judged.platt
    curve = calibrate.fit_curve(score, y)
    assert curve.sound()
    assert metrics.ici(y, sigmoid(curve(score))) < 0.01
    assert (np.diff(curve(np.sort(score))) >= 0).all()
    assert np.isfinite(curve(np.asarray([-50.0, 50.0]))).all()


def test_few_events_are_not_asked_for_a_curve() -> None:
    score, y, subject = drawn(True, 1_000)
    assert calibrate.choose(score, y, subject) == calibrate.Judged("platt")


def test_a_bent_model_still_adds_up(cohort: tuple) -> None:
    data = cohort[0]
    made = train.train(data, train.Plan(folds=2, kind="logistic"), training_set="t")
    curve = calibrate.fit_curve(made.logits(data.x), data.y)
    bent = scorers.Scorer("", scorers.msgspec.structs.replace(made.description, isotonic=curve))
    parts, start = bent.contributions(data.x[:200])
    assert parts.sum(axis=1) + start == pytest.approx(bent.logits(data.x[:200]), abs=1e-6)
    assert scorers.read(bent.files()).description == bent.description


def test_hyperparameters_are_text_and_become_a_plan() -> None:
    plan = train.planned({"name": "m", "kind": "boosting", "candidates": "3", "num_leaves": "12", "lambda_l2": "1.5"})
    assert (plan.name, plan.kind, plan.candidates) == ("m", "boosting", 3)
    assert plan.parameters == {"num_leaves": 12, "lambda_l2": 1.5}
    assert train.planned({}) == train.Plan()
    for wrong in ({"num_leaves": "many"}, {"objective": "l1"}, {"kind": "forest"}, {"folds": "2.5"}):
        with pytest.raises(Invalid):
            train.planned(wrong)
    for name, said in (("folds", "0"), ("alert_share", "2"), ("candidates", "1000000"), ("ridge", "-1"),
                       ("num_leaves", "1025"), ("num_leaves", "12.5"), ("learning_rate", "nan")):  # fmt: skip
        with pytest.raises(Invalid):
            train.planned({name: said})


def test_a_curve_of_few_scores_is_a_map() -> None:
    score, rate = np.repeat([-2.0, -1.0, 0.5], 1_000), np.asarray([0.1, 0.2, 0.5])
    y = np.arange(3_000) % 1_000 >= np.repeat(1_000 - 1_000 * rate, 1_000)  # in order, as a file may have them
    curve = calibrate.fit_curve(score, y)
    assert curve.sound()
    assert sigmoid(curve(np.asarray([-2.0, -1.0, 0.5]))) == pytest.approx(rate, abs=0.01)
