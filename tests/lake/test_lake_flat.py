"""Flat views over resources in memory: what hospitals write in many ways, read in one."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pytest

from carelake.core import canonical
from carelake.core.errors import NotFound
from carelake.lake.flat import flatten, names, project, view
from carelake.lake.schema import table_schema


def rows(name: str, *resources: dict[str, Any]) -> list[dict[str, Any]]:
    return flatten(resources, [name])[name].to_pylist()


def at(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC).replace(tzinfo=None)  # type: ignore[misc]


def observation(**more: Any) -> dict[str, Any]:
    return {"resourceType": "Observation", "id": "o", "status": "final", "code": {"text": "x"}, **more}


def quantity(text: str, **more: Any) -> dict[str, Any]:
    return {"value": canonical.load(text), "unit": "mmHg", "code": "mm[Hg]", **more}


def test_components_become_rows_of_their_own() -> None:
    parts = [
        {"code": {"coding": [{"system": "http://loinc.org", "code": "8480-6"}]}, "valueQuantity": quantity("120")},
        {"code": {"text": "odd"}, "valueString": "n/a"},
        {"code": {"coding": [{"system": "http://loinc.org", "code": "8462-4"}]}, "valueQuantity": quantity("80.50")},
    ]
    found = rows("observations", observation(component=parts))
    assert [(r["component"], r["code"], r["value"], r["value_text"], r["unit"]) for r in found] == [
        (1, "8480-6", 120.0, "120", "mm[Hg]"),
        (3, "8462-4", 80.5, "80.50", "mm[Hg]"),
    ]


def test_the_coding_of_the_standard_system_is_picked() -> None:
    local = {"system": "http://hospital.example/lab", "code": "HB"}
    loinc = {"system": "http://loinc.org", "code": "718-7"}
    both, own = ({"coding": [local, loinc]}, {"coding": [local]})
    found = rows(
        "observations",
        observation(code=both, valueQuantity=quantity("1")),
        observation(id="p", code=own, valueInteger=3),
    )
    assert [(r["code"], r["value"]) for r in found] == [("718-7", 1.0), ("HB", 3.0)]


@pytest.mark.parametrize(
    ("said", "id_of"),
    [
        ("Patient/a-1.b", "a-1.b"),
        ("https://fhir.example/r4/Patient/a", "a"),
        ("Patient/a/_history/3", "a"),
        ("Group/a", None),
        ("urn:uuid:6f5c2c0a-8f5e-5d0b-9a53-3c3a7d1f0e11", None),
        ("#p", None),
        ("XPatient/a", None),
    ],
)
def test_references(said: str, id_of: str | None) -> None:
    found = rows("observations", observation(subject={"reference": said}, valueInteger=1))
    assert found[0]["subject_id"] == id_of


@pytest.mark.parametrize(
    ("said", "moment"),
    [
        ("2024", at(2024, 1, 1)),
        ("2024-03", at(2024, 3, 1)),
        ("2024-03-05", at(2024, 3, 5)),
        ("2024-03-05T23:30:00-05:00", at(2024, 3, 6, 4, 30)),
        ("2024-03-05T10:00:00.123456Z", at(2024, 3, 5, 10, 0, 0, 123456)),
        ("nonsense", None),
    ],
)
def test_moments(said: str, moment: datetime | None) -> None:
    found = rows("observations", observation(effectiveDateTime=said, valueInteger=1))
    assert found[0]["time"] == moment


def test_patients_with_us_core_and_partial_dates() -> None:
    omb = {"url": "ombCategory", "valueCoding": {"code": "2028-9", "display": "Asian"}}
    base = "http://hl7.org/fhir/us/core/StructureDefinition/us-core-"
    extensions = [
        {"url": "http://example.org/x", "valueDecimal": canonical.load("1.10")},
        {"url": base + "race", "extension": [omb, {"url": "text", "valueString": "Korean"}]},
        {"url": base + "ethnicity", "extension": [{"url": "text", "valueString": "Unknown"}]},
    ]
    person = {"resourceType": "Patient", "id": "p", "birthDate": "1950", "extension": extensions}
    (found,) = rows("patients", {**person, "deceasedDateTime": "2024-03-05"})
    assert (found["race"], found["ethnicity"], found["birth_date"]) == ("Asian", "Unknown", date(1950, 1, 1))
    assert (found["deceased"], found["deceased_time"], found["deceased_day_only"]) == (True, at(2024, 3, 5), True)
    (bare,) = rows("patients", {"resourceType": "Patient", "id": "p"})
    assert (bare["race"], bare["deceased"], bare["deceased_day_only"]) == (None, False, False)


def test_other_types_are_passed_over_and_no_resource_gives_empty_views() -> None:
    found = flatten([{"resourceType": "Organization", "id": "x"}])
    assert set(found) == set(names())
    assert all(len(table) == 0 for table in found.values())


@pytest.mark.parametrize("name", names())
def test_empty_and_full_views_have_the_same_columns(name: str) -> None:
    kind = view(name).resource
    made = flatten([{"resourceType": kind, "id": "x"}], [name])[name]
    assert made.schema.equals(flatten([], [name])[name].schema)
    assert project(table_schema(view(name).record).empty_table(), view(name)).schema.equals(view(name).reads)


def test_an_unknown_view_is_an_error() -> None:
    with pytest.raises(NotFound, match="patients"):
        flatten([], ["shoes"])
