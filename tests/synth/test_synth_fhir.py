"""Every resource is valid R4, refers to what exists, and tells when it was known."""

from __future__ import annotations

import re
from collections import Counter
from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from carelake.core import canonical
from carelake.synth import tables

NEEDED = {
    "Claim": ("status", "type", "use", "patient", "created", "provider", "priority", "insurance", "total"),
    "Condition": ("code", "subject", "encounter", "onsetDateTime", "recordedDate"),
    "DocumentReference": ("status", "content", "subject", "date"),
    "Encounter": ("status", "class", "subject", "period", "priority"),
    "MedicationRequest": ("status", "intent", "medicationCodeableConcept", "subject", "authoredOn"),
    "Observation": ("status", "code", "category", "effectiveDateTime", "issued"),
    "Patient": ("identifier", "name", "gender", "birthDate", "address", "extension"),
    "Procedure": ("status", "code", "subject", "performedDateTime"),
}


def references(value: Any) -> list[str]:
    if isinstance(value, dict):
        found = [value["reference"]] if isinstance(value.get("reference"), str) else []
        return found + [one for child in value.values() for one in references(child)]
    return [one for child in value for one in references(child)] if isinstance(value, list) else []


def test_resources_pass_the_validator(hospital):
    validate = pytest.importorskip("carelake.fhir.validate").validate
    for line in hospital.lines("0000") + hospital.lines("0001"):
        resource = canonical.load(line)
        assert list(validate(resource)) == []


def test_required_elements_are_there(first_chunk):
    for resource in first_chunk:
        for name in NEEDED.get(resource["resourceType"], ()):
            assert resource.get(name), (resource["resourceType"], name)


def test_references_meet_a_resource_of_the_same_files_and_ids_are_unique(first_chunk):
    names = Counter(f"{r['resourceType']}/{r['id']}" for r in first_chunk)
    assert max(names.values()) == 1
    assert set(references(first_chunk)) <= set(names)


def test_patients_come_first_and_their_resources_together(hospital):
    current = None
    for resource in hospital.resources("0002"):
        if resource["resourceType"] == "Patient":
            current = f"Patient/{resource['id']}"
        else:
            assert (resource.get("subject") or resource["patient"])["reference"] == current


def test_results_are_issued_after_the_sample_and_some_after_discharge(first_chunk):
    ends = {
        f"Encounter/{r['id']}": datetime.fromisoformat(r["period"]["end"])
        for r in first_chunk
        if r["resourceType"] == "Encounter" and "end" in r["period"]
    }
    late = 0
    for resource in first_chunk:
        if resource["resourceType"] != "Observation":
            continue
        taken, issued = (datetime.fromisoformat(resource[key]) for key in ("effectiveDateTime", "issued"))
        assert taken < issued
        assert taken.utcoffset() is not None
        ended = ends.get(resource["encounter"]["reference"])
        if ended is not None:
            assert taken < ended
            late += issued > ended
    assert late > 20


def test_bills_come_after_the_visit(first_chunk):
    for resource in first_chunk:
        if resource["resourceType"] == "Claim":
            assert resource["created"] > resource["billablePeriod"]["end"]


def test_numbers_keep_the_digits_of_their_test(hospital):
    digits = {m.loinc: m.digits for m in tables.codes().measures.values()}
    ended_in_zero = 0
    for resource in map(canonical.load, hospital.lines("0001")):
        if resource["resourceType"] == "Observation" and "valueQuantity" in resource:
            value = Decimal(resource["valueQuantity"]["value"])
            loinc = resource["code"]["coding"][0]["code"]
            assert -int(value.as_tuple().exponent) == digits[loinc]
            ended_in_zero += digits[loinc] > 0 and value.as_tuple().digits[-1] == 0
    assert ended_in_zero > 100


def test_nothing_is_known_after_the_record_closes(hospital):
    last = b"2024-01-01T00:00"  # start 2021-01-01, three years of 365.25 days
    for number in range(1, 5):
        text = b"\n".join(hospital.lines(f"{number:04d}"))
        assert max(re.findall(rb'"(\d{4}-\d\d-\d\dT\d\d:\d\d)', text)) < last


def test_open_stays_have_no_end(hospital):
    open_stays = [r for r in hospital.resources(kind="Encounter") if r["status"] == "in-progress"]
    assert open_stays
    for resource in open_stays:
        assert "end" not in resource["period"]
        assert "dischargeDisposition" not in resource["hospitalization"]


def test_code_systems(first_chunk):
    shapes = {
        "http://hl7.org/fhir/sid/icd-10-cm": r"[A-Z]\d[0-9A-Z](\.[0-9A-Z]{1,4})?",
        "http://www.cms.gov/Medicare/Coding/ICD10": r"[0-9A-HJ-NP-Z]{7}",
        "http://loinc.org": r"\d{3,5}-\d",
        "http://www.nlm.nih.gov/research/umls/rxnorm": r"\d+",
    }
    seen: Counter[str] = Counter()
    for resource in first_chunk:
        code = resource.get("code") or resource.get("medicationCodeableConcept") or {}
        for coding in code.get("coding", ()):
            assert re.fullmatch(shapes[coding["system"]], coding["code"])
            seen[coding["system"]] += 1
    assert set(seen) == set(shapes)


def loinc_check_digit(code: str) -> str:
    """Mod 10 check digit as LOINC defines it (Luhn over the number before the dash)."""
    total = 0
    for place, digit in enumerate(reversed(code)):
        doubled = int(digit) * (2 if place % 2 == 0 else 1)
        total += doubled - 9 if doubled > 9 else doubled
    return str(-total % 10)


def test_loinc_check_digits():
    codes = [code for m in tables.codes().measures.values() for code in (m.loinc, m.also) if code]
    for code in [*codes, "85354-9", "8480-6", "8462-4", "18842-5", "34111-5"]:
        number, _, check = code.partition("-")
        assert loinc_check_digit(number) == check, code


def texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [t for pair in value.items() for side in pair for t in texts(side)]
    return [t for child in value for t in texts(child)] if isinstance(value, (list, tuple)) else []


def test_tables_hold_nothing_that_json_would_escape():
    for table in (tables.codes(), tables.people()):
        for text in texts(msgspec.to_builtins(table)):
            assert msgspec.json.encode(text) == f'"{text}"'.encode(), text


def test_tables_agree_with_each_other():
    codes = tables.codes()
    chronic = {c.name for c in codes.chronic}
    for cause in [*codes.acute, *codes.planned, *codes.emergency]:
        assert set(cause.boosts) <= chronic
        assert not cause.marks or cause.marks in chronic
        assert set(cause.drugs) <= set(codes.drugs)
        assert {name for name, _ in cause.procedures} <= set(codes.procedures)
        assert cause.symptom in codes.symptoms
    assert {drug for c in codes.chronic for drug in c.drugs} <= set(codes.drugs)
    assert set(tables.model().readmission.conditions) <= chronic
