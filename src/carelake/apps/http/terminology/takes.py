"""Which parameters terminology operations take, as their OperationDefinitions in R4 have them."""

from __future__ import annotations

from carelake.apps.http.fhir.parameters import Takes

__all__ = ["EXPAND", "IN_SET", "IN_SYSTEM", "LOOKUP", "SUBSUMES", "TRANSLATE"]

_CODED: Takes = {
    "code": "code",
    "display": "string",
    "coding": "Coding",
    "codeableConcept": "CodeableConcept",
    "date": "dateTime",
    "abstract": "boolean",
    "displayLanguage": "code",
}

EXPAND: Takes = {
    "url": "uri",
    "valueSet": "ValueSet",
    "valueSetVersion": "string",
    "context": "uri",
    "contextDirection": "code",
    "filter": "string",
    "date": "dateTime",
    "offset": "integer",
    "count": "integer",
    "includeDesignations": "boolean",
    "designation": "string*",
    "includeDefinition": "boolean",
    "activeOnly": "boolean",
    "excludeNested": "boolean",
    "excludeNotForUI": "boolean",
    "excludePostCoordinated": "boolean",
    "displayLanguage": "code",
    "exclude-system": "canonical*",
    "system-version": "canonical*",
    "check-system-version": "canonical*",
    "force-system-version": "canonical*",
}
"""Of ``ValueSet/$expand``."""

IN_SET: Takes = {
    "url": "uri",
    "context": "uri",
    "valueSet": "ValueSet",
    "valueSetVersion": "string",
    "system": "uri",
    "systemVersion": "string",
    **_CODED,
}
"""Of ``ValueSet/$validate-code``."""

IN_SYSTEM: Takes = {"url": "uri", "codeSystem": "CodeSystem", "version": "string", **_CODED}
"""Of ``CodeSystem/$validate-code``."""

LOOKUP: Takes = {
    "code": "code",
    "system": "uri",
    "version": "string",
    "coding": "Coding",
    "date": "dateTime",
    "displayLanguage": "code",
    "property": "code*",
}

SUBSUMES: Takes = {
    "codeA": "code",
    "codeB": "code",
    "system": "uri",
    "version": "string",
    "codingA": "Coding",
    "codingB": "Coding",
}

TRANSLATE: Takes = {
    "url": "uri",
    "conceptMap": "ConceptMap",
    "conceptMapVersion": "string",
    "code": "code",
    "system": "uri",
    "version": "string",
    "source": "uri",
    "coding": "Coding",
    "codeableConcept": "CodeableConcept",
    "target": "uri",
    "targetsystem": "uri",
    "dependency": "parts*",
    "reverse": "boolean",
}
