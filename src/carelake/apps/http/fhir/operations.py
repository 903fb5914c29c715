"""``Observation/$lastn`` and ``Patient/$match``.

https://hl7.org/fhir/R4/observation-operation-lastn.html, https://hl7.org/fhir/R4/patient-operation-match.html
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlencode

from starlette.responses import Response

from carelake.apps.http import answers
from carelake.apps.http.calls import Call
from carelake.apps.http.fhir import everything, meta
from carelake.apps.http.fhir.asking import json_only, lenient, pretty
from carelake.apps.http.fhir.parameters import PARAMETERS, asked_with, texts
from carelake.apps.http.routes import Operation
from carelake.apps.searching import Found, entries
from carelake.core.errors import Invalid
from carelake.fhir.bundle import search_entry, searchset
from carelake.fhir.query import Query, parse
from carelake.fhir.validate import validate
from carelake.store.match import Match

__all__ = ["last_observations", "match", "operations"]

_GRADE = "http://hl7.org/fhir/StructureDefinition/match-grade"
_MOST_OF_EACH = 1000
_MATCH = {"resource": "Patient", "onlyCertainMatches": "boolean", "count": "integer"}
_MOST_MATCHES = 100
_SUBJECTS = ("patient", "subject")
_CODES = ("category", "code", "combo-code")
_LASTN = "max: how many of each code (1); search parameters of Observation: patient, and category or code"


def operations() -> list[Operation]:
    """The addresses of these operations, of ``$everything`` and of ``$meta``; they stand before those of reads."""

    def of(method: str, path: str, name: str, summary: str, handler: Any, **more: Any) -> Operation:
        more.setdefault("media_type", answers.FHIR_JSON)
        return Operation(method, path, name, summary, handler, "fhir", **more)

    return [
        *everything.operations(),
        of("GET", "/fhir/Observation/$lastn", "lastn", "The newest observations of each code", last_observations,
           query=_LASTN),
        of("POST", "/fhir/Observation/$lastn", "lastnByPost", "The newest observations of each code",
           last_observations, query=_LASTN, body=PARAMETERS),
        of("POST", "/fhir/Patient/$match", "match", "Find who a patient may be", match, body=PARAMETERS),
        *meta.operations(),
    ]  # fmt: skip


def last_observations(call: Call) -> Response:
    """The newest ``max`` of each code, of one patient and some codes or a category."""
    json_only(call)
    relaxed = lenient(call)
    root = f"{call.base}/fhir"
    with call.enter("record:search", "Observation") as permit:
        told = [*call.pairs, *texts(call)]
        most = _max([value for name, value in told if name == "max"])
        pairs = [(name, value) for name, value in told if name != "max"]
        registry = call.door.resources.registry(permit)
        query = _narrow(parse("Observation", pairs, registry=registry, lenient=relaxed, base=root))
        wider = call.door.gate.widen(permit, query.kinds())
        found = Found(query, call.door.resources.operations.lastn(wider, query, most))
    bundle = searchset(entries(found, root), total=found.result.total, links={"self": _self(root, told)})
    applied = {"Preference-Applied": "handling=lenient"} if relaxed else {}
    return answers.fhir(bundle, headers=applied, pretty=pretty(call))


def _self(root: str, told: list[tuple[str, str]]) -> str:
    return f"{root}/Observation/$lastn" + (f"?{urlencode(told, quote_via=quote)}" if told else "")


def _max(told: list[str]) -> int:
    if len(told) > 1:
        raise Invalid("http.repeated_parameter", "The parameter max is given more than once.")
    (text,) = told or ["1"]
    if not (text.isascii() and text.isdigit() and len(text) < 9 and 1 <= int(text) <= _MOST_OF_EACH):
        raise Invalid("http.parameter", f"The parameter max is a number from 1 to {_MOST_OF_EACH}.")
    return int(text)


def _narrow(query: Query) -> Query:
    """What the operation is defined for, and no order or page of the caller's own."""
    named = {condition.code for condition in query.conditions}
    if named.isdisjoint(_SUBJECTS) or named.isdisjoint(_CODES):
        raise Invalid("http.lastn", "$lastn needs patient or subject, and category or code.")
    if query.sort or query.count is not None or query.count_only or query.total:
        raise Invalid("http.lastn", "$lastn has an order of its own, and one page: no _sort, _count or _total.")
    return query


def match(call: Call) -> Response:
    """Patients who may be the one that is described, with a score and a grade each."""
    json_only(call)
    with call.enter("record:search", "Patient") as permit:
        given = asked_with(call, _MATCH)
        patient = given.one("resource")
        if patient is None:
            raise Invalid("http.parameter", "The parameter resource is missing: the Patient to look for.")
        if any(issue.bad for issue in validate(patient, mode="structure")):
            raise Invalid("http.invalid_parameters", "The Patient to look for is not a valid FHIR R4 resource.")
        count = given.number("count")
        if count is not None and count < 1:
            raise Invalid("http.parameter", "The parameter count is at least 1.")
        found = call.door.resources.operations.match(permit, patient, certain=given.flag("onlyCertainMatches"))
        permit.log.count(matches=len(found))
    shown = found[: min(count or _MOST_MATCHES, _MOST_MATCHES)]
    root = f"{call.base}/fhir"
    bundle = searchset([_entry(one, root) for one in shown], total=len(shown))
    return answers.fhir(bundle, pretty=pretty(call))


def _entry(one: Match, root: str) -> dict[str, Any]:
    entry = search_entry(one.patient.raw, "match", root)
    grade = {"url": _GRADE, "valueCode": one.likeness.grade}
    # Six digits: the model says no more, and all but the unlikely ones would be 1.0 with fewer.
    return {**entry, "search": {"extension": [grade], "mode": "match", "score": round(one.likeness.score, 6)}}
