"""FHIR read, version read, and what this server does. https://hl7.org/fhir/R4/http.html"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b

import msgspec
from starlette.responses import Response

from carelake.apps.http import answers
from carelake.apps.http.calls import Call
from carelake.apps.http.fhir.asking import is_id, json_only, pretty, resource_type
from carelake.apps.http.fhir.capability import Codes, rendered
from carelake.apps.http.fhir.conditional_tags import etag, unchanged, validators
from carelake.apps.http.routes import Handler
from carelake.apps.http.smart import security
from carelake.apps.http.terminology.capabilities import terminology_capabilities
from carelake.core.errors import Invalid, NotFound, Unsupported
from carelake.core.permit import Permit
from carelake.fhir.query import Query, parse
from carelake.fhir.search.registry import BASE, Registry
from carelake.store.bodies import Shown
from carelake.store.search.answers import part

__all__ = ["Handler", "absent", "capabilities", "read", "vread"]

_PARTS = ("_summary", "_elements")


def capabilities(call: Call) -> Response:
    """What this server does. https://hl7.org/fhir/R4/http.html#capabilities"""
    json_only(call)
    call.only("_format", "_pretty", "mode", *_PARTS)
    mode = call.one("mode")
    if mode == "terminology":
        return answers.fhir(terminology_capabilities(), pretty=pretty(call))
    if mode not in (None, "full"):
        raise Unsupported("http.mode", "Only mode=full and mode=terminology are offered.")
    let_in, cut = security(call.door.settings, call.base), _cut(call, "CapabilityStatement")
    if cut is None:
        return _stated(call, rendered(*_parameters(call), security=let_in, pretty=pretty(call)))
    text = part(rendered(*_parameters(call), security=let_in), "CapabilityStatement", cut)
    return _stated(call, msgspec.json.format(text, indent=2) if pretty(call) else text)


def _stated(call: Call, text: bytes) -> Response:
    """A statement, which has no version: its tag is of its text."""
    headers = {"ETag": etag(blake2b(text, digest_size=12).hexdigest())}
    if unchanged(call.headers, headers):
        return Response(status_code=304, headers=headers)
    return answers.fhir_text(text, headers=headers)


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
    return _shown(call, _one(call, lambda permit, kind, key: call.door.resources.shown(permit, kind, key)))


def vread(call: Call) -> Response:
    """One version. https://hl7.org/fhir/R4/http.html#vread"""
    version = call.path["version"]
    if not is_id(version):
        raise absent()
    return _shown(call, _one(call, lambda permit, kind, key: call.door.resources.shown(permit, kind, key, version)))


def _one(call: Call, reading: Callable[[Permit, str, str], Shown]) -> Shown:
    kind, key = resource_type(call.path["type"]), call.path["id"]
    json_only(call)
    call.only("_format", "_pretty", *_PARTS)
    cut = _cut(call, kind)
    if not is_id(key):
        raise absent()
    with call.enter("record:read", kind) as permit:
        found = reading(permit, kind, key)
    return found if cut is None else found._replace(text=part(found.text, kind, cut))


def _cut(call: Call, kind: str) -> Query | None:
    """Which part is asked for (https://hl7.org/fhir/R4/http.html#parameters); None for all of it."""
    asked = [pair for pair in call.pairs if pair[0] in _PARTS]
    if not asked:
        return None
    if ("_summary", "count") in asked:
        raise Invalid("http.parameter", "_summary=count is for searches; a read takes true, text, data or false.")
    return parse((kind,), asked)


def absent() -> NotFound:
    """No resource can have that id."""
    return NotFound("http.no_such_resource", "There is no such resource; an id is 1 to 64 letters, digits, - and .")


def _shown(call: Call, found: Shown) -> Response:
    """A version, or that the caller has it (https://hl7.org/fhir/R4/http.html#cread)."""
    call.updated = found.updated
    headers = validators(found.version, found.updated)
    if unchanged(call.headers, headers):
        return Response(status_code=304, headers=headers)
    return answers.fhir_text(
        msgspec.json.format(found.text, indent=2) if pretty(call) else found.text, headers=headers
    )
