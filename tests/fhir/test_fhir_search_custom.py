"""Custom SearchParameter resources: what is taken, what is refused and why, and that they find values."""

from __future__ import annotations

from typing import Any

import pytest

from carelake.core.errors import Invalid
from carelake.fhir.definitions import SearchDefinition
from carelake.fhir.search import BASE, Registry, definition, extract
from carelake.fhir.search import SearchDefinition as Exported

Resource = dict[str, Any]


def resource(expression: str, kind: str = "token", base: str = "Patient", **more: Any) -> Resource:
    return {
        "resourceType": "SearchParameter",
        "url": "http://own.test/SearchParameter/own",
        "name": "Own",
        "status": "active",
        "description": "x",
        "code": "own",
        "base": [base],
        "type": kind,
        "expression": expression,
        **more,
    }


def test_the_definition_of_a_resource() -> None:
    found = definition(resource("Patient.maritalStatus ", target=["Patient"], xpathUsage="normal"))
    assert found == SearchDefinition(
        "own",
        "token",
        ("Patient",),
        "Patient.maritalStatus",
        ("Patient",),
        (),
        "normal",
        "http://own.test/SearchParameter/own",
    )
    assert Exported is SearchDefinition


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"resourceType": "Patient"}, "expected a SearchParameter"),
        ({"url": ""}, "no url"),
        ({"code": "a:b"}, "its code"),
        ({"code": "a.b"}, "its code"),
        ({"type": "special"}, "its type"),
        ({"type": "quantities"}, "its type"),
        ({"base": ["HumanName"]}, "its base"),
        ({"base": []}, "its base"),
        ({"expression": " "}, "no expression"),
        ({"expression": "Patient.marital"}, "for Patient: R4 has no element marital"),
        ({"expression": "Patient.name"}, "no values of its type"),
        ({"expression": "Patient.gender | Patent.gender"}, "Patent is no resource type"),
        ({"expression": "Patient.name.where(use ="}, "is no FHIRPath"),
        ({"expression": "Patient.name.frist()"}, "is no FHIRPath"),
        ({"expression": "Patient.birthDate < today()"}, r"asks today\("),
        ({"expression": "Patient.link.other.resolve().name"}, "asks resolve"),
        ({"expression": "Patient.maritalStatus.where(memberOf('http://x'))"}, r"asks memberOf\("),
        ({"expression": "Patient.maritalStatus | " + "x" * 4000}, "up to 4000 characters"),
        ({"expression": "Observation.code"}, "no values of its type"),
        ({"base": ["Patient", "Person"], "expression": "Patient.maritalStatus"}, "for Person"),
        ({"type": "composite"}, "components"),
        ({"component": [{"definition": "http://x.test", "expression": "x"}]}, "components"),
    ],
)
def test_what_cannot_be_used_is_told(wrong: Resource, why: str) -> None:
    with pytest.raises(Invalid, match=why) as caught:
        definition({**resource("Patient.maritalStatus"), **wrong})
    assert caught.value.code == "search.definition"


def test_over_a_known_source_there_are_no_new_rows(patient: Resource) -> None:
    registry = Registry([definition(resource("Patient.identifier"))])
    assert registry.parameters("Patient")["own"].uses == BASE.parameters("Patient")["identifier"].uses
    assert registry.sources("Patient") == BASE.sources("Patient")
    assert extract(patient, registry) == extract(patient)
    assert registry.digest != BASE.digest
    assert registry.digest == Registry([definition(resource("Patient.identifier"))]).digest
    assert "own" not in BASE.parameters("Patient")
    assert "own" not in registry.parameters("Person")


def test_a_plain_path_that_is_new(patient: Resource) -> None:
    patient["maritalStatus"] = {"coding": [{"system": "s", "code": "M"}]}
    registry = Registry([definition(resource("Patient.maritalStatus"))])
    assert set(registry.sources("Patient")) - set(BASE.sources("Patient")) == {"token:maritalStatus"}
    rows = extract(patient, registry, only=["token:maritalStatus"])
    assert rows.tokens == [("token:maritalStatus", "s", "M")]
    assert rows.strings == []


EXPRESSIONS: list[tuple[str, str, str, set[Any]]] = [
    ("token", "Patient.name.first().use", "tokens", {("", "official")}),
    ("string", "Patient.name.where(use = 'official').first()", "strings", {
        ("otester nunez", "O'Tester-Nuñez"), ("ada", "Ada"), ("b", "B."), ("ada tester", "Ada Tester")}),
    ("string", "Patient.name.given[0]", "strings", {("ada", "Ada")}),
    ("string", "Patient.name.given.first() + ' ' + Patient.name.family.first()", "strings", {
        ("ada otester nunez", "Ada O'Tester-Nuñez")}),
    ("number", "Patient.name.given.count()", "quantities", {(2.0, 2.0, "", "")}),
    ("token", "Patient.name.given.exists()", "tokens", {("", "true")}),
    ("token", "Patient.telecom.where(system = 'phone' and value.exists())", "tokens", {("phone", "555-0100")}),
    ("reference", "Patient.generalPractitioner.where(resolve() is Practitioner).first()", "references", {
        ("Practitioner", "d1", "")}),
    ("reference", "Patient.generalPractitioner.where(resolve() is Organization).first()", "references", set()),
    ("date", "Patient.birthDate.where($this > @1950)", "dates", {(-278985600000000, -278899200000000)}),
    ("uri", "Patient.meta.source.where($this.startsWith('urn:'))", "uris", {("urn:test:source",)}),
    ("token", "Patient.extension('http://x.test/race').extension.value.first()", "tokens", {("", "x")}),
    ("token", "Patient.name.single().use | Patient.contact.gender.first()", "tokens", {
        ("", "official"), ("", "male")}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "expression", "table", "expected"), EXPRESSIONS)
def test_expressions_that_are_no_paths(
    kind: str, expression: str, table: str, expected: set[Any], patient: Resource
) -> None:
    registry = Registry([definition(resource(expression, kind))])
    uses = registry.parameters("Patient")["own"].uses
    names = {use.source.name for use in uses}
    assert all(use.source.name.startswith(f"{kind}:fhirpath:Patient.") for use in uses)
    assert {row[1:] for row in getattr(extract(patient, registry), table) if row[0] in names} == expected


def test_where_an_expression_fails_there_is_no_value(patient: Resource) -> None:
    registry = Registry([definition(resource("Patient.telecom.single().value", "string"))])
    (use,) = registry.parameters("Patient")["own"].uses
    assert not [row for row in extract(patient, registry).strings if row[0] == use.source.name]
    del patient["telecom"][1]
    assert [row[1] for row in extract(patient, registry).strings if row[0] == use.source.name] == ["555 0100"]


def test_extensions_are_plain_paths(patient: Resource) -> None:
    told = "Patient.extension.where(url='http://x.test/race').extension.where(url = 'text').value.ofType(string)"
    registry = Registry([definition(resource(told, "string"))])
    (use,) = registry.parameters("Patient")["own"].uses
    assert use.source.steps
    assert use.source.name == "string:extension[url=http://x.test/race].extension[url=text].value[string]"
    assert (use.source.name, "x", "x") in extract(patient, registry).strings


def test_definitions_for_every_resource() -> None:
    found = definition(resource("Resource.language", base="Resource"))
    registry = Registry([found])
    rows = extract({"resourceType": "Bundle", "language": "en-GB"}, registry)
    assert [row[2] for row in rows.tokens if row[0] == "token:language"] == ["en-GB"]
    domain = definition(
        resource("DomainResource.extension.where(url='http://x.test').value.ofType(code)", base="DomainResource")
    )
    assert "own" in Registry([domain]).parameters("Patient")
    assert "own" not in Registry([domain]).parameters("Bundle")


def test_a_code_that_is_taken_stays_with_the_standard() -> None:
    found = definition(resource("Patient.maritalStatus", code="gender"))
    registry = Registry([found])
    assert registry.parameters("Patient")["gender"] == BASE.parameters("Patient")["gender"]
    assert registry.shadowed("Patient") == {found.url: "the code gender is already that of another definition"}
    assert "token:maritalStatus" not in registry.sources("Patient")


def test_composites_of_ones_own(observation: Resource) -> None:
    own = definition(resource("Observation.bodySite", base="Observation", code="site", url="http://own.test/site"))
    pair = resource(
        "Observation",
        "composite",
        "Observation",
        component=[
            {"definition": "http://own.test/site", "expression": "bodySite"},
            {"definition": "http://hl7.org/fhir/SearchParameter/clinical-code|4.0.1", "expression": "code"},
        ],
    )
    early = Registry([definition(pair)])
    assert "not known" in early.unsupported("Observation")["own"]
    parameter = Registry([definition(pair, [own]), own]).parameters("Observation")["own"]
    assert [component.code for component in parameter.components] == ["site", "code"]
    assert [[use.source.name for use in uses] for uses in parameter.root] == [["token:bodySite"], ["token:code"]]
    assert parameter.parts == ()
    with pytest.raises(Invalid, match="no element nothing"):
        definition({**pair, "component": [pair["component"][1], {**pair["component"][1], "expression": "nothing"}]})
