"""TerminologyCapabilities: which code systems are here, and what can be asked of them.

https://hl7.org/fhir/R4/terminologycapabilities.html
"""

from __future__ import annotations

from functools import cache
from typing import Any

from carelake import __version__
from carelake.apps.http.terminology.takes import EXPAND
from carelake.fhir.terminology import SHIPPED
from carelake.fhir.terminology.expanding import MAX_PAGE

__all__ = ["terminology_capabilities"]

_DATE = "2026-11-22"
_NOT_OFFERED = frozenset({"context", "contextDirection", "date"})


@cache
def terminology_capabilities() -> dict[str, Any]:
    """The statement, the same for every caller: what is in a record is for those who may search it."""
    offered = [name for name in EXPAND if name not in _NOT_OFFERED]
    return {
        "resourceType": "TerminologyCapabilities",
        "status": "active",
        "date": _DATE,
        "kind": "instance",
        "description": "Operations over the codes of FHIR R4 that ship, and over the CodeSystem, ValueSet and "
        "ConceptMap resources of the record, which go before them. Codes of SNOMED CT, LOINC and CPT do not ship: "
        "store their CodeSystem resources. Answers are of definitions as they are now.",
        "software": {"name": "carelake", "version": __version__},
        "implementation": {"description": "carelake"},
        "lockedDate": False,
        "codeSystem": [
            {"uri": url, "version": [{"code": version, "isDefault": True}] if version else [{"isDefault": True}]}
            for url, version in SHIPPED.systems()
        ],
        "expansion": {
            "hierarchical": False,
            "paging": True,
            "incomplete": False,
            "parameter": [{"name": name} for name in offered],
            "textFilter": "Plain text: each of its words is in the code, its display or a designation, whatever the "
            f"case. An answer has at most {MAX_PAGE} codes; ask for more in pages, by offset and count.",
        },
        "codeSearch": "explicit",
        "validateCode": {"translations": False},
        "translation": {"needsMap": True},
        "closure": {"translation": False},
    }
