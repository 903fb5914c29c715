"""The addresses of SQL on FHIR, and the OperationDefinitions that say what each takes, of one table (`asking`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from starlette.responses import Response

from carelake.apps.http import answers
from carelake.apps.http.calls import Call
from carelake.apps.http.fhir.asking import json_only, pretty
from carelake.apps.http.fhir.parameters import PARAMETERS
from carelake.apps.http.routes import ANY_TYPE, Operation
from carelake.apps.http.views import exporting, saving
from carelake.apps.http.views.asking import ASKS, Ask, Takes
from carelake.apps.http.views.exporting import export
from carelake.apps.http.views.running import run
from carelake.core.errors import NotFound

__all__ = ["definition", "operations"]

_ID = {"id": "id of a saved view, or of a Library"}
_NAME = {"id": "id of a saved view"}
_JOB = {"job": "id of the job, as Content-Location has it"}
_GONE = {"404": "There is none that is yours; it was cancelled, or its time is over"}
_TYPES = {"view": "ViewDefinition", "query": "Library"}
_WRONG = {"400": "A parameter is wrong", "404": "A view or query is not here", "422": "It cannot be run"}


def operations() -> list[Operation]:
    """All of them; they stand before those of resources."""

    def of(method: str, path: str, name: str, summary: str, handler: Any, **more: Any) -> Operation:
        more.setdefault("media_type", answers.FHIR_JSON)
        return Operation(method, path, name, summary, handler, "views", **more)

    return [
        *(one for ask in ASKS.values() for one in _addresses(ask)),
        *_run_by_its_short_name(),
        of("GET", "/fhir/$sql-export/{job}", "viewExportStatus", "How far an export of views is", exporting.status,
           parameters=_JOB, answers={"202": "It runs", "303": "It has ended; Location tells where its result is",
                                     **_GONE}),
        of("DELETE", "/fhir/$sql-export/{job}", "viewExportCancel", "Cancel an export of views, or remove its files",
           exporting.stop, parameters=_JOB, answers={"202": "It is gone", **_GONE}),
        of("GET", "/fhir/$sql-export/{job}/{name}", "viewExportFile", "The result of an export of views, or a file",
           exporting.file, parameters={**_JOB, "name": "result, or a file's name as the result has it"},
           media_type=ANY_TYPE, answers=_GONE),
        of("GET", "/fhir/ViewDefinition", "views", "Saved views", saving.listed, query="name, url, resource"),
        of("GET", "/fhir/ViewDefinition/{id}", "view", "A saved view", saving.read, parameters=_NAME, answers=_GONE),
        of("PUT", "/fhir/ViewDefinition/{id}", "saveView", "Save a view", saving.put, parameters=_NAME,
           body={"type": "object", "description": "A ViewDefinition"},
           answers={"201": "It is new", "422": "It is wrong"}),
        of("DELETE", "/fhir/ViewDefinition/{id}", "dropView", "Drop a saved view", saving.remove, parameters=_NAME,
           answers={"204": "It is gone", **_GONE}),
        of("GET", "/fhir/metadata/{operation}", "operationDefinition", "What an operation of SQL on FHIR takes",
           defined, open=True, parameters={"operation": f"one of {', '.join(ASKS)}"}, answers=_GONE),
    ]  # fmt: skip


def _addresses(ask: Ask) -> Iterator[Operation]:
    """On the server, on the type of its subject, and on one of those."""
    yield from _both(ask, f"/fhir/${ask.code}", ask.code, inside=False)
    if ask.named in _TYPES:
        root = f"/fhir/{_TYPES[ask.named]}"
        yield from _both(ask, f"{root}/${ask.code}", f"{ask.code}-type", inside=False)
        yield from _both(ask, f"{root}/{{id}}/${ask.code}", f"{ask.code}-one", inside=True)


def _run_by_its_short_name() -> Iterator[Operation]:
    ask = ASKS["viewdefinition-run"]
    yield from _both(ask, "/fhir/ViewDefinition/$run", "run-type", inside=False)
    yield from _both(ask, "/fhir/ViewDefinition/{id}/$run", "run-one", inside=True)


def _both(ask: Ask, path: str, name: str, *, inside: bool) -> Iterator[Operation]:
    """By POST; what is answered at once by GET too."""
    handler = partial(export if ask.exports else run, ask=ask, inside=inside)
    said: dict[str, Any] = {
        "parameters": _ID if inside else {},
        "query": ", ".join(one for one, takes in ask.takes.items() if takes.type not in ("", "Artifact")),
        "answers": {"202": "Begun; Content-Location tells where to ask", **_WRONG} if ask.exports else _WRONG,
        "media_type": answers.FHIR_JSON if ask.exports else ANY_TYPE,
    }
    if not ask.exports:
        yield Operation("GET", path, name, ask.says, handler, "views", **said)
    yield Operation("POST", path, f"{name}-by-post", ask.says, handler, "views", body=PARAMETERS, **said)


# -- definitions --------------------------------------------------------------------------------------------------


def defined(call: Call) -> Response:
    """``GET /fhir/metadata/sql-run``"""
    json_only(call)
    call.only("_format", "_pretty")
    ask = ASKS.get(call.path["operation"])
    if ask is None:
        raise NotFound("http.no_route", "There is no definition of that name; see /fhir/metadata.")
    return answers.fhir(definition(ask), pretty=pretty(call))


def definition(ask: Ask) -> dict[str, Any]:
    """The OperationDefinition: what this server takes of what the guide has."""
    own = _TYPES.get(ask.named)
    out = {"name": "return", "use": "out", "min": 1, "max": "1", "type": "Parameters" if ask.exports else "Binary"}
    return {
        "resourceType": "OperationDefinition",
        "id": ask.code,
        "url": f"urn:carelake:operation:{ask.code}",
        "name": "".join(part.title() for part in ask.code.split("-")),
        "title": ask.says,
        "status": "active",
        "kind": "operation",
        "affectsState": False,
        "code": ask.code,
        "base": ask.base,
        # R4 has no type ViewDefinition to name here, though its address has the operation too.
        **({"resource": [own]} if own == "Library" else {}),
        "system": True,
        "type": own == "Library",
        "instance": own == "Library",
        "parameter": [*(_parameter(name, one) for name, one in ask.takes.items()), out],
    }


def _parameter(name: str, takes: Takes) -> dict[str, Any]:
    said: dict[str, Any] = {"name": name, "use": "in", "min": 0, "max": "*" if takes.many else "1"}
    said["documentation"] = takes.says
    if takes.parts:
        return {**said, "part": [_parameter(inner, one) for inner, one in takes.parts.items()]}
    known: Mapping[str, str] = {"Artifact": "Any", "ViewDefinition": "Any", "Resource": "Any"}
    return {**said, "type": known.get(takes.type, takes.type)}
