"""The addresses of terminology operations (https://hl7.org/fhir/R4/terminology-service.html), and what they cover."""

from __future__ import annotations

from typing import Any

from carelake.apps.http import answers
from carelake.apps.http.fhir.parameters import PARAMETERS
from carelake.apps.http.routes import Operation
from carelake.apps.http.terminology import code_systems, concept_maps, value_sets
from carelake.apps.http.terminology.questions import questioned
from carelake.apps.http.terminology.takes import EXPAND, IN_SET, IN_SYSTEM, LOOKUP, SUBSUMES, TRANSLATE

__all__ = ["operations"]

_EACH = (
    ("ValueSet", "expand", "expand", "The codes of a value set", value_sets.expanded, EXPAND),
    (
        "ValueSet",
        "validate-code",
        "validateCodeInSet",
        "Is a code in a value set",
        value_sets.in_set,
        IN_SET,
    ),
    (
        "CodeSystem",
        "validate-code",
        "validateCode",
        "Is a code in a code system",
        code_systems.in_code_system,
        IN_SYSTEM,
    ),
    ("CodeSystem", "lookup", "lookup", "What a code is", code_systems.looked_up, LOOKUP),
    (
        "CodeSystem",
        "subsumes",
        "subsumes",
        "Is a code a kind of another",
        code_systems.subsumed,
        SUBSUMES,
    ),
    (
        "ConceptMap",
        "translate",
        "translate",
        "What a code is mapped to",
        concept_maps.translated,
        TRANSLATE,
    ),
)
_TYPE_ONLY = frozenset({"lookup"})


def operations() -> list[Operation]:
    """The addresses; they stand before those of reads."""
    found: list[Operation] = []
    for kind, name, id_, summary, handler, takes in _EACH:
        for path in (f"/fhir/{kind}", f"/fhir/{kind}/{{id}}")[: 1 if name in _TYPE_ONLY else 2]:
            of_one = path.endswith("}")
            said: dict[str, Any] = {
                "media_type": answers.FHIR_JSON,
                "parameters": {"id": f"id of a {kind}"} if of_one else {},
                "query": f"{', '.join(takes)}; those that are no primitives by POST",
                "answers": {"404": "What is named is not known here", "422": "The answer cannot be worked out here"},
            }
            asked = questioned(handler, kind, takes)
            named = f"{id_}Instance" if of_one else id_
            found.append(Operation("GET", f"{path}/${name}", named, summary, asked, "fhir", **said))
            said["body"] = PARAMETERS
            found.append(Operation("POST", f"{path}/${name}", f"{named}ByPost", summary, asked, "fhir", **said))
    return found
