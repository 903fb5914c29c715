"""FHIR read, version read and search. https://hl7.org/fhir/R4/http.html"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from email.utils import format_datetime
from typing import Any
from urllib.parse import quote, urlencode

from starlette.responses import Response

from carelake.apps.http import answers
from carelake.apps.http.calls import Call
from carelake.apps.http.capability import statement
from carelake.apps.http.routes import Handler
from carelake.core.clock import instant
from carelake.core.errors import NotFound, Unsupported
from carelake.core.permit import Permit
from carelake.fhir.bundle import searchset
from carelake.fhir.definitions import is_resource
from carelake.fhir.query import parse

__all__ = ["Handler", "capabilities", "read", "search", "vread"]

_PAGE = "_page"
_ID = re.compile(r"[A-Za-z0-9.-]{1,64}")
_JSON = frozenset({"json", "application/json", "application/fhir+json", "text/json"})
_ANY = frozenset({"*/*", "application/*", ""})


def capabilities(call: Call) -> Response:
    """What this server does. https://hl7.org/fhir/R4/http.html#capabilities"""
    _json_only(call)
    call.only("_format", "_pretty", "mode")
    if call.one("mode") not in (None, "full"):
        raise Unsupported("http.mode", "Only mode=full is offered.")
    return answers.fhir(statement(), pretty=_pretty(call))


def read(call: Call) -> Response:
    """The current version. https://hl7.org/fhir/R4/http.html#read"""
    resource = _one(call, lambda permit, kind, key: call.door.resources.read(permit, kind, key))
    headers = _validators(resource)
    if _unchanged(call.headers.get("if-none-match", ""), headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return answers.fhir(resource, headers=headers, pretty=_pretty(call))


def vread(call: Call) -> Response:
    """One version. https://hl7.org/fhir/R4/http.html#vread"""
    version = call.path["version"]
    if not _ID.fullmatch(version):
        raise _absent()
    resource = _one(call, lambda permit, kind, key: call.door.resources.vread(permit, kind, key, version))
    return answers.fhir(resource, headers=_validators(resource), pretty=_pretty(call))


def search(call: Call) -> Response:
    """A searchset Bundle. https://hl7.org/fhir/R4/search.html"""
    kind = _type(call)
    _json_only(call)
    page = call.one(_PAGE) or ""
    pairs = [(name, value) for name, value in call.pairs if name != _PAGE]
    with call.enter("record:search", kind) as permit:
        found = call.door.resources.search(permit, parse(kind, pairs), page)
    base = call.base + "/fhir"
    links = {"self": _link(base, kind, call.pairs)}
    if found.next:
        links["next"] = _link(base, kind, [*pairs, (_PAGE, found.next)])
    bundle = searchset(found.resources, base=base, total=found.total, links=links)
    return answers.fhir(bundle, pretty=_pretty(call))


def _link(base: str, kind: str, pairs: Sequence[tuple[str, str]]) -> str:
    return f"{base}/{kind}" + ("?" + urlencode(pairs, quote_via=quote) if pairs else "")


def _one(call: Call, reading: Callable[[Permit, str, str], dict[str, Any]]) -> dict[str, Any]:
    kind, key = _type(call), call.path["id"]
    _json_only(call)
    call.only("_format", "_pretty")
    if not _ID.fullmatch(key):
        raise _absent()
    with call.enter("record:read", kind) as permit:
        return reading(permit, kind, key)


def _type(call: Call) -> str:
    # The type goes on the trail: what is none is not written down.
    kind = call.path["type"]
    if not is_resource(kind):
        raise NotFound("http.unknown_type", "FHIR R4 has no such resource type; expected for example /fhir/Patient.")
    return kind


def _absent() -> NotFound:
    return NotFound("http.no_such_resource", "There is no such resource; an id is 1 to 64 letters, digits, - and .")


def _json_only(call: Call) -> None:
    """Refuse to answer in JSON somebody who takes no JSON. https://hl7.org/fhir/R4/http.html#mime-type"""
    told = call.one("_format")
    accepted = [told] if told is not None else call.headers.get("accept", "").split(",")
    kinds = {one.partition(";")[0].strip().lower() for one in accepted}
    if kinds.isdisjoint(_JSON | _ANY):
        raise Unsupported("http.format", "Only JSON is offered: application/fhir+json.")


def _pretty(call: Call) -> bool:
    return call.one("_pretty") == "true"


def _validators(resource: Mapping[str, Any]) -> dict[str, str]:
    meta = resource.get("meta", {})
    headers = {"ETag": f'W/"{meta["versionId"]}"'}
    moment: datetime = instant(str(meta["lastUpdated"]))
    headers["Last-Modified"] = format_datetime(moment, usegmt=True)
    return headers


def _unchanged(asked: str, etag: str) -> bool:
    return etag in {one.strip() for one in asked.split(",")}
