"""``Patient/$match``: weights, grades, and candidates out of the index."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.store.conftest import GRANTS, Record

from carelake.core.errors import Invalid
from carelake.core.permit import Permit
from carelake.store.match import blocks
from carelake.store.match_weights import GRADES, PRIOR, WEIGHTS, likeness, traits

MRN = "http://hospital.example/mrn"


def person(key: str = "", **more: Any) -> dict[str, Any]:
    said: dict[str, Any] = {
        "resourceType": "Patient",
        "name": [{"family": "Núñez", "given": ["Catherine", "Ann"]}],
        "birthDate": "1980-02-13",
        "gender": "female",
        "telecom": [{"system": "phone", "value": "(555) 123-4567"}],
        "address": [{"line": ["12 Main St."], "city": "Springfield", "postalCode": "12345"}],
        "identifier": [{"system": MRN, "value": "77"}],
    }
    if key:
        said["id"] = key
    return {name: value for name, value in (said | more).items() if value is not None}


def alike(one: dict[str, Any], other: dict[str, Any]) -> tuple[str, dict[str, str]]:
    found = likeness(traits(one), traits(other))
    return found.grade, dict(found.fields)


def named(family: str, *given_names: str) -> list[dict[str, Any]]:
    return [{"family": family, "given": list(given_names)}]


BARE = {"telecom": None, "address": None, "identifier": None}


@pytest.mark.parametrize(
    ("other", "grade"),
    [
        (person(), "certain"),
        # An identifier is enough with one trait of the person, and not against a birth date.
        (person(name=None, telecom=None, address=None), "certain"),
        (person(birthDate="1955-06-30", telecom=None, address=None), "probable"),
        # Name, birth date and how they are reached are; name and birth date alone are not.
        (person(identifier=None), "certain"),
        (person(**BARE), "probable"),
        (person(**BARE, gender="male"), "probable"),
        # Slips: a typing error, another spelling, day and month.
        (person(**BARE, name=named("Nunez", "Katherine")), "probable"),
        (person(**BARE, birthDate="1980-02-12"), "probable"),
        (person(**BARE, name=named("Catherine", "Núñez")), "probable"),
        (
            person(**(BARE | {"address": [{"city": "Springfield"}]}), name=named("Núñez", "C"), birthDate="1980-02"),
            "possible",
        ),
        (person(**BARE, name=named("Smith", "Bob"), birthDate="1980-02-13"), "certainly-not"),
        (person(**BARE, birthDate="1955-06-30"), "certainly-not"),
        (person(**BARE, birthDate=None), "certainly-not"),
        (person(**BARE, name=None), "certainly-not"),
    ],
)
def test_grades(other: dict[str, Any], grade: str) -> None:
    assert alike(person(), other)[0] == grade


@pytest.mark.parametrize(
    ("other", "field", "how"),
    [
        (person(name=named("NUNEZ", "x")), "family", "same"),
        (person(name=named("Nunes", "x")), "family", "close"),
        (person(name=named("Catherine", "Núñez")), "family", "swapped"),
        (person(name=named("Ng", "x")), "family", "different"),
        (person(name=named("x", "C")), "given", "initial"),
        (person(name=named("x", "Kathryn")), "given", "sounds"),
        (person(birthDate="1980-02"), "birthDate", "partial"),
        (person(birthDate="1980-02-23"), "birthDate", "close"),
        (person(birthDate="1980-12-02"), "birthDate", "different"),
        (person(birthDate="1981-02-13"), "birthDate", "close"),
        (person(gender="unknown"), "gender", ""),
        (person(telecom=[{"system": "phone", "value": "+1 555 1234567"}]), "phone", "same"),
        (person(telecom=[{"system": "phone", "value": "911"}]), "phone", ""),
        (person(address=[{"line": ["12, main street"]}]), "line", "close"),
        (person(address=[{"line": ["14 Main St"]}]), "line", "different"),
        (person(identifier=[{"system": MRN, "value": "78"}]), "identifier", "different"),
        (person(identifier=[{"system": "http://other", "value": "77"}]), "identifier", ""),
    ],
)
def test_fields(other: dict[str, Any], field: str, how: str) -> None:
    assert alike(person(), other)[1].get(field, "") == how


_TEXT = st.sampled_from(["Núñez", "Nunes", "Smith", "", "C", "Catherine", "Kathryn", "O'Brien", "李"])
_PERSON = st.builds(
    lambda family, given_name, born, gender, value, phone: person(
        name=[{"family": family, "given": [given_name]}],
        birthDate=born,
        gender=gender,
        identifier=[{"system": MRN, "value": value}],
        telecom=[{"system": "phone", "value": phone}],
    ),
    _TEXT,
    _TEXT,
    st.sampled_from([None, "1980", "1980-02", "1980-02-13", "1980-12-03", "2001-01-01"]),
    st.sampled_from([None, "male", "female", "other"]),
    st.sampled_from(["1", "2", ""]),
    st.sampled_from(["555-123-4567", "5551234567", "1", ""]),
)


@given(_PERSON, _PERSON)
def test_likeness_is_the_same_both_ways_and_a_probability(one: dict[str, Any], other: dict[str, Any]) -> None:
    there, back = likeness(traits(one), traits(other)), likeness(traits(other), traits(one))
    assert there == back
    assert 0 <= there.score <= 1
    total = sum(WEIGHTS[name][how] for name, how in there.fields.items())
    assert (there.score > 0.5) == (total > PRIOR)


def test_the_weights_are_those_that_the_documentation_tells() -> None:
    page = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")
    told = re.findall(r"^\| (\w+) \| (\w+) \| (-?\d+\.\d) \|$", page, re.MULTILINE)
    assert [(name, how, float(weight)) for name, how, weight in told] == [
        (name, how, weight) for name, each in WEIGHTS.items() for how, weight in each.items()
    ]
    assert f"less {PRIOR:g}" in page
    assert all(f"`{name}` ({least:g} or more)" in page for name, least in GRADES.items())


def match(
    record: Record, patient: dict[str, Any], permit: Permit | None = None, **asked: Any
) -> list[tuple[str, str]]:
    found = record.resources.operations.match(permit or record.permit, patient, **asked)
    return [(one.patient.id, one.likeness.grade) for one in found]


def test_finds_by_each_block(record_on_each: Record) -> None:
    record_on_each.keep(
        person("exact"),
        person("spelt", **BARE, name=named("Nunez", "Kathryn")),
        person("typo", identifier=None, birthDate="1980-02-23"),
        person("married", identifier=None, name=named("Jones", "Catherine")),
        person("stranger", **BARE, name=named("Smith", "Bob"), birthDate="1960-01-01", gender="male"),
    )
    found = match(record_on_each, person())
    assert found[0] == ("exact", "certain")
    assert {key for key, _ in found} == {"exact", "spelt", "typo", "married"}
    assert [key for key, _ in match(record_on_each, person(), certain=True)] == ["exact"]
    by_phone = {"resourceType": "Patient", "telecom": [{"value": "(555) 123-4567"}], "birthDate": "1980-02-13"}
    assert {"exact", "typo", "married"} == {key for key, _ in match(record_on_each, by_phone)}


def test_none_where_several_are_certain(record: Record) -> None:
    record.keep(person("one"), person("two"))
    assert [grade for _, grade in match(record, person())] == ["certain", "certain"]
    assert match(record, person(), certain=True) == []


def test_who_has_replaced_the_one_that_is_found(record: Record) -> None:
    def link(kind: str, key: str) -> dict[str, Any]:
        return {"type": kind, "other": {"reference": f"Patient/{key}"}}

    record.keep(
        person("old", link=[link("replaced-by", "new")]),
        {"resourceType": "Patient", "id": "new", "link": [link("replaces", "old")]},
        # A ring, and one that leads nowhere, end where they are.
        person("ring", link=[link("replaced-by", "ring2")]),
        person("ring2", link=[link("replaced-by", "ring")]),
        person("lost", link=[link("replaced-by", "nobody")]),
    )
    assert {key for key, _ in match(record, person())} == {"new", "ring", "ring2", "lost"}


def test_too_little_to_match_by(record: Record) -> None:
    for patient in (
        {"resourceType": "Patient"},
        {"resourceType": "Patient", "gender": "female", "birthDate": "1980-02-13"},
        {"resourceType": "Patient", "name": [{"family": "Smith"}, {"given": ["..."], "family": "..."}]},
    ):
        with pytest.raises(Invalid, match="too little to match by"):
            match(record, patient)


def test_values_are_taken_as_they_are() -> None:
    patient = {
        "resourceType": "Patient",
        "identifier": [{"system": "http://a|b", "value": "1,2$3"}],
        "name": [{"family": "a,b", "given": ["c|d"]}],
        "birthDate": "1980-01-01",
    }
    found = dict(pair for pairs in blocks(patient) for pair in pairs)
    assert found["identifier"] == r"http://a\|b|1\,2\$3"


def test_who_sees_one_patient_finds_no_other(record: Record, permit_for: Callable[..., Permit]) -> None:
    record.keep(person("one"), person("two"))
    own = permit_for(*GRANTS, scope=("patient:two",))
    assert match(record, person(), permit=own) == [("two", "certain")]
