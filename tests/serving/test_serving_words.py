"""Reasons in words, and the rows of a morning list."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from carelake.serving import predictions, words, worklist


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("n_admissions_12m", "number of admissions in the last 12 months"),
        ("los_days", "length of stay days"),
        ("creatinine_24h", "creatinine in the last 24 hours"),
        ("age", "age"),
    ],
)
def test_a_name_is_spelled_out(name: str, said: str) -> None:
    assert words.label(name, {}) == said
    assert words.label(name, {name: "Told"}) == "Told"


def test_reasons_are_the_largest_parts_in_order() -> None:
    row, parts = np.asarray([1.0, np.nan, 2.345678, 0.0]), np.asarray([0.1, -0.5, 0.3, 0.0])
    found = words.reasons(["a", "b", "c", "d"], row, parts, {}, most=3)
    assert [(r.feature, r.value, r.direction) for r in found] == [
        ("b", "not known", "lowers"),
        ("c", "2.346", "raises"),
        ("a", "1", "raises"),
    ]
    assert words.sentence(found) == "b: not known lowers the risk; c: 2.346 raises the risk; a: 1 raises the risk."
    assert len(words.reasons(["a", "b", "c", "d"], row, parts, {})) == 3


def test_bands_meet_at_the_threshold() -> None:
    assert [predictions.band(p, 0.2) for p in (0.2, 0.1999, 0.1, 0.0999)] == ["high", "moderate", "moderate", "low"]


@pytest.mark.parametrize(("model", "readmitted"), [("readmission v3", True), ("deterioration v1", False)])
def test_an_assessment_says_what_its_own_model_predicts(model: str, readmitted: bool) -> None:
    at, told = datetime(2026, 1, 1, tzinfo=UTC), "RiskAssessment/r1"
    one = predictions.Prediction("ref", "endpoint:1", "model:1", "p1", "e1", at, 0.25, 0.2, True, (), {}, told)
    made = predictions.risk_assessment(one, model)
    outcome = made["prediction"][0]["outcome"]["text"]
    assert ("readmission" in outcome, "readmission" in made["code"]["text"]) == (readmitted, readmitted)
    assert ("deterioration" in outcome) is not readmitted


def _rows() -> pa.Table:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    return pa.table(
        {
            "subject_id": ["a", "b", "a", "c", "b"],
            "encounter_id": ["1", "2", "3", "4", "5"],
            "prediction_time": pa.array(
                [start + timedelta(days=d) for d in (0, 1, 5, 9, 1)], pa.timestamp("us", "UTC")
            ),
        }
    )


def test_the_newest_row_of_each_patient_is_taken() -> None:
    assert worklist.latest(_rows()).column("encounter_id").to_pylist() == ["2", "3", "4"]
    assert worklist.of_patient(_rows(), "b").column("encounter_id").to_pylist() == ["2"]
    assert worklist.of_patient(_rows(), "nobody").num_rows == 0


def test_the_morning_list_holds_the_last_days_and_no_future() -> None:
    now = datetime(2026, 1, 7, tzinfo=UTC)
    assert worklist.morning_list(_rows(), now, 3).column("encounter_id").to_pylist() == ["3"]
    assert worklist.morning_list(_rows(), now, 7).column("subject_id").to_pylist() == ["b", "a"]
