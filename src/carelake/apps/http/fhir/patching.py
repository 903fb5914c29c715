"""PATCH, by id and by condition: JSON Patch and FHIRPath Patch (https://hl7.org/fhir/R4/http.html#patch)."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote, urlencode

from starlette.responses import Response

from carelake.apps.errors import Rejected
from carelake.apps.http.answers import FHIR_JSON
from carelake.apps.http.calls import Call
from carelake.apps.http.fhir.asking import is_id, json_only, resource_type
from carelake.apps.http.fhir.conditional import Writing
from carelake.apps.http.fhir.preferring import answer
from carelake.apps.http.fhir.record import absent
from carelake.apps.http.fhir.writing_checks import exists_for, sent, verified
from carelake.apps.http.routes import Operation
from carelake.core.errors import Invalid, NotFound, Unsupported
from carelake.core.permit import Permit
from carelake.fhir.patch import fhirpath_patch, json_patch, merge_patch
from carelake.fhir.patch.bounds import MAX_SECONDS
from carelake.store import Written

__all__ = ["JSON_PATCH", "Change", "change_of", "operations", "patch", "patch_body", "patch_where", "patched"]

JSON_PATCH = "application/json-patch+json"
_MERGE = ("application/merge-patch+json", "application/json")
_ACTION = "record:write"
_OWN = ("_format", "_pretty")
_TYPE = {"type": "FHIR R4 resource type, for example Patient"}
_ONE = {**_TYPE, "id": "id of the resource"}
_BODY: Mapping[str, Any] = {
    "description": f"a JSON Patch as {JSON_PATCH}, Parameters of a FHIRPath Patch as {FHIR_JSON}, "
    f"or a JSON Merge Patch as {_MERGE[0]}"
}
_ANSWERS = {
    "400": "It is no patch",
    "404": "There is none",
    "410": "It was deleted or erased",
    "412": "A precondition failed: another version, or several matches",
    "415": "Neither JSON Patch nor FHIRPath Patch; XML is not offered",
    "422": "It cannot be applied, or its result is not valid",
}

Change = Callable[[dict[str, Any]], dict[str, Any]]
"""A patch that was read: from a resource to what it becomes."""


def operations() -> list[Operation]:
    """Its addresses."""
    more: dict[str, Any] = {
        "body": _BODY,
        "body_type": JSON_PATCH,
        "media_type": FHIR_JSON,
        "answers": _ANSWERS,
    }
    where = "FHIR search parameters (docs/search.md) that match one resource"
    return [
        Operation("PATCH", "/fhir/{type}/{id}", "patch", "Change a part", patch, "fhir", parameters=_ONE, **more),
        Operation(
            "PATCH",
            "/fhir/{type}",
            "patchWhere",
            "Change a part of the one that matches",
            patch_where,
            "fhir",
            parameters=_TYPE,
            query=where,
            **more,
        ),
    ]


def patch(call: Call) -> Response:
    """``PATCH /fhir/Patient/1``, with ``If-Match`` only at a version."""
    kind, key = resource_type(call.path["type"]), call.path["id"]
    call.only(*_OWN)
    if not is_id(key):
        raise absent()
    return _changed(call, kind, lambda _: key)


def patch_where(call: Call) -> Response:
    """``PATCH /fhir/Patient?identifier=...``"""
    kind = resource_type(call.path["type"])
    kept = [pair for pair in call.pairs if pair[0] not in _OWN]
    if not kept:
        raise Invalid("http.no_condition", "Without an id the address needs a condition: ?identifier=...")
    criteria = urlencode(kept, quote_via=quote)
    return _changed(call, kind, lambda writing: matching(writing, kind, criteria))


def matching(writing: Writing, kind: str, criteria: str) -> str:
    """Id of the one resource that a patch is for.

    Raises:
        NotFound: ``http.no_match``; `Conflict` ``http.several_matches``.
    """
    key = writing.one(kind, criteria)
    if not key:
        raise NotFound("http.no_match", "No resource matches the condition; a patch changes one that is there.")
    return key


def _changed(call: Call, kind: str, named: Callable[[Writing], str]) -> Response:
    json_only(call)
    door = call.door
    caller = call.caller(_ACTION, kind)
    media_type = call.headers.get("content-type", "").partition(";")[0].strip().lower()
    with call.enter(_ACTION, kind) as permit:
        change = change_of(media_type, sent(call.body), door.settings.serve.max_body_bytes)
        with door.vault.database.transaction(permit) as tx:
            writing = Writing(door, caller, permit, tx, exists=exists_for(door, permit, tx))
            made = patched(call, permit, writing, kind, named(writing), change, call.headers.get("if-match", ""))
            shown = made if writing.reads(kind) else made._replace(resource=None)
    said = "The resource was patched." if made.changed else "The patch changed nothing."
    return answer(call, shown, said=said)


def patched(
    call: Call,
    permit: Permit,
    writing: Writing,
    kind: str,
    key: str,
    change: Change,
    if_match: str = "",
    *,
    last: Change = lambda made: made,
) -> Written:
    """Change a resource inside the open transaction, as an update that is validated like one.

    Args:
        last: what is done to the result before it is validated.

    Raises:
        NotFound: ``store.no_such_resource``; `Gone` ``store.deleted``.
        Conflict: ``store.version_conflict``.
        Invalid: ``fhir.patch*``, ``http.patch_identity``; `Rejected` ``http.invalid_resource``.
    """
    writing.at_version(kind, key, if_match)
    before = call.door.resources.read(permit, kind, key)
    made = last(change(before))
    if made.get("resourceType") != kind or made.get("id") != key:
        raise Invalid("http.patch_identity", "A patch changes neither the type nor the id of a resource.")
    try:
        verified(call.door, permit, made, kind, key=key, references=False)
    except Rejected as error:
        said = "The patch would make the resource invalid; nothing was changed, and the issues are listed."
        raise Rejected("http.invalid_resource", said, error.issues) from None
    return writing.update(made, valid=True)


def patch_body(resource: Mapping[str, Any]) -> tuple[str, Any]:
    """Media type and parsed body of a patch in a Bundle: Parameters, or a Binary that holds a JSON Patch.

    Raises:
        Invalid: ``fhir.patch``; `Rejected` ``http.not_fhir``.
    """
    if resource.get("resourceType") == "Parameters":
        return FHIR_JSON, resource
    told, data = resource.get("contentType"), resource.get("data")
    if resource.get("resourceType") != "Binary" or not isinstance(told, str) or not isinstance(data, str):
        raise Invalid("fhir.patch", "A patch in a Bundle is Parameters, or a Binary with contentType and data.")
    try:
        body = b64decode(data, validate=True)
    except ValueError:
        raise Invalid("fhir.patch", "The Binary's data is not base64.") from None
    media_type = told.partition(";")[0].strip().lower()
    return media_type, sent(body) if media_type in (JSON_PATCH, _MERGE[0]) else None


def change_of(media_type: str, body: Any, most: int, seconds: float = MAX_SECONDS) -> Change:
    """What a body of that media type asks for.

    Args:
        body: parsed JSON.
        most: bytes that the patch may add, and that the resource may come to have.
        seconds: that its paths may take.

    Raises:
        Unsupported: ``http.media_type``.
    """
    if media_type == JSON_PATCH:
        return lambda resource: json_patch(resource, body, most=most, tidy=True)
    told = isinstance(body, dict) and body.get("resourceType") == "Parameters"
    if media_type == FHIR_JSON or (media_type == "application/json" and told):
        if not isinstance(body, dict):
            raise Invalid("fhir.patch", "A FHIRPath Patch is a Parameters resource whose parameters are operations.")
        return lambda resource: fhirpath_patch(resource, body, most=most, seconds=seconds)
    if media_type in _MERGE and isinstance(body, dict):
        return lambda resource: merge_patch(resource, body, most=most)
    raise Unsupported(
        "http.media_type",
        f"A patch is sent as {JSON_PATCH}, as Parameters in {FHIR_JSON}, or as {_MERGE[0]}; XML is not offered.",
    )
