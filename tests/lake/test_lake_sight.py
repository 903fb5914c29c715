"""What a permit's scope shows of the lake: rows, columns, the de-identified schema; everywhere the same."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

import carelake.lake
from carelake.core.errors import Invalid, Refused
from carelake.deid.rules import rules
from carelake.lake import query
from carelake.lake.schema import column_of
from carelake.lake.statements.cursor import running
from carelake.lake.views.over import over

sys.path.append(str(Path(__file__).parent))  # for `import seen_data`

import seen_data
from seen_data import CANARIES, WITHHELD, Place

CANARY = CANARIES[0]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    with seen_data.places(tmp_path_factory.mktemp("seen"), CANARY) as (made,):
        yield made


def test_the_deidentified_schema_has_no_canary_anywhere(place: Place) -> None:
    permit = place.permit("deidentified")
    for kind in ("Patient", "Encounter", "Condition", "Observation", "Organization"):
        for table in (
            query.current(permit, place.vault, place.snapshot, kind),
            query.versions(permit, place.vault, place.snapshot, kind),
            place.sql(permit, f"SELECT * FROM deidentified.{kind}"),
            place.sql(permit, f"SELECT * FROM {kind}"),
            place.sql(permit, f"SELECT * FROM {kind}_history"),
        ):
            assert table is not None
            assert len(table)
            said = json.dumps(table.to_pylist(), default=str)
            assert CANARY not in said
            assert "p05" not in said
    for name, table in query.views(permit, place.vault, place.snapshot).items():
        assert CANARY not in json.dumps(table.to_pylist(), default=str), name


def test_what_is_left_joins_and_keeps_intervals(place: Place) -> None:
    whole, permit = place.permit(), place.permit("deidentified")
    text = """
        SELECT p.gender, c.code, date_diff('day', e.period.start[:10]::DATE, c.onsetDateTime::DATE) AS days,
            o.valueQuantity.value AS value, o.valueQuantity.value_text AS digits
        FROM {0}Patient p JOIN {0}Condition c ON c.patient = p.id
        JOIN {0}Encounter e ON c.encounter.reference = 'Encounter/' || e.id
        JOIN {0}Observation o ON o.subject.reference = c.subject.reference AND o.code = '4548-4'
        WHERE c.code = '195662009' ORDER BY ALL
    """
    expected = place.sql(whole, text.format(""))
    assert len(expected) == seen_data.PATIENTS
    for said, who in (("", permit), ("deidentified.", permit), ("deidentified.", whole)):
        assert place.sql(who, text.format(said)).to_pylist() == expected.to_pylist()


def test_birth_years_places_and_races_are_coarse(place: Place) -> None:
    found = place.sql(
        place.permit("deidentified"),
        "SELECT birthDate AS born, address[1].state AS state, address[1].postalCode AS zip FROM Patient ORDER BY 1",
    ).to_pylist()
    assert {(one["state"], one["zip"]) for one in found} == {("MA", "021")}
    assert [one["born"] for one in found][:5] == ["1936"] * 4 + ["1938"]  # 90 in 2026, and who is older
    views = query.views(place.permit("deidentified"), place.vault, place.snapshot, ["patients"])
    assert set(views["patients"].column("race").to_pylist()) == {"White"}


def test_a_view_definition_runs_over_what_is_in_sight(place: Place) -> None:
    view = {
        "resource": "Patient",
        "select": [
            {
                "column": [
                    {"name": "id", "path": "getResourceKey()"},
                    {"name": "b", "path": "birthDate"},
                    {"name": "n", "path": "name.family.first()"},
                ]
            }
        ],
    }
    whole = over(place.permit(), place.vault, place.snapshot, view).to_pylist()
    hidden = over(place.permit("deidentified"), place.vault, place.snapshot, view).to_pylist()
    assert len(whole) == len(hidden)
    assert {one["n"] for one in whole} == {CANARY}
    assert {one["n"] for one in hidden} == {None}
    assert all(len(one["b"]) == 4 for one in hidden)
    with pytest.raises(Refused, match="counts over enough patients"):
        over(place.permit("deidentified", "cells"), place.vault, place.snapshot, view)
    with pytest.raises(
        Refused, match="not among what the permit shows"
    ):  # when it was written is no date of a patient
        over(place.permit("deidentified"), place.vault, place.snapshot, view, since=place.clock.now())


def test_the_id_of_a_patient_finds_no_pseudonym(place: Place) -> None:
    permit = place.permit("deidentified")
    told = query.current(permit, place.vault, place.snapshot, "Patient", columns=["gender"], patient="p05")
    assert told is not None
    assert len(told) == 0
    name = place.sql(permit, "SELECT min(id) AS id FROM Patient").to_pylist()[0]["id"]
    told = query.current(permit, place.vault, place.snapshot, "Condition", columns=["code"], patient=name)
    assert told is not None
    assert len(told) == 2


def test_minimum_shows_what_the_purpose_needs_and_no_more(place: Place) -> None:
    permit = place.permit("minimum", purpose="HPAYMT")
    told = place.sql(permit, "SELECT * FROM Patient")
    assert told.column_names == [
        "id",
        "version",
        "last_updated",
        "patient",
        "address",
        "birthDate",
        "gender",
        "identifier",
        "name",
    ]
    assert CANARY in json.dumps(told.to_pylist(), default=str)
    assert "telecom" not in told.column_names
    for text in ("SELECT * FROM Observation", "SELECT telecom FROM Patient", "SELECT * FROM deidentified.Patient"):
        with pytest.raises(Invalid):
            place.sql(permit, text)
    assert place.sql(permit, "SELECT count(*) FROM encounters").to_pylist() == [{"count_star()": 30}]
    with pytest.raises(Invalid):
        place.sql(permit, "SELECT count(*) FROM observations")
    told = place.sql(permit, "SELECT * FROM Encounter")
    assert CANARY not in json.dumps(told.to_pylist(), default=str)


def test_treatment_needs_everything_and_a_purpose_without_lists_nothing(place: Place) -> None:
    whole, same = place.permit(), place.permit("minimum", purpose="TREAT")
    text = "SELECT * FROM Patient ORDER BY id"
    assert place.sql(same, text).equals(place.sql(whole, text))
    with pytest.raises(Invalid):
        place.sql(place.permit("minimum", purpose="HSYSADMIN"), text)


def test_one_patients_rows_and_no_other_schema(place: Place) -> None:
    permit = place.permit("patient:p05", purpose="TREAT")
    for kind in ("Patient", "Condition", "Observation_history"):
        found = place.sql(permit, f"SELECT DISTINCT patient FROM {kind}").to_pylist()
        assert found == [{"patient": "p05"}]
    assert place.sql(permit, "SELECT DISTINCT subject_id FROM conditions").to_pylist() == [{"subject_id": "p05"}]
    for text in ("SELECT * FROM deidentified.Patient", "SELECT * FROM deletions"):
        with pytest.raises(Invalid):
            place.sql(permit, text)
    with pytest.raises(Refused):
        query.current(permit, place.vault, place.snapshot, "Patient", patient="p06")


def test_consents_withhold_rows_everywhere(place: Place) -> None:
    permit = place.consented("account")
    for kind in ("Patient", "Patient_history", "Condition", "Observation_history"):
        found = place.sql(permit, f"SELECT DISTINCT patient FROM {kind}").column("patient").to_pylist()
        assert len(found) == seen_data.PATIENTS - 2
        assert not WITHHELD & set(found)
    found = query.views(permit, place.vault, place.snapshot, ["conditions"])["conditions"]
    assert not WITHHELD & set(found.column("subject_id").to_pylist())
    names = place.sql(place.consented("deidentified"), "SELECT id FROM Patient")
    assert len(names) == seen_data.PATIENTS - 2
    assert len(place.sql(place.permit("account", "consent:in"), "SELECT * FROM Patient")) == 0
    assert len(place.sql(permit, "SELECT * FROM Organization")) == 1


def test_unknown_scopes_deny(place: Place) -> None:
    for scope in ("department:7", "only:/Patient.rs", "Deidentified", "patient:"):
        with pytest.raises(Refused) as caught:
            place.sql(place.permit("account", scope), "SELECT * FROM Patient")
        assert caught.value.code == "lake.scope"
        with pytest.raises(Refused):
            query.current(place.permit("account", scope), place.vault, place.snapshot, "Patient")


def test_what_is_not_in_sight_is_refused_as_what_is_not_there(place: Place) -> None:
    permit = place.permit("minimum", purpose="HPAYMT")
    never = place.told(permit, "SELECT * FROM Nowhere")
    for name in (
        "Observation",
        "Observation_history",
        "observations",
        "deletions",
        "deidentified.Patient",
        "information_schema.tables",
        "duckdb_tables",
        "sqlite_master",
        "'x.csv'",
        "main.Observation",
    ):
        assert place.told(permit, f"SELECT * FROM {name}") == never
    assert place.told(permit, "SELECT telecom FROM Patient") == place.told(permit, "SELECT nothing FROM Patient")


def test_the_schema_does_not_depend_on_what_occurs(place: Place) -> None:
    permit = place.permit("deidentified")
    for kind, tree in rules().types.items():
        found = place.sql(permit, f"SELECT * FROM {kind} LIMIT 0")
        assert {column_of(name) for name in tree} <= set(found.column_names)


def test_counts_over_enough_patients(place: Place) -> None:
    permit = place.permit("deidentified", "cells")
    found = place.sql(
        permit, "SELECT code, count(DISTINCT patient) AS n FROM Condition GROUP BY code ORDER BY n DESC"
    )
    assert found.to_pylist() == [
        {"code": "195662009", "n": 30},
        {"code": "38341003", "n": 14},
        {"code": "44054006", "n": 14},
    ]
    assert place.sql(permit, "SELECT count(*) AS n FROM Condition WHERE code IS NULL").to_pylist() == []
    found = place.sql(
        permit,
        "SELECT p.gender, o.code, avg(value) AS mean, count(*) FROM deidentified.observations o "
        "JOIN deidentified.conditions USING (subject_id) JOIN Patient p ON p.patient = o.subject_id "
        "WHERE conditions.code = '195662009' GROUP BY ALL",
    )
    assert {one["gender"] for one in found.to_pylist()} == {"male"}
    for text in (
        "SELECT * FROM Patient",
        "SELECT patient FROM Patient GROUP BY 1",
        "SELECT max(value) FROM observations",
        "SELECT count(*) FROM Patient a, Patient b",
        "SELECT count(*) FROM Patient a WHERE CAST(a AS VARCHAR) LIKE '%1%'",
        "SELECT count(*) FROM conditions WHERE CAST(conditions AS VARCHAR) LIKE '%1%'",
        "SELECT count(*) FROM Patient a JOIN Patient b USING (patient) JOIN Patient c ON a.patient = b.patient",
    ):
        with pytest.raises(Invalid) as caught:
            place.sql(permit, text)
        assert caught.value.code == "lake.cells"
    with pytest.raises(Refused):
        query.views(permit, place.vault, place.snapshot)


def test_a_statement_with_parameters_is_counted_too(place: Place) -> None:
    permit = place.permit("cells", "deidentified")
    text = "SELECT gender, count(*) AS n FROM patient WHERE gender = ? GROUP BY gender LIMIT ?"
    with running(permit, place.vault, place.snapshot, text, ["male", 1]) as answer:
        assert [row for batch in answer for row in batch.to_pylist()] == [{"gender": "male", "n": 20}]
    with query.prepared(permit, place.vault, place.snapshot, text, ["male", 1]) as connection:
        for run in (connection.sql, connection.execute):
            with pytest.raises(Invalid):
                run("SELECT * FROM patient")
    text = "SELECT count(*) AS n FROM patient WHERE birthDate = ?"
    with running(permit, place.vault, place.snapshot, text, ["1986"]) as answer:
        assert [row for batch in answer for row in batch.to_pylist()] == []


def test_there_is_one_way_from_a_permit_to_rows() -> None:
    """Whoever reads a table's rows goes by `relations`, but for what asks that a sight is whole."""
    root = Path(carelake.lake.__file__).parents[1]
    found = {
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        if re.search(r"from carelake\.lake\.current import .*\brows_of\b", path.read_text(encoding="utf-8"))
    }
    assert found == {
        "features/groups/compute.py",  # for a sight that is whole
        "lake/drivers/spark.py",  # the same
        "lake/materialisation/materialised.py",  # the same, or one patient
        "lake/materialisation/materialising.py",  # the same
        "lake/seeing/relations.py",
    }
