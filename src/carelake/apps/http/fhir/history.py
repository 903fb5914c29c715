"""History of a resource, of a type and of all (https://hl7.org/fhir/R4/http.html#history)."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote, urlencode

from starlette.responses import Response

from carelake.apps.http import answers
from carelake.apps.http.calls import Call
from carelake.apps.http.fhir.asking import is_id, json_only, pretty, resource_type
from carelake.apps.http.fhir.conditional_tags import etag
from carelake.apps.http.fhir.record import absent
from carelake.apps.http.routes import Operation
from carelake.core.clock import iso
from carelake.core.errors import Invalid
from carelake.fhir.definitions import resource_types
from carelake.fhir.search.values import date_range
from carelake.store.history import Past, PastPage, Span

__all__ = ["of_all", "of_one", "of_type", "operations"]

_KNOWN = ("_since", "_at", "_count", "_page", "_format", "_pretty")
_TYPE = {"type": "FHIR R4 resource type, for example Patient"}
_QUERY = "_since: an instant; _at: a date or time; _count: versions on a page; _page: out of a next link"
_made_here = re.compile(r"[0-9a-f]{32}").fullmatch
_STATUSES = {"POST": "201 Created", "PUT": "200 OK", "DELETE": "204 No Content"}


def operations() -> list[Operation]:
    """Their addresses; they go before what takes ``_history`` for an id or a type."""

    def of(path: str, name: str, summary: str, handler: Any, **more: Any) -> Operation:
        said = {"query": _QUERY, "media_type": answers.FHIR_JSON, **more}
        return Operation("GET", path, name, summary, handler, "fhir", **said)

    one = {**_TYPE, "id": "id of the resource"}
    absent_ = {"404": "There is none"}
    return [
        of("/fhir/_history", "historyAll", "Versions of all resources, newest first", of_all),
        of("/fhir/{type}/_history", "historyType", "Versions of a type, newest first", of_type, parameters=_TYPE),
        of(
            "/fhir/{type}/{id}/_history",
            "history",
            "Versions of a resource, newest first",
            of_one,
            parameters=one,
            answers=absent_,
        ),
    ]


def of_one(call: Call) -> Response:
    """``/fhir/Patient/1/_history``"""
    kind, key = resource_type(call.path["type"]), call.path["id"]
    if not is_id(key):
        raise absent()
    return _page(call, "record:read", kind, key)


def of_type(call: Call) -> Response:
    """``/fhir/Patient/_history``"""
    return _page(call, "record:search", resource_type(call.path["type"]), "")


def of_all(call: Call) -> Response:
    """``/fhir/_history``: for who may search all types."""
    return _page(call, "record:search", "", "")


def _page(call: Call, action: str, kind: str, key: str) -> Response:
    json_only(call)
    call.only(*_KNOWN)
    span, count, page = _span(call), _count(call), call.one("_page") or ""
    with call.enter(action, kind or "record") as permit:
        if not kind:
            permit = call.door.gate.widen(permit, resource_types())
        found = call.door.resources.history(permit, kind, key, span=span, count=count, page=page)
    return answers.fhir(_bundle(call, "/".join(filter(None, (kind, key, "_history"))), found), pretty=pretty(call))


def _bundle(call: Call, path: str, found: PastPage) -> dict[str, Any]:
    """https://hl7.org/fhir/R4/bundle.html#history"""
    root = f"{call.base}/fhir"
    asked = [pair for pair in call.pairs if pair[0] != "_page"]
    links = [{"relation": "self", "url": _address(root, path, call.pairs)}]
    if found.next:
        links.append({"relation": "next", "url": _address(root, path, [*asked, ("_page", found.next)])})
    bundle: dict[str, Any] = {"resourceType": "Bundle", "type": "history"}
    if found.total is not None:
        bundle["total"] = found.total
    bundle["link"] = links
    if found.versions:
        bundle["entry"] = [_entry(root, one) for one in found.versions]
    return bundle


def _entry(root: str, one: Past) -> dict[str, Any]:
    entry: dict[str, Any] = {"fullUrl": f"{root}/{one.type}/{one.id}"}
    if one.resource is not None:
        entry["resource"] = one.resource
    # An id that is not of our making was the client's own, or came with an import: no POST can have brought it.
    method = "PUT" if one.method == "POST" and not _made_here(one.id) else one.method
    url = one.type if method == "POST" else f"{one.type}/{one.id}"
    status = "201 Created" if one.created else _STATUSES[one.method]
    entry["request"] = {"method": method, "url": url}
    entry["response"] = {"status": status, "etag": etag(one.version), "lastModified": iso(one.updated)}
    return entry


def _address(root: str, path: str, pairs: Any) -> str:
    return f"{root}/{path}" + ("?" + urlencode(pairs, quote_via=quote) if pairs else "")


def _span(call: Call) -> Span:
    since, at = _range(call, "_since"), _range(call, "_at")
    low, high = at if at is not None else (None, None)
    return Span(since[0] if since is not None else None, low, high)


def _range(call: Call, name: str) -> tuple[int, int] | None:
    text = call.one(name)
    if text is None:
        return None
    try:
        return date_range(text.replace(" ", "+"))  # a "+" in a query is a blank once it is decoded
    except (ValueError, OverflowError):
        raise Invalid("http.parameter", f"{name} takes a time such as 2024-05-31T08:00:00Z, or a date.") from None


def _count(call: Call) -> int | None:
    text = call.one("_count")
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise Invalid("http.parameter", "_count takes a number of versions.")
    return int(text)
