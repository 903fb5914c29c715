"""Metrics against scikit-learn, brute force, and risks whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score, roc_curve

from carelake.models import metrics
from carelake.models.logistic import logit

_RISKS = st.lists(
    st.tuples(st.booleans(), st.sampled_from([0.01, 0.1, 0.1001, 0.25, 0.5, 0.75, 0.99]) | st.floats(0.001, 0.999)),
    min_size=2,
    max_size=60,
).filter(lambda pairs: len({y for y, _ in pairs}) == 2)


def _arrays(pairs: list[tuple[bool, float]]) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray([y for y, _ in pairs]), np.asarray([p for _, p in pairs])


@given(_RISKS)
def test_auroc_is_the_share_of_pairs_in_order(pairs: list[tuple[bool, float]]) -> None:
    y, p = _arrays(pairs)
    won = [(a > b) + (a == b) / 2 for a in p[y] for b in p[~y]]
    assert metrics.auroc(y, p) == pytest.approx(np.mean(won), abs=1e-12)
    assert metrics.auroc(y, p) == pytest.approx(roc_auc_score(y, p), abs=1e-12)


@given(_RISKS)
def test_auprc_and_brier_are_those_of_scikit_learn(pairs: list[tuple[bool, float]]) -> None:
    y, p = _arrays(pairs)
    assert metrics.auprc(y, p) == pytest.approx(average_precision_score(y, p), abs=1e-12)
    raw, scaled = metrics.brier(y, p)
    assert raw == pytest.approx(brier_score_loss(y, p), abs=1e-12)
    assert metrics.brier(y, np.full(len(y), y.mean()))[1] == pytest.approx(0.0, abs=1e-12)
    assert scaled <= 1.0


@given(_RISKS, st.floats(0.02, 0.9))
def test_net_benefit_and_alert_by_counting(pairs: list[tuple[bool, float]], at: float) -> None:
    y, p = _arrays(pairs)
    hit = sum(1 for a, b in pairs if a and b >= at)
    miss = sum(1 for a, b in pairs if not a and b >= at)
    found = metrics.net_benefit(y, p, [at])[0]
    assert found["model"] == pytest.approx(hit / len(y) - miss / len(y) * at / (1 - at))
    told = metrics.alert(y, p, at)
    assert told["sensitivity"] == pytest.approx(hit / y.sum())
    assert (told["ppv"] is None) == (hit + miss == 0)
    assert (told["nne"] is None) == (hit == 0)
    if hit:
        assert told["nne"] == pytest.approx((hit + miss) / hit)


def _sample(n: int = 20_000, seed: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    score = random.normal(-1.7, 0.9, n)
    truth = 1 / (1 + np.exp(-score))
    return random.random(n) < truth, truth, score


def test_calibration_of_true_risks_is_perfect_within_chance() -> None:
    y, truth, _ = _sample()
    slope, intercept = metrics.calibration_line(y, truth)
    assert slope == pytest.approx(1.0, abs=0.07)
    assert intercept == pytest.approx(0.0, abs=0.06)
    assert metrics.ici(y, truth) < 0.008


@pytest.mark.parametrize(("stretch", "shift"), [(2.0, 0.0), (0.5, 0.0), (1.0, 0.7)])
def test_a_known_miscalibration_is_measured(stretch: float, shift: float) -> None:
    y, _, score = _sample()
    p = 1 / (1 + np.exp(-(stretch * score + shift)))
    slope, intercept = metrics.calibration_line(y, p)
    assert slope == pytest.approx(1 / stretch, rel=0.08)
    if stretch == 1.0:
        assert intercept == pytest.approx(-shift, abs=0.07)
    assert metrics.ici(y, p) > 0.03


def test_the_slope_is_that_of_an_unpenalised_regression() -> None:
    y, truth, _ = _sample(2_000)
    p = truth**1.3
    model = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(logit(p, 1e-6)[:, None], y)
    assert metrics.calibration_line(y, p)[0] == pytest.approx(model.coef_[0, 0], abs=1e-4)


def test_equal_risks_have_no_slope_and_do_not_fail() -> None:
    y = np.asarray([True, False, False, True])
    p = np.full(4, 0.5)
    slope, intercept = metrics.calibration_line(y, p)
    assert np.isnan(slope)
    assert intercept == pytest.approx(0.0, abs=1e-6)
    assert metrics.ici(y, p) == pytest.approx(0.0, abs=1e-3)
    assert metrics.auroc(y, p) == 0.5


def test_curve_bins_hold_all_rows_and_their_intervals_hold_the_truth() -> None:
    y, truth, _ = _sample()
    bins = metrics.calibration_curve(y, truth)
    assert sum(b["n"] for b in bins) == len(y)
    assert sum(b["low"] <= b["predicted"] <= b["high"] for b in bins) >= 8
    assert all(b["low"] <= b["observed"] <= b["high"] for b in bins)


def test_roc_points_lie_on_the_curve() -> None:
    y, truth, _ = _sample(3_000)
    false, true, _ = roc_curve(y, truth, drop_intermediate=False)
    for x, t in metrics.roc(y, truth):
        assert t == pytest.approx(np.interp(x, false, true), abs=0.01)


@settings(max_examples=20)
@given(st.floats(0.0, 1.0), st.integers(1, 500))
def test_wilson_stays_inside(rate: float, n: int) -> None:
    low, high = metrics.wilson(rate, n)
    assert -1e-9 <= low <= rate + 1e-9
    assert rate - 1e-9 <= high <= 1 + 1e-9
