"""The logistic regression, against scikit-learn and at its edges."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from carelake.models.logistic import Linear, fit_linear, logit, newton, sigmoid


def _data(n: int = 2_000, seed: int = 5) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    x = random.normal(size=(n, 6))
    return x, random.random(n) < sigmoid(x @ np.asarray([1, -0.5, 0.2, 0, 0, 0.3]) - 1.5)


def test_the_penalised_fit_is_that_of_scikit_learn() -> None:
    x, y = _data()
    model = LogisticRegression(C=0.1, tol=1e-10, max_iter=1000).fit(x, y)
    found = newton(np.column_stack([np.ones(len(x)), x]), y, penalty=np.asarray([0.0, *[10.0] * 6]))
    assert found[1:] == pytest.approx(model.coef_[0], abs=1e-4)
    assert found[0] == pytest.approx(model.intercept_[0], abs=1e-4)


def test_an_offset_and_a_centre_are_kept_to() -> None:
    x, y = _data()
    known = x[:, :1] * 1.0
    found = newton(np.ones((len(x), 1)), y, offset=known[:, 0])
    assert sigmoid(found[0] + known[:, 0]).mean() == pytest.approx(y.mean(), abs=1e-8)
    held = newton(np.column_stack([np.ones(len(x)), x[:, 0]]), y, penalty=[0.0, 1e9], centre=[0.0, 0.25])
    assert held[1] == pytest.approx(0.25, abs=1e-4)


def test_separable_outcomes_end_finite() -> None:
    x = np.linspace(-1, 1, 50)[:, None]
    found = newton(np.column_stack([np.ones(50), x]), x[:, 0] > 0)
    assert np.isfinite(found).all()


def test_missing_constant_and_absurd_values_do_no_harm() -> None:
    x, y = _data()
    x = np.column_stack([x, np.full(len(x), 3.0), np.full(len(x), np.nan)])
    x[y, 3] = np.nan  # missing tells all
    linear = fit_linear(x, y)
    assert linear.missing[3] > 1.0
    assert linear.coefficients[6] == linear.coefficients[7] == 0.0
    wild = np.full((1, 8), 1e30)
    assert np.isfinite(linear.score(wild)).all()
    assert linear.parts(x).sum(axis=1) + linear.intercept == pytest.approx(linear.score(x))
    assert isinstance(linear, Linear)


def test_logit_undoes_sigmoid() -> None:
    score = np.linspace(-15, 15, 101)
    assert logit(sigmoid(score)) == pytest.approx(score, abs=1e-6)
    assert np.isfinite(logit(np.asarray([0.0, 1.0]))).all()
