"""``carelake omop``, ``meds``, ``measure`` and the ready-made views, over a real workspace."""

from __future__ import annotations

import importlib.util
import json
import stat
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

_spec = importlib.util.spec_from_file_location("apps_objects", Path(__file__).with_name("test_apps_objects.py"))
assert _spec is not None
assert _spec.loader is not None
_objects: Any = importlib.util.module_from_spec(_spec)
sys.modules["apps_objects"] = _objects
_spec.loader.exec_module(_objects)


class Place:
    """A workspace with a synthetic hospital in its lake."""

    def __init__(self, folder: Path) -> None:
        from carelake.synth.generation import generate

        self.folder = folder
        generate(folder / "synth", patients=40, seed=11, workers=1)
        self.home = _objects.Home(folder)
        self.command("ingest", folder / "synth" / "fhir")
        self.command("lake", "sync")

    def command(self, *words: str | Path, code: int = 0) -> str:
        done = self.home.run(*map(str, words))
        assert done.returncode == code, done.stderr
        return done.stdout.decode() if code == 0 else str(done.stderr)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("measures"))


def test_omop_is_exported_and_validated(place: Place, tmp_path: Path) -> None:
    out = tmp_path / "omop"
    told = json.loads(place.command("omop", "export", "--out", out, "--json"))
    assert told["findings"] == []
    assert told["tables"]["person"] == 40
    assert {stat.S_IMODE(one.stat().st_mode) for one in out.glob("*/*")} == {0o600}
    assert "lake.export_there" in place.command("omop", "export", "--out", out, code=5)
    assert json.loads(place.command("omop", "validate", out, "--json")) == {"findings": []}
    next((out / "death").iterdir()).unlink()
    assert "omop.rules" in place.command("omop", "validate", out, code=2)


def test_meds_is_exported_and_validated(place: Place, tmp_path: Path) -> None:
    told = json.loads(place.command("meds", "export", "--out", tmp_path / "meds", "--json"))
    assert told["subjects"] == 40
    assert json.loads(place.command("meds", "validate", tmp_path / "meds", "--json")) == told


def test_measures_are_run_and_small_cells_left_out(place: Place, tmp_path: Path) -> None:
    listed = json.loads(place.command("measure", "list", "--json"))
    assert {one["name"] for one in listed["measures"]} >= {"readmission", "ed-use", "diabetes-control"}
    run = ("measure", "run", "ed-use", "--period", "2022")
    told = json.loads(place.command(*run, "--threshold", "0", "--json"))
    assert told["population"]["denominator"] > 20
    assert told["simplified"]
    few = json.loads(place.command(*run, "--json"))
    assert few["threshold"] == 11
    assert any(cell == {"hidden": True} for cells in few["strata"].values() for cell in cells.values())
    report = json.loads(place.command(*run, "--format", "fhir"))
    assert (report["resourceType"], report["period"]["end"]) == ("MeasureReport", "2022-12-31")
    assert "people" in place.command("measure", "run", "population", "--period", "2022-Q1")
    assert "measures.no_such_measure" in place.command("measure", "run", "x", "--period", "2022", code=4)
    (tmp_path / "sets.toml").write_text("[x")
    assert "measures.value_sets" in place.command(*run, "--value-sets", tmp_path / "sets.toml", code=2)


def test_ready_made_views_are_listed_shown_and_run(place: Place) -> None:
    listed = json.loads(place.command("view", "list", "--ready", "--json"))
    assert {"name": "specimen", "resource": "Specimen", "title": "One row per specimen."} in listed
    assert json.loads(place.command("view", "show", "patient"))["resource"] == "Patient"
    assert "lake.no_such_view" in place.command("view", "show", "nothing", code=4)
    rows = json.loads(place.command("view", "run", "patient", "--json"))
    assert len(rows) == 40
    assert {row["race"] for row in rows} <= {"2106-3", "2054-5", "2028-9", "1002-5", "2076-8", "2131-1", None}
    columns = json.loads(place.command("view", "check", "blood_pressure", "--json"))["columns"]
    assert {"systolic", "diastolic"} <= {one["name"] for one in columns}


@pytest.mark.slow
def test_data_sets_are_built_verified_and_go_through_meds(place: Place, tmp_path: Path) -> None:
    out = tmp_path / "rows.parquet"
    told = json.loads(place.command("dataset", "build", "readmission", "--out", out, "--json"))
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    rows = pq.read_table(out)
    assert len(rows) == told["rows"] > 10
    assert set(told["features"]) <= set(rows.column_names)
    assert json.loads(place.command("dataset", "verify", told["ref"], "--json"))["verified"] is True
    assert [one["ref"] for one in json.loads(place.command("dataset", "list", "--json"))] == [told["ref"]]
    # Out as MEDS and in again: the same rows, of the same patients.
    place.command("meds", "export", "--out", tmp_path / "meds")
    place.command("dataset", "labels", told["ref"], "--out", tmp_path / "labels.parquet")
    given = ("--meds", tmp_path / "meds", "--labels", tmp_path / "labels.parquet")
    made = json.loads(place.command("dataset", "build", "meds", *given, "--out", tmp_path / "back.parquet", "--json"))
    back = pq.read_table(tmp_path / "back.parquet")
    assert made["attrition"]["labels"] == len(rows)
    same = {(one["subject_id"], one["prediction_time"], one["label"]) for one in rows.to_pylist()}
    assert {(one["subject_id"], one["prediction_time"], one["label"]) for one in back.to_pylist()} == same
    assert json.loads(place.command("dataset", "verify", made["ref"], *given, "--json"))["verified"] is True
    assert "datasets.no_such_recipe" in place.command("dataset", "build", "nothing", code=4)
