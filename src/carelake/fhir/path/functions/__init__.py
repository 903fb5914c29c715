"""The functions of FHIRPath and of R4, each module a chapter; importing them fills `registry.FUNCTIONS`."""

from carelake.fhir.path.functions import (
    collections,
    conversion,
    dates,
    fhir,
    filtering,
    numbers,
    references,
    texts,
    tools,
)

__all__ = [
    "collections",
    "conversion",
    "dates",
    "fhir",
    "filtering",
    "numbers",
    "references",
    "texts",
    "tools",
]
