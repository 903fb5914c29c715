"""A terminology operation as its handler sees it: parameters, and what code systems, value sets and maps are known.

What is asked about and not known at all is 404; what is known, but cannot be worked out here, is 422.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial, wraps
from typing import Any

from starlette.responses import Response

from carelake.apps.http import answers
from carelake.apps.http.calls import Call
from carelake.apps.http.fhir.asking import is_id, json_only, pretty
from carelake.apps.http.fhir.parameters import Given, Takes, asked_with, parameters
from carelake.apps.http.fhir.record import absent
from carelake.core.errors import Invalid, Unsupported
from carelake.core.permit import Permit
from carelake.fhir.terminology import LocalTerminology, ResourceLibrary
from carelake.fhir.terminology.checking import Coded, Verdict, best, coded

__all__ = ["Handler", "Question", "codes", "questioned", "verdict"]


_MOST_CODINGS = 50
_NOT_WORKED_OUT = frozenset(
    f"terminology.{reason}"
    for reason in (
        "date",
        "filter",
        "not_is_a",
        "too_costly",
        "too_deep",
        "too_many",
        "unknown_code",
        "unknown_code_system",
        "unknown_value_set",
        "version",
        "withheld",
    )
)
"""What is asked for is known, but the answer cannot be worked out: 422. What is not known at all is 404."""


@dataclass(frozen=True)
class Question:
    """A call with what it may lean on.

    Attributes:
        stored: the resource in the address, None at the level of the type.
    """

    call: Call
    permit: Permit
    given: Given
    known: LocalTerminology
    stored: Mapping[str, Any] | None

    @property
    def language(self) -> str:
        """The language that displays are wanted in, "" for any."""
        return self.given.text("displayLanguage")


Handler = Callable[[Question], Mapping[str, Any]]


def questioned(handler: Handler, kind: str, takes: Takes) -> Callable[[Call], Response]:
    """The handler of the route: reads the parameters once the gate is passed, and answers in FHIR."""

    @wraps(handler)
    def handle(call: Call) -> Response:
        json_only(call)
        try:
            with _entered(call, kind, takes) as question:
                found = handler(question)
        except Invalid as error:
            if error.code not in _NOT_WORKED_OUT:
                raise
            return answers.failure(error, call.url, 422)
        return answers.fhir(found, pretty=pretty(call))

    return handle


@contextmanager
def _entered(call: Call, kind: str, takes: Takes) -> Iterator[Question]:
    key = call.path.get("id", "")
    if key and not is_id(key):
        raise absent()
    action = "record:read" if key else "record:search"
    resources = call.door.resources
    with call.enter(action, kind) as permit, call.door.vault.database.reading(permit) as tx:
        given = asked_with(call, takes)
        if "date" in given:
            raise Unsupported("terminology.date", "Definitions are answered of as they are now; leave out date.")
        sees = cache(partial(call.door.gate.reaches, permit, tx))
        known = resources.terms(permit, tx, sees)
        stored = resources.read(permit, kind, key) if key else None
        yield Question(call, permit, given, _beside(known, stored, given), stored)


def _beside(known: LocalTerminology, stored: Mapping[str, Any] | None, given: Given) -> LocalTerminology:
    """With the resources that are asked about, whatever else has their urls."""
    brought = [given.one(name) for name in ("valueSet", "codeSystem", "conceptMap") if name in given]
    own = {(one["resourceType"], one["url"]): one for one in (*brought, stored) if one and one.get("url")}
    return known.beside(ResourceLibrary(lambda kind, url: own.get((kind, url)))) if own else known


def verdict(asked: Question, judge: Callable[[Coded], Verdict], system: str, version: str) -> Mapping[str, Any]:
    """The answer of ``$validate-code`` on the codes that were given."""
    found = best([judge(one) for one in codes(asked.given, system, version) if one.code])
    told: list[dict[str, Any]] = [{"name": "result", "valueBoolean": found.result}]
    told += [{"name": "message", "valueString": found.message}] if found.message else []
    return parameters(*told, *([{"name": "display", "valueString": found.display}] if found.display else []))


def codes(given: Given, system: str, version: str) -> list[Coded]:
    """The codes that are asked about: exactly one of code, coding and codeableConcept is given."""
    if sum(name in given for name in ("code", "coding", "codeableConcept")) != 1:
        raise Invalid("http.parameter", "Give one of code, coding and codeableConcept.")
    if "code" in given:
        return [Coded(given.text("code"), system, version, given.text("display"))]
    if "coding" in given:
        return [coded(given.one("coding") or {})]
    concept: Mapping[str, Any] = given.one("codeableConcept") or {}
    listed = concept.get("coding", ())
    if len(listed) > _MOST_CODINGS:
        raise Invalid("http.parameter", f"A concept is asked about with at most {_MOST_CODINGS} codings.")
    return [coded(one) for one in listed]
