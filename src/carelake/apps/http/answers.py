"""Answers: JSON with every digit kept, errors in the shape that the caller's protocol has for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from carelake.access.narrowed import NOT_COVERED
from carelake.apps.errors import outcome_of, problem_of, status_of
from carelake.apps.http.aws.faults import failure as aws_failure
from carelake.apps.http.aws.routing import is_aws, service_at
from carelake.apps.http.fhir.conditional_tags import etag
from carelake.core import canonical
from carelake.core.errors import CarelakeError, Gone, Refused, Unauthenticated

__all__ = ["FHIR_JSON", "failure", "fhir", "fhir_text", "html", "is_fhir", "json", "status_for", "text"]

FHIR_JSON = "application/fhir+json"
_FHIR_UTF_8 = f"{FHIR_JSON}; charset=utf-8"
_FHIR_ROOT = "/fhir"
_STATUSES = {
    "fhir.patch_limit": 422,
    "fhir.patch_path": 422,
    "fhir.patch_test": 422,
    "fhir.patch_value": 422,
    "http.body_too_large": 413,
    "http.cds_data": 412,
    "http.content_encoding": 415,
    "http.format": 406,
    "http.head_too_large": 431,
    "http.invalid_parameters": 422,
    "http.invalid_resource": 422,
    "http.media_type": 415,
    "http.patch_identity": 422,
    "http.unresolved": 412,
    "lake.too_many": 429,
    "http.precondition": 412,
    "http.several_matches": 412,
    "http.too_many": 429,
    "lake.query": 422,
    "lake.query_sql": 422,
    "lake.view_cardinality": 422,
    "lake.view_data": 422,
    "lake.view_definition": 422,
    "lake.view_depth": 422,
    "lake.view_format": 422,
    "lake.view_path": 422,
    "lake.view_sql": 422,
    "lake.view_type": 422,
    "store.invalid_resource": 422,
    "store.too_many_jobs": 429,
    "store.version_conflict": 412,
}
"""Where HTTP has a word of its own for what went wrong (https://hl7.org/fhir/R4/http.html#mime-type)."""


def json(value: object, status: int = 200, media_type: str = "application/json") -> Response:
    """A JSON answer, keys in the order given, decimals as they came."""
    return Response(canonical.dump_pretty(value), status, media_type=media_type)


def fhir(
    resource: object, status: int = 200, headers: Mapping[str, str] | None = None, *, pretty: bool = False
) -> Response:
    """A FHIR answer, keys in the order given, decimals as they came. https://hl7.org/fhir/R4/http.html#mime-type"""
    body = canonical.dump_pretty(resource).encode() if pretty else canonical.dump_as_given(resource)
    return fhir_text(body, status, headers)


def fhir_text(body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A FHIR answer that is JSON already. Its character encoding must be told, though JSON has no other."""
    return Response(body, status, headers=dict(headers or {}), media_type=_FHIR_UTF_8)


def html(page: str) -> Response:
    """A page."""
    return Response(page, media_type="text/html; charset=utf-8")


def text(body: bytes | str, media_type: str) -> Response:
    """Plain text of some kind."""
    return Response(body, media_type=media_type)


def is_fhir(path: str) -> bool:
    """Whether a path speaks FHIR, whose errors are OperationOutcomes."""
    return path == _FHIR_ROOT or path.startswith(_FHIR_ROOT + "/")


def status_for(error: BaseException) -> int:
    """The HTTP status of an error."""
    code = error.code if isinstance(error, CarelakeError) else ""
    return _STATUSES.get(code) or status_of(error)


def _challenge(error: Unauthenticated) -> dict[str, str]:
    """What a client must do to be let in (RFC 6750 section 3); without credentials, nothing is wrong yet."""
    wrong = "" if error.code == "http.no_token" else ', error="invalid_token"'
    return {"WWW-Authenticate": f'Bearer realm="carelake"{wrong}'}


def failure(error: BaseException, path: str, status: int | None = None) -> Response:
    """An error as the caller's protocol says it: OperationOutcome below /fhir, AWS's below /aws, else RFC 9457."""
    if is_aws(path):
        return aws_failure(error, service_at(path))
    status = status or status_for(error)
    headers = _challenge(error) if isinstance(error, Unauthenticated) else {}
    if isinstance(error, Gone) and "version" in error.facts:
        headers |= {"ETag": etag(str(error.facts["version"]))}  # of the deletion, which is a version too
    if isinstance(error, CarelakeError) and "retry_after" in error.facts:
        headers["Retry-After"] = str(error.facts["retry_after"])
    reasons = error.facts.get("reasons") if isinstance(error, Refused) else None
    if reasons == [NOT_COVERED]:
        headers["WWW-Authenticate"] = 'Bearer realm="carelake", error="insufficient_scope"'
    if is_fhir(path):
        outcome = outcome_of(error)
        if isinstance(reasons, list):
            outcome["issue"] += [
                {"severity": "information", "code": "forbidden", "diagnostics": reason} for reason in reasons
            ]
        return fhir(outcome, status, headers)
    problem: dict[str, Any] = {**problem_of(error), "status": status}
    if isinstance(error, CarelakeError):
        problem |= {name: value for name, value in error.facts.items() if name not in problem}
    answer = json(problem, status, "application/problem+json")
    answer.headers.update(headers)
    return answer
