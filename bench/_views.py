"""The views that are measured against peers: what analysts ask for first, in words that all of them know."""

from __future__ import annotations

from typing import Any

__all__ = ["VIEWS"]


def _view(name: str, resource: str, *select: dict[str, Any], where: tuple[str, ...] = ()) -> dict[str, Any]:
    made: dict[str, Any] = {
        "name": name,
        "resource": resource,
        "status": "active",
        "select": list(select),
    }
    if where:
        made["where"] = [{"path": one} for one in where]
    return made


def _columns(**paths: str) -> dict[str, Any]:
    return {"column": [{"name": name, "path": path} for name, path in paths.items()]}


VIEWS = (
    _view(
        "patients", "Patient",
        _columns(
            id="getResourceKey()", gender="gender", birth_date="birthDate",
            mrn="identifier.first().value", city="address.first().city", state="address.first().state",
        ),
        {"forEach": "name.first()", **_columns(family="family", given="given.first()")},
    ),
    _view(
        "observations", "Observation",
        _columns(
            id="getResourceKey()", patient="subject.getReferenceKey(Patient)", status="status",
            at="effective.ofType(dateTime)", value="value.ofType(Quantity).value", unit="value.ofType(Quantity).unit",
        ),
        {"forEach": "code.coding", **_columns(system="system", code="code", display="display")},
    ),
    _view(
        "blood_pressures", "Observation",
        _columns(id="getResourceKey()", patient="subject.getReferenceKey(Patient)"),
        {
            "forEach": "component",
            **_columns(code="code.coding.first().code", value="value.ofType(Quantity).value"),
        },
        where=("code.coding.exists(system = 'http://loinc.org' and code = '85354-9')",),
    ),
    _view(
        "conditions", "Condition",
        _columns(
            id="getResourceKey()", patient="subject.getReferenceKey(Patient)",
            clinical="clinicalStatus.coding.first().code", onset="onset.ofType(dateTime)", recorded="recordedDate",
        ),
        {"forEachOrNull": "code.coding", **_columns(system="system", code="code", display="display")},
    ),
    _view(
        "encounters", "Encounter",
        _columns(
            id="getResourceKey()", patient="subject.getReferenceKey(Patient)", status="status", kind="class.code",
            start="period.start", end="period.end", provider="serviceProvider.getReferenceKey(Organization)",
        ),
        {"forEachOrNull": "type.coding", **_columns(type_system="system", type_code="code")},
    ),
    _view(
        "prescriptions", "MedicationRequest",
        _columns(
            id="getResourceKey()", patient="subject.getReferenceKey(Patient)", status="status", intent="intent",
            authored="authoredOn",
        ),
        {"forEach": "medication.ofType(CodeableConcept).coding", **_columns(system="system", code="code")},
    ),
)  # fmt: skip
"""Of the resource types that make up most of a record."""
