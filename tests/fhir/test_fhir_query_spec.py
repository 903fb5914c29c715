"""Searches as https://hl7.org/fhir/R4/search.html shows them, section by section: what each is read as."""

from __future__ import annotations

from typing import Any

import pytest

from carelake.core.errors import Invalid, Unsupported
from carelake.fhir.query import Condition, Query, parse_text


def told(condition: Condition) -> Any:
    """A condition in short: code, modifier, and what it asks."""
    if condition.any:
        return ["any", *map(told, condition.any)]
    if condition.chain:
        return [condition.code, {query.type: [told(one) for one in query.conditions] for query in condition.chain}]
    if condition.has is not None:
        has = condition.has
        return ["_has", has.type, has.reference.code, *map(told, has.query.conditions)]
    asked: Any = condition.missing if condition.modifier == "missing" else len(condition.values)
    return [f"{condition.code}:{condition.modifier}" if condition.modifier else condition.code, asked]


@pytest.mark.parametrize(
    ("section", "text", "conditions"),
    [
        ("lastUpdated", "Observation?_lastUpdated=gt2010-10-01", [["_lastUpdated", 1]]),
        ("tag", "Condition?_tag=http://acme.org/codes|needs-review", [["_tag", 1]]),
        ("profile", "DiagnosticReport?_profile=http://hl7.org/fhir/StructureDefinition/lipid", [["_profile", 1]]),
        ("profile", "Patient?_profile=Profile/lipid", [["_profile", 1]]),
        ("modifiers", "Patient?gender:missing=true", [["gender:missing", True]]),
        ("prefix", "Observation?value-quantity=lt0.25", [["value-quantity", 1]]),
        ("number", "RiskAssessment?probability=gt0.8", [["probability", 1]]),
        ("number", "ImmunizationRecommendation?date=2020-01-01", [["date", 1]]),
        ("date", "Procedure?date=ge2010-01-01&date=le2011-12-31", [["date", 1], ["date", 1]]),
        ("date", "Procedure?date=2013-01-14T10:00:00%2B01:00", [["date", 1]]),
        ("date", "Procedure?date:missing=true", [["date:missing", True]]),
        ("string", "Patient?given=eve", [["given", 1]]),
        ("string", "Patient?given:contains=eve", [["given:contains", 1]]),
        ("string", "Patient?given:exact=Eve", [["given:exact", 1]]),
        ("uri", "ValueSet?url=http://acme.org/fhir/ValueSet/123", [["url", 1]]),
        ("uri", "ValueSet?url:below=http://acme.org/fhir/", [["url:below", 1]]),
        ("uri", "ValueSet?url:above=http://acme.org/fhir/ValueSet/123/_history/5", [["url:above", 1]]),
        ("uri", "ValueSet?url=urn:oid:1.2.3.4.5", [["url", 1]]),
        ("token", "Patient?identifier=http://acme.org/patient|2345", [["identifier", 1]]),
        ("token", "Patient?gender=male", [["gender", 1]]),
        ("token", "Patient?gender:not=male", [["gender:not", 1]]),
        ("token", "Composition?section=48765-2", [["section", 1]]),
        ("token", "Composition?section:not=48765-2", [["section:not", 1]]),
        ("token", "Patient?active=true", [["active", 1]]),
        ("token", "Condition?code=http://acme.org/conditions/codes|ha125", [["code", 1]]),
        ("token", "Condition?code=ha125", [["code", 1]]),
        ("token", "Condition?code:text=headache", [["code:text", 1]]),
        ("token", "Condition?code:in=http%3A%2F%2Fsnomed.info%2Fsct%3Ffhir_vs%3Disa%2F126851005", [["code:in", 1]]),
        ("token", "Condition?code:below=http://snomed.info/sct|126851005", [["code:below", 1]]),
        (
            "token",
            "Patient?identifier:of-type=http://terminology.hl7.org/CodeSystem/v2-0203|MR|446053",
            [["identifier:of-type", 1]],
        ),
        ("quantity", "Observation?value-quantity=5.4|http://unitsofmeasure.org|mg", [["value-quantity", 1]]),
        ("quantity", "Observation?value-quantity=5.40e-3|http://unitsofmeasure.org|g", [["value-quantity", 1]]),
        ("quantity", "Observation?value-quantity=5.4||mg", [["value-quantity", 1]]),
        ("quantity", "Observation?value-quantity=ap5.4|http://unitsofmeasure.org|mg", [["value-quantity", 1]]),
        ("reference", "Observation?subject=Patient/23", [["subject", 1]]),
        ("reference", "Observation?subject:Patient=23", [["subject", 1]]),
        ("reference", "Observation?patient=23", [["patient", 1]]),
        ("reference", "Observation?subject:identifier=http://acme.org/fhir/mrn|1234", [["subject:identifier", 1]]),
        ("reference", "Location?partof:below=Location/42", [["partof:below", 1]]),
        ("chaining", "DiagnosticReport?subject:Patient.name=peter", [["subject", {"Patient": [["name", 1]]}]]),
        (
            "chaining",
            "DiagnosticReport?subject.name=peter",
            [["subject", {"Location": [["name", 1]], "Patient": [["name", 1]]}]],
        ),
        (
            "chaining",
            "Patient?general-practitioner:Practitioner.name=Joe&general-practitioner:Practitioner.address-state=MN",
            [
                ["general-practitioner", {"Practitioner": [["name", 1]]}],
                ["general-practitioner", {"Practitioner": [["address-state", 1]]}],
            ],
        ),
        ("has", "Patient?_has:Observation:patient:code=1234-5", [["_has", "Observation", "patient", ["code", 1]]]),
        (
            "has",
            "Patient?_has:Observation:patient:_has:AuditEvent:entity:agent=Practitioner/1",
            [["_has", "Observation", "patient", ["_has", "AuditEvent", "entity", ["agent", 1]]]],
        ),
        ("has", "Patient?_has:Group:member:_id=102", [["_has", "Group", "member", ["_id", 1]]]),
        (
            "has",
            "Encounter?patient._has:Group:member:_id=102",
            [["patient", {"Patient": [["_has", "Group", "member", ["_id", 1]]]}]],
        ),
        ("combining", "Patient?given=peter&given=james", [["given", 1], ["given", 1]]),
        ("combining", "Patient?language=FR,NL&language=EN", [["language", 2], ["language", 1]]),
        (
            "composite",
            "DiagnosticReport?result.code-value-quantity=http://loinc.org|2823-3$gt5.4|http://unitsofmeasure.org|mmol/L",
            [["result", {"Observation": [["code-value-quantity", 1]]}]],
        ),
        (
            "composite",
            "Observation?component-code-value-quantity=loinc|8480-6$lt60",
            [["component-code-value-quantity", 1]],
        ),
        ("composite", "Group?characteristic-value=gender$mixed", [["characteristic-value", 1]]),
        (
            "composite",
            "Questionnaire?context-type-value=focus$http://snomed.info/sct|408934002",
            [["context-type-value", 1]],
        ),
        ("escaping", r"Observation?code=a\,b&value-string=d\$e", [["code", 1], ["value-string", 1]]),
        ("text", "Condition?_text=(bone OR liver) and metastases", [["_text", 2]]),
        ("list", "Patient?_list=42", [["_list", 1]]),
        ("list", "AllergyIntolerance?patient=42&_list=7", [["patient", 1], ["_list", 1]]),
        ("near", "Location?near=-72.519854|42.256500|11.20|km", [["near", 1]]),
        ("compartment", "Patient/23/Condition", [["any", ["patient", 1], ["asserter", 1]]]),
    ],
)
def test_conditions(section: str, text: str, conditions: Any) -> None:
    assert [told(one) for one in parse_text(text).conditions] == conditions


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "Observation?_sort=status,-date,category",
            {"sort": [("status", False), ("date", True), ("category", False)]},
        ),
        ("Patient?_sort=_id", {"sort": [("_id", False)]}),
        ("Patient?_count=30", {"count": 30}),
        ("Patient?_summary=count", {"summary": "count", "count": None}),
        ("Patient?_count=0", {"summary": "count", "count": None}),
        ("Patient?_summary=true", {"summary": "true"}),
        ("Patient?_elements=identifier,active,link", {"elements": ("identifier", "active", "link")}),
        ("Patient?_total=estimate", {"total": "estimate"}),
        (
            "MedicationDispense?_include=MedicationDispense:prescription&_include:iterate=MedicationRequest:requester",
            {
                "includes": [
                    ("MedicationDispense", "prescription", "", False),
                    ("MedicationRequest", "requester", "", True),
                ]
            },
        ),
        (
            "MedicationRequest?_include=MedicationRequest:requester:Practitioner",
            {"includes": [("MedicationRequest", "requester", "Practitioner", False)]},
        ),
        ("MedicationRequest?_include=*", {"includes": [("", "*", "", False)]}),
        ("MedicationRequest?_revinclude=Provenance:target", {"revincludes": [("Provenance", "target", "", False)]}),
        (
            "Patient?_revinclude:iterate=Observation:subject",
            {"revincludes": [("Observation", "subject", "", True)]},
        ),
    ],
)
def test_answers(text: str, expected: dict[str, Any]) -> None:
    query: Query = parse_text(text)
    for name, value in expected.items():
        found: Any = getattr(query, name)
        if name == "sort":
            found = [(one.code, one.descending) for one in found]
        elif name.endswith("includes"):
            found = [
                (one.source, one.parameter.code if one.parameter else "*", one.target, one.iterate) for one in found
            ]
        assert found == value


@pytest.mark.parametrize(
    ("text", "named"),
    [
        # The standard has the server refuse rather than guess.
        ("Patient?_filter=name co 'pet'", "_filter"),
        ("Patient?_query=current-high-risk&ward=Location/A1", "_query"),
        ("Patient?given:foo=x", "given"),
        ("Patient?birthDate=2020", "birthDate"),
        ("AllergyIntolerance?patient=42&_list=$current-allergies", "_list"),
        ("Medication?_contained=true", "_contained"),
        ("Patient?gender:not.name=x", "gender"),
        # Below what, without a system?
        ("Condition?code:below=126851005", "code:below"),
    ],
)
def test_refusals_name_the_parameter(text: str, named: str) -> None:
    with pytest.raises((Invalid, Unsupported)) as caught:
        parse_text(text)
    assert named in caught.value.message
