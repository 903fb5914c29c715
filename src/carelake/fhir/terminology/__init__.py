"""Codes of value sets and the hierarchies of code systems (https://hl7.org/fhir/R4/terminology-module.html)."""

from __future__ import annotations

from carelake.fhir.terminology.expansion import Library, LocalTerminology, Terminology
from carelake.fhir.terminology.model import CodeSystem, Part, ValueSet, code_system, value_set
from carelake.fhir.terminology.resources import ResourceLibrary
from carelake.fhir.terminology.shipped import SHIPPED

__all__ = [
    "SHIPPED",
    "CodeSystem",
    "Library",
    "LocalTerminology",
    "Part",
    "ResourceLibrary",
    "Terminology",
    "ValueSet",
    "code_system",
    "value_set",
]
