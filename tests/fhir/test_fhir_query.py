"""Searches as data: values, modifiers, chains, settings, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carelake.core.errors import Invalid, Unsupported
from carelake.fhir.definitions import resource_types
from carelake.fhir.query import (
    CompositeValue,
    Condition,
    DateValue,
    NearValue,
    NumberValue,
    Query,
    ReferenceValue,
    Sort,
    StringValue,
    TokenValue,
    UriValue,
    WordsValue,
    parse,
    parse_text,
)
from carelake.fhir.search.registry import parameters
from carelake.fhir.search.values import date_range


def one(text: str) -> Condition:
    (condition,) = parse_text(text).conditions
    return condition


def token(code: str | None, system: str | None = None) -> TokenValue:
    return TokenValue(system, code)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("Patient?gender=male", [token("male")]),
        ("Patient?gender=male,female", [token("male"), token("female")]),
        ("Patient?identifier=http://s|1", [token("1", "http://s")]),
        ("Patient?identifier=|1", [token("1", "")]),
        ("Patient?identifier=http://s|", [token(None, "http://s")]),
        ("Patient?identifier=s|a|b", [token("a|b", "s")]),
        (r"Patient?identifier=a\,b\|c\$\\", [token(r"a,b|c$" + "\\")]),
        (r"Patient?identifier=a\\,b", [token("a\\"), token("b")]),
        (r"Patient?identifier=a\x", [token(r"a\x")]),
        ("Patient?identifier=a\\", [token("a\\")]),
        ("Patient?active=true", [token("true")]),
        ("Patient?name=O'Brien", [StringValue("O'Brien", "obrien")]),
        ("Patient?phonetic=Ann Smyth", [WordsValue(("AN", "SM0"))]),
        (r"Patient?name=a\,b", [StringValue("a,b", "a b")]),
        ("Patient?birthdate=2020", [DateValue("eq", *date_range("2020"))]),
        ("Patient?birthdate=ge2020-01-02", [DateValue("ge", *date_range("2020-01-02"))]),
        ("Patient?birthdate=2020-01-02T10:20Z", [DateValue("eq", *date_range("2020-01-02T10:20Z"))]),
        ("Observation?value-quantity=5.4", [NumberValue("eq", 5.4, 5.35, 5.45)]),
        ("Observation?value-quantity=lt5.4|http://u|mg", [NumberValue("lt", 5.4, 5.35, 5.45, "http://u", "mg")]),
        ("Observation?value-quantity=5.4||mg", [NumberValue("eq", 5.4, 5.35, 5.45, None, "mg")]),
        ("Observation?value-quantity=-5.4", [NumberValue("eq", -5.4, -5.45, -5.35)]),
        ("RiskAssessment?probability=ap0.5", [NumberValue("ap", 0.5, 0.45, 0.55)]),
        ("RiskAssessment?probability=1e2", [NumberValue("eq", 100, 95, 105)]),
        ("Observation?subject=1", [ReferenceValue("", "1", "")]),
        ("Observation?patient=1", [ReferenceValue("Patient", "1", "")]),
        ("Observation?subject:Patient=1", [ReferenceValue("Patient", "1", "")]),
        ("Observation?subject=Group/1", [ReferenceValue("Group", "1", "")]),
        ("Observation?subject=Patient/1/_history/2", [ReferenceValue("Patient", "1", "")]),
        ("Observation?subject=http://h/Patient/1", [ReferenceValue("", "", "http://h/Patient/1")]),
        ("Observation?subject=urn:uuid:1-2", [ReferenceValue("", "", "urn:uuid:1-2")]),
        (
            "QuestionnaireResponse?questionnaire=http://h/q%7C2",
            [ReferenceValue("", "", "http://h/q|2")],
        ),
        (
            "QuestionnaireResponse?questionnaire=Questionnaire/1",
            [ReferenceValue("Questionnaire", "1", ""), ReferenceValue("", "", "Questionnaire/1")],
        ),
        ("ValueSet?url=http://h/a", [UriValue("http://h/a")]),
        ("ValueSet?url=urn:oid:1.2", [UriValue("urn:oid:1.2")]),
        ("Patient?_id=a,b", [token("a"), token("b")]),
        ("Patient?_list=42", [token("42")]),
        ("Patient?_lastUpdated=gt2020", [DateValue("gt", *date_range("2020"))]),
        ("Patient?_tag=s|c", [token("c", "s")]),
        ("Patient?_profile=http://p", [UriValue("http://p")]),
        ("Patient?_source=http://p", [UriValue("http://p")]),
        ("Patient?_security=R", [token("R")]),
        (
            "Observation?code-value-quantity=loinc|12907-2$gt150||u",
            [CompositeValue((token("12907-2", "loinc"), NumberValue("gt", 150, 149.5, 150.5, None, "u")))],
        ),
        (
            r"Observation?component-code-value-concept=a\$b$c,d$e",
            [CompositeValue((token("a$b"), token("c"))), CompositeValue((token("d"), token("e")))],
        ),
        ("Location?near=-83.69|42.25|11.2|km", [NearValue(-83.69, 42.25, 11.2)]),
        ("Location?near=1|2", [NearValue(1, 2, 50)]),
        ("Location?near=1|2|1000|m", [NearValue(1, 2, 1)]),
        ("Location?near=1|2|10|[mi_i]", [NearValue(1, 2, pytest.approx(16.09344))]),  # type: ignore[arg-type]
        ("Condition?_text=Metástasis", [WordsValue(("metastasis",))]),
        ("Condition?_text=bone liver", [WordsValue(("bone", "liver"))]),
        ("Condition?_text=bone or liver", [WordsValue(("bone",)), WordsValue(("liver",))]),
        (
            "Condition?_text=(bone OR liver) and metastases",
            [WordsValue(("bone", "metastases")), WordsValue(("liver", "metastases"))],
        ),
    ],
)
def test_values(text: str, values: list[Any]) -> None:
    assert list(one(text).values) == values
    assert one(text).modifier == ""


@pytest.mark.parametrize("text", ["http://here/fhir/Patient/1", "Patient/1", "http://here/fhir/Patient/1/_history/2"])
def test_references_below_our_own_address_are_found_both_ways(text: str) -> None:
    pairs = [("subject", f"{text},http://here/fhirx/Patient/1")]
    values = parse("Observation", pairs, base="http://here/fhir").conditions[0].values
    assert values == (
        ReferenceValue("Patient", "1", ""),
        ReferenceValue("", "", "http://here/fhir/Patient/1"),
        ReferenceValue("", "", "http://here/fhirx/Patient/1"),
    )
    many = ",".join(f"Patient/{n}" for n in range(1000))
    assert len(parse("Observation", [("subject", many)], base="http://here/fhir").conditions[0].values) == 2000


def test_all_values_together_have_a_bound() -> None:
    values = ",".join(f"v{n}" for n in range(1000))
    assert parse("Observation", [("code", values)] * 20)
    for types, pairs in (("Observation", [("code", values)] * 21), ("Provenance", [("target.identifier", values)])):
        with pytest.raises(Invalid, match="values"):
            parse(types, pairs)


def test_approximate_dates_are_as_much_wider_as_they_are_precise() -> None:
    assert one("Patient?birthdate=ap2020-01-02").values == (
        DateValue("ap", date_range("2020-01-01")[0], date_range("2020-01-03")[1]),
    )


@pytest.mark.parametrize("prefix", ["eq", "ne", "gt", "lt", "ge", "le", "sa", "eb", "ap"])
@pytest.mark.parametrize(
    "stem", ["Patient?birthdate=%s2020", "RiskAssessment?probability=%s0.5", "Observation?value-quantity=%s5||mg"]
)
def test_prefixes(prefix: str, stem: str) -> None:
    (value,) = one(stem % prefix).values
    assert isinstance(value, DateValue | NumberValue)
    assert value.prefix == prefix


@pytest.mark.parametrize(
    ("text", "modifier", "value"),
    [
        ("Patient?name:exact=Ada", "exact", StringValue("Ada", "ada")),
        ("Patient?name:contains=da", "contains", StringValue("da", "da")),
        ("Patient?gender:not=male", "not", token("male")),
        ("Condition?code:text=Head ache", "text", StringValue("Head ache", "head ache")),
        ("Condition?code:in=http://v", "in", UriValue("http://v")),
        ("Condition?code:not-in=http://v|1", "not-in", UriValue("http://v|1")),
        ("Condition?code:above=s|c", "above", token("c", "s")),
        ("Condition?code:below=s|c", "below", token("c", "s")),
        ("Patient?identifier:of-type=s|MR|1", "of-type", token("MR|1", "s")),
        ("Patient?identifier:of-type=|MR|1", "of-type", token("MR|1")),
        (r"Patient?identifier:of-type=s|MR|a\|b", "of-type", token("MR|a|b", "s")),
        ("Observation?subject:identifier=s|1", "identifier", token("1", "s")),
        ("ValueSet?url:below=http://h/", "below", UriValue("http://h/")),
        ("ValueSet?url:above=http://h/a", "above", UriValue("http://h/a")),
        ("Location?partof:below=1", "below", ReferenceValue("Location", "1", "")),
        ("Patient?_id:not=1", "not", token("1")),
    ],
)
def test_modifiers(text: str, modifier: str, value: Any) -> None:
    assert one(text).modifier == modifier
    assert one(text).values == (value,)


def test_missing() -> None:
    for name in ("Patient?gender", "Patient?birthdate", "Observation?subject", "Location?near", "ValueSet?url"):
        for said in (True, False):
            found = one(f"{name}:missing={str(said).lower()}")
            assert (found.modifier, found.missing, found.values) == ("missing", said, ())


def parameter(kind: str, code: str) -> Any:
    return parameters(kind)[code]


NAME = Condition(parameter("Patient", "name"), "exact", (StringValue("Ada", "ada"),))


def test_chains() -> None:
    inner = Query(("Patient",), (NAME,))
    assert one("Observation?subject:Patient.name:exact=Ada") == Condition(
        parameter("Observation", "subject"), "chain", chain=(inner,)
    )
    assert one("Observation?patient.name:exact=Ada").chain == (inner,)


def test_a_chain_without_type_goes_to_every_type_that_has_the_parameter() -> None:
    found = one("Observation?subject.name:exact=Ada").chain
    assert [query.type for query in found] == ["Location", "Patient"]
    assert found[1].conditions == (NAME,)
    everywhere = one("Observation?subject.identifier:of-type=a|b|c").chain
    assert [query.type for query in everywhere] == ["Device", "Group", "Location", "Patient"]


def test_a_type_where_modifier_or_value_mean_nothing_has_no_match() -> None:
    # The status of a Group is none; that of an Encounter is a code; contains goes with texts only.
    found = one("DocumentReference?related.title:contains=x").chain
    assert "string" in {query.conditions[0].type for query in found}
    assert all(query.conditions[0].type == "string" for query in found)


def test_chains_go_on() -> None:
    found = one("Observation?encounter:Encounter.patient.organization.partof.name=a")
    for kind in ("Encounter", "Patient", "Organization", "Organization"):
        (query,) = found.chain
        assert query.type == kind
        (found,) = query.conditions
    assert (found.code, found.values) == ("name", (StringValue("a", "a"),))


def test_has() -> None:
    found = one("Patient?_has:Observation:patient:code=1234-5")
    assert found.has is not None
    assert (found.code, found.has.type, found.has.reference.code) == ("_has", "Observation", "patient")
    assert found.has.query.conditions[0].values == (token("1234-5"),)


def test_has_within_has_and_chains() -> None:
    found = one("Patient?_has:Observation:patient:_has:AuditEvent:entity:agent.name:exact=x").has
    assert found is not None
    inner = found.query.conditions[0].has
    assert inner is not None
    assert inner.type == "AuditEvent"
    chained = inner.query.conditions[0]
    assert {query.type for query in chained.chain} == {"Organization", "Patient", "Practitioner", "RelatedPerson"}


def test_has_at_the_end_of_a_chain() -> None:
    (query,) = one("Encounter?subject:Patient._has:Group:member:_id=102").chain
    (condition,) = query.conditions
    assert query.type == "Patient"
    assert condition.has is not None
    assert condition.has.query.conditions == (Condition("_id", values=(token("102"),)),)


def test_repeats_are_all_to_hold() -> None:
    query = parse("Patient", [("name", "a"), ("name", "b")])
    assert [condition.values[0] for condition in query.conditions] == [StringValue("a", "a"), StringValue("b", "b")]


def test_settings() -> None:
    query = parse_text("Patient?_sort=-birthdate,_id,family&_count=20&_total=accurate&_elements=name,gender")
    assert query == Query(
        ("Patient",),
        sort=(
            Sort(parameter("Patient", "birthdate"), True),
            Sort("_id"),
            Sort(parameter("Patient", "family")),
        ),
        count=20,
        total="accurate",
        elements=("name", "gender"),
    )
    assert parse_text("Patient?_summary=count").count_only
    assert parse_text("Patient?_count=0").count_only
    assert parse_text("/Patient") == Query(("Patient",))
    for said in ("true", "text", "data"):
        assert parse_text(f"Patient?_summary={said}").summary == said
    assert parse_text("Patient?_summary=false&_pretty=true&_format=application/fhir%2Bjson&_contained=false") == (
        Query(("Patient",))
    )


@pytest.mark.parametrize(
    "key", ["gender", "organization", "url", "_lastUpdated", "value-quantity", "probability", "_tag", "_profile"]
)
def test_sort_takes_every_type_that_has_an_order(key: str) -> None:
    kind = {"url": "ValueSet", "value-quantity": "Observation", "probability": "RiskAssessment"}.get(key, "Patient")
    assert [sort.code for sort in parse_text(f"{kind}?_sort={key}").sort] == [key]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("Patients?name=a", "search.unknown_type"),
        ("", "search.unknown_type"),
        ("a/b", "search.unknown_type"),
        ("Patient?nam=a", "search.unknown_parameter"),
        ("Patient?code=a", "search.unknown_parameter"),
        ("Patient?_type=Patient", "search.unknown_parameter"),
        ("Patient?name:foo=a", "search.unknown_modifier"),
        ("Patient?name:=a", "search.unknown_modifier"),
        ("Patient?name:text=a", "search.unknown_modifier"),
        ("Patient?gender:exact=a", "search.unknown_modifier"),
        ("Patient?birthdate:not=2020", "search.unknown_modifier"),
        ("Patient?_list:missing=true", "search.unknown_modifier"),
        ("Patient?name:Patient=1", "search.unknown_modifier"),
        ("Patient?organization:Patient=1", "search.unknown_modifier"),
        ("Patient?organization:identifier.name=1", "search.unknown_modifier"),
        ("Observation?subject.nam=a", "search.unknown_parameter"),
        ("Patient?name.family=a", "search.unknown_parameter"),
        ("Patient?_id.family=a", "search.unknown_parameter"),
        ("Patient?_has:Observation=a", "search.unknown_parameter"),
        ("Patient?_has:Observation:patient:=a", "search.unknown_parameter"),
        ("Patient?_has:Observations:patient:code=a", "search.unknown_parameter"),
        ("Patient?_has:Observation:code:code=a", "search.unknown_parameter"),
        ("Patient?_has:Observation:encounter:code=a", "search.unknown_parameter"),
        ("Patient?birthdate=soon", "search.bad_value"),
        ("Patient?birthdate=2021-02-30", "search.bad_value"),
        ("Patient?birthdate=gt", "search.bad_value"),
        ("Patient?gender=", "search.bad_value"),
        ("Patient?gender=a,", "search.bad_value"),
        ("Patient?gender=|", "search.bad_value"),
        ("Patient?gender:missing=maybe", "search.bad_value"),
        ("Patient?identifier:of-type=a|b", "search.bad_value"),
        ("Patient?identifier:of-type=a||b", "search.bad_value"),
        ("Condition?code:below=a", "search.bad_value"),
        ("Condition?code:above=s|", "search.bad_value"),
        ("Patient?_id=a/b", "search.bad_value"),
        ("Patient?_list=$current-problems", "search.bad_value"),
        ("Patient?organization=Patient/1", "search.bad_value"),
        ("Patient?organization=Organization/a_b", "search.bad_value"),
        ("Patient?organization=a b", "search.bad_value"),
        ("Patient?organization=#a", "search.bad_value"),
        ("Patient?_count=x", "search.bad_value"),
        ("Patient?_count=-1", "search.bad_value"),
        ("Patient?_count=1&_count=2", "search.bad_value"),
        ("Patient?_total=all", "search.bad_value"),
        ("Patient?_summary=some", "search.bad_value"),
        ("Patient?_summary=text&_include=Patient:organization", "search.bad_value"),
        ("Patient?_elements=nose", "search.bad_value"),
        ("Patient?_pretty=perhaps", "search.bad_value"),
        ("Patient?_sort=nose", "search.unknown_parameter"),
        ("Patient?_sort=-", "search.bad_value"),
        ("Patient?_sort=" + ",".join(["name"] * 11), "search.too_many"),
        ("Observation?value-quantity=5.4|mg", "search.bad_value"),
        ("Observation?value-quantity=1e999", "search.bad_value"),
        ("Observation?value-quantity=NaN", "search.bad_value"),
        ("Observation?code-value-quantity=a", "search.bad_value"),
        ("Observation?code-value-quantity=a$b", "search.bad_value"),
        ("Observation?code-value-quantity=a$1$2", "search.bad_value"),
        ("Location?near=1", "search.bad_value"),
        ("Location?near=91|2|3|km", "search.bad_value"),
        ("Location?near=1|2|3|kg", "search.bad_value"),
        ("Location?near=1|2|-3|km", "search.bad_value"),
        ("Location?near=1||2|km", "search.bad_value"),
        ("Location?near=nan|1|2|km", "search.bad_value"),
        ("Condition?_text=(a", "search.bad_value"),
        ("Condition?_text=a)", "search.bad_value"),
        ("Condition?_text=a OR", "search.bad_value"),
        ("Condition?_text=NOT a", "search.bad_value"),
        ("Condition?_text=---", "search.bad_value"),
        ("Condition?_text=" + " ".join(["(a OR b)"] * 30), "search.bad_value"),
        ("Condition?_text=" + "(" * 900, "search.bad_value"),
        ("Patient?name", "search.syntax"),
        ("Patient?" + "&".join(["name=a"] * 101), "search.syntax"),
        ("Patient?name=" + ",".join(["a"] * 1001), "search.too_many"),
        ("Observation?" + "patient.general-practitioner:Patient." * 3 + "name=a", "search.unknown_modifier"),
        ("Organization?" + "partof." * 40 + "name=a", "search.too_many"),
        ("Patient?" + "_has:Patient:link:" * 40 + "name=a", "search.too_many"),
        ("Provenance?target.target.target.target._id=1", "search.too_many"),
    ],
)
def test_what_is_invalid(text: str, code: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_text(text)
    assert caught.value.code == code
    assert not isinstance(caught.value, Unsupported)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("Patient?_filter=name eq a", "_filter"),
        ("Patient?_query=a", "_query"),
        ("Patient?_content=a", "_content"),
        ("Patient?_contained=both", "_contained"),
        ("Patient?_containedType=contained", "_containedType"),
        ("Patient?_sort=_score", "_score"),
        ("Observation?_sort=code-value-quantity", "code-value-quantity"),
        ("Location?_sort=near", "near"),
        ("Patient?_sort=_text", "_text"),
        ("Patient?_sort=phonetic", "phonetic"),
        ("Patient?active:text=a", "active"),
        ("Condition?code:of-type=a|b|c", "of-type"),
        ("Patient?_format=xml", "_format"),
    ],
)
def test_what_is_not_offered(text: str, named: str) -> None:
    with pytest.raises(Unsupported) as caught:
        parse_text(text)
    assert caught.value.code == "search.unsupported"
    assert named in caught.value.message


NAMES = (
    "name gender birthdate organization _id _count x _text _has:Group:member:type general-practitioner.name _list"
    " identifier:of-type _sort _include _revinclude:iterate _elements _summary _profile:below _total"
    " link:Patient.birthdate"
)


@given(
    st.sampled_from(NAMES.split()),
    st.text(max_size=20),
)
def test_no_message_holds_the_value(name: str, value: str) -> None:
    secret = f"{value}Zaphod{value}"
    said = ""
    try:
        parse("Patient", [(name, secret)])
    except Invalid as error:
        said = error.message
    assert "Zaphod" not in said


@pytest.mark.parametrize("name", ["_sort", "_include", "_revinclude:iterate", "_elements", "_type"])
@pytest.mark.parametrize("value", ["Zaphod", "-Zaphod", "Patient:Zaphod", "Patient:link:Zaphod", "Zaphod:link"])
def test_names_in_values_are_not_shown_unless_they_are_the_standards(name: str, value: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse((), [(name, value)])
    assert "Zaphod" not in caught.value.message
    with pytest.raises(Invalid, match="value-quantity"):
        parse("Patient", [("_sort", "value-quantity")])


def test_odd_names_are_not_shown() -> None:
    for name in ("Zaphod Beeblebrox", "name:Zaphod B", "organization.Zaphod=", "_has:Zaphod:a:b", "_sort:Zaphod,B"):
        with pytest.raises(Invalid) as caught:
            parse("Patient", [(name, "1")])
        assert "Zaphod" not in caught.value.message


SAMPLES = {
    "date": "2020", "number": "1", "quantity": "1", "uri": "urn:x", "reference": "x", "token": "x", "string": "x"
}  # fmt: skip


def test_every_offered_parameter_can_be_asked_for() -> None:
    for name in resource_types():
        for code, offered in parameters(name).items():
            value = SAMPLES.get(offered.type, "1|2" if code == "near" else "x")
            if offered.type == "composite":
                value = "$".join(SAMPLES[component.type] for component in offered.components)
            query = parse(name, [(code, value)])
            assert query.conditions[0].param is offered
