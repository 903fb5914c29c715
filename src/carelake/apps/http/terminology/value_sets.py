"""``ValueSet/$expand`` and ``ValueSet/$validate-code``."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any
from uuid import UUID

from carelake.apps.http.fhir.parameters import Given
from carelake.apps.http.terminology.questions import Question, verdict
from carelake.apps.http.terminology.takes import EXPAND
from carelake.core.clock import iso
from carelake.core.errors import Invalid, NotFound, Unsupported
from carelake.fhir.terminology import ValueSet, value_set
from carelake.fhir.terminology.checking import Coded, Verdict, in_value_set
from carelake.fhir.terminology.expanding import Expanding, compose, expand
from carelake.fhir.terminology.expansion import shown

__all__ = ["expanded", "in_set"]

_SHOWN_IN_EXPANSION = ("filter", "offset", "count", "activeOnly", "includeDesignations", "displayLanguage",
                       "excludeNotForUI", "exclude-system", "system-version", "check-system-version",
                       "force-system-version")  # fmt: skip
_VALUES = {"boolean": "valueBoolean", "integer": "valueInteger", "code": "valueCode", "canonical": "valueUri"}


def _set_of(asked: Question) -> ValueSet:
    """The value set that is asked about, named, sent, or in the address."""
    given = asked.given
    brought = asked.stored or given.one("valueSet")
    if brought is not None:
        return value_set(brought)
    url = given.text("url")
    if not url:
        if "context" in given:
            raise Unsupported("http.parameter", "A context is not looked up here; name the value set by its url.")
        raise Invalid("http.parameter", "Which value set? Give its url, or send it as valueSet.")
    if "valueSetVersion" in given and "|" not in url:
        url = f"{url}|{given.text('valueSetVersion')}"
    try:
        return asked.known.value_set(url)
    except Unsupported:
        raise NotFound(
            "terminology.no_such_value_set", f"{shown('The value set', url)} is not known here; store its resource."
        ) from None


def expanded(asked: Question) -> Mapping[str, Any]:
    """The codes of a value set. https://hl7.org/fhir/R4/valueset-operation-expand.html"""
    told, given = _set_of(asked), asked.given
    offset, count = given.number("offset") or 0, given.number("count")
    if offset < 0 or (count is not None and count < 0):
        raise Invalid("http.parameter", "offset and count are not less than 0.")
    found = expand(
        asked.known,
        told,
        Expanding(
            text=given.text("filter"),
            offset=offset,
            count=count,
            active=given.flag("activeOnly"),
            abstract=not given.flag("excludeNotForUI"),
            designations=given.flag("includeDesignations") or "designation" in given,
            designated=frozenset(given.all("designation")),
            language=asked.language,
            without=given.all("exclude-system"),
            versions=[one for name in EXPAND if name.endswith("system-version") for one in given.all(name)],
        ),
    )
    asked.permit.log.count(codes=len(found.get("contains", ())))
    door = asked.call.door
    said = {"url": told.url, "version": told.version, "name": told.name, "title": told.title}
    return {
        "resourceType": "ValueSet",
        **{name: text for name, text in said.items() if text},
        "status": told.status or "active",
        **({"compose": compose(told)} if given.flag("includeDefinition") else {}),
        "expansion": {
            "identifier": f"urn:uuid:{UUID(door.vault.ids.new())}",
            "timestamp": iso(door.vault.clock.now()),
            **_with_parameters(found, given),
        },
    }


def _with_parameters(found: dict[str, Any], given: Given) -> dict[str, Any]:
    listed = [
        {"name": name, _VALUES.get(EXPAND[name].removesuffix("*"), "valueString"): value}
        for name in _SHOWN_IN_EXPANSION
        for value in given.all(name)
    ]
    listed += found.pop("parameter")
    return {
        **{name: found[name] for name in ("total", "offset") if name in found},
        **({"parameter": listed} if listed else {}),
        **({"contains": found["contains"]} if "contains" in found else {}),
    }


def in_set(asked: Question) -> Mapping[str, Any]:
    """Whether a code is in a value set. https://hl7.org/fhir/R4/valueset-operation-validate-code.html"""
    told = _set_of(asked)
    check = partial(in_value_set, abstract=asked.given.flag("abstract"), language=asked.language)

    def judge(one: Coded) -> Verdict:
        if not one.system:
            return Verdict(False, "The coding has no system, so it is no code of any.")
        return check(asked.known, told, one)

    given = asked.given
    if "code" in given and "system" not in given:
        raise Invalid("http.parameter", "A code is given without its system.")
    return verdict(asked, judge, given.text("system"), given.text("systemVersion"))
