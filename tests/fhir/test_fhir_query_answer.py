"""What a search asks of its answer: includes, several types, compartments, lenient reading; and the Bundle."""

from __future__ import annotations

from typing import Any

import pytest

from carelake.core.errors import CarelakeError, Invalid
from carelake.fhir.bundle import search_entry, searchset
from carelake.fhir.compartment import COMPARTMENTS, compartment_codes, compartment_types, owner, patients
from carelake.fhir.definitions import resource_types
from carelake.fhir.query import Condition, Include, ReferenceValue, TokenValue, parse, parse_text
from carelake.fhir.search.registry import parameters


def reference(kind: str, code: str) -> Any:
    return parameters(kind)[code]


@pytest.mark.parametrize(
    ("text", "include"),
    [
        ("_include=Observation:subject", Include("Observation", reference("Observation", "subject"))),
        ("_include=Observation:subject:Group", Include("Observation", reference("Observation", "subject"), "Group")),
        ("_include=Observation:*", Include("Observation", None)),
        ("_include=*", Include("", None)),
        (
            "_include:iterate=Patient:organization",
            Include("Patient", reference("Patient", "organization"), iterate=True),
        ),
        (
            "_include:recurse=Observation:has-member",
            Include("Observation", reference("Observation", "has-member"), iterate=True),
        ),
    ],
)
def test_include(text: str, include: Include) -> None:
    assert parse_text(f"Observation?{text}").includes == (include,)


@pytest.mark.parametrize(
    ("text", "include"),
    [
        ("_revinclude=Provenance:target", Include("Provenance", reference("Provenance", "target"))),
        (
            "_revinclude=Provenance:target:Patient",
            Include("Provenance", reference("Provenance", "target"), "Patient"),
        ),
        ("_revinclude=Observation:*", Include("Observation", None)),
        (
            "_revinclude:iterate=DiagnosticReport:result",
            Include("DiagnosticReport", reference("DiagnosticReport", "result"), iterate=True),
        ),
    ],
)
def test_revinclude(text: str, include: Include) -> None:
    assert parse_text(f"Patient?{text}").revincludes == (include,)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("_include=Patient", "search.bad_value"),
        ("_include=Patient:", "search.bad_value"),
        ("_include=Patients:link", "search.bad_value"),
        ("_include=Patient:link:Patients", "search.bad_value"),
        ("_include=Patient:link:Group", "search.bad_value"),
        ("_include=Patient:link:Patient:x", "search.bad_value"),
        ("_include=Observation:subject", "search.bad_value"),
        ("_include=Patient:name", "search.unknown_parameter"),
        ("_include=Patient:nose", "search.unknown_parameter"),
        ("_include:foo=Patient:link", "search.unknown_modifier"),
        ("_include:=Patient:link", "search.unknown_modifier"),
        ("_revinclude=Observation:encounter", "search.bad_value"),
        ("_revinclude=Observation:subject:Group", "search.bad_value"),
        ("&".join(["_include=*"] * 51), "search.too_many"),
    ],
)
def test_what_cannot_be_included(text: str, code: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_text(f"Patient?{text}")
    assert caught.value.code == code


def test_kinds_are_all_that_the_answer_can_depend_on() -> None:
    text = "Observation?subject:Patient.organization.name=a&_has:Provenance:target:agent:Device.status=active"
    assert parse_text(text).kinds() == {"Observation", "Patient", "Organization", "Provenance", "Device"}
    text = "Observation?_include=Observation:subject:Group&_revinclude=Provenance:target:Observation"
    assert parse_text(text).kinds() == {"Observation", "Group", "Provenance"}
    assert parse_text("Observation?_include=Observation:specimen").kinds() == {"Observation", "Specimen"}
    wild = parse_text("Slot?_include=Slot:*")
    assert [one.code for one in wild.includes[0].wild] == ["schedule"]
    assert wild.kinds() == {"Slot", "Schedule"}
    assert parse_text("Observation?_include=*").kinds() == set(resource_types())
    assert parse_text("Patient/1/Observation").kinds() == {"Observation"}
    assert parse_text("?_type=Patient,Group").kinds() == {"Patient", "Group"}


def test_several_types() -> None:
    query = parse_text("?_type=Observation,Condition&code=x&_sort=-_lastUpdated&patient=1")
    assert (query.types, query.type, query.conditions) == (("Observation", "Condition"), "", ())
    assert [part.type for part in query.each()] == ["Observation", "Condition"]
    for part in query.each():
        assert part.conditions[0].param is reference(part.type, "code")
        assert part.sort[0].code == "_lastUpdated"
    single = parse_text("?_type=Patient&name=a")
    assert single.each() == (single,)
    assert single.type == "Patient"


def test_every_type() -> None:
    query = parse_text("?_lastUpdated=gt2024&_tag=x")
    assert set(query.types) == resource_types()
    assert len(query.parts) == len(query.types)
    assert parse((), []).types == parse_text("?").types


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("?name=a", "search.unknown_parameter"),
        ("?_type=Patient,Group&birthdate=2020", "search.unknown_parameter"),
        ("?_type=Patient,Nose", "search.bad_value"),
        ("?_type=", "search.bad_value"),
        ("?_type=Patient&_type=Group", "search.bad_value"),
        ("?_type=Patient,Observation&_sort=name", "search.unknown_parameter"),
        ("Group/1/Patient", "search.unknown_compartment"),
        ("Patient/a_b/Observation", "search.unknown_compartment"),
        ("Patient/1/Location", "search.unknown_compartment"),
        ("Patient/1/*?_type=Location", "search.unknown_compartment"),
        ("Patient/1/Nose", "search.unknown_type"),
        ("Patient/1/Observation/2", "search.unknown_type"),
    ],
)
def test_what_several_types_cannot(text: str, code: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_text(text)
    assert caught.value.code == code


def test_compartments() -> None:
    query = parse_text("Patient/123/Observation?code=x")
    assert query.compartment == ("Patient", "123")
    membership, code = query.conditions
    pointing = ReferenceValue("Patient", "123", "")
    assert membership.any == tuple(
        Condition(reference("Observation", name), values=(pointing,)) for name in ("subject", "performer")
    )
    assert code.code == "code"
    # One way in needs no choice.
    assert parse_text("Encounter/1/Observation").conditions == (
        Condition(reference("Observation", "encounter"), values=(ReferenceValue("Encounter", "1", ""),)),
    )


def test_a_compartment_holds_what_it_is_of() -> None:
    assert parse_text("Encounter/1/Encounter").conditions == (Condition("_id", values=(TokenValue(None, "1"),)),)
    (membership,) = parse_text("Patient/1/Patient").conditions
    assert [one.code for one in membership.any] == ["_id", "link"]


def test_all_of_a_compartment() -> None:
    query = parse_text("Patient/1/*?_lastUpdated=gt2024")
    assert query.types == compartment_types("Patient")
    assert "Patient" in query.types
    assert all(len(part.conditions) == 2 for part in query.parts)
    assert parse_text("Patient/1/*?_type=Observation").type == "Observation"


def test_the_five_compartments() -> None:
    assert {kind: len(compartment_types(kind)) for kind in COMPARTMENTS} == {
        "Device": 33, "Encounter": 25, "Patient": 66, "Practitioner": 59, "RelatedPerson": 32,
    }  # fmt: skip
    for kind in COMPARTMENTS:
        for name in compartment_types(kind):
            for code in compartment_codes(kind, name):
                assert reference(name, code).type == "reference"
    assert owner({"resourceType": "Observation", "subject": {"reference": "Patient/1"}}) == "1"
    assert patients({"resourceType": "Group", "member": [{"entity": {"reference": "Patient/1"}}]}) == {"1"}


def test_lenient_leaves_out_what_is_unknown_and_says_so() -> None:
    text = "Patient?nose=1&name=a&gender:foo=b&_sort=name,nose&_include=Patient:nose&_filter=x&a b=c&_contained=both"
    query = parse_text(text, lenient=True)
    assert query.ignored == ("nose", "gender:foo", "_filter", "(not shown)", "_sort", "_include", "_contained")
    assert [one.code for one in query.conditions] == ["name"]
    assert [one.code for one in query.sort] == ["name"]
    assert parse_text(query.text()) == query
    assert parse_text(query.text()).ignored == ()


@pytest.mark.parametrize(
    "text", ["Patient?birthdate=soon", "Nose?a=b", "Patient?_count=x", "Patient?_id=" + "1," * 1001]
)
def test_lenient_does_not_take_wrong_values(text: str) -> None:
    with pytest.raises(CarelakeError):
        parse_text(text, lenient=True)


@pytest.mark.parametrize(
    "text",
    [
        "Patient",
        "Patient?name=a",
        "Patient?name:exact=M%C3%BCller%20%26%20Co&name=a%3Db%2Bc",
        r"Patient?identifier=a\,b\|c",
        "?_type=Patient,Group&_id=1",
        "?",
        "Patient/1/Observation?code=x",
        "Patient/1/*",
        "Patient?_has:Observation:patient:code=1&_count=0&_include:iterate=Patient:link",
    ],
)
def test_a_search_is_written_so_that_it_reads_as_itself(text: str) -> None:
    query = parse_text(text)
    assert parse_text(query.text()) == query
    assert parse_text(query.text()).text() == query.text()


PATIENT = {"resourceType": "Patient", "id": "1"}
GROUP = {"resourceType": "Group", "id": "1"}
OUTCOME = {"resourceType": "OperationOutcome", "issue": []}


def test_searchset() -> None:
    links = {"self": "http://h/Patient", "next": "http://h/Patient?_page=x"}
    found = [
        search_entry(PATIENT, base="http://h"),
        search_entry(GROUP, "include", "http://h"),
        search_entry(OUTCOME, "outcome", "http://h"),
    ]
    assert searchset(found, total=7, links=links) == {
        "resourceType": "Bundle",
        "type": "searchset",
        "total": 7,
        "link": [
            {"relation": "self", "url": "http://h/Patient"},
            {"relation": "next", "url": "http://h/Patient?_page=x"},
        ],
        "entry": [
            {"fullUrl": "http://h/Patient/1", "resource": PATIENT, "search": {"mode": "match"}},
            {"fullUrl": "http://h/Group/1", "resource": GROUP, "search": {"mode": "include"}},
            {"resource": OUTCOME, "search": {"mode": "outcome"}},
        ],
    }
    assert searchset() == {"resourceType": "Bundle", "type": "searchset"}
    assert searchset(total=0)["total"] == 0
    assert "fullUrl" not in search_entry(PATIENT)
