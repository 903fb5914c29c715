"""What rules do to columns: pseudonyms, shifted dates, coarse values; and nothing else comes through."""

from __future__ import annotations

import hmac
import json
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carelake.deid.columns import Rows, known_codings, masked
from carelake.deid.dates import moments, shifted, years
from carelake.deid.pseudonyms import DAYS, Pseudonyms, pseudonyms
from carelake.deid.rules import paths, rules
from carelake.lake.schema import arrow_type, selected

ANOTHER = b"another"


def names(key: bytes = b"key") -> Pseudonyms:
    return Pseudonyms(
        lambda said: hmac.digest(key, b"n" + said, "sha256"), lambda said: hmac.digest(key, b"d" + said, "sha256")
    )


def rows(*patients: str | None, year: int = 2026) -> Rows:
    found = names()
    return Rows(found, found.shifts(pa.array(patients, pa.string())), year)


def test_pseudonyms_are_the_same_everywhere_and_another_key_makes_others() -> None:
    ids = pa.array(["a", None, "a", "b"])
    found = names().named("Patient", ids).to_pylist()
    assert found[0] == found[2] != found[3]
    assert found[1] is None
    assert found == names().named("Patient", ids).to_pylist()
    assert set(found) & set(names(ANOTHER).named("Patient", ids).to_pylist()) == {None}
    assert names().name("Observation", "a") != names().name("Patient", "a")


def test_an_account_has_pseudonyms_of_its_own(vault: Any, permit_for: Any) -> None:
    here, there = permit_for("rows:read"), permit_for("rows:read", account="research")
    one, two = pseudonyms(here, vault.keyring), pseudonyms(there, vault.keyring)
    assert one.name("Patient", "p1") == pseudonyms(here, vault.keyring).name("Patient", "p1")
    assert one.name("Patient", "p1") != two.name("Patient", "p1")
    assert one.name("Patient", "p1") not in vault.keyring.reference(here, "patient", b"p1")


@given(
    patient=st.text(min_size=1, max_size=20),
    dates=st.lists(st.dates(date(1900, 1, 1), date(2100, 1, 1)), min_size=2, max_size=6),
)
@settings(max_examples=60)
def test_intervals_of_a_patient_stay_and_every_date_moves(patient: str, dates: list[date]) -> None:
    days = names().shifts(pa.array([patient] * len(dates)))
    found = shifted(pa.array([one.isoformat() for one in dates]), days).to_pylist()
    moved = [date.fromisoformat(one) for one in found]
    steps = {(one - before).days for before, one in zip(dates, moved, strict=True)}
    assert len(steps) == 1
    assert -DAYS <= steps.pop() <= -1
    times = pa.array([datetime(d.year, d.month, d.day, 5, tzinfo=UTC) for d in dates], pa.timestamp("us", "UTC"))
    told = moments(times, days).to_pylist()
    assert [one.date() for one in told] == moved


def test_partial_dates_stay_partial_and_times_of_day_stay() -> None:
    texts = ["2024-03-01T10:00:00+02:00", "2024-03", "2024", "soon", "2024-13-01", None, "2024-03-01Tcanary"]
    found = shifted(pa.array(texts), pa.array([-60] * 7, pa.int32())).to_pylist()
    assert found == ["2024-01-01T10:00:00+02:00", "2024-01", "2024", None, None, None, None]
    assert shifted(pa.array(["2024-03-01"]), pa.array([None], pa.int32())).to_pylist() == [None]


def test_dates_tell_of_no_age_that_years_of_birth_do_not() -> None:
    said = pa.array(["1930-05-01", "1935", "1936-12-31T10:00:00Z", "2020-01-01", None])
    here = rows("a", "a", "a", "a", "a", year=2026)
    days = here.names.days("a")
    found = masked(said, "date", here, "Condition", "onsetDateTime").to_pylist()
    shown = (date(1936, 12, 31) + timedelta(days)).isoformat()
    wanted = f"{shown}T10:00:00Z" if shown >= "1936" else None
    assert found[:3] == [None, None, wanted]
    assert found[3] is not None
    assert found[4] is None
    times = pa.array(
        [datetime(1930, 5, 1, tzinfo=UTC), datetime(2020, 1, 1, tzinfo=UTC), None],
        timestamp := pa.timestamp("us", "UTC"),
    )
    told = rows("a", "a", "a").moments(times)
    assert told.type == timestamp
    assert [one is None for one in told.to_pylist()] == [True, False, True]


def test_no_date_has_text_in_its_time_of_day() -> None:
    said = ["2024-03-01T555-12-3456", "2024-03-01T10:00", "2024-03-01T10:00:00.123Z", "2024-03-01T10:00:00+02:00:9"]
    found = shifted(pa.array(said), pa.array([-60] * 4, pa.int32())).to_pylist()
    assert found == [None, "2024-01-01T10:00", "2024-01-01T10:00:00.123Z", None]


def test_years_are_pooled_from_ninety_on() -> None:
    told = pa.array(["1990-05-05", "1936-01-01", "1935-12-31", "1850", "never"])
    assert years(told, 1936).to_pylist() == ["1990", "1936", "1936", "1936", None]


def test_codings_of_systems_that_are_not_known_are_dropped() -> None:
    systems = pa.array(["http://loinc.org", "http://loinc.org", "urn:mrn", None])
    found = known_codings(systems, pa.array(["4548-4", "Jane", "123", "4548-4"]))
    assert [one.to_pylist() for one in found] == [
        ["http://loinc.org", None, None, None],
        ["4548-4", None, None, None],
    ]


def column(kind: str, name: str, values: list[Any], *patients: str | None) -> list[Any]:
    record = selected(kind, paths(rules().types[kind]))
    array = pa.array(values, arrow_type(record.fields[name]))
    found: list[Any] = masked(array, rules().types[kind][name], rows(*patients), kind, name).to_pylist()
    return found


def test_references_go_where_the_pseudonyms_are() -> None:
    said = [
        {"reference": "Patient/p1"},
        {"reference": "https://example.org/fhir/Patient/p1/_history/3"},
        {"reference": "#contained"},
        {"reference": "Jane/Doe"},
        None,
    ]
    name = f"Patient/{names().name('Patient', 'p1')}"
    found = column("Condition", "subject", said, *["p1"] * 5)
    assert found == [{"reference": name}] * 2 + [{"reference": None}] * 2 + [None]


def test_lists_keep_their_rows_and_days() -> None:
    said = [[{"actor": {"reference": "Patient/a"}}], None, [], [{"actor": {"reference": "Patient/b"}}] * 2]
    found = column("Appointment", "participant", said, "a", "b", "c", "d")
    names_of = [None if one is None else len(one) for one in found]
    assert names_of == [1, None, 0, 2]
    at = [{"detail": {"status": "completed", "code": None}}]
    assert column("CarePlan", "activity", [at], "p1")[0][0]["detail"]["status"] == "completed"


@pytest.mark.parametrize(
    ("name", "said", "expected"),
    [
        ("gender", "male", "male"),
        ("gender", "jane", None),
        ("birthDate", "1980-02-03", "1980"),
        ("active", True, True),
        ("deceasedDateTime", "yesterday", None),
    ],
)
def test_values_of_a_patient(name: str, said: Any, expected: Any) -> None:
    assert column("Patient", name, [said], "p1") == [expected]


def test_places_are_coarse() -> None:
    said = [
        {"state": "MA", "country": "US", "postalCode": "02139"},
        {"state": "Massachusetts", "country": "us", "postalCode": "03601-1234"},
        {"state": "near the mill", "country": None, "postalCode": "SW1A 1AA"},
    ]
    assert column("Patient", "address", [said], "p1") == [
        [
            {"country": "US", "postalCode": "021", "state": "MA"},
            {"country": None, "postalCode": "000", "state": "Massachusetts"},
            {"country": None, "postalCode": None, "state": None},
        ]
    ]


def test_of_extensions_the_categories_of_race_are_left() -> None:
    base = "http://hl7.org/fhir/us/core/StructureDefinition/us-core-"
    white = {"url": "ombCategory", "valueCoding": {"code": "2106-3", "display": "Jane", "system": "x"}}
    said = [
        {"url": base + "race", "extension": [white, {"url": "text", "valueString": "Jane"}]},
        {"url": base + "birthsex", "valueCode": "F"},
        {"url": base + "ethnicity", "extension": [{"url": "text", "valueString": "Jane"}]},
    ]
    found = column("Patient", "extension", [json.dumps(said), "not json", "{}", None], *["p"] * 4)
    assert found[1:] == [None, None, None]
    assert "Jane" not in found[0]
    (race,) = json.loads(found[0])
    assert race["extension"][0]["valueCoding"]["display"] == "White"


_TEXT = st.sampled_from(["canary", "http://canary.example", "2020-canary", "Patient/", "canary/1/2/3", "9canary"])


@given(data=st.data(), kind=st.sampled_from(sorted(rules().types)))
@settings(max_examples=60, deadline=None)
def test_no_text_comes_through(data: st.DataObject, kind: str) -> None:
    """Whatever word stands in whatever element, it is not in what is left."""
    record = selected(kind, paths(rules().types[kind]))
    name = data.draw(st.sampled_from(sorted(record.fields)))
    wanted = arrow_type(record.fields[name])
    said = [data.draw(_filled(wanted)) for _ in range(2)]
    made = masked(pa.array(said, wanted), rules().types[kind][name], rows("a", "b"), kind, name)
    assert made.type == wanted
    assert "canary" not in json.dumps(made.to_pylist())


def _filled(kind: pa.DataType) -> st.SearchStrategy[Any]:
    if pa.types.is_struct(kind):
        return st.fixed_dictionaries({field.name: _filled(field.type) for field in kind})
    if pa.types.is_list(kind):
        return st.lists(_filled(kind.value_type), max_size=2)
    if pa.types.is_string(kind):
        return _TEXT
    return st.none() if not pa.types.is_floating(kind) else st.just(1.5)


def test_a_shift_is_no_secret_of_the_id_alone() -> None:
    assert len({names().days(f"p{n}") for n in range(200)}) > 100
    assert timedelta(days=names().days("p1")) != timedelta(days=names(ANOTHER).days("p1"))
