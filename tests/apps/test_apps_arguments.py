"""Global options may stand anywhere; errors have one translation."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from carelake.apps.cli import session
from carelake.apps.cli.arguments import hoist
from carelake.apps.errors import exit_code, outcome_of, problem_of, status_of
from carelake.apps.wiring import read_settings
from carelake.core import errors


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (["search", "Patient", "--as", "x"], ["--as", "x", "search", "Patient"]),
        (["-w", "D", "run", "--json", "--purpose=TREAT"], ["-w", "D", "--purpose=TREAT", "run", "--json"]),
        (["ingest", "--", "--as"], ["ingest", "--", "--as"]),
        (["search", "--as"], ["--as", "search"]),
        (["search", "--purpose", ""], ["--purpose", "", "search"]),
        ([], []),
    ],
)
def test_global_options_are_moved_to_the_front(typed: list[str], meant: list[str]) -> None:
    assert hoist(typed) == meant


KINDS = [getattr(errors, name) for name in errors.__all__]


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_has_an_exit_code_a_status_and_an_outcome(kind: type[errors.CarelakeError]) -> None:
    error = kind("room.reason", "What happened; what to do.")
    assert 1 <= exit_code(error) <= 7
    assert 400 <= status_of(error) < 600
    assert outcome_of(error)["issue"][0]["diagnostics"] == "What happened; what to do."
    assert problem_of(error)["code"] == "room.reason"


def test_the_documented_exit_codes_are_the_real_ones() -> None:
    assert errors.__dict__["__doc__"] is not None
    for name, code in [
        ("Invalid", 2),
        ("Refused", 3),
        ("NotFound", 4),
        ("Conflict", 5),
        ("Corrupt", 6),
        ("Unavailable", 7),
    ]:
        assert exit_code(getattr(errors, name)("a.b", "c")) == code


def test_an_unknown_fault_says_nothing_of_its_text() -> None:
    fault = ValueError("Jane Doe 1970-01-01")
    assert "Jane" not in str(outcome_of(fault))
    assert "Jane" not in str(problem_of(fault))
    assert status_of(fault) == 500
    assert exit_code(fault) == 1
    assert exit_code(KeyboardInterrupt()) == 130


def test_a_path_that_cannot_be_written_is_the_callers_to_mend(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, out = tmp_path / "table.parquet", tmp_path / "table.parquet" / "out"
    pq.write_table(pa.table({"age": [1.0, 2.0]}), table)
    asked = {"before": table, "after": table, "owner": None, "out": out}
    with pytest.raises(SystemExit) as ended:
        session.run("monitors:compare", session.Options(), opens=False, json_out=True, **asked)
    told = json.loads(capsys.readouterr().err)["error"]
    assert (ended.value.code, told["code"], told["exit"]) == (2, "apps.no_such_path", 2)
    assert str(tmp_path) not in told["message"]


def test_a_file_is_no_workspace(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(errors.NotFound, match="no workspace here"):
        read_settings(tmp_path / "file", {})
