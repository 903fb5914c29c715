"""Compartments, references, bundles and outcomes."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from carelake.fhir.bundle import entries, search_entry, searchset, urn_id
from carelake.fhir.compartment import owner, patients
from carelake.fhir.definitions import resource_types
from carelake.fhir.outcome import error_outcome, operation_outcome
from carelake.fhir.references import outgoing, rewrite, target
from carelake.fhir.validate import validate

Resource = dict[str, Any]


def ref(text: str) -> Resource:
    return {"reference": text}


@pytest.mark.parametrize(
    ("resource", "expected"),
    [
        ({"resourceType": "Patient", "id": "a", "link": [{"other": ref("Patient/b")}]}, "a"),
        ({"resourceType": "Observation", "subject": ref("Patient/a"), "performer": [ref("Patient/a")]}, "a"),
        ({"resourceType": "Observation", "subject": ref("Patient/a"), "performer": [ref("Patient/b")]}, ""),
        ({"resourceType": "Observation", "subject": ref("Group/a")}, ""),
        ({"resourceType": "Observation", "subject": ref("http://other.test/Patient/a")}, ""),
        ({"resourceType": "Observation", "subject": ref("Patient/a"), "hasMember": [ref("Patient/b")]}, "a"),
        ({"resourceType": "Encounter", "subject": ref("Patient/a/_history/2")}, "a"),
        ({"resourceType": "AuditEvent", "entity": [{"what": ref("Patient/a")}, {"what": ref("Device/x")}]}, "a"),
        ({"resourceType": "Group", "member": [{"entity": ref("Patient/a")}, {"entity": ref("Patient/b")}]}, ""),
        ({"resourceType": "Appointment", "participant": [{"actor": ref("Patient/a")}]}, "a"),
        ({"resourceType": "MedicationRequest", "subject": ref("Patient/a"), "requester": ref("Patient/a")}, "a"),
        ({"resourceType": "Task", "for": ref("Patient/a")}, "a"),
        ({"resourceType": "Device", "patient": ref("Patient/a")}, "a"),
        ({"resourceType": "Organization", "id": "o"}, ""),
        ({"resourceType": "Observation"}, ""),
    ],
)
def test_owner(resource: Resource, expected: str) -> None:
    assert owner(resource) == expected


def test_owner_of_every_type() -> None:
    for name in resource_types():
        assert owner({"resourceType": name}) == ""
    assert patients({"resourceType": "Group", "member": [{"entity": ref(f"Patient/{n}")} for n in "ab"]}) == {
        "a",
        "b",
    }


UUID = "urn:uuid:c757873d-ec9a-4326-a141-556f43239520"


def test_rewrite_goes_everywhere() -> None:
    resource: Resource = {
        "resourceType": "DocumentReference",
        "subject": ref(UUID),
        "identifier": [{"system": "urn:ietf:rfc:3986", "value": UUID}],
        "description": UUID,
        "text": {"status": "generated", "div": f"<div><a href='{UUID}'>x</a></div>"},
        "contained": [{"resourceType": "Basic", "subject": ref(UUID), "author": ref("urn:uuid:other")}],
        "extension": [{"url": "http://x", "extension": [{"url": "r", "valueReference": ref(UUID)}]}],
        "content": [{"attachment": {"url": UUID}}],
        "context": {"related": [ref(UUID), ref("#x")]},
    }
    rewrite(resource, {UUID: "Patient/1"})
    assert resource["subject"] == ref("Patient/1")
    assert resource["identifier"][0]["value"] == UUID
    assert resource["description"] == UUID
    assert resource["text"]["div"] == "<div><a href='Patient/1'>x</a></div>"
    assert resource["contained"][0]["subject"] == ref("Patient/1")
    assert resource["contained"][0]["author"] == ref("urn:uuid:other")
    assert resource["extension"][0]["extension"][0]["valueReference"] == ref("Patient/1")
    assert resource["content"][0]["attachment"]["url"] == "Patient/1"
    assert resource["context"]["related"] == [ref("Patient/1"), ref("#x")]


def test_rewrite_of_lists_of_uris_and_of_nonsense() -> None:
    task = {"resourceType": "CarePlan", "instantiatesUri": [UUID, "http://x"], "reference": {"reference": [UUID]}}
    rewrite(task, {UUID: "Basic/1"})
    assert task["instantiatesUri"] == ["Basic/1", "http://x"]
    for nonsense in (None, 1, "x", [], [[{"reference": None}]], {"reference": {"reference": UUID}}):
        rewrite(copy.deepcopy(nonsense), {UUID: "Basic/1"})


def test_deep_nesting_does_not_break_the_walks() -> None:
    deep: Resource = {"reference": UUID}
    for _ in range(20_000):
        deep = {"a": [deep]}
    rewrite(deep, {UUID: "Basic/1"})
    assert outgoing(deep) == ["Basic/1"]


def test_outgoing(encounter: Resource) -> None:
    assert outgoing(encounter) == ["Patient/p1", "Practitioner/d1", "RelatedPerson/r1", "#ward"]


def test_targets() -> None:
    assert target("Patient/1") == ("Patient", "1", "")
    assert target("Patients/1") == ("", "", "Patients/1")
    assert target("#x") is None
    assert target(UUID) == ("", "", UUID)


def test_bundles(patient: Resource) -> None:
    found = search_entry(patient, base="http://h.test/fhir")
    bundle = searchset([found], total=7, links={"self": "http://h.test/fhir/Patient"})
    assert validate(bundle) == []
    assert bundle["total"] == 7
    assert bundle["entry"][0]["fullUrl"] == "http://h.test/fhir/Patient/p1"
    assert validate(searchset([])) == []
    (entry,) = entries(bundle)
    assert (entry.position, entry.full_url, entry.resource) == (0, "http://h.test/fhir/Patient/p1", patient)
    assert urn_id(UUID) == UUID[9:]
    assert urn_id("http://x") == ""


def test_outcomes(patient: Resource) -> None:
    patient["gender"] = "x"
    outcome = operation_outcome(validate(patient))
    assert outcome["issue"][0]["expression"] == ["Patient.gender"]
    assert validate(outcome) == []
    assert validate(operation_outcome([])) == []
    assert validate(error_outcome("not-found", "There is no such resource.", reason="store.not_found")) == []
