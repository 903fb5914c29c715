"""Binary in its own media type: what is kept as base64 in a resource comes and goes as the bytes that it is.

https://hl7.org/fhir/R4/binary.html#rest: who names JSON of FHIR gets the resource, anybody else the content. A
content is never shown as a page of this server, whatever it says of itself.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import msgspec
from starlette.responses import Response

from carelake.apps.http.answers import FHIR_JSON
from carelake.apps.http.calls import Call
from carelake.apps.http.fhir import record, writing
from carelake.apps.http.fhir.asking import is_id, names_json
from carelake.apps.http.fhir.conditional_tags import unchanged, validators
from carelake.apps.http.routes import ANY_TYPE, Handler, Operation
from carelake.core.errors import Invalid, Unsupported

__all__ = ["operations"]

_KIND = "Binary"
_MEDIA_TYPE = re.compile(r"[\w.+!#$&^-]+/[\w.+!#$&^-]+(;[ -~]*)?", re.ASCII)
_UNKNOWN = "application/octet-stream"
_REFERENCE = re.compile(r"[A-Z][A-Za-z]{1,40}/[A-Za-z0-9.-]{1,64}")
_ONLY_KEPT: Mapping[str, str] = {
    "Content-Disposition": "attachment",
    "Content-Security-Policy": "sandbox; default-src 'none'",
    "X-Content-Type-Options": "nosniff",
}
_BODY: Mapping[str, Any] = {
    "type": "string",
    "format": "binary",
    "description": "the content, with X-Security-Context: Patient/1 for whose it is; or a Binary as JSON of FHIR",
}
_ABSENT = {"404": "There is none", "406": "It is of another media type", "410": "It was deleted or erased"}


def operations() -> list[Operation]:
    """Their addresses; they stand before those of all types."""

    def of(method: str, path: str, name: str, summary: str, handler: Handler, **more: Any) -> Operation:
        given = {"type": _KIND}
        return Operation(method, path, name, summary, partial(_of_type, handler, given), "fhir", **more)

    one, where, key = f"/fhir/{_KIND}/{{id}}", f"/fhir/{_KIND}", {"id": "id of the Binary"}
    sent: dict[str, Any] = {"body": _BODY, "body_type": ANY_TYPE, "media_type": FHIR_JSON}
    query = "FHIR search parameters that match one Binary, or none"
    return [
        of("GET", one, "readBinary", "Read a Binary", read, parameters=key, media_type=ANY_TYPE, answers=_ABSENT),
        of("POST", where, "createBinary", "Create a Binary", partial(_sent, writing.create), query=query, **sent),
        of("PUT", one, "updateBinary", "Update a Binary", partial(_sent, writing.update), parameters=key, **sent),
    ]


def _of_type(handler: Handler, given: Mapping[str, str], call: Call) -> Response:
    call.path = {**call.path, **given}
    return handler(call)


def read(call: Call) -> Response:
    """The resource to who names JSON of FHIR, else its content (https://hl7.org/fhir/R4/binary.html#rest)."""
    if call.one("_format") is not None or names_json(call):
        return record.read(call)
    call.only()
    key = call.path["id"]
    if not is_id(key):
        raise record.absent()
    with call.enter("record:read", _KIND) as permit:
        found = call.door.resources.shown(permit, _KIND, key)
    headers = {**validators(found.version, found.updated), **_ONLY_KEPT}
    if unchanged(call.headers, headers):
        return Response(status_code=304, headers=headers)
    resource = msgspec.json.decode(found.text)
    told = str(resource.get("contentType", ""))
    media_type = told if _MEDIA_TYPE.fullmatch(told) else _UNKNOWN
    if not _takes(call, media_type):
        raise Unsupported("http.format", "The Binary is of another media type than those that are accepted.")
    try:
        content = b64decode(resource.get("data", ""))
    except ValueError:
        raise Unsupported(
            "http.format", "What is kept is no base64, and has no content; ask for application/fhir+json."
        ) from None
    return Response(content, headers={**headers, "Content-Type": media_type})


def _takes(call: Call, media_type: str) -> bool:
    """Whether ``Accept`` takes a media type; without that header anything is taken."""
    kind = media_type.partition(";")[0].lower()
    asked = [one.partition(";")[0].strip().lower() for one in call.headers.get("accept", "").split(",")]
    return not {"", "*/*", kind, kind.partition("/")[0] + "/*"}.isdisjoint(asked)


def _sent(write: Callable[[Call], Response], call: Call) -> Response:
    told = call.headers.get("content-type", "")
    if call.named and not told.partition(";")[0].strip().lower().endswith(("/json", "+json")):
        call.body = msgspec.json.encode(_wrapped(call, told))
    return write(call)


def _wrapped(call: Call, media_type: str) -> dict[str, Any]:
    if not _MEDIA_TYPE.fullmatch(media_type):
        raise Unsupported("http.media_type", "The content needs its media type: Content-Type: application/pdf.")
    made: dict[str, Any] = {"resourceType": _KIND, "contentType": media_type}
    if "id" in call.path:
        made["id"] = call.path["id"]
    context = call.headers.get("x-security-context", "").strip()
    if context:
        if not _REFERENCE.fullmatch(context):
            raise Invalid("http.security_context", "X-Security-Context is a relative reference, such as Patient/1.")
        made["securityContext"] = {"reference": context}
    return {**made, "data": b64encode(call.body).decode()}
