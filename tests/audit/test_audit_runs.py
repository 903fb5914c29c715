"""Patients of sealed acts in sorted runs: found as before, whatever was gathered when and broken off where."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.audit.conftest import Ward

from carelake.audit import runs
from carelake.audit.readings import Acts, Filter


def name(number: int) -> str:
    return f"patient:{(number * 37 % 256):02x}{number:062x}"


def found(ward: Ward, number: int) -> list[int]:
    with ward.vault.database.ledger_reading() as connection:
        return [told["seq"] for told in Acts(connection).find(Filter(patient=name(number)))]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "ACTS", 4)
    monkeypatch.setattr(runs, "_ROWS", 6)


@pytest.mark.usefixtures("small")
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(steps=st.lists(st.sets(st.integers(0, 7), max_size=5) | st.none(), max_size=30))
def test_acts_of_a_patient_are_found_in_runs_and_after_them(ward: Ward, steps: list[set[int] | None]) -> None:
    before = ward.rows("SELECT count(*) FROM act")[0][0]
    wanted: dict[int, list[int]] = {number: found(ward, number) for number in range(8)}
    seq = before
    for step in steps:
        if step is None:
            ward.seal()
            continue
        seq += 1
        ward.act(1, *map(name, step))
        for number in step:
            wanted[number].insert(0, seq)
    assert {number: found(ward, number) for number in range(8)} == wanted
    assert ward.verify().problems == ()
    ward.seal()
    last = ward.rows("SELECT coalesce(max(last), 0) FROM patient_run")[0][0]
    assert seq - last < 4
    assert {number: found(ward, number) for number in range(8)} == wanted
    assert ward.verify().problems == ()


@pytest.mark.usefixtures("small")
def test_a_run_that_was_broken_off_is_written_anew(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(9):
        ward.act(1, name(number % 3))
    fill, parts = runs.fill, []

    def breaks(connection: Any, run: runs.Run, part: int) -> None:
        fill(connection, run, part)
        parts.append(part)
        if len(parts) == 5:
            raise ZeroDivisionError

    monkeypatch.setattr(runs, "fill", breaks)
    with pytest.raises(ZeroDivisionError):
        ward.seal()
    assert ward.rows("SELECT count(*) FROM patient_run")[0][0] == 0
    assert found(ward, 0) == [7, 4, 1]
    assert ward.verify().intact
    ward.act(1, name(0))
    ward.seal()
    assert ward.rows("SELECT number, first, last FROM patient_run") == [(1, 1, 4), (2, 5, 8)]
    assert found(ward, 0) == [10, 7, 4, 1]
    assert ward.verify().intact


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM patient_act WHERE seq = 2",
        "UPDATE patient_act SET seq = 3 WHERE seq = 2",
        "UPDATE patient_act SET run = 2 WHERE seq = 2",
        "INSERT INTO patient_act VALUES (1, zeroblob(32), 2)",
        "DELETE FROM patient_run WHERE number = 1",
        "UPDATE patient_run SET last = 9 WHERE number = 2",
        "UPDATE patient_run SET first = 4 WHERE number = 2",
    ],
)
def test_a_changed_run_is_found(ward: Ward, sql: str) -> None:
    for number in range(9):
        ward.act(1, name(number))
    ward.seal()
    assert ward.verify().intact
    ward.sql(sql)
    assert {one.kind for one in ward.verify().problems} == {"act"}


def test_a_phase_is_found_by_its_index(ward: Ward) -> None:
    ward.act(3)
    query = Filter(phase="refused")
    with ward.vault.database.ledger_reading() as connection:
        assert Acts(connection).find(query) == []
        sql = "EXPLAIN QUERY PLAN SELECT * FROM act WHERE phase = ? AND phase != 'done' ORDER BY seq DESC LIMIT 9"
        plan = str(connection.exec_driver_sql(sql, ("refused",)).all())
        assert "act_phase" in plan
        assert len(Acts(connection).find(Filter(phase="done"))) == 3
