"""MEDS in: rows of anybody's data set, checked by the standard's own schemas; and labels out."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import meds
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from carelake.audit.nouns import Nouns
from carelake.core.errors import Invalid
from carelake.core.permit import Permit
from carelake.features import trainingset
from carelake.features.datasets import design
from carelake.features.datasets.build import Lake
from carelake.features.datasets.meds import build, given, labels_of
from carelake.features.datasets.verify import verify
from carelake.lake.meds import labels as meds_labels

DAY0 = datetime(2022, 1, 1)  # noqa: DTZ001 - MEDS times are UTC without a zone
RECIPE = design.read("meds")
GRANTS = ("lake:read", "features:read", "features:write", "features:keep", "rows:read", "rows:write")


def at(days: float | None) -> datetime | None:
    return None if days is None else DAY0 + timedelta(days=days)


def events(rows: list[tuple[int, float | None, str, float | None]], **more: Any) -> pa.Table:
    plain = pa.table(
        {
            "subject_id": pa.array([one[0] for one in rows], pa.int64()),
            "time": pa.array([at(one[1]) for one in rows], pa.timestamp("us")),
            "code": pa.array([one[2] for one in rows], pa.string()),
            "numeric_value": pa.array([one[3] for one in rows], pa.float32()),
        }
    )
    for name, values in more.items():
        plain = plain.append_column(name, values)
    return meds.DataSchema.align(plain)


def write(folder: Path, *parts: pa.Table, splits: dict[int, str] | None = None) -> Path:
    (folder / "data" / "deep").mkdir(parents=True, exist_ok=True)
    (folder / "metadata").mkdir(exist_ok=True)
    for number, table in enumerate(parts):
        meds.DataSchema.validate(table)
        pq.write_table(table, folder / "data" / "deep" / f"{number}.parquet")
    if splits:
        told = meds.SubjectSplitSchema.align(pa.table({"subject_id": list(splits), "split": list(splits.values())}))
        pq.write_table(told, folder / "metadata" / "subject_splits.parquet")
    return folder


def label(folder: Path, rows: list[tuple[int, float, bool]]) -> Path:
    table = pa.table(
        {
            "subject_id": pa.array([one[0] for one in rows], pa.int64()),
            "prediction_time": pa.array([at(one[1]) for one in rows], pa.timestamp("us")),
            "boolean_value": [one[2] for one in rows],
        }
    )
    meds.LabelSchema.validate(table)
    pq.write_table(table, folder / "labels.parquet")
    return folder / "labels.parquet"


@pytest.fixture
def lake(vault: Any, permit_for: Callable[..., Permit]) -> Lake:
    return Lake(permit_for(*GRANTS), vault, Nouns(vault.clock))


ROWS_ONE = [(1, None, "HEIGHT", 170.0), (1, 1.0, "LAB//hb", 12.0), (1, 3.0, "LAB//hb", 9.0), (1, 3.0, "DX//x", None)]
ROWS_TWO = [(2, 2.0, "LAB//hb", 14.0), (2, 4.0, "LAB//na", 131.0)]
LABELS = [(2, 5.0, True), (1, 3.0, False), (1, 2.0, True), (9, 5.0, False), (2, 5.0, True)]
SPLITS = {1: "train", 2: "held_out", 9: "tuning"}


def test_rows_come_in_the_order_of_the_labels_from_all_files(lake: Lake, tmp_path: Path) -> None:
    folder = write(tmp_path, events(ROWS_ONE), events(ROWS_TWO), splits=SPLITS)
    said = given(folder, label(tmp_path, LABELS))
    assert said is not None
    made = build(lake, RECIPE, said)
    rows = made.table.to_pylist()
    assert [(row["subject_id"], row["label"], row["set"]) for row in rows] == [
        ("2", True, "test"), ("1", False, "train"), ("1", True, "train"), ("9", False, "calibration"),
        ("2", True, "test"),
    ]  # fmt: skip
    assert [row["c_LAB_hb__last"] for row in rows] == [14.0, 9.0, 12.0, None, 14.0]
    assert [row["c_LAB_hb__count"] for row in rows] == [1.0, 2.0, 1.0, None, 1.0]
    assert [row["c_HEIGHT__last"] for row in rows] == [None, 170.0, 170.0, None, None], "always known"
    assert build(lake, RECIPE, said).noun == made.noun
    told = verify(lake, made.noun.ref, said)
    assert (told["verified"], told["replayed"], told["problems"]) == (True, True, [])
    alone = verify(lake, made.noun.ref)
    assert (alone["verified"], alone["replayed"]) == (None, False)
    write(tmp_path, events(ROWS_ONE), events([(2, 2.0, "LAB//hb", 13.0), ROWS_TWO[1]]))
    told = verify(lake, made.noun.ref, said)
    assert told["verified"] is False
    assert told["problems"][0]["columns"] == {"c_LAB_hb__hash": 2}


def test_what_was_recorded_later_is_known_later(lake: Lake, tmp_path: Path) -> None:
    recorded = pa.array([at(2), at(9)], pa.timestamp("us"))
    facts = events([(1, 1.0, "LAB//hb", 12.0), (1, 3.0, "LAB//hb", 9.0)], recorded_time=recorded)
    folder = write(tmp_path, facts, splits={1: "train"})
    said = given(folder, label(tmp_path, [(1, 5.0, True), (1, 10.0, False), (1, 1.5, False)]))
    assert said is not None
    made = build(lake, RECIPE, said)
    assert made.table.column("c_LAB_hb__last").to_pylist() == [12.0, 9.0, None]


def test_labels_go_out_as_the_standard_has_them(lake: Lake, tmp_path: Path) -> None:
    said = given(write(tmp_path, events(ROWS_ONE), events(ROWS_TWO), splits=SPLITS), label(tmp_path, LABELS))
    assert said is not None
    made = build(lake, RECIPE, said)
    out = labels_of(lake, trainingset.load(lake.permit, lake.vault, made.noun))
    meds.LabelSchema.validate(out)
    pq.write_table(out, tmp_path / "out.parquet")
    back = meds_labels.read(str(tmp_path / "out.parquet"))
    found = [(one["subject_id"], one["prediction_time"], one["label"]) for one in back.to_pylist()]
    assert found == sorted((who, at(when), value) for who, when, value in LABELS)  # type: ignore[type-var]


@pytest.mark.parametrize("kind", ["integer_value", "float_value", "categorical_value"])
def test_other_kinds_of_labels_go_both_ways(tmp_path: Path, kind: str) -> None:
    values = {"integer_value": [3, 4], "float_value": [0.5, 1.5], "categorical_value": ["a", "b"]}[kind]
    told = pa.table(
        {
            "subject_id": pa.array([1, 2], pa.int64()),
            "prediction_time": pa.array([at(1), at(2)], pa.timestamp("us")),
            kind: pa.array(values, meds_labels.VALUES[kind]),
        }
    )
    meds.LabelSchema.validate(told)
    pq.write_table(told, tmp_path / "l.parquet")
    read = meds_labels.read(str(tmp_path / "l.parquet"))
    assert meds_labels.written(*read.columns).equals(told)


def test_what_is_no_meds_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "l.parquet").write_bytes(b"no")
    with pytest.raises(Invalid):
        given(tmp_path, None)
    with pytest.raises(Invalid):
        given(tmp_path / "data", tmp_path / "l.parquet")
    with pytest.raises(Invalid):
        meds_labels.read(str(tmp_path / "l.parquet"))
    both = pa.table({"subject_id": [1], "prediction_time": pa.array([at(1)], pa.timestamp("us")),
                     "boolean_value": [True], "integer_value": [1]})  # fmt: skip
    pq.write_table(both, tmp_path / "l.parquet")
    with pytest.raises(Invalid, match="one value column"):
        meds_labels.read(str(tmp_path / "l.parquet"))


def test_a_count_leaves_out_what_was_not_known_yet(lake: Lake, tmp_path: Path) -> None:
    recorded = pa.array([at(9), at(2), None], pa.timestamp("us"))
    facts = events([(1, 1.0, "LAB//hb", 12.0), (1, 2.0, "LAB//hb", 9.0), (1, 8.0, "LAB//hb", 8.0)])
    folder = write(tmp_path, facts.append_column("recorded_time", recorded), splits={1: "train"})
    said = given(folder, label(tmp_path, [(1, 5.0, True), (1, 8.5, False)]))
    assert said is not None
    made = build(lake, RECIPE, said)
    assert made.table.column("c_LAB_hb__last").to_pylist() == [9.0, 8.0]
    assert made.table.column("c_LAB_hb__count").to_pylist() == [1.0, 2.0]


def test_a_subject_in_two_files_is_refused(lake: Lake, tmp_path: Path) -> None:
    folder = write(tmp_path, events(ROWS_ONE), events(ROWS_ONE))
    said = given(folder, label(tmp_path, [(1, 5.0, True)]))
    assert said is not None
    with pytest.raises(Invalid, match="a subject is in two files"):
        build(lake, RECIPE, said)
