"""Create, update and delete over HTTP, plain and conditional.

https://hl7.org/fhir/R4/http.html#create, #update, #delete
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any
from urllib.parse import quote, urlencode

from sqlalchemy import Connection
from starlette.responses import Response

from carelake.access.identity import Caller
from carelake.apps.http.answers import FHIR_JSON
from carelake.apps.http.calls import Call
from carelake.apps.http.fhir.asking import is_id, json_only, resource_type
from carelake.apps.http.fhir.conditional import Writing, expecting
from carelake.apps.http.fhir.preferring import answer, nothing
from carelake.apps.http.fhir.record import absent
from carelake.apps.http.fhir.writing_checks import exists_for, sent, verified
from carelake.apps.http.routes import Operation
from carelake.apps.http.writers import Steps, alone
from carelake.core.errors import Invalid
from carelake.core.permit import Permit
from carelake.store import Written
from carelake.store.singles import Single

__all__ = ["create", "creating", "delete", "delete_where", "operations", "update", "update_where", "updating"]

_ACTION = "record:write"
_OWN = ("_format", "_pretty")
_TYPE = {"type": "FHIR R4 resource type, for example Patient"}
_ONE = {**_TYPE, "id": "id of the resource"}
_BODY: Mapping[str, Any] = {"type": "object", "description": "the resource, as application/fhir+json"}
_CRITERIA = "FHIR search parameters (docs/search.md) that match one resource, or none"
_ANSWERS = {
    "400": "No FHIR resource, or not the one of this address",
    "412": "A precondition failed: another version, or several matches",
    "422": "It breaks a rule or a profile",
}
_DELETED = {"204": "It is not there, whether it was or not", "412": _ANSWERS["412"]}
_SMALL = 16 * 1024
_UPDATED = {**_ANSWERS, "201": "Made: there was none"}


def operations() -> list[Operation]:
    """Their addresses."""

    def of(method: str, path: str, name: str, summary: str, handler: Any, **more: Any) -> Operation:
        return Operation(method, path, name, summary, handler, "fhir", media_type=FHIR_JSON, **more)

    one, where = "/fhir/{type}/{id}", "/fhir/{type}"
    found: dict[str, Any] = {"parameters": _TYPE, "query": _CRITERIA}
    put: dict[str, Any] = {"body": _BODY, "answers": _UPDATED}
    post: dict[str, Any] = {"parameters": _TYPE, "body": _BODY, "answers": _ANSWERS}
    stepped: dict[str, Any] = {"small": small}
    return [
        of("POST", where, "create", "Create", create, **post, **stepped, steps=creating),
        of(
            "PUT",
            one,
            "update",
            "Update, or create under this id",
            update,
            parameters=_ONE,
            **put,
            **stepped,
            steps=updating,
        ),
        of("PUT", where, "updateWhere", "Update the one that matches", update_where, **found, **put),
        of("DELETE", one, "delete", "Delete", delete, parameters=_ONE, answers=_DELETED),
        of("DELETE", where, "deleteWhere", "Delete the one that matches", delete_where, **found, answers=_DELETED),
    ]


def create(call: Call) -> Response:
    """``POST /fhir/Patient``, with ``If-None-Exist`` only where nothing matches; fhirpy puts that into the query."""
    return _finished(call, creating(call))


def creating(call: Call) -> Steps:
    """As `create`, in steps."""
    kind = _type(call)
    condition: str | None = None
    if "if-none-exist" in call.headers:
        condition = _header(call, "if-none-exist").removeprefix(f"{call.base}/fhir/")  # some clients write it whole
        call.only(*_OWN)
    elif any(name not in _OWN for name, _ in call.pairs):
        condition = _criteria(call)

    def work(writing: Writing, resource: dict[str, Any]) -> Written:
        return writing.create(resource, if_none_exist=condition, valid=True)

    def single(permit: Permit, resource: dict[str, Any]) -> Single | None:
        return call.door.resources.single(permit, resource) if condition is None else None

    return _kept(call, kind, None, work, single)


def update(call: Call) -> Response:
    """``PUT /fhir/Patient/1``, with ``If-Match`` or ``If-None-Match`` only at a version, or where there is none."""
    return _finished(call, updating(call))


def updating(call: Call) -> Steps:
    """As `update`, in steps."""
    kind, key = _type(call), call.path["id"]
    call.only(*_OWN)
    if not is_id(key):
        raise Invalid("http.id", "There can be no resource of that id: an id is 1 to 64 letters, digits, - and .")
    heads = {"if_match": _header(call, "if-match"), "if_none_match": _header(call, "if-none-match")}

    def work(writing: Writing, resource: dict[str, Any]) -> Written:
        return writing.update(resource, **heads, valid=True)

    def single(permit: Permit, resource: dict[str, Any]) -> Single | None:
        return call.door.resources.single(permit, resource, expect=expecting(**heads))

    return _kept(call, kind, key, work, single)


def update_where(call: Call) -> Response:
    """``PUT /fhir/Patient?identifier=...``"""
    kind, criteria = _type(call), _criteria(call)
    heads = {"if_match": _header(call, "if-match"), "if_none_match": _header(call, "if-none-match")}

    def work(writing: Writing, resource: dict[str, Any]) -> Written:
        return writing.update_where(kind, criteria, resource, **heads, valid=True)

    return _finished(call, _kept(call, kind, None, work))


def delete(call: Call) -> Response:
    """``DELETE /fhir/Patient/1``"""
    kind, key = _type(call), _id(call)
    call.only(*_OWN)
    match = _header(call, "if-match")
    return _gone(call, kind, lambda writing: writing.delete(kind, key, if_match=match))


def delete_where(call: Call) -> Response:
    """``DELETE /fhir/Patient?identifier=...``, of one."""
    kind, criteria = _type(call), _criteria(call)
    match = _header(call, "if-match")
    return _gone(call, kind, lambda writing: writing.delete_where(kind, criteria, if_match=match))


def _kept(
    call: Call,
    kind: str,
    key: str | None,
    work: Callable[[Writing, dict[str, Any]], Written],
    single: Callable[[Permit, dict[str, Any]], Single | None] = lambda _permit, _resource: None,
) -> Steps:
    """A write of what was sent.

    Args:
        work: does it by itself.
        single: makes it ready to be done together with others, None where it cannot be.
    """
    door = call.door
    with _entered(call, kind) as (caller, permit):
        resource = verified(door, permit, sent(call.body), kind, key=key, data=call.body)
        item = single(permit, resource)

        def kept(tx: Connection) -> Written:
            return work(Writing(door, caller, permit, tx, exists=exists_for(door, permit, tx)), resource)

        page = door.resources.singles.put if item is not None else None
        made = yield door.vault.database.work(permit, kept, page, item)
    return answer(call, made, said=_said(made))


def _finished(call: Call, steps: Steps) -> Response:
    return alone(steps, call.door.vault.database.grouped_all)


def small(call: Call) -> bool:
    """Whether a write is so little work that others may wait for it."""
    conditional = "if-none-exist" in call.headers or any(name not in _OWN for name, _ in call.pairs)
    return len(call.body) <= _SMALL and not conditional


@contextmanager
def _entered(call: Call, kind: str) -> Iterator[tuple[Caller, Permit]]:
    with ExitStack() as stack:
        with call.door.vault.database.together():  # who it is and what they may, by one snapshot
            caller = call.caller(_ACTION, kind)
            permit = stack.enter_context(call.enter(_ACTION, kind))
        yield caller, permit


def _said(made: Written) -> str:
    if made.created:
        return "The resource was created."
    return "The resource was updated." if made.changed else "There is such a resource already; nothing was changed."


def _gone(call: Call, kind: str, work: Callable[[Writing], Written | None]) -> Response:
    door = call.door
    with _entered(call, kind) as (caller, permit):
        made = door.vault.database.grouped(permit, lambda tx: work(Writing(door, caller, permit, tx)))
    if made is None:
        return nothing(call, "There is no such resource; nothing was changed.")
    return answer(call, made, said="The resource is deleted.")


def _type(call: Call) -> str:
    kind = resource_type(call.path["type"])
    json_only(call)
    return kind


def _id(call: Call) -> str:
    key = call.path["id"]
    if not is_id(key):
        raise absent()
    return key


def _header(call: Call, name: str) -> str:
    """A header that may be given once.

    Raises:
        Invalid: ``http.repeated_header``.
    """
    found = [value for one, value in call.raw_headers if one == name]
    if len(found) > 1:
        raise Invalid("http.repeated_header", f"The header {name} is given more than once.")
    return found[0] if found else ""


def _criteria(call: Call) -> str:
    """The query without what is about the answer.

    Raises:
        Invalid: ``http.no_condition``.
    """
    kept = [pair for pair in call.pairs if pair[0] not in _OWN]
    if not kept:
        raise Invalid("http.no_condition", "Without an id the address needs a condition: ?identifier=...")
    return urlencode(kept, quote_via=quote)
