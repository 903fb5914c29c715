"""Search parameters of types, and index values of resources."""

from __future__ import annotations

import math
from typing import Any

import pytest

from carelake.core.canonical import load
from carelake.core.errors import Invalid
from carelake.core.records import IndexValues
from carelake.fhir import references
from carelake.fhir.definitions import core_search_definitions, resource_types, search_definitions
from carelake.fhir.references import target
from carelake.fhir.search import BASE, COLUMNS, Registry, extract, parameters, unsupported, values
from carelake.fhir.search import extractor as extractor_module
from carelake.fhir.search.expression import Equals, Misfit, Path, Present, Refers, Step, read
from carelake.fhir.search.registry import bases_of
from carelake.fhir.search.values import MAX_STRING, NUMBER_MAX, OPEN_HIGH, OPEN_LOW, date_range, normalise, sounds

Resource = dict[str, Any]


TYPES = ("Patient", "Observation", "Encounter", "Condition", "Invoice", "RiskAssessment", "CarePlan")


def of(rows: list[Any], code: str) -> set[Any]:
    """Rows that a parameter of one of `TYPES` finds, without their source."""
    uses = {(u.source.name, u.target) for t in TYPES if code in parameters(t) for u in parameters(t)[code].uses}
    return {row[1:] for row in rows if (row[0], "") in uses or (row[0], row[1]) in uses}


def test_every_resource_type_has_parameters() -> None:
    for name in resource_types():
        assert {"_tag", "_profile", "_security", "_source"} <= parameters(name).keys()
        assert not parameters(name).keys() & unsupported(name).keys()
        assert "_id" not in parameters(name)
    with pytest.raises(Invalid, match="no such resource type"):
        parameters("HumanName")


def test_what_is_not_offered_has_a_reason() -> None:
    left = {(name, code) for name in resource_types() for code in unsupported(name)}
    assert {code for _, code in left} == {"_content", "_query", "classification"}
    assert {name for name, code in left if code == "classification"} == {"DeviceDefinition"}
    assert "no element" in unsupported("DeviceDefinition")["classification"]
    assert "search.content" in unsupported("Patient")["_content"]
    assert "_content" in Registry(content=True).parameters("Patient")


def test_all_definitions_of_r4_are_offered_or_told() -> None:
    assert len(search_definitions()) == 1378
    places = 0
    for name in resource_types():
        told = BASE.parameters(name).keys() | BASE.unsupported(name).keys() | COLUMNS
        defined = {
            one.code
            for one in (*search_definitions(), *core_search_definitions())
            if not bases_of(name).isdisjoint(one.base)
        }
        assert told - COLUMNS == defined - COLUMNS
        places += len(defined)
    assert places > 2900


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
    assert read("Abc.b.where( url  =  'http://x/(y)|z' ).c") == [
        Path("Abc", (Step("b", test=Equals("url", "http://x/(y)|z")), Step("c")))
    ]
    for outside in ("Abc.b[0].c", "Abc.where(x='y')", "Abc.b.first()", "", "Abc.b = 'c'", "Abc.b.where(x='it\\'s')"):
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
    assert of(rows.quantities, "value-quantity") == {(166.8, 166.8, "http://unitsofmeasure.org", "cm")}
    assert of(rows.quantities, "component-value-quantity") == {(5.4, 5.4, "", "mg")}
    assert rows.displays == [("token:code", "http://loinc.org", "8302-2", "x")]
    assert of(rows.strings, "code") == set()
    assert ("token:code:text", "height", "Height") in rows.strings
    assert set(rows.parts) == {
        ("part:component#token:code", 0, "part", 0.0, 0.0, "http://loinc.org", ""),
        ("part:component#quantity:value.as(Quantity)", 0, "", 5.4, 5.4, "", "mg"),
    }
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
    assert of(rows.references, "location") == {("", "", "")}  # a contained one: there, but not to be followed
    assert of(rows.tokens, "class") == {("http://terminology.hl7.org/CodeSystem/v3-ActCode", "IMP")}
    assert of(rows.quantities, "length") == {(3.0, 3.0, "http://unitsofmeasure.org", "d")}


def observe(**more: Any) -> IndexValues:
    return extract({"resourceType": "Observation", "status": "final", "code": {"text": "x"}, **more})


@pytest.mark.parametrize(
    ("reference", "row"),
    [
        ({"reference": "Patient/1/_history/3"}, ("Patient", "1", "")),
        ({"reference": "https://other.test/fhir/Patient/1"}, ("Patient", "", "https://other.test/fhir/Patient/1")),
        (
            {"reference": "https://other.test/Patient/1/_history/2"},
            ("Patient", "", "https://other.test/Patient/1"),
        ),
        (
            {"reference": "urn:uuid:00000000-0000-0000-0000-000000000001", "type": "Patient"},
            ("Patient", "", "urn:uuid:00000000-0000-0000-0000-000000000001"),
        ),
        ({"type": "Patient", "display": "Ada"}, ("Patient", "", "")),
    ],
)
def test_references(reference: Resource, row: tuple[str, str, str]) -> None:
    rows = observe(subject=reference)
    assert of(rows.references, "subject") == of(rows.references, "patient") == {row}


def test_references_that_point_to_nothing_known() -> None:
    for unknown in ({"reference": "#p"}, {"display": "Ada"}, {"type": "http://types.test/Own"}):
        assert observe(subject=unknown).references == [("reference:subject", "", "", "")]
    assert of(observe(subject={"reference": "Group/1"}).references, "patient") == set()
    assert observe(subject={"reference": "bare"}).references == [("reference:subject", "", "", "bare")]


def test_what_a_reference_says_of_its_type_counts_each_time() -> None:
    url = {"reference": "urn:uuid:00000000-0000-0000-0000-000000000002"}
    told = {**url, "type": "Group"}
    for subject, kind in ((url, ""), (told, "Group"), (url, ""), (told, "Group")):
        assert observe(subject=subject).references == [("reference:subject", kind, "", url["reference"])]


def test_references_by_identifier() -> None:
    rows = observe(subject={"reference": "Patient/1", "identifier": {"system": "http://mrn.test", "value": "7"}})
    assert ("reference:subject:identifier", "http://mrn.test", "7") in rows.tokens
    assert of(rows.references, "patient") == {("Patient", "1", "")}
    source = parameters("Observation")["subject"].uses[0].source
    assert source.identifier is not None
    assert source.identifier.name == "reference:subject:identifier"
    assert parameters("CarePlan")["instantiates-canonical"].uses[0].source.identifier is None


def test_tokens_without_a_code_are_there() -> None:
    assert of(observe(code={"text": "Only Text"}).tokens, "code") == {("", "")}
    rows = observe(code={"coding": [{"system": "s", "display": "Shown"}], "text": "Shown"})
    assert ("token:code", "s", "") in rows.tokens
    assert [row for row in rows.strings if row[0] == "token:code:text"] == [("token:code:text", "shown", "Shown")]


def test_texts_of_codes() -> None:
    code = {"coding": [{"system": "s", "code": "1", "display": "Body Height"}], "text": "body-height"}
    rows = observe(code=code)
    assert rows.displays == [("token:code", "s", "1", "body height")]
    assert rows.strings == []  # the concept's text says the same
    again = observe(code={**code, "text": "Size"})
    assert again.displays == rows.displays
    assert again.strings == [("token:code:text", "size", "Size")]
    assert observe(code=code).strings == []


def test_identifiers_by_type(patient: Resource) -> None:
    kind = {"coding": [{"system": "http://kinds.test", "code": "MR", "display": "Record No"}], "text": "MRN"}
    patient["identifier"][0]["type"] = kind
    rows = extract(patient)
    assert ("token:identifier:of-type", "http://kinds.test", "MR|0001") in rows.tokens
    texts = {row[1:] for row in rows.strings if row[0] == "token:identifier:text"}
    assert texts == {("mrn", "MRN"), ("record no", "Record No")}
    source = parameters("Patient")["identifier"].uses[0].source
    assert [side.name for side in source.sides] == ["token:identifier:text", "token:identifier:of-type"]
    assert parameters("Patient")["gender"].uses[0].source.sides == ()


def test_units_as_written_are_found_too() -> None:
    value = {"value": 1, "unit": "milligram", "system": "http://unitsofmeasure.org", "code": "mg"}
    assert {row[3:] for row in observe(valueQuantity=value).quantities} == {
        ("http://unitsofmeasure.org", "mg"),
        ("", "milligram"),
    }


def test_names_and_their_sounds(patient: Resource) -> None:
    patient["name"] = [{"family": "Smith", "given": ["John", "2"], "prefix": ["Dr."]}]
    parameter = parameters("Patient")["phonetic"]
    assert parameter.phonetic
    found = {word for name, word in extract(patient).words if name == parameter.uses[0].source.name}
    assert found == {*sounds("Smyth"), *sounds("Jon"), "2", *sounds("dr")}
    organization = {"resourceType": "Organization", "name": "Smith & Sons"}
    assert {word for _, word in extract(organization).words} == {*sounds("Smith"), *sounds("Sons")}


def test_words_of_narratives_and_of_everything(patient: Resource) -> None:
    patient["text"]["div"] = "<div>Made up &amp; <b>sch&ouml;n</b>, made-up</div>"
    told = [word for name, word in extract(patient).words if name == "words:text"]
    assert told == ["made", "up", "schon"]
    everything = {word for name, word in extract(patient, Registry(content=True)).words if name == "words:content"}
    assert everything >= {"made", "schon", "ada", "testville", "0001"}
    assert "div" not in everything


def test_positions() -> None:
    place = {"resourceType": "Location", "position": {"latitude": load("42.25"), "longitude": -83}}
    assert extract(place).positions == [("near:position", 42.25, -83.0)]
    assert parameters("Location")["near"].type == "special"
    assert extract({"resourceType": "Location", "position": {"_latitude": {"id": "x"}}}).positions == []


def test_some_sources_only(patient: Resource) -> None:
    patient["identifier"][0]["type"] = {"text": "MRN"}
    whole = extract(patient)
    sources = BASE.sources("Patient")
    assert whole.strings
    for field in whole.__struct_fields__:
        apart = [row for name in sources for row in getattr(extract(patient, only=[name]), field)]
        assert set(apart) == set(getattr(whole, field))
        assert len(apart) == len(getattr(whole, field))
    assert extract(patient, only=[]) == IndexValues()


def test_every_row_is_of_a_known_source(examples: list[Resource]) -> None:
    for resource in examples:
        names = {
            side.name
            for source in BASE.sources(resource["resourceType"]).values()
            for side in (source, *source.sides)
        }
        rows = extract(resource)
        assert {row[0] for field in rows.__struct_fields__ for row in getattr(rows, field)} <= names


def test_periods_and_timings() -> None:
    assert observe(effectivePeriod={"end": "2020"}).dates == [("date:effective", OPEN_LOW, date_range("2020")[1])]
    timing = {"event": ["2020-05", "2019"], "repeat": {"boundsPeriod": {"start": "2018", "end": "2019-02"}}}
    assert observe(effectiveTiming=timing).dates == [
        ("date:effective", date_range("2018")[0], date_range("2020-05")[1])
    ]
    assert observe(effectiveTiming={"code": {"text": "daily"}}).dates == []


def test_quantities_with_comparators_and_without_values() -> None:
    below = observe(valueQuantity={"value": 5, "comparator": "<"}).quantities[0]
    assert below[1:3] == (-NUMBER_MAX, math.nextafter(5, 0))
    assert observe(valueQuantity={"value": 5, "comparator": ">="}).quantities[0][1:3] == (5, NUMBER_MAX)
    assert observe(valueQuantity={"unit": "mg"}).quantities == []
    assert observe(valueQuantity={"value": load("1e999"), "unit": "mg"}).quantities[0][2] == NUMBER_MAX
    assert observe(valueQuantity={"value": -(10**400), "unit": "mg"}).quantities[0][1] == -NUMBER_MAX


def test_ranges_and_money() -> None:
    condition = {
        "resourceType": "Condition",
        "subject": {"reference": "Patient/1"},
        "onsetRange": {"low": {"value": 4, "unit": "a"}},
    }
    assert of(extract(condition).quantities, "onset-age") == {(4, NUMBER_MAX, "", "a")}
    invoice = {"resourceType": "Invoice", "totalNet": {"value": 12, "currency": "EUR"}}
    assert of(extract(invoice).quantities, "totalnet") == {(12, 12, "urn:iso:std:iso:4217", "EUR")}


def test_probability_is_a_number() -> None:
    risk = {"resourceType": "RiskAssessment", "prediction": [{"probabilityDecimal": load("0.25")}]}
    assert of(extract(risk).quantities, "probability") == {(0.25, 0.25, "", "")}
    between = {"low": {"value": 1, "unit": "%"}, "high": {"value": 2, "code": "%"}}
    risk = {"resourceType": "RiskAssessment", "prediction": [{"probabilityRange": between}]}
    assert of(extract(risk).quantities, "probability") == {(1, 2, "", "")}


def test_canonicals_under_a_reference() -> None:
    plan = {"resourceType": "CarePlan", "instantiatesCanonical": ["http://x.test/plan|1"]}
    assert of(extract(plan).references, "instantiates-canonical") == {
        ("", "", "http://x.test/plan|1"),
        ("", "", "http://x.test/plan"),
    }


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
