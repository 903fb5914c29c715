"""Gated units: their derivative is the one that differences show, and they find what no single step tells."""

from __future__ import annotations

import numpy as np
import pytest

from carelake.core.errors import Corrupt, Invalid
from carelake.models import scorer as scorers
from carelake.models.evaluate import evaluate
from carelake.models.logistic import sigmoid
from carelake.models.matrix import Rows
from carelake.models.sequence.fit import SequencePlan, train
from carelake.models.sequence.gru import fresh
from carelake.models.sequence.scorer import SequenceScorer, shaped

STEPS = 8
PLAN = SequencePlan("vitals", series=3, width=8, epochs=30, rate=0.02, replicates=50)


def series(rows: int = 3_000, seed: int = 5) -> tuple[Rows, np.ndarray]:
    """Who swings up and down does badly: no sum of the steps tells it."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(rows, 3, STEPS))
    swing = np.abs(np.diff(x[:, 0], axis=1)).mean(axis=1)
    truth = sigmoid(-6.2 + 4.0 * swing + 0.8 * x[:, 1, -1])
    x[random.random(x.shape) < 0.1] = np.nan
    sets = np.where(np.arange(rows) % 5 < 3, "train", np.where(np.arange(rows) % 5 == 3, "calibration", "test"))
    names = tuple(f"s{one}_{step}" for one in range(3) for step in range(STEPS))
    flat = x.reshape(rows, -1).astype(np.float32).astype(np.float64)
    groups = {"sex": random.choice(["female", "male"], rows)}
    return Rows(names, flat, random.random(rows) < truth, np.arange(rows), sets, {}, groups), truth


@pytest.fixture(scope="module")
def made() -> tuple[Rows, SequenceScorer]:
    data, _ = series()
    return data, train(data, PLAN, training_set="trainingset:0")


def test_the_derivative_is_that_of_small_differences() -> None:
    random = np.random.default_rng(1)
    gru = fresh(4, 3, 2)
    x, y = random.normal(size=(7, 5, 4)), random.random(7) < 0.5
    _, slope = gru.gradient(x, y)
    for at in range(len(slope)):
        ends = []
        for step in (1e-6, -1e-6):
            moved = gru.weights.copy()
            moved[at] += step
            ends.append(type(gru)(4, 3, moved).gradient(x, y)[0])
        assert slope[at] == pytest.approx((ends[0] - ends[1]) / 2e-6, abs=1e-7)


def test_it_finds_what_a_line_cannot(made: tuple[Rows, SequenceScorer]) -> None:
    told = evaluate(made[0], made[1], PLAN)  # type: ignore[arg-type]
    assert told["auroc"] > told["baselines"]["logistic"]["auroc"] + 0.05
    assert told["calibration_slope"] == pytest.approx(1.0, abs=0.3)
    assert {one["feature"] for one in told["importance"][:2]} == {f"s0_{STEPS - 1}", f"s1_{STEPS - 1}"}


def test_contributions_add_up_and_files_say_the_same(made: tuple[Rows, SequenceScorer]) -> None:
    data, scorer = made
    again = scorers.read(scorer.files())
    assert np.array_equal(again.risk(data.x[:300]), scorer.risk(data.x[:300]))
    parts, start = scorer.contributions(data.x[:100])
    assert parts.sum(axis=1) + start == pytest.approx(scorer.logits(data.x[:100]), abs=1e-9)


def test_what_is_missing_is_the_last_known_and_flagged() -> None:
    found = shaped(np.asarray([[np.nan, 3.0, np.nan, 5.0]]), [1.0], [2.0])
    assert found[0].tolist() == [[0.0, 1.0], [1.0, 0.0], [1.0, 1.0], [2.0, 0.0]]


def test_the_same_rows_give_the_same_weights() -> None:
    few, plan = series(400)[0], SequencePlan("vitals", series=3, width=3, epochs=2)
    assert train(few, plan, training_set="t").files() == train(few, plan, training_set="t").files()


def test_what_does_not_fit_is_refused(made: tuple[Rows, SequenceScorer]) -> None:
    with pytest.raises(Invalid):
        train(made[0], SequencePlan("vitals", series=5), training_set="t")
    data = made[1].files()["model.json"]
    for old, new in (
        (b'"width":8', b'"width":7'),
        (b'"series":3', b'"series":0'),
        (b'"kind":"sequence"', b'"kind":"?"'),
    ):
        with pytest.raises(Corrupt):
            scorers.read({"model.json": data.replace(old, new)})
