"""Whose record a resource belongs to (https://hl7.org/fhir/R4/compartmentdefinition-patient.html)."""

from __future__ import annotations

from functools import cache
from typing import Any

from carelake.fhir.definitions import compartment, element
from carelake.fhir.references import target
from carelake.fhir.search.expression import Step
from carelake.fhir.search.registry import parameters

__all__ = ["COMPARTMENTS", "compartment_codes", "compartment_types", "owner", "patients", "tells_of_patients"]

COMPARTMENTS = ("Device", "Encounter", "Patient", "Practitioner", "RelatedPerson")
"""The types that have compartments (https://hl7.org/fhir/R4/compartmentdefinition.html)."""


# In no patient compartment of R4, though they tell of one patient: what is forgotten with a patient holds them too.
_BESIDE = {
    "Contract": ("patient",),
    "Device": ("patient",),
    "GuidanceResponse": ("patient",),
    "Task": ("patient", "focus"),
}
_UNSEARCHED = {"Binary": (("securityContext",),)}
"""The same by elements that no search parameter tells of (https://hl7.org/fhir/R4/binary.html#security)."""


def compartment_codes(kind: str, resource_type: str) -> tuple[str, ...]:
    """Search parameters by which resources of a type are in compartments of a ``kind``; () for none."""
    return tuple(code for code in compartment(kind).get(resource_type, ()) if not code.startswith("{"))


@cache
def compartment_types(kind: str) -> tuple[str, ...]:
    """Types of what can be in a compartment, sorted; the resource that it is the compartment of is in it too."""
    return tuple(sorted({kind, *(name for name in compartment(kind) if compartment_codes(kind, name))}))


def owner(resource: dict[str, Any]) -> str:
    """Id of the one patient whose record a resource belongs to; "" for none or several (decision D4)."""
    if resource["resourceType"] == "Patient":
        return str(resource.get("id", ""))
    found = patients(resource)
    return found.pop() if len(found) == 1 else ""


def patients(resource: dict[str, Any]) -> set[str]:
    """Ids of all patients whose records a resource belongs to, by relative references; of a Patient its own."""
    if resource["resourceType"] == "Patient":
        return {resource["id"]} if "id" in resource else set()
    found: set[str] = set()
    for path in _paths(resource["resourceType"]):
        _follow(resource, path, 0, found)
    return found


def tells_of_patients(resource_type: str) -> bool:
    """Whether resources of this type can belong to patients' records at all."""
    return resource_type == "Patient" or bool(_paths(resource_type))


def _follow(value: Any, path: tuple[str, ...], at: int, found: set[str]) -> None:
    if at == len(path):
        text = value.get("reference")
        pointed = None if text is None else target(text)
        if pointed is not None and pointed[0] == "Patient":
            found.add(pointed[1])
        return
    inner = value.get(path[at])
    if inner is None:
        return
    if inner.__class__ is list:
        for entry in inner:
            _follow(entry, path, at + 1, found)
    else:
        _follow(inner, path, at + 1, found)


@cache
def _paths(resource_type: str) -> tuple[tuple[str, ...], ...]:
    """JSON names that lead to the references that count, each path once."""
    if resource_type in _UNSEARCHED:
        return _UNSEARCHED[resource_type]
    offered = parameters(resource_type)
    codes = compartment("Patient").get(resource_type) or _BESIDE.get(resource_type, ())
    paths = [path for code in codes for path in offered[code].paths]
    return tuple(dict.fromkeys(_names(resource_type, path.steps) for path in paths))


def _names(type_name: str, steps: tuple[Step, ...]) -> tuple[str, ...]:
    names: list[str] = []
    for step in steps:
        keys = element(type_name)[step.name].keys
        # Of a choice only its Reference can point to a patient.
        name, type_name = next((k, t) for k, t in keys.items() if len(keys) == 1 or t == (step.type or "Reference"))
        names.append(name)
    return tuple(names)
