"""Search parameters of types, and index values of resources."""

from __future__ import annotations

from typing import Any

import pytest

from carelake.core.canonical import load
from carelake.core.errors import Invalid
from carelake.core.records import IndexValues
from carelake.fhir import references
from carelake.fhir.definitions import resource_types
from carelake.fhir.references import target
from carelake.fhir.search import extract, parameters, unsupported, values
from carelake.fhir.search import extractor as extractor_module
from carelake.fhir.search.expression import Equals, Misfit, Path, Present, Refers, Step, read
from carelake.fhir.search.values import MAX_STRING, NUMBER_MAX, OPEN_HIGH, OPEN_LOW, date_range, normalise

Resource = dict[str, Any]


def of(rows: list[Any], param: str) -> set[Any]:
    return {row[1:] for row in rows if row[0] == param}


def test_every_resource_type_has_parameters() -> None:
    for name in resource_types():
        assert {"_tag", "_profile", "_security", "_source"} <= parameters(name).keys()
        assert not parameters(name).keys() & unsupported(name).keys()
        assert "_id" not in parameters(name)
    with pytest.raises(Invalid, match="no such resource type"):
        parameters("HumanName")


def test_what_is_not_offered_has_a_reason() -> None:
    assert "composite" in unsupported("Observation")["code-value-quantity"]
    assert "phonetic" in unsupported("Patient")["phonetic"]
    assert "special" in unsupported("Location")["near"]
    assert "FHIRPath" in unsupported("Bundle")["message"]
    left = {code for name in resource_types() for code in unsupported(name)}
    plain = {
        code
        for code in left
        if not any(code in unsupported(n) and "composite" in unsupported(n)[code] for n in resource_types())
    }
    assert plain == {"_content", "_text", "_query", "phonetic", "near", "message", "composition"}


def test_expressions() -> None:
    assert read("Patient.name | (Observation.value as Quantity)") == [
        Path("Patient", (Step("name"),)),
        Path("Observation", (Step("value", "Quantity"),)),
    ]
    assert read("Abc.b.where(resolve() is Patient)") == [Path("Abc", (Step("b", test=Refers("Patient")),))]
    assert read("Abc.b.where(system='phone').c") == [
        Path("Abc", (Step("b", test=Equals("system", "phone")), Step("c")))
    ]
    assert read("Abc.b.as(Age) | Abc.b.ofType(Range)") == [Path("Abc", (Step("b", t),)) for t in ("Age", "Range")]
    assert read("Abc.b.exists() and Abc.b != false") == [Path("Abc", (Step("b", test=Present()),))]
    for outside in ("Abc.b[0].c", "Abc.where(x='y')", "Abc.b.first()", "", "Abc.b = 'c'"):
        with pytest.raises(Misfit):
            read(outside)


def test_patient(patient: Resource) -> None:
    rows = extract(patient)
    assert of(rows.tokens, "gender") == {("http://hl7.org/fhir/administrative-gender", "female")}
    assert of(rows.tokens, "identifier") == {("http://mrn.test", "0001")}
    assert of(rows.tokens, "active") == {("", "true")}
    assert of(rows.tokens, "deceased") == {("", "false")}
    assert of(rows.tokens, "telecom") == {("phone", "555-0100"), ("email", "a@b.test")}
    assert of(rows.tokens, "phone") == {("phone", "555-0100")}
    assert of(rows.tokens, "email") == {("email", "a@b.test")}
    assert of(rows.tokens, "_tag") == {("http://tags.test", "made-up")}
    assert of(rows.strings, "family") == {("otester nunez", "O'Tester-Nuñez")}
    assert of(rows.strings, "given") == {("ada", "Ada"), ("b", "B.")}
    assert of(rows.strings, "name") == {
        ("otester nunez", "O'Tester-Nuñez"),
        ("ada", "Ada"),
        ("b", "B."),
        ("ada tester", "Ada Tester"),
    }
    assert of(rows.strings, "address") == {
        ("1 test way", "1 Test Way"),
        ("testville", "Testville"),
        ("00001", "00001"),
    }
    assert of(rows.strings, "address-city") == {("testville", "Testville")}
    assert of(rows.dates, "birthdate") == {date_range("1961-02-28")}
    assert of(rows.references, "general-practitioner") == {("Practitioner", "d1", "")}
    assert of(rows.uris, "_source") == {("urn:test:source",)}
    assert of(rows.uris, "_profile") == {("http://profiles.test/p",)}


def test_deceased_says_whether(patient: Resource) -> None:
    del patient["deceasedBoolean"]
    assert of(extract(patient).tokens, "deceased") == {("", "false")}
    patient["deceasedDateTime"] = "2020"
    rows = extract(patient)
    assert of(rows.tokens, "deceased") == {("", "true")}
    assert of(rows.dates, "death-date") == {date_range("2020")}


def test_observation(observation: Resource) -> None:
    rows = extract(observation)
    height = {("http://loinc.org", "8302-2"), ("http://own.test", "height")}
    assert of(rows.tokens, "code") == height
    assert of(rows.tokens, "combo-code") == height | {("http://loinc.org", "part")}
    assert of(rows.tokens, "component-code") == {("http://loinc.org", "part")}
    assert of(rows.tokens, "status") == {("http://hl7.org/fhir/observation-status", "final")}
    assert of(rows.dates, "date") == {date_range("2020-03-01T15:20:30Z")}
    assert of(rows.references, "patient") == of(rows.references, "subject") == {("Patient", "p1", "")}
    assert of(rows.references, "encounter") == {("Encounter", "e1", "")}
    assert of(rows.quantities, "value-quantity") == {(166.795, 166.805, "http://unitsofmeasure.org", "cm")}
    assert of(rows.quantities, "component-value-quantity") == {(5.35, 5.45, "", "mg")}
    assert len(of(rows.quantities, "combo-value-quantity")) == 2


def test_values_of_observations(observation: Resource) -> None:
    del observation["valueQuantity"], observation["component"]
    observation["valueCodeableConcept"] = {"coding": [{"system": "s", "code": "c"}], "text": "Some Text"}
    rows = extract(observation)
    assert of(rows.tokens, "value-concept") == {("s", "c")}
    assert of(rows.strings, "value-string") == {("some text", "Some Text")}
    assert rows.quantities == []


def test_encounter(encounter: Resource) -> None:
    rows = extract(encounter)
    assert of(rows.dates, "date") == {(date_range("2020-03-01T10:00:00Z")[0], OPEN_HIGH)}
    assert of(rows.references, "participant") == {("Practitioner", "d1", ""), ("RelatedPerson", "r1", "")}
    assert of(rows.references, "practitioner") == {("Practitioner", "d1", "")}
    assert of(rows.references, "location") == set()  # a contained one
    assert of(rows.tokens, "class") == {("http://terminology.hl7.org/CodeSystem/v3-ActCode", "IMP")}
    assert of(rows.quantities, "length") == {(2.5, 3.5, "http://unitsofmeasure.org", "d")}


def observe(**more: Any) -> IndexValues:
    return extract({"resourceType": "Observation", "status": "final", "code": {"text": "x"}, **more})


@pytest.mark.parametrize(
    ("reference", "row"),
    [
        ({"reference": "Patient/1/_history/3"}, ("Patient", "1", "")),
        ({"reference": "https://other.test/fhir/Patient/1"}, ("", "", "https://other.test/fhir/Patient/1")),
        (
            {"reference": "urn:uuid:00000000-0000-0000-0000-000000000001", "type": "Patient"},
            ("", "", "urn:uuid:00000000-0000-0000-0000-000000000001"),
        ),
    ],
)
def test_references(reference: Resource, row: tuple[str, str, str]) -> None:
    rows = observe(subject=reference)
    assert of(rows.references, "subject") == of(rows.references, "patient") == {row}


def test_references_that_are_not_indexed() -> None:
    assert observe(subject={"reference": "#p"}).references == []
    assert observe(subject={"identifier": {"value": "1"}}).references == []
    assert of(observe(subject={"reference": "Group/1"}).references, "patient") == set()


def test_periods_and_timings() -> None:
    assert observe(effectivePeriod={"end": "2020"}).dates == [("date", OPEN_LOW, date_range("2020")[1])]
    timing = {"event": ["2020-05", "2019"], "repeat": {"boundsPeriod": {"start": "2018", "end": "2019-02"}}}
    assert observe(effectiveTiming=timing).dates == [("date", date_range("2018")[0], date_range("2020-05")[1])]
    assert observe(effectiveTiming={"code": {"text": "daily"}}).dates == []


def test_quantities_with_comparators_and_without_values() -> None:
    assert observe(valueQuantity={"value": 5, "comparator": "<"}).quantities[0][1:3] == (-NUMBER_MAX, 5.5)
    assert observe(valueQuantity={"value": 5, "comparator": ">="}).quantities[0][1:3] == (4.5, NUMBER_MAX)
    assert observe(valueQuantity={"unit": "mg"}).quantities == []
    assert observe(valueQuantity={"value": load("1e999"), "unit": "mg"}).quantities[0][2] == NUMBER_MAX


def test_ranges_and_money() -> None:
    condition = {
        "resourceType": "Condition",
        "subject": {"reference": "Patient/1"},
        "onsetRange": {"low": {"value": 4, "unit": "a"}},
    }
    assert of(extract(condition).quantities, "onset-age") == {(3.5, NUMBER_MAX, "", "a")}
    invoice = {"resourceType": "Invoice", "totalNet": {"value": 12, "currency": "EUR"}}
    assert of(extract(invoice).quantities, "totalnet") == {(11.5, 12.5, "urn:iso:std:iso:4217", "EUR")}


def test_probability_is_a_number() -> None:
    risk = {"resourceType": "RiskAssessment", "prediction": [{"probabilityDecimal": load("0.25")}]}
    assert of(extract(risk).quantities, "probability") == {(0.245, 0.255, "", "")}


def test_canonicals_under_a_reference() -> None:
    plan = {"resourceType": "CarePlan", "instantiatesCanonical": ["http://x.test/plan|1"]}
    assert of(extract(plan).references, "instantiates-canonical") == {("", "", "http://x.test/plan|1")}


def test_the_same_row_comes_once(observation: Resource) -> None:
    observation["code"]["coding"] *= 3
    assert len(of(extract(observation).tokens, "code")) == 2
    rows = extract(observation).tokens
    assert len(rows) == len(set(rows))


def test_values_with_extensions_only() -> None:
    name = {"given": ["Ada", None], "_given": [None, {"id": "x"}]}
    rows = extract({"resourceType": "Patient", "name": [name]})
    assert of(rows.strings, "given") == {("ada", "Ada")}


def test_too_many_values_are_refused(monkeypatch: pytest.MonkeyPatch, observation: Resource) -> None:
    monkeypatch.setattr(extractor_module, "MAX_ROWS", 50)
    observation["code"]["coding"] = [{"code": str(n)} for n in range(60)]
    with pytest.raises(Invalid, match="more than"):
        extract(observation)


def test_long_strings_are_indexed_by_their_start(patient: Resource) -> None:
    patient["name"] = [{"family": "Ab" * 5000}]
    assert of(extract(patient).strings, "family") == {(("ab" * 5000)[:MAX_STRING], ("Ab" * 5000)[:MAX_STRING])}


def test_long_texts_are_not_kept_in_memory() -> None:
    for function, cached in ((normalise, values._normalise), (target, references._target)):
        before = cached.cache_info().currsize
        function("http://x.test/" + "y" * 1000)
        assert cached.cache_info().currsize == before
