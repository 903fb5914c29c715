"""Saved views as ViewDefinitions: read, listed, put and deleted. They are of the lake, and no part of the record."""

from __future__ import annotations

import re

from starlette.responses import Response

from carelake.apps.http import answers
from carelake.apps.http.calls import Call
from carelake.apps.http.fhir.asking import json_only, pretty
from carelake.apps.http.views.subjects import shown
from carelake.core import canonical
from carelake.core.errors import Invalid
from carelake.fhir.bundle import searchset
from carelake.lake.views import saved

__all__ = ["listed", "put", "read", "remove"]

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_]")


def listed(call: Call) -> Response:
    """``GET /fhir/ViewDefinition``: all of them, or those of a name, a url or a type."""
    json_only(call)
    call.only("name", "url", "resource", "_format", "_pretty")
    wanted = {name: call.one(name) for name in ("name", "url", "resource")}
    with call.enter("lake:query", "lake") as permit:
        views = [shown(one) for one in saved.all_of(permit, call.door.vault)]
    found = [one for one in views if all(value in (None, one.get(name)) for name, value in wanted.items())]
    base = f"{call.base}/fhir/ViewDefinition"
    made = [{"fullUrl": f"{base}/{one['id']}", "resource": one, "search": {"mode": "match"}} for one in found]
    query = f"?{call.raw_query}" if call.raw_query else ""
    return answers.fhir(searchset(iter(made), total=len(made), links={"self": base + query}), pretty=pretty(call))


def read(call: Call) -> Response:
    """``GET /fhir/ViewDefinition/ID``"""
    json_only(call)
    call.only("_format", "_pretty")
    with call.enter("lake:query", "lake") as permit:
        found = saved.found(permit, call.door.vault, call.path["id"])
    return answers.fhir(shown(found), pretty=pretty(call))


def put(call: Call) -> Response:
    """``PUT /fhir/ViewDefinition/ID``: saved by its name, or by its id where it has none."""
    json_only(call)
    call.only("_format", "_pretty")
    view = canonical.load(call.body)
    if not isinstance(view, dict) or view.get("resourceType") != "ViewDefinition":
        raise Invalid("http.body", "The body is no ViewDefinition.")
    if view.get("id", call.path["id"]) != call.path["id"]:
        raise Invalid("http.body", "The body has another id than the address.", expression="ViewDefinition.id")
    name = view.get("name") or _NOT_IN_NAMES.sub("_", call.path["id"])
    with call.enter("lake:define", "lake") as permit:
        new = not any(one.id == call.path["id"] for one in saved.all_of(permit, call.door.vault))
        made = saved.save(permit, call.door.vault, {**view, "id": call.path["id"]}, name)
    where = {"Location": f"{call.base}/fhir/ViewDefinition/{made.id}"} if new else {}
    return answers.fhir(shown(made), 201 if new else 200, where, pretty=pretty(call))


def remove(call: Call) -> Response:
    """``DELETE /fhir/ViewDefinition/ID``"""
    call.only("_format", "_pretty")
    with call.enter("lake:define", "lake") as permit:
        gone = saved.found(permit, call.door.vault, call.path["id"])
        saved.drop(permit, call.door.vault, gone.name)
    return Response(status_code=204)
