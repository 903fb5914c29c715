"""``CodeSystem/$validate-code``, ``$lookup`` and ``$subsumes``."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from carelake.apps.http.fhir.parameters import Given, parameters
from carelake.apps.http.terminology.questions import Question, verdict
from carelake.core.errors import Invalid, NotFound
from carelake.fhir.terminology import LocalTerminology
from carelake.fhir.terminology.checking import Coded, Verdict, coded, in_system
from carelake.fhir.terminology.expansion import shown
from carelake.fhir.terminology.looking import find, lookup, subsumes

__all__ = ["in_code_system", "looked_up", "subsumed"]


def in_code_system(asked: Question) -> Mapping[str, Any]:
    """Whether a code is in a code system. https://hl7.org/fhir/R4/codesystem-operation-validate-code.html"""
    given = asked.given
    brought = asked.stored or given.one("codeSystem")
    url = str(brought.get("url", "")) if brought is not None else given.text("url")
    if not url:
        raise Invalid("http.parameter", "Which code system? Give its url, or send it, with its url, as codeSystem.")
    url, _, version = url.partition("|")
    check = partial(in_system, abstract=given.flag("abstract"), language=asked.language)

    def judge(one: Coded) -> Verdict:
        if one.system != url:
            return Verdict(False, "The coding is of another code system.")
        return check(asked.known, one)

    _see(asked.known, url)
    return verdict(asked, judge, url, given.text("version") or version)


def _see(known: LocalTerminology, url: str) -> None:
    """See that a code system is known.

    Raises:
        NotFound: ``terminology.no_such_system``.
    """
    if known.tree(url) is None:
        raise NotFound(
            "terminology.no_such_system", f"{shown('The code system', url)} is not known here; store its resource."
        )


def looked_up(asked: Question) -> Mapping[str, Any]:
    """What a code is. https://hl7.org/fhir/R4/codesystem-operation-lookup.html"""
    given = asked.given
    if ("code" in given) == ("coding" in given):
        raise Invalid("http.parameter", "Give a system and a code, or a coding.")
    one = _one(given, "code", "coding", given.text("system"), given.text("version"))
    found = find(asked.known, one.system, one.code, one.version)
    return parameters(*lookup(found, given.all("property"), asked.language))


def _one(given: Given, code: str, coding: str, system: str, version: str) -> Coded:
    said: Mapping[str, Any] = given.one(coding) or {"code": given.text(code), "system": system}
    one = coded(said)
    if not one.code or not one.system:
        raise Invalid("http.parameter", f"Neither {code} with its system is given, nor {coding} with both.")
    if system and one.system != system:
        raise Invalid("http.parameter", f"The system of {coding} is another than the one that is given.")
    return Coded(one.code, one.system, one.version or version)


def subsumed(asked: Question) -> Mapping[str, Any]:
    """How two codes of a system stand. https://hl7.org/fhir/R4/codesystem-operation-subsumes.html"""
    given = asked.given
    system = str(asked.stored.get("url", "")) if asked.stored is not None else given.text("system")
    both = []
    for letter in "AB":
        one = _one(given, f"code{letter}", f"coding{letter}", system, given.text("version"))
        both.append((one.system, find(asked.known, one.system, one.code, one.version)))
    (first, a), (second, b) = both
    if first != second:
        raise Invalid("http.parameter", "The two codes are of different systems; nothing is known of how they stand.")
    return parameters({"name": "outcome", "valueCode": subsumes(a, b)})
