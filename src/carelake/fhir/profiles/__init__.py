"""Profiles: narrower definitions of a type, with slices (https://hl7.org/fhir/R4/profiling.html)."""
