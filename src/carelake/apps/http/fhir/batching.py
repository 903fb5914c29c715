"""A batch: each entry as if it were sent alone, with its own decision, its own act and its own outcome.

https://hl7.org/fhir/R4/http.html#brules
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from starlette.datastructures import Headers
from starlette.responses import Response, StreamingResponse
from starlette.routing import compile_path

from carelake.apps.http import answers
from carelake.apps.http.answers import FHIR_JSON
from carelake.apps.http.calls import Call
from carelake.apps.http.fhir.patching import patch_body
from carelake.apps.http.fhir.preferring import returning
from carelake.apps.http.routes import Operation
from carelake.core import canonical
from carelake.core.clock import iso
from carelake.core.errors import CarelakeError, Invalid, NotFound, Unavailable, Unsupported
from carelake.core.shapes import decodable
from carelake.fhir.transactions import Step

__all__ = ["MOST_BYTES", "Routes", "too_large"]

MOST_BYTES = 64 << 20
"""Answers of entries come to so much together: a few words can ask for all of the record a thousand times."""

_MAX_FIELDS = 1000
_HEADERS = {
    "ifMatch": "if-match",
    "ifNoneMatch": "if-none-match",
    "ifNoneExist": "if-none-exist",
    "ifModifiedSince": "if-modified-since",
}
_KEPT = ("authorization", "host", "x-forwarded-proto")
_PLAIN_PREFER = "return=minimal"


class _Named(msgspec.Struct):
    resourceType: str = ""  # noqa: N815 - FHIR's
    id: str = ""


_named = msgspec.json.Decoder(decodable(_Named))


class Routes:
    """The operations that entries may ask for, by their address."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        self._routes = [(one.method, compile_path(one.path)[0], one) for one in operations]

    def run(self, call: Call, listed: Sequence[Step | Invalid]) -> list[dict[str, Any]]:
        """What each entry of a batch answers, in their order."""
        until = time.monotonic() + call.door.settings.serve.answer_seconds
        left, found = MOST_BYTES, []
        for step in listed:
            answer, updated = self._one(call, step, until, left)
            left -= len(answer.body)
            found.append(_entry(call, "" if isinstance(step, Invalid) else step.method, answer, updated))
        return found

    def _one(self, call: Call, step: Step | Invalid, until: float, left: int) -> tuple[Response, datetime | None]:
        """The answer, and when the version in it was made."""
        try:
            if isinstance(step, Invalid):
                raise step
            if time.monotonic() > until:
                raise Unavailable("http.too_slow", "The batch took too long: this entry was not done. Send fewer.")
            if left <= 0:
                raise too_large("The batch")
            own, operation = self._own(call, step)
            answer = operation.handler(own)
        except CarelakeError as error:
            return answers.failure(error, "/fhir"), None
        except Exception as error:  # as at the edge: of one that is not ours nothing is told but its type
            return answers.failure(error, "/fhir"), None
        if isinstance(answer, StreamingResponse):
            return Response(status_code=answer.status_code), None  # a file does not fit into an entry
        return answer, own.updated

    def _own(self, call: Call, step: Step) -> tuple[Call, Operation]:
        """The call that an entry stands for."""
        method = "GET" if step.method == "HEAD" else step.method
        path = "/".join(("/fhir", *step.path))
        for offered, regex, operation in self._routes:
            found = regex.match(path) if offered == method else None
            if found is not None:
                return self._call(call, step, path, found.groupdict(), operation), operation
        raise NotFound("http.no_route", "There is nothing at this address and method; see /openapi.json.")

    def _call(self, call: Call, step: Step, path: str, parts: dict[str, str], operation: Operation) -> Call:
        media_type, body = _body(step)
        if body and operation.body is None:
            raise Invalid("http.body_not_taken", "This address takes no body; see /openapi.json.")
        if operation.body_type == "application/x-www-form-urlencoded":
            raise Unsupported("http.media_type", "An entry has no form; search by GET.")
        headers = _headers(call, step, media_type)
        own = Call(
            call.door,
            operation.method,
            operation.path,
            path,
            parts,
            _pairs(step.query),
            Headers(raw=[(name.encode(), value.encode("latin-1", "replace")) for name, value in headers]),
            body,
            call.client,
            path,
            step.query,
            headers,
            scheme=call.scheme,
        )
        # Who calls was found out once for all entries: some credentials are good once.
        own.recognise(call.caller("record:write", "record"))
        return own


def too_large(what: str) -> Unavailable:
    """What is answered where the answers of entries come to too much."""
    return Unavailable(
        "http.answer_too_large",
        f"{what} has answers of more than {MOST_BYTES >> 20} MiB: this entry was not done. Ask for less, or alone.",
    )


def _headers(call: Call, step: Step, media_type: str) -> list[tuple[str, str]]:
    found = [(name, value) for name, value in call.raw_headers if name in _KEPT]
    found += [(_HEADERS[name], value) for name, value in step.headers.items()]
    found.append(("accept", FHIR_JSON))  # an entry holds a resource, of a Binary too
    prefer = [(name, value) for name, value in call.raw_headers if name == "prefer"]
    if step.writes and not returning(call) and not any(part.startswith("$") for part in step.path):
        prefer.append(("prefer", _PLAIN_PREFER))  # answers of whole bundles are long enough
    return [*found, *prefer, *([("content-type", media_type)] if media_type else [])]


def _body(step: Step) -> tuple[str, bytes]:
    if step.resource is None:
        return "", b""
    if step.method != "PATCH":
        return FHIR_JSON, canonical.dump_as_given(step.resource)
    media_type, body = patch_body(step.resource)
    return media_type, canonical.dump_as_given(body)


def _pairs(query: str) -> list[tuple[str, str]]:
    try:
        return parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=_MAX_FIELDS)
    except ValueError:
        raise Invalid(
            "http.query", f"The query is not UTF-8, percent-encoded, with at most {_MAX_FIELDS} fields."
        ) from None


def _entry(call: Call, method: str, answer: Response, updated: datetime | None) -> dict[str, Any]:
    """An answer as an entry of the response.

    Args:
        updated: when the version that it tells of was made; a header tells of seconds alone.
    """
    status = answer.status_code
    told: dict[str, Any] = {"status": f"{status} {HTTPStatus(status).phrase}"}
    headers = answer.headers
    if "location" in headers:
        told["location"] = headers["location"].removeprefix(f"{call.base}/fhir/")
    if "etag" in headers:
        told["etag"] = headers["etag"]
    if updated is not None:
        told["lastModified"] = iso(updated)
    is_json = headers.get("content-type", "").partition(";")[0] == FHIR_JSON
    if not is_json or not answer.body or (method == "HEAD" and status < 400):
        return {"response": told}
    body = msgspec.Raw(bytes(answer.body))
    told_of = headers.get("preference-applied") == "return=OperationOutcome" and method not in ("GET", "HEAD")
    if status >= 400 or told_of:
        return {"response": {**told, "outcome": body}}
    named: dict[str, Any] = {}
    if updated is not None:  # what operations answer is nowhere
        one = _named.decode(body)
        named = {"fullUrl": f"{call.base}/fhir/{one.resourceType}/{one.id}"} if one.id else {}
    return {**named, "resource": body, "response": told}
