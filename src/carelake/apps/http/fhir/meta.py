"""``$meta``, ``$meta-add`` and ``$meta-delete`` (https://hl7.org/fhir/R4/resource-operation-meta.html).

Labels are part of a version, so adding and deleting them makes a new one: who labelled what, and when, stays known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from starlette.responses import Response

from carelake.apps.http import answers
from carelake.apps.http.calls import Call
from carelake.apps.http.fhir.asking import is_id, json_only, pretty, resource_type
from carelake.apps.http.fhir.conditional import Writing
from carelake.apps.http.fhir.parameters import PARAMETERS, asked_with, parameters
from carelake.apps.http.fhir.record import absent
from carelake.apps.http.routes import Operation
from carelake.core.errors import Invalid
from carelake.fhir.definitions import resource_types

__all__ = ["add", "operations", "remove", "tell", "tell_of_all", "tell_of_type"]

_LISTS = ("profile", "security", "tag")
_OWN = ("versionId", "lastUpdated")
_TYPE = {"type": "FHIR R4 resource type, for example Patient"}
_ONE = {**_TYPE, "id": "id of the resource"}
_ABSENT = {"404": "There is none", "410": "It was deleted or erased"}
_Change = Callable[[list[Any], list[Any], str], list[Any]]


def operations() -> list[Operation]:
    """The addresses of the operations."""

    def of(method: str, path: str, name: str, summary: str, handler: Any, **more: Any) -> Operation:
        more.setdefault("media_type", answers.FHIR_JSON)
        return Operation(method, path, name, summary, handler, "fhir", **more)

    def both(path: str, name: str, *told: Any, **more: Any) -> list[Operation]:
        by_post = of("POST", path, f"{name}ByPost", *told, body=PARAMETERS, **more)
        return [of("GET", path, name, *told, **more), by_post]

    one: dict[str, Any] = {"parameters": _ONE, "answers": _ABSENT}
    return [
        *both("/fhir/$meta", "metaOfAll", "Labels and profiles in use", tell_of_all),
        *both("/fhir/{type}/$meta", "metaOfType", "Labels and profiles in use", tell_of_type, parameters=_TYPE),
        *both("/fhir/{type}/{id}/$meta", "meta", "Labels and profiles of a resource", tell, **one),
        of("POST", "/fhir/{type}/{id}/$meta-add", "metaAdd", "Add labels and profiles", add, body=PARAMETERS, **one),
        of("POST", "/fhir/{type}/{id}/$meta-delete", "metaDelete", "Take labels and profiles away", remove,
           body=PARAMETERS, **one),
    ]  # fmt: skip


def tell(call: Call) -> Response:
    """``meta`` of the current version."""
    kind, key = _named(call)
    asked_with(call, {})
    with call.enter("record:read", kind) as permit:
        found = call.door.resources.read(permit, kind, key)
    return _answer(call, found["meta"])


def tell_of_type(call: Call) -> Response:
    """What is in use in a type."""
    kind = resource_type(call.path["type"])
    json_only(call)
    asked_with(call, {})
    with call.enter("record:search", kind) as permit:
        found = call.door.resources.operations.labels(permit, (kind,))
    return _answer(call, found)


def tell_of_all(call: Call) -> Response:
    """What is in use at all."""
    json_only(call)
    asked_with(call, {})
    types = tuple(sorted(resource_types()))
    with call.enter("record:search", "record") as permit:
        found = call.door.resources.operations.labels(call.door.gate.widen(permit, types), types)
    return _answer(call, found)


def add(call: Call) -> Response:
    """``$meta-add``: what is there already stays as it is."""
    return _changed(call, _added)


def remove(call: Call) -> Response:
    """``$meta-delete``: what is not there is no error."""
    return _changed(call, _removed)


def _named(call: Call) -> tuple[str, str]:
    kind, key = resource_type(call.path["type"]), call.path["id"]
    json_only(call)
    if not is_id(key):
        raise absent()
    return kind, key


def _changed(call: Call, change: _Change) -> Response:
    kind, key = _named(call)
    caller = call.caller("record:write", kind)
    with call.enter("record:write", kind) as permit:
        given = asked_with(call, {"meta": "Meta"}).one("meta")
        if given is None:
            raise Invalid("http.parameter", "The parameter meta is missing: the labels and profiles, as a Meta.")
        resources = call.door.resources
        # One transaction: nobody writes between the reading and the writing.
        with call.door.vault.database.transaction(permit) as tx:
            before = resources.read(permit, kind, key)
            meta = dict(before["meta"])
            for name in _LISTS:
                listed = change(meta.pop(name, []), given.get(name, []), name)
                meta |= {name: listed} if listed else {}
            written = resources.update(permit, tx, {**before, "meta": meta}, create=False)
            shown = Writing(call.door, caller, permit, tx).reads(kind)
    told = (written.resource or {}).get("meta", {})
    # Who may write and not read is told of nothing that was there.
    return _answer(call, told if shown else {name: told[name] for name in _OWN if name in told})


def _added(there: list[Any], given: list[Any], name: str) -> list[Any]:
    known = {_key(one, name) for one in there}
    return there + [one for key, one in {_key(one, name): one for one in given}.items() if key not in known]


def _removed(there: list[Any], given: list[Any], name: str) -> list[Any]:
    gone = {_key(one, name) for one in given}
    return [one for one in there if _key(one, name) not in gone]


def _key(one: Any, name: str) -> tuple[str, ...]:
    """A profile without its version is another one; a coding is its system and code."""
    return (str(one),) if name == "profile" else (one.get("system", ""), one.get("code", ""))


def _answer(call: Call, meta: Mapping[str, Any]) -> Response:
    return answers.fhir(parameters({"name": "return", "valueMeta": meta}), pretty=pretty(call))
