"""FHIR read, version read, and what this server does. https://hl7.org/fhir/R4/http.html"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from email.utils import format_datetime
from typing import Any

from starlette.responses import Response

from carelake.apps.http import answers
from carelake.apps.http.asking import is_id, json_only, pretty, resource_type
from carelake.apps.http.calls import Call
from carelake.apps.http.capability import Codes, rendered
from carelake.apps.http.routes import Handler
from carelake.core.clock import instant
from carelake.core.errors import NotFound, Unsupported
from carelake.core.permit import Permit
from carelake.fhir.search.registry import BASE, Registry

__all__ = ["Handler", "absent", "capabilities", "read", "vread"]


def capabilities(call: Call) -> Response:
    """What this server does. https://hl7.org/fhir/R4/http.html#capabilities"""
    json_only(call)
    call.only("_format", "_pretty", "mode")
    if call.one("mode") not in (None, "full"):
        raise Unsupported("http.mode", "Only mode=full is offered.")
    return answers.fhir_text(rendered(*_parameters(call), pretty=pretty(call)))


def _parameters(call: Call) -> tuple[Registry, Codes]:
    """With the search parameters of the caller's account, for who may search there; anybody gets the standard's."""
    if not call.named:
        return BASE, frozenset()
    caller = call.caller("record:search", "SearchParameter")
    decided = call.door.gate.explain(
        caller.principal, "record:search", caller.account, caller.purpose, ("SearchParameter",)
    )
    if not decided.allowed:
        return BASE, frozenset()
    with call.enter("record:search", "SearchParameter") as permit:
        return call.door.resources.registry(permit), call.door.resources.unbuilt(permit)


def read(call: Call) -> Response:
    """The current version. https://hl7.org/fhir/R4/http.html#read"""
    resource = _one(call, lambda permit, kind, key: call.door.resources.read(permit, kind, key))
    headers = _validators(resource)
    if _unchanged(call.headers.get("if-none-match", ""), headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return answers.fhir(resource, headers=headers, pretty=pretty(call))


def vread(call: Call) -> Response:
    """One version. https://hl7.org/fhir/R4/http.html#vread"""
    version = call.path["version"]
    if not is_id(version):
        raise absent()
    resource = _one(call, lambda permit, kind, key: call.door.resources.vread(permit, kind, key, version))
    return answers.fhir(resource, headers=_validators(resource), pretty=pretty(call))


def _one(call: Call, reading: Callable[[Permit, str, str], dict[str, Any]]) -> dict[str, Any]:
    kind, key = resource_type(call.path["type"]), call.path["id"]
    json_only(call)
    call.only("_format", "_pretty")
    if not is_id(key):
        raise absent()
    with call.enter("record:read", kind) as permit:
        return reading(permit, kind, key)


def absent() -> NotFound:
    """No resource can have that id."""
    return NotFound("http.no_such_resource", "There is no such resource; an id is 1 to 64 letters, digits, - and .")


def _validators(resource: Mapping[str, Any]) -> dict[str, str]:
    meta = resource.get("meta", {})
    headers = {"ETag": f'W/"{meta["versionId"]}"'}
    moment: datetime = instant(str(meta["lastUpdated"]))
    headers["Last-Modified"] = format_datetime(moment, usegmt=True)
    return headers


def _unchanged(asked: str, etag: str) -> bool:
    return etag in {one.strip() for one in asked.split(",")}
