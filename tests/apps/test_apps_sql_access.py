"""`carelake sql --as PRINCIPAL --purpose P`: each role sees what it may, by commands as acceptance calls them."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import forked

_TESTS = Path(__file__).parents[1]


def _module(name: str, path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[name] = made
    spec.loader.exec_module(made)
    return made


_journeys = _module("sql_access_journeys", _TESTS / "journeys" / "conftest.py")
_data = _module("sql_access_data", _TESTS / "lake" / "seen_data.py")
CANARY = _data.CANARIES[0]
Run = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("sql-access")
    home = _journeys.Home(folder)
    home.json("init", home.workspace)

    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        done = forked.run(*arguments, env=home.environment)
        assert "Traceback" not in done.stderr
        return done

    feed = _data.Feed()
    _data.fill(feed, CANARY)
    lines = folder / "hospital.ndjson"
    lines.write_bytes(b"\n".join(one.body for one in feed.entries))
    assert command("ingest", str(lines), "--json").returncode == 0
    assert command("lake", "sync", "--json").returncode == 0
    for name, role in (("ana", "analyst"), ("rex", "researcher"), ("bill", "billing"), ("dev", "development")):
        assert command("principal", "add", name, "--role", role, "--account", "production", "--json").returncode == 0
    return command


def rows(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_an_analyst_counts_and_sees_no_small_cell(run: Run) -> None:
    text = "SELECT code, count(DISTINCT patient) AS n FROM deidentified.Condition GROUP BY code ORDER BY code"
    found = rows(run("sql", text, "--as", "ana", "--purpose", "HOPERAT", "--format", "json"))
    assert found == [{"code": "195662009", "n": 30}, {"code": "38341003", "n": 14}, {"code": "44054006", "n": 14}]
    done = run("sql", "SELECT * FROM deidentified.Patient", "--as", "ana", "--purpose", "HOPERAT", "--format", "csv")
    assert done.returncode == 2
    assert "[lake.cells]" in done.stderr
    done = run("sql", text, "--as", "ana", "--purpose", "TREAT", "--format", "json")
    assert done.returncode == 3


def test_a_researcher_sees_rows_without_whose_they_are(run: Run) -> None:
    done = run(
        "--as",
        "rex",
        "--purpose",
        "HRESCH",
        "sql",
        "SELECT * FROM Patient JOIN Condition USING (patient)",
        "--format",
        "json",
    )
    assert len(rows(done)) == 60
    assert CANARY not in done.stdout
    assert "p05" not in done.stdout
    status = rows(run("lake", "status", "--json", "--as", "rex", "--purpose", "HRESCH"))
    assert set(status["tables"].values()) == {None}


def test_billing_sees_names_and_no_results(run: Run) -> None:
    told = ("--as", "bill", "--purpose", "HPAYMT", "--format", "json")
    assert CANARY in run("sql", "SELECT name FROM Patient", *told).stdout
    for text in ("SELECT * FROM Observation", "SELECT telecom FROM Patient", "SELECT * FROM deidentified.Patient"):
        done = run("sql", text, *told)
        assert done.returncode == 2
        assert CANARY not in done.stderr


def test_development_sees_the_other_schema_alone(run: Run) -> None:
    done = run("sql", "SELECT * FROM main.Patient", "--as", "dev", "--purpose", "HOPERAT", "--format", "json")
    assert done.returncode == 2
    done = run("sql", "SELECT * FROM Patient", "--as", "dev", "--purpose", "HOPERAT", "--format", "json")
    assert len(rows(done)) == 30
    assert CANARY not in done.stdout


def test_the_operator_sees_both(run: Run) -> None:
    text = "SELECT (SELECT count(*) FROM Patient) AS a, (SELECT count(*) FROM deidentified.patients) AS b"
    assert rows(run("sql", text, "--format", "json")) == [{"a": 30, "b": 30}]
    done = run("sql", "SELECT name[1].family AS n FROM Patient LIMIT 1", "--format", "json")
    assert rows(done) == [{"n": CANARY}]


def test_the_trail_names_what_was_done_instead(run: Run) -> None:
    run("sql", "SELECT count(*) FROM Patient", "--as", "ana", "--purpose", "PUBHLTH", "--format", "json")
    acts = rows(run("audit", "list", "--json", "--principal", "ana"))
    acts = acts["acts"] if isinstance(acts, dict) else acts
    assert {one["action"] for one in acts} >= {"lake:analyse"}
