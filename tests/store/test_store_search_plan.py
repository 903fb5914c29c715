"""What SQLite does with the statements: nothing reads a whole table, and pages stream where they should."""

from __future__ import annotations

from typing import Any

import pytest
from tests.store.search_oracle import hospital

from carelake.store.search import plan
from carelake.store.search.building import Build

SEARCHES = [
    "Observation?code=a&subject=Patient/1",
    "Observation?code=http://loinc.org|a&status=final&date=ge2020&_sort=-date",
    "Observation?patient=1&category=vital-signs&date=ge2020&date=lt2024&_sort=-date",
    "Observation?code=a,b&value-quantity=gt1|http://unitsofmeasure.org|mg",
    "Observation?component-code-value-quantity=a$gt0&date=ge2020",
    "Observation?patient=1&_lastUpdated=ge2020",
    "Observation?subject:Patient.identifier=urn:m|m1&code=a",
    "Observation?encounter.patient.gender=male&status=final",
    "Observation?_has:Observation:has-member:status=final&code=a",
    "Observation?status:not=final&code:not=a&subject:missing=false",
    "Observation?_sort=code,-date&status=final",
    "Observation?date:missing=true&_sort=-_lastUpdated",
    "Patient?name=smith&birthdate=ge1990&_sort=family,given",
    "Patient?_has:Observation:patient:code=a&gender=female",
    "Patient?_id=1,2&_revinclude=Observation:patient&_include=Patient:general-practitioner",
    "Encounter?date=ge2020-02-28&date=lt2020-03-01",
    "ValueSet?url:below=http://a/b&_text=bone",
]


@pytest.fixture(params=["gathered", "walked"])
def told(request: Any, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str]]]:
    """Every statement with its plan."""
    if request.param == "walked":
        monkeypatch.setattr(plan, "FEW", 1)
        monkeypatch.setattr(plan, "_LEAST_ROOM", 1)
        monkeypatch.setattr(plan, "_root", lambda number: 1)
    found: list[tuple[str, list[str]]] = []
    run = Build.run

    def explained(self: Build, tx: Any, text: str) -> Any:
        rows = tx.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", tuple(self._values)).all()
        found.append((text, [row[3] for row in rows]))
        return run(self, tx, text)

    monkeypatch.setattr(Build, "run", explained)
    return found


@pytest.mark.parametrize("text", SEARCHES)
def test_nothing_reads_a_whole_table(record: Any, told: list[tuple[str, list[str]]], text: str) -> None:
    record.keep(*hospital(3))
    record.search(text)
    record.search(f"{text}&_total=accurate&_count=3")
    assert told
    for statement, steps in told:
        tables = [
            alias for word, alias in zip(statement.split(), statement.split()[1:], strict=False) if word in TABLES
        ]
        scanned = [step for step in steps if step.startswith("SCAN ") and step.split()[1] in tables]
        assert not scanned, statement


TABLES = {
    f"ix_{name}" for name in ("token", "string", "date", "quantity", "reference", "uri", "part", "word", "owner")
}
TABLES |= {"resource", "resource_version"}


@pytest.mark.parametrize(
    "text",
    [
        "Observation?status=final",
        "Observation?code=a,b&status=final",
        "Observation?subject:Patient.gender=female&status=final",
        "Observation?code=http://loinc.org|a&_sort=-date",
        "Observation?code=http://loinc.org|a&_sort=date",
        "Observation?_sort=-_lastUpdated&status=final",
        "Patient?_has:Observation:patient:status=final&gender=female",
    ],
)
@pytest.mark.parametrize("told", ["walked"], indirect=True)
def test_large_answers_stream(record: Any, told: list[tuple[str, list[str]]], text: str) -> None:
    """The page stops when it is full: no step of its statement gathers everything first."""
    record.keep(*hospital(3))
    record.search(f"{text}&_count=2")
    statement, steps = next(
        (s, p) for s, p in told if "LIMIT" in s and "SELECT (SELECT count" not in s and "s.v" not in s
    )
    assert not [step for step in steps if "TEMP B-TREE FOR ORDER BY" in step or "DISTINCT" in step], (
        statement,
        steps,
    )


def test_seqs_are_probed_not_walked(record: Any, told: list[tuple[str, list[str]]]) -> None:
    """A time of update is tested on the row that was found, not searched for."""
    record.keep(*hospital(3))
    record.search("Observation?patient=1&_lastUpdated=ge2020")
    steps = [step for _, steps in told for step in steps if "resource_updated" in step and "EXISTS" in step]
    assert not steps
