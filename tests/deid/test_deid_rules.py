"""The rules are of R4, and what they leave is what they say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from carelake.deid.rules import PARTS, Tree, is_code, paths, required_codes, rules
from carelake.fhir import definitions
from carelake.lake.rows import CODES
from carelake.lake.schema import selected

_TYPES = {
    "birth": {"date"},
    "code": {"code"},
    "coding": {"Coding"},
    "date": {"date", "dateTime", "instant"},
    "keep": {"boolean", "decimal", "integer", "positiveInt", "unsignedInt"},
    "letters": {"code", "string"},
    "omb": {"Extension"},
    "quantity": {"Age", "Duration", "Quantity", "SimpleQuantity"},
    "reference": {"Reference"},
    "state": {"string"},
    "zip3": {"string"},
}


def leaves(tree: Tree, type_name: str) -> Iterator[tuple[str, str, str, str]]:
    """Each rule: the type that has the element, its name, its type, and the kind of the rule."""
    for name, rule in tree.items():
        kind = next(e.keys[name] for e in definitions.element(type_name).values() if name in e.keys)
        if isinstance(rule, str):
            yield type_name, name, kind, rule
        else:
            yield from leaves(rule, kind)


@pytest.mark.parametrize("resource_type", sorted(rules().types))
def test_rules_are_for_elements_of_r4_and_their_types(resource_type: str) -> None:
    tree = rules().types[resource_type]
    assert selected(resource_type, paths(tree)).fields
    for type_name, name, kind, rule in leaves(tree, resource_type):
        assert kind in _TYPES[rule], (name, kind, rule)
        if rule == "code":
            assert required_codes(type_name, name), name


@pytest.mark.parametrize("resource_type", sorted(rules().types))
def test_the_primary_code_is_never_of_an_element_without_a_rule(resource_type: str) -> None:
    known = {name: kind for e in definitions.element(resource_type).values() for name, kind in e.keys.items()}
    tree = rules().types[resource_type]
    if any(name in tree for name in CODES):
        coded = [name for name in CODES if known.get(name) in ("CodeableConcept", "Coding")]
        assert all(name in tree for name in coded), coded


def test_nothing_that_people_write_is_kept() -> None:
    words = {
        "display",
        "text",
        "note",
        "name",
        "telecom",
        "identifier",
        "div",
        "line",
        "city",
        "contained",
        "url",
        "data",
    }
    for tree in rules().types.values():
        for path in paths(tree):
            assert not words & set(path.split(".")), path
    assert set(PARTS) <= set(_TYPES)


@pytest.mark.parametrize(
    ("system", "code", "known"),
    [
        ("http://loinc.org", "4548-4", True),
        ("http://loinc.org", "Jane Doe", False),
        ("http://snomed.info/sct", "44054006", True),
        ("http://snomed.info/sct", "see note", False),
        ("http://hl7.org/fhir/sid/icd-10-cm", "E11.9", True),
        ("http://hl7.org/fhir/sid/us-ssn", "999-99-9999", False),
        ("http://terminology.hl7.org/CodeSystem/v3-ActCode", "AMB", True),
        ("http://terminology.hl7.org/CodeSystem/v3-ActCode", "room 12", False),
        ("http://hospital.example/mrn", "12345678", False),
        # A system that counts by how it begins is no place for text, and neither is a unit, its braces included.
        ("http://terminology.hl7.org/CodeSystem/Jane Doe, MRN 1234", "AMB", False),
        ("http://terminology.hl7.org/CodeSystem/mrn-12345678", "AMB", False),
        ("http://terminology.hl7.org/CodeSystem/v2-0203", "1950-01-02", False),
        ("http://terminology.hl7.org/CodeSystem/v2-0203", "12345678", False),
        ("http://terminology.hl7.org/CodeSystem/v2-0203", "MR", True),
        ("http://terminology.hl7.org/CodeSystem/observation-category", "vital-signs", True),
        ("http://dicom.nema.org/resources/ontology/DCM", "CT", True),
        ("http://dicom.nema.org/resources/ontology/Jane Doe", "CT", False),
        ("http://unitsofmeasure.org", "mL/min/{1.73_m2}", True),
        ("http://unitsofmeasure.org", "10*3/uL", True),
        ("http://unitsofmeasure.org", "{score}", True),
        ("http://unitsofmeasure.org", "{Jane_Doe}", False),
        ("http://unitsofmeasure.org", "Jane.Doe", False),
        ("http://unitsofmeasure.org", "555-12-3456", False),
        ("http://unitsofmeasure.org", "6175551234", False),
        ("http://nucc.org/provider-taxonomy", "6175551234", False),
        ("http://nucc.org/provider-taxonomy", "207RC0000X", True),
        ("http://www.cms.gov/Medicare/Coding/ICD10", "DOE", False),
        ("http://www.cms.gov/Medicare/Coding/ICD10", "02703ZZ", True),
        ("urn:ietf:bcp:47", "en-US", True),
        ("urn:ietf:bcp:47", "en-Jane", False),
    ],
)
def test_codes_are_told_by_system_and_form(system: str, code: str, known: bool) -> None:
    assert is_code(system, code) is known


def test_the_trees_are_not_to_be_changed_by_what_reads_them() -> None:
    before: dict[str, Any] = {kind: list(paths(tree)) for kind, tree in rules().types.items()}
    assert before == {kind: list(paths(tree)) for kind, tree in rules().types.items()}
