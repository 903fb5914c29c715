"""``$validate`` (https://hl7.org/fhir/R4/resource-operation-validate.html)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from sqlalchemy import Connection
from starlette.responses import Response

from carelake.apps.http import answers
from carelake.apps.http.answers import FHIR_JSON
from carelake.apps.http.calls import Call
from carelake.apps.http.routes import Operation
from carelake.core.errors import Invalid, NotFound, Unsupported
from carelake.core.permit import Permit
from carelake.fhir.constraints import Exists
from carelake.fhir.definitions import is_resource
from carelake.fhir.issues import Issue
from carelake.fhir.outcome import operation_outcome
from carelake.fhir.validate import in_text, readable, validate

__all__ = ["examine", "examine_stored", "operations"]

_MODES = ("create", "update", "delete", "profile")
_ID = re.compile(r"[A-Za-z0-9.-]{1,64}")
_ANSWERS = {"200": "An OperationOutcome, whether valid or not", "400": "An unknown profile or mode"}


def operations() -> list[Operation]:
    """The three addresses of the operation."""
    kind = {"type": "FHIR R4 resource type, for example Patient"}
    one = {**kind, "id": "id of the resource"}
    query = "profile: canonical of a profile that is loaded; mode: create, update, delete or profile"
    body = {"type": "object", "description": "the resource, or Parameters with resource, mode and profile"}

    def of(method: str, path: str, name: str, summary: str, handler: Any, parameters: Mapping[str, str]) -> Operation:
        return Operation(
            method,
            path,
            name,
            summary,
            handler,
            "fhir",
            body=body if method == "POST" else None,
            parameters=parameters,
            query=query,
            media_type=FHIR_JSON,
            answers=_ANSWERS,
        )

    return [
        of("POST", "/fhir/{type}/$validate", "validate", "Validate a resource; keep nothing", examine, kind),
        of("POST", "/fhir/{type}/{id}/$validate", "validateFor", "Validate a resource's next version", examine, one),
        of("GET", "/fhir/{type}/{id}/$validate", "validateStored", "Validate what is kept", examine_stored, one),
    ]


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is to be validated, and how.

    Attributes:
        whole: what was read of the body.
        inside: where in it the resource stands, "" where it is the whole.
    """

    resource: Any
    whole: Any
    inside: str = ""
    mode: str = ""
    profile: str | None = None


def examine(call: Call) -> Response:
    """The issues of the resource that is sent."""
    kind, key = _type(call), _id(call)
    with call.enter("record:validate", kind) as permit:
        asked = _asked(call, kind)  # nothing is read for who may not ask
        if isinstance(asked, Issue):
            found = [asked]
        elif asked.mode == "delete":
            found = _undeletable(call, permit, kind, key)
        else:
            wrong = _wrong_address(asked, kind, key)
            issues = wrong or _issues(call, permit, asked.resource, asked.profile)
            found = in_text(call.body, asked.whole, issues, asked.inside)
        permit.log.count(issues=len(found))
    return _answer(call, found)


def examine_stored(call: Call) -> Response:
    """The issues of the version that is current."""
    kind, key = _type(call), _id(call)
    _mode(call.one("mode") or "")
    with call.enter("record:read", kind) as permit:
        resource = call.door.resources.read(permit, kind, key)
        found = _issues(call, permit, resource, call.one("profile"))
        permit.log.count(issues=len(found))
    return _answer(call, found)


def _issues(call: Call, permit: Permit, resource: Any, profile: str | None) -> list[Issue]:
    try:
        if call.door.settings.validation.references == "off":
            return validate(resource, profile)
        with call.door.vault.database.reading(permit) as tx:
            return validate(resource, profile, exists=_exists(call, permit, tx))
    except NotFound:
        raise Unsupported("http.profile", "The profile asked for is not one of FHIR R4 or US Core 6.1.0.") from None


def _exists(call: Call, permit: Permit, tx: Connection) -> Exists:
    """Whether there is what is referred to, to the caller: of types that are denied there is nothing."""
    there = call.door.resources.exists(permit, tx)
    reaches = cache(partial(call.door.gate.reaches, permit, tx))
    return lambda kind, key: reaches(kind) and there(kind, key)


def _undeletable(call: Call, permit: Permit, kind: str, key: str) -> list[Issue]:
    """What forbids a deletion, whatever the body says: only that there is nothing to delete."""
    with call.door.vault.database.reading(permit) as tx:
        there = bool(key) and call.door.resources.exists(permit, tx)(kind, key)
    return [] if there else [Issue("error", "not-found", kind, "There is no such resource to delete.")]


def _answer(call: Call, found: list[Issue]) -> Response:
    return answers.fhir(operation_outcome(found), pretty=_pretty(call))


def _wrong_address(asked: _Asked, kind: str, key: str) -> list[Issue]:
    """What the address and the resource do not agree on."""
    said = asked.resource.get("resourceType") if isinstance(asked.resource, dict) else None
    if not isinstance(said, str) or not is_resource(said):
        return []  # validation says so, and better
    if said != kind:
        return [Issue("error", "invalid", said, f"The resource is not a {kind}, as the address says.")]
    if key and asked.resource.get("id", key) != key:
        return [Issue("error", "invalid", f"{kind}.id", "The id is not the one in the address.")]
    return []


def _asked(call: Call, kind: str) -> _Asked | Issue:
    mode, profile = _mode(call.one("mode") or ""), call.one("profile")
    if mode == "delete" and not call.body.strip():
        return _Asked(None, None, "", mode, profile)
    whole = readable(call.body)
    if isinstance(whole, Issue):
        return whole
    listed = _parameters(whole)
    named = {str(one["name"]): n for n, one in enumerate(listed)}
    if not listed or (kind == "Parameters" and "resource" not in named):
        return _Asked(whole, whole, "", mode, profile)
    mode = _mode(_value(listed, named, "mode", "valueCode") or mode)
    profile = _value(listed, named, "profile", "valueUri", "valueCanonical") or profile
    if mode == "delete" and "resource" not in named:
        return _Asked(None, whole, "", mode, profile)
    if not named.keys() <= {"resource", "mode", "profile"} or len(named) < len(listed) or "resource" not in named:
        raise Invalid("http.parameters", "Parameters of $validate are resource, mode and profile, each once.")
    at = named["resource"]
    return _Asked(listed[at].get("resource"), whole, f"Parameters.parameter[{at}].resource", mode, profile)


def _parameters(whole: Any) -> list[dict[str, Any]]:
    """The parameters of a body that is Parameters; else none."""
    if not isinstance(whole, dict) or whole.get("resourceType") != "Parameters":
        return []
    listed = whole.get("parameter")
    good = isinstance(listed, list) and all(
        isinstance(one, dict) and isinstance(one.get("name"), str) for one in listed
    )
    return listed if good and isinstance(listed, list) else []


def _value(listed: list[dict[str, Any]], named: Mapping[str, int], name: str, *keys: str) -> str | None:
    if name not in named:
        return None
    values = [listed[named[name]][key] for key in keys if isinstance(listed[named[name]].get(key), str)]
    if len(values) != 1:
        raise Invalid("http.parameters", f"The parameter {name} has no {' or '.join(keys)}.")
    return str(values[0])


def _mode(said: str) -> str:
    if said and said not in _MODES:
        raise Unsupported("http.mode", f"The mode is {', '.join(_MODES)}, or left out.")
    return said


def _type(call: Call) -> str:
    call.only("_format", "_pretty", "mode", "profile")
    # The type goes on the trail: what is none is not written down.
    kind = call.path["type"]
    if not is_resource(kind):
        raise NotFound("http.unknown_type", "FHIR R4 has no such resource type; expected for example /fhir/Patient.")
    return kind


def _id(call: Call) -> str:
    key = call.path.get("id", "")
    if key and not _ID.fullmatch(key):
        raise NotFound(
            "http.no_such_resource", "There is no such resource; an id is 1 to 64 letters, digits, - and ."
        )
    return key


def _pretty(call: Call) -> bool:
    return call.one("_pretty") == "true"
