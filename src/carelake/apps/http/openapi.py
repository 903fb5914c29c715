"""The OpenAPI document, made from the table of routes. https://spec.openapis.org/oas/v3.1.0"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from carelake import __version__
from carelake.apps.http.answers import is_fhir
from carelake.apps.http.routes import Operation

__all__ = ["document"]

_PROBLEM = {
    "type": "object",
    "required": ["type", "title", "status", "code", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "code": {"type": "string", "description": "stable; docs/errors.md lists them"},
        "detail": {"type": "string"},
    },
}


def document(operations: Sequence[Operation]) -> dict[str, Any]:
    """The whole document."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "carelake",
            "version": __version__,
            "description": "Every answer carries X-Request-Id: the id of the act in the audit trail.",
        },
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
            "schemas": {"Problem": _PROBLEM, "OperationOutcome": {"type": "object"}},
        },
    }


def _operation(operation: Operation) -> dict[str, Any]:
    said: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "tags": [operation.tag],
        "security": [] if operation.open else [{"token": []}],
        "responses": _responses(operation),
    }
    parameters = [
        {"name": name, "in": "path", "required": True, "description": text, "schema": {"type": "string"}}
        for name, text in operation.parameters.items()
    ]
    if operation.query:
        free = {"type": "object", "additionalProperties": {"type": "string"}}
        parameters.append({"name": "query", "in": "query", "description": operation.query, "schema": free})
    if parameters:
        said["parameters"] = parameters
    if operation.body is not None:
        said["requestBody"] = {"required": True, "content": {operation.body_type: {"schema": operation.body}}}
    return said


def _responses(operation: Operation) -> dict[str, Any]:
    good = {"description": "The answer", "content": {operation.media_type: {"schema": {}}}}
    fhir = is_fhir(operation.path)
    schema = {"$ref": "#/components/schemas/" + ("OperationOutcome" if fhir else "Problem")}
    media_type = "application/fhir+json" if fhir else "application/problem+json"
    known = {"400": "The request is wrong"}
    if not operation.open:
        known |= {"401": "No token, or one that is not valid here", "403": "Refused, with the reasons"}
    known |= dict(operation.answers)
    failures = {
        status: {"description": text, "content": {media_type: {"schema": schema}}}
        for status, text in sorted(known.items())
    }
    return {"200": good, **failures}
