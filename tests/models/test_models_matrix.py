"""Reading a training set into arrays, and refusing what is none."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from carelake.core.errors import Invalid
from carelake.models import matrix


def _table(**columns: list[object]) -> pa.Table:
    said = {
        "subject_id": ["a", "b", "a"],
        "label": [True, False, True],
        "set": ["train", "test", "train"],
        "x": [1.0, None, 0.1],
        "flag": [True, None, False],
        "n": [1, None, 2**40],
    }
    return pa.table({**said, **columns})


def test_values_are_read_by_name_with_missing_as_nan_and_single_precision() -> None:
    data = matrix.rows(_table(lace=[3, None, 19], sex=["male", None, ""]), ["n", "x", "flag"])
    assert np.isnan(data.x[1]).all()
    assert data.x[2, 1] == float(np.float32(0.1))
    assert data.x[0].tolist() == [1.0, 1.0, 1.0]
    assert data.subject[0] == data.subject[2] != data.subject[1]
    assert np.isnan(data.scores["lace"][1])
    assert data.groups["sex"].tolist() == ["male", "unknown", "unknown"]
    assert (len(data.part("train")), data.events) == (2, 2)


def test_rows_that_no_set_uses_are_left_out() -> None:
    data = matrix.rows(_table(set=["train", None, "train"], label=[True, None, False]), ["x"])
    assert (len(data), data.events) == (2, 1)


@pytest.mark.parametrize(
    ("change", "names", "code"),
    [
        ({}, ["y"], "models.feature_missing"),
        ({}, ["x", "x"], "models.feature_names"),
        ({}, [], "models.feature_names"),
        ({"x": ["secret", "b", "c"]}, ["x"], "models.feature_type"),
        ({"x": [float("inf"), 1.0, 2.0]}, ["x"], "models.feature_infinite"),
        ({"x": [1e300, 1.0, 2.0]}, ["x"], "models.feature_infinite"),
        ({"label": [True, None, False]}, ["x"], "models.label"),
        ({"set": ["train", "other", "test"]}, ["x"], "models.set"),
    ],
)
def test_what_is_no_training_set_is_refused_without_its_values(change: dict, names: list[str], code: str) -> None:
    with pytest.raises(Invalid) as caught:
        matrix.rows(_table(**change), names)
    assert caught.value.code == code
    assert "secret" not in caught.value.message
