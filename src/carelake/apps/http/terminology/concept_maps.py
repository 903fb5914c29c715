"""``ConceptMap/$translate``."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from carelake.apps.http.fhir.parameters import parameters
from carelake.apps.http.terminology.questions import Question, codes
from carelake.core.errors import Invalid, NotFound
from carelake.fhir.terminology import LocalTerminology
from carelake.fhir.terminology.looking import find
from carelake.fhir.terminology.maps import ConceptMap, concept_map
from carelake.fhir.terminology.translating import Asked, answer, translate

__all__ = ["translated"]


def translated(asked: Question) -> Mapping[str, Any]:
    """What a code is mapped to. https://hl7.org/fhir/R4/conceptmap-operation-translate.html"""
    given, known = asked.given, asked.known
    depends = _dependencies(given.all("dependency"))
    reverse = given.flag("reverse")
    matches, hidden = [], False
    for one in codes(given, given.text("system"), given.text("version")):
        if not one.code or not one.system:
            raise Invalid("http.parameter", "A code is given without its system.")
        wanted = Asked(
            one.system,
            one.code,
            one.version,
            given.text("source"),
            given.text("target"),
            given.text("targetsystem"),
            reverse,
            depends,
        )
        found, left_out = translate(_maps(asked, one.system, reverse), wanted, known.concept_map)
        matches += found
        hidden = hidden or left_out
    return parameters(*answer(matches, hidden, partial(_display, known)))


def _maps(asked: Question, system: str, reverse: bool) -> list[ConceptMap]:
    given = asked.given
    brought = asked.stored or given.one("conceptMap")
    if brought is not None:
        return [concept_map(brought)]
    url = given.text("url")
    if not url:
        return asked.known.maps(system, to=reverse)
    if "conceptMapVersion" in given and "|" not in url:
        url = f"{url}|{given.text('conceptMapVersion')}"
    found = asked.known.concept_map(url)
    if found is None:
        raise NotFound("terminology.no_such_map", "That concept map is not known here; store its resource.")
    return [found]


def _dependencies(listed: list[list[dict[str, Any]]]) -> set[tuple[str, str, str]]:
    found = set()
    for parts in listed:
        said = {part.get("name"): part for part in parts}
        element = str(said.get("element", {}).get("valueUri", ""))
        for coding in said.get("concept", {}).get("valueCodeableConcept", {}).get("coding", ()):
            found.add((element, coding.get("system", ""), coding.get("code", "")))
    return found


def _display(known: LocalTerminology, system: str, code: str) -> str:
    try:
        return find(known, system, code).concept.display
    except (NotFound, Invalid):
        return ""
