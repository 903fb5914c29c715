"""Search against an oracle that looks at every resource, planned in every way there is."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.store.search_oracle import DATES, NUMBERS, World, hospital

from carelake.core.errors import CarelakeError, Unsupported
from carelake.fhir.query import parse, parse_text

prefix = st.sampled_from(["", "eq", "ne", "gt", "lt", "ge", "le", "sa", "eb", "ap"])
token = st.sampled_from(["a", "b", "http://loinc.org|a", "|a", "urn:x|", "A\\|b", "a,b", "none", "urn:none|a"])
when = st.builds(str.__add__, prefix, st.sampled_from(DATES))
unit = st.sampled_from(
    ["", "||mg", "|urn:u|g", "|http://unitsofmeasure.org|g", "|http://unitsofmeasure.org|mg", "|no|m"]
)
amount = st.builds(lambda p, n, u: f"{p}{n}{u}", prefix, st.sampled_from(NUMBERS), unit)
truth = st.sampled_from(["true", "false"])
gender = st.sampled_from(["male", "female"])
names = st.sampled_from(["Smith", "smi", "ith", "ŚMITH", "cruz", "de", "x", "o'n", "o'neil", "smyth", "'"])


def of(name: str | list[str], value: st.SearchStrategy[str]) -> st.SearchStrategy[tuple[str, str]]:
    return st.tuples(st.sampled_from([name] if isinstance(name, str) else name), value)


def one_of(*values: str) -> st.SearchStrategy[str]:
    return st.sampled_from(values)


person_pairs = st.one_of(
    of(["family", "family:exact", "family:contains", "name", "name:contains", "name:exact"], names),
    of("phonetic", one_of("Smith", "smyth", "Smithers", "ohneel", "cruse")),
    of(["gender", "gender:not"], gender),
    of("birthdate", when),
    of(["family:missing", "gender:missing", "general-practitioner:missing"], truth),
    of("identifier", one_of("m1", "urn:m|m2", "urn:m|", "|m1")),
    of("identifier:of-type", one_of("http://t|MR|m1", "http://t|MR|m2", "http://t|XX|m1")),
    of("organization:identifier", one_of("urn:o|1", "2", "urn:o|")),
    of(["general-practitioner:Organization.name", "general-practitioner.name"], one_of("house 1", "house")),
    of("general-practitioner:Organization.partof:Organization.name", one_of("house 1", "house 2")),
    of("_has:Observation:patient:code", token),
    of("_has:Observation:subject:value-quantity", amount),
    of("_has:Encounter:patient:_has:Observation:encounter:code", token),
    of("_has:Encounter:patient:service-provider.name", one_of("house 1", "house 2")),
    of(["_id", "_id:not"], one_of("1", "1,2", "9")),
)
observation_pairs = st.one_of(
    of(["code", "code:not", "combo-code", "component-code"], token),
    of("code:text", one_of("heart", "display of a", "other", "rate")),
    of(["status", "status:not"], one_of("final", "amended", "final,amended", "x")),
    of("date", when),
    of(["value-quantity", "component-value-quantity", "combo-value-quantity"], amount),
    of(
        ["code-value-quantity", "component-code-value-quantity", "combo-code-value-quantity"],
        st.builds(lambda c, n: f"{c}${n}", one_of("a", "http://loinc.org|a", "b"), amount),
    ),
    of(["subject", "subject:Patient"], one_of("1", "Patient/1", "9", "1,Patient/2")),
    of("patient", one_of("1", "Patient/1", "Patient/9")),
    of(["date:missing", "subject:missing", "value-quantity:missing", "component-code-value-quantity:missing"], truth),
    of(["_id", "_id:not"], one_of("o1", "o1,o2", "zz")),
    of("patient.gender", gender),
    of("subject:Patient.family", one_of("smith", "o'neil")),
    of("subject.name", one_of("smith", "ada")),
    of("encounter.service-provider.name", one_of("house 1", "house")),
    of("encounter.patient.gender", gender),
    of("encounter.patient._has:Observation:patient:status", one_of("final", "amended")),
    of("has-member.status", one_of("final", "amended")),
    of("_has:Observation:has-member:status", one_of("final", "amended")),
    of("_list", one_of("l", "x", "l,x")),
)
set_pairs = st.one_of(
    of(["url", "url:below", "url:above"], one_of("http://a/b", "http://a/b/c", "http://a", "http://a/b/", "urn:a")),
    of("_text", one_of("bone", "bone liver", "bone OR x", "LIVER", "zzz", "(bone OR x) AND liver")),
)
where = st.builds(
    lambda a, o, d, u: f"{42 + a / 10}|{-83 - o / 5}|{d}|{u}",
    st.integers(0, 4),
    st.integers(0, 4),
    one_of("1", "12", "40", "500"),
    one_of("km", "m", "[mi_i]"),
)


@pytest.fixture
def filled(record: Any) -> tuple[Any, World]:
    resources = hospital(5)
    record.keep(*[{**one, "language": "de"} for one in resources])
    record.keep(*resources)
    return record, World(resources)


_many = settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def check(filled: tuple[Any, World], kind: str, said: list[tuple[str, str]], **other: Any) -> None:
    record, world = filled
    query = parse(kind, [*said, ("_count", "1000"), ("_total", "accurate")], **other)
    wanted = world.matches(query)
    result = record.resources.search(record.permit, query)
    assert {(one["resourceType"], one["id"]) for one in result.matches} == wanted
    assert result.total == len(result.matches) == len(wanted)
    counted = record.resources.search(record.permit, parse(kind, [*said, ("_summary", "count")], **other))
    assert counted.total == len(wanted)
    pages, page = [], ""
    while True:
        result = record.resources.search(record.permit, parse(kind, [*said, ("_count", "7")], **other), page)
        pages += [(one["resourceType"], one["id"]) for one in result.matches]
        page = result.next
        if not page:
            break
    assert sorted(pages) == sorted(wanted)


@given(said=st.lists(observation_pairs, max_size=3))
@_many
def test_observations_as_the_oracle_finds_them(filled: Any, planned: str, said: list[tuple[str, str]]) -> None:
    check(filled, "Observation", said)


@given(said=st.lists(person_pairs, max_size=3))
@_many
def test_patients_as_the_oracle_finds_them(filled: Any, planned: str, said: list[tuple[str, str]]) -> None:
    check(filled, "Patient", said)


@given(said=st.lists(set_pairs, max_size=2))
@settings(_many, max_examples=40)
def test_uris_and_words_as_the_oracle_finds_them(filled: Any, planned: str, said: list[tuple[str, str]]) -> None:
    check(filled, "ValueSet", said)


@pytest.mark.parametrize("title", ["form", "form 1", "form 2", "form 3"])
def test_canonicals_as_the_oracle_finds_them(filled: Any, planned: str, title: str) -> None:
    check(filled, "QuestionnaireResponse", [("questionnaire.title", title)])
    check(filled, "QuestionnaireResponse", [("questionnaire.title", title), ("status", "completed")])
    for status in ("completed", "amended", "stopped"):
        check(
            filled, "Questionnaire", [("_has:QuestionnaireResponse:questionnaire:status", status), ("title", title)]
        )


@given(near=where)
@settings(_many, max_examples=40)
def test_places_as_the_oracle_finds_them(filled: Any, near: str) -> None:
    check(filled, "Location", [("near", near)])


@given(said=st.lists(observation_pairs, max_size=2), of_whom=st.sampled_from("1239"))
@settings(_many, max_examples=40)
def test_compartments_as_the_oracle_finds_them(
    filled: Any, planned: str, said: list[tuple[str, str]], of_whom: str
) -> None:
    check(filled, "Observation", said, compartment=("Patient", of_whom))


@pytest.mark.parametrize("types", [["Patient", "Encounter"], ["Observation", "Patient", "Device"], []])
@pytest.mark.parametrize("said", [[], [("_id", "1,2,o3")], [("_id:not", "1")]])
def test_several_types_as_the_oracle_finds_them(
    filled: Any, planned: str, types: list[str], said: list[tuple[str, str]]
) -> None:
    check(filled, types, said)


def test_last_updated(record: Any) -> None:
    record.keep({"resourceType": "Patient", "id": "1"})
    record.clock.move(days=1)
    record.permit = record.permit_for(*record.permit.grants)
    record.keep({"resourceType": "Patient", "id": "2"}, {"resourceType": "Patient", "id": "1"})
    assert record.ids("Patient?_lastUpdated=2026-01-02") == ["1"]
    assert record.ids("Patient?_lastUpdated=gt2026-01-02") == ["2"]
    assert record.ids("Patient?_lastUpdated=2026-01-03T03:04:05.000Z") == ["2"]
    assert record.ids("Patient?_lastUpdated=ne2026-01-03") == ["1"]
    assert record.ids("Patient?_lastUpdated=ge2026-01-02&_lastUpdated=le2026-01-02") == ["1"]
    assert record.ids("Patient?_sort=-_lastUpdated") == ["2", "1"]
    record.keep({"resourceType": "Patient", "id": "1", "active": True})
    assert record.ids("Patient?_lastUpdated=2026-01-02") == []


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Organization?partof:below=Organization/1", ["2", "3"]),
        ("Organization?partof:below=2", ["3"]),
        ("Organization?partof:above=Organization/2", ["2", "3"]),
        ("Organization?partof:above=Organization/1", ["2"]),
        ("Patient?general-practitioner:below=Organization/2&_summary=count", None),
    ],
)
def test_hierarchies(filled: Any, text: str, wanted: list[str] | None) -> None:
    record, world = filled
    if wanted is not None:
        assert sorted(record.ids(text)) == wanted
        return
    below = {"Organization/2", "Organization/3"}
    doctors = [one.get("generalPractitioner", [{}])[0].get("reference") for one in world.resources.values()]
    assert record.search(text).total == sum(one in below for one in doctors)


def test_codes_of_value_sets(filled: Any) -> None:
    record, world = filled
    url = "http://hl7.org/fhir/ValueSet/administrative-gender"
    for modifier, flipped in (("in", False), ("not-in", True)):
        found = set(record.ids(f"Patient?gender:{modifier}={url}"))
        has = {one["id"] for one in world.resources.values() if one["resourceType"] == "Patient" and "gender" in one}
        assert found == (set("1234") - has if flipped else has)


def test_codes_of_stored_systems(record: Any) -> None:
    system = {
        "resourceType": "CodeSystem", "id": "s", "url": "urn:s", "status": "active", "content": "complete",
        "hierarchyMeaning": "is-a",
        "concept": [{"code": "top", "concept": [{"code": "mid", "concept": [{"code": "low"}]}]}, {"code": "other"}],
    }  # fmt: skip
    chosen = {
        "resourceType": "ValueSet", "id": "v", "url": "urn:v", "status": "active",
        "compose": {
            "include": [{"system": "urn:s", "filter": [{"property": "concept", "op": "is-a", "value": "mid"}]}]
        },
    }  # fmt: skip
    seen = [
        {"resourceType": "Condition", "id": code, "subject": {"reference": "Patient/1"},
         "code": {"coding": [{"system": "urn:s", "code": code}]}}
        for code in ("top", "mid", "low", "other")
    ]  # fmt: skip
    record.keep(system, chosen, *seen)
    assert sorted(record.ids("Condition?code:in=urn:v")) == ["low", "mid"]
    assert sorted(record.ids("Condition?code:not-in=urn:v")) == ["other", "top"]
    assert sorted(record.ids("Condition?code:below=urn:s|mid")) == ["low", "mid"]
    assert sorted(record.ids("Condition?code:above=urn:s|mid")) == ["mid", "top"]
    with pytest.raises(Unsupported):
        record.ids("Condition?code:in=urn:unknown")


@pytest.mark.parametrize(
    "text", ["Patient?colour=red", "Patient?name:loud=x", "Starship?name=x", "Patient?birthdate=soon"]
)
def test_what_is_not_offered_is_an_error(record: Any, text: str) -> None:
    with pytest.raises(CarelakeError):
        parse_text(text)


@pytest.mark.parametrize(
    "text", ["Patient?family=%25", "Patient?family=_", "Patient?family:contains=%25", "Patient?family='"]
)
def test_signs_of_sql_are_only_signs(filled: Any, text: str) -> None:
    record, _ = filled
    assert record.ids(text) == []


def test_a_thousand_alternatives(filled: Any) -> None:
    record, _ = filled
    listed = ",".join(f"urn:y|c{n}" for n in range(990)) + ",http://loinc.org|a"
    assert record.ids(f"Observation?code={listed}") == record.ids("Observation?code=http://loinc.org|a")
    plain = ",".join(f"c{n}" for n in range(990)) + ",a"
    assert record.ids(f"Observation?code={plain}") == record.ids("Observation?code=a")
