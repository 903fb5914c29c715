"""The split: strangers tested later, nobody twice, nothing shared out without a label."""

from __future__ import annotations

from datetime import datetime, timedelta

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carelake.core.errors import Invalid
from carelake.features.split import Fractions, patient_group, split

DAY0 = datetime(2022, 1, 1)  # noqa: DTZ001 - UTC without a zone
MONTH = timedelta(days=30)


def table(rows: list[tuple[int, int, bool | None]]) -> pa.Table:
    return pa.table(
        {
            "subject_id": pa.array([f"p{who}" for who, _, _ in rows], pa.string()),
            "prediction_time": pa.array([DAY0 + timedelta(days=day) for _, day, _ in rows], pa.timestamp("us")),
            "label": pa.array([label for _, _, label in rows], pa.bool_()),
        }
    )


admissions = st.tuples(st.integers(0, 40), st.integers(0, 700), st.sampled_from([True, False, False, None]))


@settings(max_examples=80, deadline=None)
@given(rows=st.lists(admissions, max_size=60), seed=st.integers(0, 5))
def test_what_a_split_promises(rows: list[tuple[int, int, bool | None]], seed: int) -> None:
    made = split(table(rows), seed=seed)
    sets = made.sets.to_pylist()
    assert len(sets) == len(rows)
    patients: dict[int, set[str]] = {}
    for (who, day, label), chosen in zip(rows, sets, strict=True):
        if chosen is None:
            continue
        assert label is not None
        assert made.boundary is not None
        patients.setdefault(who, set()).add(chosen)
        at = DAY0 + timedelta(days=day)
        assert at > made.boundary if chosen == "test" else at + MONTH <= made.boundary
    assert all(len(chosen) == 1 for chosen in patients.values())
    assert sum(made.counts.values()) == len(rows)
    assert split(table(rows), seed=seed) == made


def test_shares_of_a_large_cohort_are_those_promised() -> None:
    rows = [(who, (who * 37 + turn * 331) % 1000, False) for who in range(4000) for turn in range(3)]
    counts = split(table(rows)).counts
    assert counts["test"] / len(rows) == pytest.approx(0.25, abs=0.02)
    assert counts["train"] / len(rows) == pytest.approx(0.19, abs=0.02)
    assert counts["calibration"] / len(rows) == pytest.approx(0.05, abs=0.015)


def test_a_patients_group_follows_from_seed_and_id_alone() -> None:
    fractions = Fractions()
    assert patient_group("p1", 1, fractions) == patient_group("p1", 1, fractions)
    assert {patient_group(f"p{n}", 1, fractions) for n in range(50)} == {"train", "calibration", "test"}
    assert any(patient_group(f"p{n}", 1, fractions) != patient_group(f"p{n}", 2, fractions) for n in range(20))


def test_no_labels_no_sets() -> None:
    made = split(table([(1, 5, None)]))
    assert (made.sets.to_pylist(), made.boundary) == ([None], None)


def test_impossible_shares_are_refused() -> None:
    for bad in ({"test_patients": 0.9, "calibration_patients": 0.2}, {"time": 1.0}, {"calibration_patients": 0.0}):
        with pytest.raises(Invalid):
            Fractions(**bad)
