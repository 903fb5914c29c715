"""``carelake view`` over a real workspace: every format tells the same rows."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import stat
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

_spec = importlib.util.spec_from_file_location("apps_objects", Path(__file__).with_name("test_apps_objects.py"))
assert _spec is not None
assert _spec.loader is not None
_objects: Any = importlib.util.module_from_spec(_spec)
sys.modules["apps_objects"] = _objects
_spec.loader.exec_module(_objects)

PATIENTS = [
    {"resourceType": "Patient", "id": "a", "gender": "male", "name": [{"family": 'O"Hara, x', "given": ["J", "K"]}]},
    {"resourceType": "Patient", "id": "b", "birthDate": "1970-06", "name": [{"family": "Ünal"}, {"family": "Z"}]},
    {"resourceType": "Patient", "id": "c"},
]
VIEW = {
    "resourceType": "ViewDefinition",
    "name": "names",
    "status": "active",
    "resource": "Patient",
    "select": [
        {"column": [{"name": "id", "path": "getResourceKey()", "type": "id"}, {"name": "born", "path": "birthDate"}]},
        {
            "forEachOrNull": "name",
            "column": [
                {"name": "n", "path": "%rowIndex", "type": "integer"},
                {"name": "family", "path": "family", "type": "string"},
                {"name": "given", "path": "given", "type": "string", "collection": True},
            ],
        },
    ],
}
ROWS = [
    {"id": "a", "born": None, "n": 0, "family": 'O"Hara, x', "given": ["J", "K"]},
    {"id": "b", "born": "1970-06", "n": 0, "family": "Ünal", "given": []},
    {"id": "b", "born": "1970-06", "n": 1, "family": "Z", "given": []},
    {"id": "c", "born": None, "n": 0, "family": None, "given": None},
]


class Place:
    """A workspace with three patients in its lake, and the files of the test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "view.json").write_text(json.dumps(VIEW))
        (folder / "patients.ndjson").write_text("".join(json.dumps(one) + "\n" for one in PATIENTS))
        self.home = _objects.Home(folder)
        self.command("ingest", folder / "patients.ndjson")
        self.command("lake", "sync")

    def command(self, *words: str | Path, code: int = 0) -> bytes:
        done = self.home.run(*map(str, words))
        assert done.returncode == code, done.stderr
        return bytes(done.stdout) if code == 0 else str(done.stderr).encode()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("views"))


def ordered(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: (row["id"], int(row["n"])))


@pytest.mark.slow
def test_every_format_tells_the_same_rows(place: Place) -> None:
    command, run = place.command, ("view", "run", place.folder / "view.json", "--format")
    assert ordered(json.loads(command(*run, "json"))) == ROWS
    assert ordered([json.loads(line) for line in command(*run, "ndjson").splitlines()]) == ROWS
    assert ordered(pq.read_table(io.BytesIO(command(*run, "parquet"))).to_pylist()) == ROWS
    with pa.ipc.open_stream(command(*run, "arrow")) as stream:
        assert ordered(stream.read_all().to_pylist()) == ROWS
    told = ordered(list(csv.DictReader(io.StringIO(command(*run, "csv").decode(), newline=""))))
    assert [row["family"] for row in told] == ['O"Hara, x', "Ünal", "Z", ""]
    assert [row["given"] for row in told] == ['["J","K"]', "[]", "[]", ""]
    assert b"Z" in command(*run, "table")
    assert b"apps.format" in command(*run, "xlsx", code=2)


@pytest.mark.slow
def test_export_writes_files_for_the_owner_alone(place: Place) -> None:
    told = json.loads(
        place.command("view", "export", place.folder / "view.json", "--out", place.folder / "out", "--json")
    )
    assert told["views"] == [{"view": "names", "rows": 4, "file": "names.parquet"}]
    file = place.folder / "out" / "names.parquet"
    assert ordered(pq.read_table(file).to_pylist()) == ROWS
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.slow
def test_a_view_is_checked_without_data(place: Place, tmp_path: Path) -> None:
    (tmp_path / "view.json").write_text(json.dumps(VIEW))
    told = json.loads(place.command("view", "check", tmp_path / "view.json", "--json"))
    assert [column["type"] for column in told["columns"]] == ["id", "date", "integer", "string", "string"]
    (tmp_path / "wrong.json").write_text(json.dumps({**VIEW, "resource": "Patients"}))
    assert b"lake.view_definition" in place.command("view", "check", tmp_path / "wrong.json", code=2)
    assert b"apps.file" in place.command("view", "check", tmp_path / "none.json", code=4)


@pytest.mark.slow
def test_the_report_is_in_the_official_form(place: Place, tmp_path: Path) -> None:
    case = {"title": "ids", "view": {"resource": "Patient", "select": [{"column": [{"name": "i", "path": "id"}]}]}}
    tests = [{**case, "expect": [{"i": "a"}]}, {**case, "title": "wrong", "expect": []}]
    suite = {"title": "x", "resources": [{"resourceType": "Patient", "id": "a"}], "tests": tests}
    (tmp_path / "x.json").write_text(json.dumps(suite))
    told = json.loads(place.command("view", "report", tmp_path))
    assert told["x.json"]["tests"][0] == {"name": "ids", "result": {"passed": True}}
    assert told["x.json"]["tests"][1]["result"]["passed"] is False


@pytest.mark.slow
def test_a_view_that_is_kept_is_read_by_its_name(place: Place) -> None:
    told = json.loads(place.command("view", "materialise", place.folder / "view.json", "--json"))
    assert told == {"view": "names", "resource": "Patient", "state": "kept", "fresh": True, "rows": 4, "error": None}
    assert json.loads(place.command("view", "list", "--json")) == [told]
    done = place.home.run("view", "run", "NAMES", "--format", "json")
    assert ordered(json.loads(done.stdout)) == ROWS
    assert "kept of names" in done.stderr
    of_file = place.home.run("view", "run", str(place.folder / "view.json"), "--format", "json")
    assert "kept of names" in of_file.stderr, "the same view"
    asked = place.command("sql", "SELECT count(*) AS n FROM names WHERE family IS NOT NULL", "--json")
    assert json.loads(asked) == [{"n": 3}]
    (place.folder / "more.ndjson").write_text(json.dumps({"resourceType": "Patient", "id": "d"}) + "\n")
    place.command("ingest", place.folder / "more.ndjson")
    place.command("lake", "sync")
    assert len(json.loads(place.command("view", "run", "names", "--format", "json"))) == 5
    assert json.loads(place.command("view", "refresh", "--json")) == {}
    proof = json.loads(place.command("erase", "--patient", "a", "--reason", "they asked", "--json"))
    assert (proof["complete"], sum(proof["residue"].values())) == (True, 0)
    (told,) = json.loads(place.command("view", "list", "--json"))
    assert (told["state"], told["fresh"], told["rows"]) == ("kept", True, 4), "emptied, and filled again"
    left = json.loads(place.command("view", "run", "names", "--format", "json"))
    assert sorted(row["id"] for row in left) == ["b", "b", "c", "d"]
    place.command("view", "drop", "names")
    assert b"lake.no_such_view" in place.command("view", "run", "names", code=4)
    assert json.loads(place.command("view", "list", "--json")) == []
