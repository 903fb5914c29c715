"""Searches as data."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carelake.core.errors import Invalid, Unsupported
from carelake.fhir.definitions import resource_types
from carelake.fhir.query import (
    Condition,
    DateValue,
    NumberValue,
    Query,
    ReferenceValue,
    Sort,
    StringValue,
    TokenValue,
    UriValue,
    parse,
    parse_text,
)
from carelake.fhir.search import parameters
from carelake.fhir.search.values import date_range


def one(text: str) -> Condition:
    (condition,) = parse_text(text).conditions
    return condition


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("Patient?gender=male", [TokenValue(None, "male")]),
        ("Patient?gender=male,female", [TokenValue(None, "male"), TokenValue(None, "female")]),
        ("Patient?identifier=http://s|1", [TokenValue("http://s", "1")]),
        ("Patient?identifier=|1", [TokenValue("", "1")]),
        ("Patient?identifier=http://s|", [TokenValue("http://s", None)]),
        (r"Patient?identifier=a\,b\|c\$\\", [TokenValue(None, r"a,b|c$" + "\\")]),
        ("Patient?name=O'Brien", [StringValue("O'Brien", "obrien")]),
        ("Patient?birthdate=2020", [DateValue("eq", *date_range("2020"))]),
        ("Patient?birthdate=ge2020-01-02", [DateValue("ge", *date_range("2020-01-02"))]),
        ("Observation?value-quantity=5.4", [NumberValue("eq", 5.4, 5.35, 5.45)]),
        ("Observation?value-quantity=lt5.4|http://u|mg", [NumberValue("lt", 5.4, 5.35, 5.45, "http://u", "mg")]),
        ("Observation?value-quantity=5.4||mg", [NumberValue("eq", 5.4, 5.35, 5.45, None, "mg")]),
        ("RiskAssessment?probability=ap0.5", [NumberValue("ap", 0.5, 0.45, 0.55)]),
        ("Observation?subject=1", [ReferenceValue("", "1", "")]),
        ("Observation?patient=1", [ReferenceValue("Patient", "1", "")]),
        ("Observation?subject:Patient=1", [ReferenceValue("Patient", "1", "")]),
        ("Observation?subject=Group/1", [ReferenceValue("Group", "1", "")]),
        ("Observation?subject=http://h/Patient/1", [ReferenceValue("", "", "http://h/Patient/1")]),
        ("ValueSet?url=http://h/a", [UriValue("http://h/a")]),
        ("Patient?_id=a,b", [TokenValue(None, "a"), TokenValue(None, "b")]),
        ("Patient?_lastUpdated=gt2020", [DateValue("gt", *date_range("2020"))]),
    ],
)
def test_values(text: str, values: list[Any]) -> None:
    assert list(one(text).values) == values
    assert one(text).modifier == ""


def test_approximate_dates_are_as_much_wider_as_they_are_precise() -> None:
    assert one("Patient?birthdate=ap2020-01-02").values == (
        DateValue("ap", date_range("2020-01-01")[0], date_range("2020-01-03")[1]),
    )


def test_modifiers() -> None:
    assert one("Patient?name:exact=Ada").modifier == "exact"
    assert one("Patient?name:contains=da").modifier == "contains"
    assert one("Patient?gender:not=male").modifier == "not"
    assert one("Patient?gender:missing=true") == Condition("gender", "token", "missing", missing=True)
    assert one("Patient?birthdate:missing=false") == Condition("birthdate", "date", "missing")


def test_chains() -> None:
    inner = Query("Patient", (Condition("name", "string", "exact", (StringValue("Ada", "ada"),)),))
    assert one("Observation?subject:Patient.name:exact=Ada") == Condition(
        "subject", "reference", "chain", chain=inner
    )
    assert one("Observation?patient.name:exact=Ada").chain == inner


def test_repeats_are_all_to_hold() -> None:
    query = parse("Patient", [("name", "a"), ("name", "b")])
    assert [condition.values[0] for condition in query.conditions] == [StringValue("a", "a"), StringValue("b", "b")]


def test_settings() -> None:
    query = parse_text("Patient?_sort=-birthdate,_id,family&_count=20&_total=accurate&_elements=name,gender")
    assert query == Query(
        "Patient",
        sort=(Sort("birthdate", "date", True), Sort("_id", "id"), Sort("family", "string")),
        count=20,
        total="accurate",
        elements=("name", "gender"),
    )
    assert parse_text("Patient?_summary=count").count_only
    assert parse_text("Patient?_count=0").count_only
    assert parse_text("/Patient") == Query("Patient")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("Patients?name=a", "search.unknown_type"),
        ("Patient?nam=a", "search.unknown_parameter"),
        ("Patient?code=a", "search.unknown_parameter"),
        ("Patient?name:foo=a", "search.unknown_modifier"),
        ("Patient?name:=a", "search.unknown_modifier"),
        ("Patient?organization:Patient=1", "search.unknown_modifier"),
        ("Observation?subject.name=a", "search.unknown_modifier"),
        ("Patient?name.family=a", "search.unknown_parameter"),
        ("Patient?birthdate=soon", "search.bad_value"),
        ("Patient?birthdate=2021-02-30", "search.bad_value"),
        ("Patient?birthdate=gt", "search.bad_value"),
        ("Patient?gender=", "search.bad_value"),
        ("Patient?gender=a,", "search.bad_value"),
        ("Patient?gender=|", "search.bad_value"),
        ("Patient?gender:missing=maybe", "search.bad_value"),
        ("Patient?_id=a/b", "search.bad_value"),
        ("Patient?organization=Patient/1", "search.bad_value"),
        ("Patient?organization=Organization/a_b", "search.bad_value"),
        ("Patient?_count=x", "search.bad_value"),
        ("Patient?_count=-1", "search.bad_value"),
        ("Patient?_count=1&_count=2", "search.bad_value"),
        ("Patient?_total=all", "search.bad_value"),
        ("Patient?_elements=nose", "search.bad_value"),
        ("Patient?_sort=nose", "search.unknown_parameter"),
        ("Observation?value-quantity=5.4|mg", "search.bad_value"),
        ("Observation?value-quantity=1e999", "search.bad_value"),
        ("Observation?value-quantity=NaN", "search.bad_value"),
        ("Patient?name", "search.syntax"),
        ("Patient?" + "&".join(["name=a"] * 101), "search.syntax"),
        ("Patient?name=" + ",".join(["a"] * 1001), "search.too_many"),
    ],
)
def test_what_is_invalid(text: str, code: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_text(text)
    assert caught.value.code == code
    assert not isinstance(caught.value, Unsupported)


@pytest.mark.parametrize(
    "text",
    [
        "Patient?_include=Patient:organization",
        "Patient?_revinclude=Observation:subject",
        "Patient?_has:Observation:patient:code=1",
        "Patient?_text=a",
        "Patient?phonetic=a",
        "Observation?code-value-quantity=a$1",
        "Patient?gender:in=a",
        "Patient?name:text=a",
        "Observation?subject:identifier=a",
        "Observation?patient.organization.name=a",
        "Patient?_id:missing=true",
        "Patient?_format=xml",
        "Patient?_summary=true",
        "Patient?_sort=organization",
    ],
)
def test_what_is_not_offered(text: str) -> None:
    with pytest.raises(Unsupported) as caught:
        parse_text(text)
    assert caught.value.code == "search.unsupported"


@given(st.sampled_from(["name", "gender", "birthdate", "organization", "_id", "_count", "x"]), st.text(max_size=20))
def test_no_message_holds_the_value(name: str, value: str) -> None:
    secret = f"Zaphod{value}"
    said = ""
    try:
        parse("Patient", [(name, secret)])
    except Invalid as error:
        said = error.message
    assert "Zaphod" not in said


def test_odd_names_are_not_shown() -> None:
    with pytest.raises(Invalid) as caught:
        parse("Patient", [("Zaphod Beeblebrox", "1")])
    assert "Zaphod" not in caught.value.message


def test_every_offered_parameter_can_be_asked_for() -> None:
    samples = {"date": "2020", "number": "1", "quantity": "1", "uri": "urn:x", "reference": "x", "token": "x"}
    for name in resource_types():
        for code, parameter in parameters(name).items():
            query = parse(name, [(code, samples.get(parameter.type, "x"))])
            assert query.conditions[0].type == parameter.type
