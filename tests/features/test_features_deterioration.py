"""Deterioration from vital signs: labels are the simulator's truth, and the early warning score sees it coming."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from carelake.core import canonical
from carelake.core.settings import LakeSettings
from carelake.features.datasets import design, make, shelf, sources
from carelake.features.leaks import auroc
from carelake.lake.flat import _flat
from carelake.synth import generate

RECIPE = design.read("deterioration")
DAY = timedelta(days=1)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[make.Made, dict[str, dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("vitals") / "out"
    written = generate(folder, patients=90, seed=12, workers=1, vitals=True)
    lines = (canonical.load(line) for file in written.files for line in file.read_bytes().splitlines())
    bodies: dict[str, list[tuple[str, str]]] = {}
    for one in lines:
        bodies.setdefault(one["resourceType"], []).append((one["id"], canonical.dump(one).decode()))
    views = [shelf.view(name) for name in ("encounters", "observations", "patients", "places")]
    tables: Mapping[str, pa.Table] = {one.name: _flat(one, bodies[one.resource], None) for one in views}
    end = datetime(2024, 1, 1)  # noqa: DTZ001 - UTC without a zone, as the views
    rows = make.of_design(RECIPE, tables, lambda one: pa.table({}), data_end=end, limits=LakeSettings())
    truth = pq.read_table(written.truth["admissions"]).to_pylist()
    return rows, {row["encounter_id"]: row for row in truth}


def test_labels_are_the_truth(made: tuple[make.Made, dict[str, dict[str, Any]]]) -> None:
    rows, truth = made
    positives = 0
    for row in rows.table.to_pylist():
        told = truth.get(row["encounter_id"])
        if told is None or row["label"] is None:
            continue
        when = row["prediction_time"]
        ends = [
            told["deteriorated_at"] if told["deteriorated"] else None,
            told["discharged"] if told["died"] else None,
        ]
        moved, died = (None if one is None else one.replace(tzinfo=None) for one in ends)
        assert moved is None or when < moved, "nobody is asked about in intensive care"
        near = any(one is not None and when < one <= when + DAY for one in (moved, died))
        if near:
            assert row["label"] is True
            positives += 1
        elif row["label"]:
            assert row["outcome_time"] > told["discharged"].replace(tzinfo=None), "of a later stay or at home"
    assert positives > 20
    assert rows.attrition["intensive_care"] > 0


def test_nothing_after_the_prediction_is_in_the_windows(made: tuple[make.Made, dict[str, dict[str, Any]]]) -> None:
    rows, _ = made
    proved = rows.prove(lambda data: bytes(32))
    when = rows.table.column("prediction_time").cast(pa.timestamp("us", "UTC"))
    for name in proved.column_names:
        if name.endswith("_time"):
            late = pc.greater(proved.column(name), when)
            assert not pc.any(late).as_py(), name
    low, last = (rows.table.column(f"heart_rate__{name}") for name in ("min_24h", "last"))
    assert pc.all(pc.less_equal(low, last)).as_py()


def test_the_score_sees_it_coming_and_not_all_of_it(made: tuple[make.Made, dict[str, dict[str, Any]]]) -> None:
    rows, _ = made
    known = pc.is_valid(rows.table.column("label"))
    table = rows.table.filter(known)
    y = table.column("label").to_numpy(zero_copy_only=False)
    score = pc.fill_null(table.column("news2"), 0.0).to_numpy()
    assert 0.65 < auroc(y, score) < 0.95
    assert 0.002 < float(np.mean(y)) < 0.05


def test_a_change_is_from_a_value_that_was_known() -> None:
    group = next(one for one in RECIPE.groups if one.name == "heart_rate")
    schema = shelf.view("observations").empty.schema
    said = {"subject_id": "p", "code": "8867-4", "status": "final", "component": 0}
    start = datetime(2026, 1, 1)  # noqa: DTZ001 - UTC without a zone, as the views
    rows = [
        {"observation_id": str(at), "time": start + at * DAY, "issued": start + issued * DAY, "value": value, **said}
        for at, issued, value in ((0, 0, 70.0), (2, 9, 60.0), (4, 4, 80.0), (6, 6, 85.0))
    ]
    table = pa.Table.from_pylist([{**dict.fromkeys(schema.names), **one} for one in rows], schema)
    found = sources.select(group.sql, {"observations": table}, LakeSettings(), "heart_rate").sort_by("event_time")
    assert found.column("change").to_pylist() == [None, -10.0, None, 5.0], "the value of day 2 came on day 9"


def test_a_death_of_which_the_day_is_known_is_not_before_it() -> None:
    start = datetime(2026, 3, 4)  # noqa: DTZ001 - UTC without a zone, as the views
    rows = {
        "patients": [
            {"subject_id": "exact", "deceased_time": start + DAY / 2, "deceased_day_only": False},
            {"subject_id": "stay", "deceased_time": start, "deceased_day_only": True},
            {"subject_id": "home", "deceased_time": start, "deceased_day_only": True},
            {"subject_id": "alive", "deceased_time": None, "deceased_day_only": False},
        ],
        "encounters": [
            {"subject_id": "stay", "end_time": start + DAY * 0.7, "discharge_disposition": "exp"},
            {"subject_id": "home", "end_time": start + DAY / 4, "discharge_disposition": "home"},
            {"subject_id": "exact", "end_time": start + DAY * 0.9, "discharge_disposition": "exp"},
        ],
        "places": [],
    }
    schemas = {name: shelf.view(name).empty.schema for name in rows}
    tables = {
        name: pa.Table.from_pylist([{**dict.fromkeys(schemas[name].names), **one} for one in said], schemas[name])
        for name, said in rows.items()
    }
    assert RECIPE.design is not None
    found = sources.select(RECIPE.design.outcome, tables, LakeSettings(), "outcome").to_pylist()
    assert {one["subject_id"]: one["time"] for one in found} == {
        "exact": start + DAY / 2,
        "stay": start + DAY * 0.7,
        "home": start + DAY - timedelta(microseconds=1),
    }
