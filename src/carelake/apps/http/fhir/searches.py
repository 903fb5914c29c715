"""FHIR search over HTTP: by type, over all types and in compartments, by GET and by POST.

https://hl7.org/fhir/R4/http.html#search
"""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from carelake.apps.http import answers
from carelake.apps.http.calls import Call
from carelake.apps.http.fhir.asking import is_id, json_only, lenient, pretty, resource_type, strict
from carelake.apps.http.fhir.paging import asked, links
from carelake.apps.http.fhir.record import absent
from carelake.apps.http.routes import Operation
from carelake.apps.searching import entries, find
from carelake.core.errors import NotFound
from carelake.fhir.bundle import searchset
from carelake.fhir.compartment import COMPARTMENTS
from carelake.fhir.definitions import is_resource
from carelake.fhir.query import Query, parse
from carelake.fhir.search.registry import Registry

__all__ = ["of_all", "of_compartment", "of_type", "operations"]

_EVERYTHING = "record"


_TYPE = {"type": "FHIR R4 resource type, for example Patient"}
_COMPARTMENT = {
    "compartment": ", ".join(COMPARTMENTS),
    "id": "id of the resource whose compartment is searched",
    "type": "FHIR R4 resource type, or *",
}
_QUERY = "FHIR search parameters (docs/search.md); an unknown one is an error, but with Prefer: handling=lenient"
_FORM = {"type": "object", "additionalProperties": {"type": "string"}}
_ANSWERS = {
    "404": "No such resource type or compartment",
    "406": "Only JSON is offered",
    "409": "An index is not built yet: carelake reindex",
}


def operations() -> list[Operation]:
    """The addresses of searches."""
    found: list[Operation] = []
    for path, name, summary, handler, parameters in (
        ("/fhir", "searchAll", "Search all types, or those of _type", of_all, {}),
        ("/fhir/{type}", "search", "Search", of_type, _TYPE),
        (
            "/fhir/{compartment}/{id}/{type}",
            "searchCompartment",
            "Search what is in a compartment",
            of_compartment,
            _COMPARTMENT,
        ),
    ):
        said: dict[str, Any] = {"parameters": parameters, "query": _QUERY, "answers": _ANSWERS}
        said["media_type"] = answers.FHIR_JSON
        found.append(Operation("GET", path, name, summary, handler, "fhir", **said))
        by_post = f"{summary}, with the parameters in the body, where no log of addresses sees them"
        said |= {"body": _FORM, "body_type": "application/x-www-form-urlencoded"}
        found.append(Operation("POST", f"{path}/_search", f"{name}ByPost", by_post, handler, "fhir", **said))
    return found


def of_type(call: Call) -> Response:
    """``/fhir/Observation?...``"""
    kind = resource_type(call.path["type"])
    return _search(call, kind, kind, (kind,))


def of_all(call: Call) -> Response:
    """``/fhir?_type=Observation,Condition&...``"""
    named = [one for name, value in call.pairs if name == "_type" for one in value.split(",")]
    first = next(filter(is_resource, named), _EVERYTHING)
    return _search(call, "", first, ())


def of_compartment(call: Call) -> Response:
    """``/fhir/Patient/123/Observation?...``, ``/fhir/Patient/123/*?...``"""
    above, key, below = call.path["compartment"], call.path["id"], call.path["type"]
    if below != "*" and not is_resource(below):
        raise NotFound("http.no_route", "There is nothing at this address; see /openapi.json.")
    if above not in COMPARTMENTS:
        raise NotFound("http.no_compartment", f"There are compartments of {', '.join(COMPARTMENTS)} only.")
    if not is_id(key):
        raise absent()
    types = () if below == "*" else (below,)
    return _search(call, f"{above}/{key}/{below}", above if below == "*" else below, types, (above, key))


def _search(
    call: Call, path: str, target: str, types: tuple[str, ...], compartment: tuple[str, str] | None = None
) -> Response:
    """Args: path: what follows ``/fhir/`` in addresses; target: what the act tells of first."""
    json_only(call)
    relaxed, blank = lenient(call), not strict(call)
    root = f"{call.base}/fhir"
    with call.enter("record:search", target) as permit:
        told = asked(call, permit, path)

        def read(registry: Registry) -> Query:
            return parse(
                types,
                told.pairs,
                registry=registry,
                lenient=relaxed,
                blank=blank,
                compartment=compartment,
                base=root,
            )

        found = find(call.door, permit, read, told.page)
        linked = links(call, permit, path, told, found.query.pairs, found.result.next)
    bundle = searchset(entries(found, root), total=found.result.total, links=linked)
    applied = {"Preference-Applied": "handling=lenient"} if relaxed else {}
    return answers.fhir(bundle, headers=applied, pretty=pretty(call))
