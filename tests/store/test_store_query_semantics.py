"""What searches mean (https://hl7.org/fhir/R4/search.html): small records, every case told."""

from __future__ import annotations

from typing import Any

import pytest

from carelake.core.canonical import load

from .conftest import Record

UCUM = "http://unitsofmeasure.org"


def observation(key: str, **parts: Any) -> dict[str, Any]:
    return {"resourceType": "Observation", "id": key, "status": "final", "code": {"text": "x"}, **parts}


def amount(text: str, code: str = "mg", **more: Any) -> dict[str, Any]:
    return {"valueQuantity": {"value": load(text), "system": UCUM, "code": code, **more}}


def patient(key: str, **parts: Any) -> dict[str, Any]:
    return {"resourceType": "Patient", "id": key, **parts}


def found(record: Record, text: str) -> set[str]:
    return set(record.ids(text))


@pytest.fixture
def numbers(record: Record) -> Record:
    record.keep(
        observation("a", **amount("0.6")),
        observation("b", **amount("0.60")),
        observation("c", **amount("0.64")),
        observation("d", **amount("0.65")),
        observation("low", **amount("0.5", comparator="<")),
        observation("top", **amount("0.7", comparator=">=")),
        observation("g", **amount("0.0006", "g")),
        observation("other", **amount("0.6", "mL")),
    )
    return record


@pytest.mark.parametrize(
    ("value", "keys"),
    [
        # The digits of the value make its range; the digits of the resource make none.
        ("0.6", "a b c g"),
        ("0.60", "a b g"),
        ("0.600", "a b g"),
        ("gt0.6", "c d top"),
        ("lt0.6", "low"),
        ("ge0.6", "a b c d g top"),
        ("le0.6", "a b g low"),
        ("ge0.64", "c d top"),
        ("lt0.65", "a b c g low"),
        ("sa0.6", "c d top"),
        ("eb0.6", "low"),
        ("ne0.6", "d low top"),
        # What is less than 0.5 may be 0.4, and is not 0.5; what is 0.7 or more may be 0.8.
        ("gt0.4", "a b c d g low top"),
        ("ge0.5", "a b c d g top"),
        ("gt0.8", "top"),
        ("lt0.8", "a b c d g low top"),
        ("le0.7", "a b c d g low top"),
        ("lt0.7", "a b c d g low"),
        ("ap0.6", "a b c d g"),
    ],
)
def test_quantities(numbers: Record, value: str, keys: str) -> None:
    searched = f"Observation?value-quantity={value}|{UCUM}|mg"
    assert found(numbers, searched) == set(keys.split())


def test_units(numbers: Record) -> None:
    assert found(numbers, "Observation?value-quantity=0.60") == {"a", "b", "other"}
    assert found(numbers, "Observation?value-quantity=0.60||mg") == {"a", "b"}
    assert found(numbers, f"Observation?value-quantity=0.60|{UCUM}|g") == set()
    numbers.keep(observation("heavy", **amount("0.1", "kg")))
    for asked in ("100000", "ge100000", "le100000", "ap99999"):
        assert "heavy" in found(numbers, f"Observation?value-quantity={asked}|{UCUM}|mg"), asked
    for asked in ("gt100000", "lt100000", "ne100000"):
        assert "heavy" not in found(numbers, f"Observation?value-quantity={asked}|{UCUM}|mg"), asked


def test_ranges_of_numbers(record: Record) -> None:
    def risk(key: str, low: int, high: int) -> dict[str, Any]:
        told = {"probabilityRange": {"low": {"value": low}, "high": {"value": high}}}
        return {
            "resourceType": "RiskAssessment",
            "id": key,
            "status": "final",
            "subject": {"display": "x"},
            "prediction": [told],
        }

    record.keep(risk("wide", 10, 20), risk("low", 1, 5))
    for value, keys in {
        "gt15": {"wide"}, "lt15": {"wide", "low"}, "sa9": {"wide"}, "sa15": set(), "eb15": {"low"},
        "ge20": {"wide"}, "gt20": set(), "15": set(), "ne15": {"wide", "low"}, "ap15": {"wide"},
    }.items():  # fmt: skip
        assert found(record, f"RiskAssessment?probability={value}") == keys, value


@pytest.fixture
def dates(record: Record) -> Record:
    def procedure(key: str, **when: Any) -> dict[str, Any]:
        return {"resourceType": "Procedure", "id": key, "status": "completed", "subject": {"display": "x"}, **when}

    record.keep(
        procedure("year", performedDateTime="2013"),
        procedure("day", performedDateTime="2013-01-14"),
        procedure("zone", performedDateTime="2013-01-14T23:30:00-05:00"),
        procedure("period", performedPeriod={"start": "2013-01-10", "end": "2013-01-20"}),
        procedure("open", performedPeriod={"start": "2013-01-14"}),
        procedure("none"),
    )
    return record


@pytest.mark.parametrize(
    ("value", "keys"),
    [
        ("2013", "year day zone period"),
        ("2013-01-14", "day"),
        ("ne2013-01-14", "year zone period open"),
        ("gt2013-01-14", "year zone period open"),
        ("lt2013-01-14", "year period"),
        ("ge2013-01-14", "year day zone period open"),
        ("le2013-01-14", "year day period"),
        ("sa2013-01-13", "day zone open"),
        ("eb2013-01-15", "day"),
        ("eb2013-01-16", "day zone"),
        ("ap2013-01-14", "year day zone period open"),
        ("2013-01-15T04:30:00Z", "zone"),
        ("2013-01-14T23:30:00-05:00", "zone"),
        ("2013-01-15T04:30Z", "zone"),
    ],
)
def test_dates(dates: Record, value: str, keys: str) -> None:
    assert found(dates, f"Procedure?date={value}") == set(keys.split())


def test_missing_dates(dates: Record) -> None:
    assert found(dates, "Procedure?date:missing=true") == {"none"}
    assert "none" not in found(dates, "Procedure?date:missing=false")


@pytest.fixture
def tokens(record: Record) -> Record:
    def condition(key: str, *codings: dict[str, str], text: str = "") -> dict[str, Any]:
        code: dict[str, Any] = {"coding": list(codings)} if codings else {}
        return {
            "resourceType": "Condition",
            "id": key,
            "subject": {"display": "x"},
            "code": code | ({"text": text} if text else {}),
        }

    record.keep(
        condition("s1", {"system": "http://s", "code": "1"}),
        condition("s2", {"system": "http://s", "code": "2", "display": "Head ache"}),
        condition("t1", {"system": "http://t", "code": "1"}),
        condition("bare", {"code": "1"}),
        condition("both", {"system": "http://s", "code": "1"}, {"system": "http://s", "code": "2"}),
        condition("text", text="Headache, severe"),
        {"resourceType": "Condition", "id": "none", "subject": {"display": "x"}},
    )
    return record


@pytest.mark.parametrize(
    ("asked", "keys"),
    [
        ("code=1", "s1 t1 bare both"),
        ("code=http://s|1", "s1 both"),
        ("code=|1", "bare"),
        ("code=http://s|", "s1 s2 both"),
        ("code=http://s|1,http://s|2", "s1 s2 both"),
        ("code=http://s|1&code=http://s|2", "both"),
        ("code:not=http://s|1", "s2 t1 bare text none"),
        ("code:not=1,2", "text none"),
        ("code:not=1&code:not=2", "text none"),
        ("code:missing=true", "none"),
        ("code:missing=false", "s1 s2 t1 bare both text"),
        ("code:text=head", "s2 both text"),
        ("code:text=headache", "text"),
        ("code:text=HEAD A", "s2 both"),
        ("code=http://none|1", ""),
    ],
)
def test_tokens(tokens: Record, asked: str, keys: str) -> None:
    assert found(tokens, f"Condition?{asked}") == set(keys.split())


def test_value_sets(tokens: Record) -> None:
    values = {"include": [{"system": "http://s", "concept": [{"code": "1"}]}]}
    stored = {"resourceType": "ValueSet", "id": "v", "url": "http://v", "status": "active", "compose": values}
    tokens.keep(stored)
    assert found(tokens, "Condition?code:in=http://v") == {"s1", "both"}
    assert found(tokens, "Condition?code:not-in=http://v") == {"s2", "t1", "bare", "text", "none"}


def test_codes_whose_system_is_told_by_their_element_only(record: Record) -> None:
    record.keep(patient("m", gender="male"), patient("f", gender="female"))
    assert found(record, "Patient?gender=http://hl7.org/fhir/administrative-gender|male") == {"m"}
    assert found(record, "Patient?gender:in=http://hl7.org/fhir/ValueSet/administrative-gender") == {"m", "f"}
    assert found(record, "Patient?gender:not=male") == {"f"}


def test_strings(record: Record) -> None:
    names = {"a": "Müller", "b": "muller-Meier", "c": "O'Brien", "d": "de Müller"}
    record.keep(*(patient(key, name=[{"family": name}]) for key, name in names.items()))
    for asked, keys in {
        "family=mul": {"a", "b"},
        "family=MÜLLER": {"a", "b"},
        "family=obrien": {"c"},
        "family:contains=mull": {"a", "b", "d"},
        "family:exact=Müller": {"a"},
        "family:exact=müller": set(),
        "family:exact=Mülle": set(),
        "name=muller,o'b": {"a", "b", "c"},
        "family=---": set(),
    }.items():
        assert found(record, f"Patient?{asked}") == keys, asked


@pytest.fixture
def links(record: Record) -> Record:
    def about(key: str, **subject: Any) -> dict[str, Any]:
        return observation(key, subject=subject)

    record.keep(
        patient("1", gender="male"),
        {"resourceType": "Group", "id": "1", "type": "person", "actual": True},
        about("patient", reference="Patient/1"),
        about("group", reference="Group/1"),
        about("version", reference="Patient/1/_history/3"),
        about("far", reference="http://far/fhir/Patient/1"),
        about("named", identifier={"system": "http://s", "value": "7"}),
        about("gone", reference="Patient/2"),
    )
    return record


@pytest.mark.parametrize(
    ("asked", "keys"),
    [
        ("subject=Patient/1", "patient version"),
        ("subject=1", "patient version group"),
        ("subject:Patient=1", "patient version"),
        ("subject:Group=1", "group"),
        ("patient=1", "patient version"),
        ("patient=Patient/1", "patient version"),
        ("subject=Patient/1/_history/3", "patient version"),
        ("subject=http://far/fhir/Patient/1", "far"),
        ("patient=http://far/fhir/Patient/1", "far"),
        ("subject=http://near/fhir/Patient/1", ""),
        ("subject:identifier=http://s|7", "named"),
        ("subject:identifier=7", "named"),
        ("subject:identifier=http://t|7", ""),
        ("subject:missing=true", ""),
        ("patient:missing=false", "patient version far gone"),
        ("subject:Patient.gender=male", "patient version"),
        ("subject:Patient.gender:not=female", "patient version"),
        ("subject.identifier:missing=true", "patient version group"),
        ("subject:Patient._id=2", ""),
    ],
)
def test_references(links: Record, asked: str, keys: str) -> None:
    assert found(links, f"Observation?{asked}") == set(keys.split())


def test_reverse_chains(links: Record) -> None:
    assert found(links, "Patient?_has:Observation:subject:status=final") == {"1"}
    assert found(links, "Patient?_has:Observation:subject:status=amended") == set()
    assert found(links, "Observation?subject:Patient._has:Observation:subject:_id=patient") == {"patient", "version"}


def test_canonicals(record: Record) -> None:
    def answers(key: str, questionnaire: str) -> dict[str, Any]:
        return {
            "resourceType": "QuestionnaireResponse",
            "id": key,
            "status": "completed",
            "questionnaire": questionnaire,
        }

    record.keep(answers("plain", "http://q"), answers("two", "http://q|2"), answers("near", "Questionnaire/1"))
    for asked, keys in {
        "http://q": {"plain", "two"}, "http://q|2": {"two"}, "http://q|1": set(), "Questionnaire/1": {"near"},
    }.items():  # fmt: skip
        assert found(record, f"QuestionnaireResponse?questionnaire={asked}") == keys, asked


def test_composites_hold_at_one_place(record: Record) -> None:
    def part(code: str, value: int) -> dict[str, Any]:
        return {
            "code": {"coding": [{"code": code}]},
            "valueQuantity": {"value": value, "code": "mm[Hg]", "system": UCUM},
        }

    record.keep(
        observation("high", component=[part("sys", 150), part("dia", 80)]),
        observation("low", component=[part("sys", 110), part("dia", 150)]),
    )
    asked = "Observation?component-code-value-quantity"
    assert found(record, f"{asked}=sys$gt140") == {"high"}
    assert found(record, f"{asked}=dia$gt140") == {"low"}
    assert found(record, f"{asked}=sys$gt140,dia$gt140") == {"high", "low"}
    assert found(record, f"{asked}=sys$gt100&{asked.partition('?')[2]}=dia$lt100") == {"high"}


def test_identifiers_of_a_type(record: Record) -> None:
    def known(key: str, code: str, value: str) -> dict[str, Any]:
        kind = {"coding": [{"system": "http://k", "code": code}]}
        return patient(key, identifier=[{"type": kind, "system": "http://s", "value": value}, {"value": "other"}])

    record.keep(known("a", "MR", "1"), known("b", "SS", "1"))
    assert found(record, "Patient?identifier:of-type=http://k|MR|1") == {"a"}
    assert found(record, "Patient?identifier:of-type=|SS|1") == {"b"}
    assert found(record, "Patient?identifier:of-type=http://k|MR|other") == set()


def test_addresses_above_and_below(record: Record) -> None:
    urls = {"a": "http://h/x", "b": "http://h/x/1", "c": "http://h/xy", "d": "http://h/x/1/2"}
    sets = [{"resourceType": "ValueSet", "id": key, "url": url, "status": "active"} for key, url in urls.items()]
    record.keep(*sets)
    assert found(record, "ValueSet?url:below=http://h/x") == {"a", "b", "d"}
    assert found(record, "ValueSet?url:below=http://h/x/") >= {"b", "d"}
    assert found(record, "ValueSet?url:above=http://h/x/1") == {"a", "b"}
    assert found(record, "ValueSet?url=http://h/x") == {"a"}


def test_hierarchies_of_codes(record: Record) -> None:
    system = "http://terminology.hl7.org/CodeSystem/v3-RoleCode"

    def related(key: str, code: str) -> dict[str, Any]:
        kind = [{"coding": [{"system": system, "code": code}]}]
        return {"resourceType": "RelatedPerson", "id": key, "patient": {"display": "x"}, "relationship": kind}

    record.keep(related("mother", "MTH"), related("family", "FAMMEMB"), related("friend", "FRND"))
    assert found(record, f"RelatedPerson?relationship:below={system}|FAMMEMB") == {"mother", "family"}
    assert found(record, f"RelatedPerson?relationship:above={system}|MTH") == {"mother", "family"}
