"""The application: routes from the table, one asynchronous edge around plain synchronous handlers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any
from urllib.parse import parse_qsl

import anyio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from carelake.apps.http import answers
from carelake.apps.http.calls import Call, has_credential
from carelake.apps.http.delivering import Round, keep_delivering
from carelake.apps.http.metrics import Metrics
from carelake.apps.http.openapi import document
from carelake.apps.http.ports import Door
from carelake.apps.http.routes import Operation
from carelake.apps.http.sealing import keep_sealed
from carelake.apps.http.table import operations
from carelake.apps.http.threshold import Threshold, stderr_log
from carelake.apps.http.workers import Bodies, Workers
from carelake.core.errors import CarelakeError, Invalid, NotFound, Unsupported
from carelake.core.settings import MIB

__all__ = ["create_app"]

_BODY_SECONDS = 15.0
_FORM = "application/x-www-form-urlencoded"
_MAX_FIELDS = 1000
_BODIES_BYTES = 64 * MIB


def create_app(workspace: Door, *, log: Any = None, deliver: Round | None = None) -> Starlette:
    """The application over one open workspace; whoever opened it closes it.

    Args:
        log: a structlog logger for the one line per request; default: JSON on standard error.
        deliver: one round of deliveries of events, made again and again while the server runs.
    """
    metrics = Metrics()
    table = operations(metrics)
    table = [*table, _described(table)]
    log = log or stderr_log()
    told = workspace.settings
    workers = Workers()
    bodies = Bodies(max(_BODIES_BYTES, told.serve.max_body_bytes))

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        async with (
            keep_sealed(workspace, metrics, told.serve.seal_seconds),
            keep_delivering(deliver, told.events.poll_seconds, metrics, log),
            workers.until_done(),
        ):
            yield

    return Starlette(
        routes=[_route(workspace, operation, workers, bodies) for operation in table],
        middleware=[Middleware(Threshold, metrics=metrics, max_body_bytes=told.serve.max_body_bytes, log=log)],
        exception_handlers={HTTPException: _no_such_route, CarelakeError: _known_error},
        lifespan=lifespan,
    )


def _described(table: Sequence[Operation]) -> Operation:
    """``/openapi.json``, which lists itself too."""

    def describe(call: Call) -> Response:
        call.only()
        return answers.json(document([*table, operation]))

    operation = Operation(
        "GET", "/openapi.json", "openapi", "This interface, as an OpenAPI document", describe, "service", open=True
    )
    return operation


def _route(workspace: Door, operation: Operation, workers: Workers, bodies: Bodies) -> Route:
    return Route(operation.path, _edge(workspace, operation, workers, bodies), methods=[operation.method])


def _edge(
    workspace: Door, operation: Operation, workers: Workers, bodies: Bodies
) -> Callable[[Request], Awaitable[Response]]:
    async def edge(request: Request) -> Response:
        request.scope["state"]["route"] = operation.path
        with bodies.share() as take:
            call = await _call(workspace, operation, request, take)
            try:
                return await workers.run(partial(operation.handler, call))
            finally:
                request.scope["state"]["act"] = call.act

    return edge


async def _call(workspace: Door, operation: Operation, request: Request, take: Callable[[int], None]) -> Call:
    if operation.body is None and _has_body(request):
        raise Invalid("http.body_not_taken", "This address takes no body; see /openapi.json.")
    named = has_credential(request.headers, request.scope["query_string"])
    # Of somebody unnamed nothing is read: the handler is about to refuse.
    body = await _body(request, take) if operation.body is not None and named else b""
    pairs = _pairs(request.scope["query_string"])
    if any(name == "X-Amz-Signature" for name, _ in pairs):
        pairs = [(name, value) for name, value in pairs if not name.startswith("X-Amz-")]  # read by `access.sigv4`
    if operation.body_type == _FORM:
        pairs += _form(request, body)
    elif operation.body is not None and named and not _is_json(request):
        raise Unsupported("http.media_type", "The body must be sent as application/json.")
    return Call(
        workspace,
        operation.method,
        operation.path,
        request.scope["path"],
        request.path_params,
        pairs,
        request.headers,
        body,
        request.client.host if request.client else "",
        *_raw(request),
    )


def _raw(request: Request) -> tuple[str, str, list[tuple[str, str]]]:
    """The target and the headers as they came, for the verification of signatures."""
    scope = request.scope
    path = (scope.get("raw_path") or scope["path"].encode()).partition(b"?")[0]
    headers = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"]]
    return path.decode("latin-1"), scope["query_string"].decode("latin-1"), headers


def _has_body(request: Request) -> bool:
    return request.headers.get("content-length", "0").strip("0") != "" or "transfer-encoding" in request.headers


async def _body(request: Request, take: Callable[[int], None]) -> bytes:
    body = bytearray()
    try:
        with anyio.fail_after(_BODY_SECONDS):
            async for piece in request.stream():
                take(len(piece))
                body += piece
        return bytes(body)
    except (TimeoutError, ClientDisconnect):
        raise Invalid("http.body_incomplete", f"The body did not arrive within {_BODY_SECONDS:g} s.") from None


def _pairs(raw: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(
            raw.decode("utf-8"),
            keep_blank_values=True,
            strict_parsing=False,
            errors="strict",
            max_num_fields=_MAX_FIELDS,
        )
    except ValueError:
        raise Invalid(
            "http.query", f"The query is not UTF-8, percent-encoded, with at most {_MAX_FIELDS} fields."
        ) from None


def _form(request: Request, body: bytes) -> list[tuple[str, str]]:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if body and media_type != _FORM:
        raise Unsupported("http.media_type", f"The body must be sent as {_FORM}.")
    return _pairs(body)


def _is_json(request: Request) -> bool:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return media_type == "application/json" or media_type.endswith("+json")


async def _known_error(request: Request, error: Exception) -> Response:
    return answers.failure(error, request.scope["path"])


async def _no_such_route(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    if status == 405:
        said: CarelakeError = Unsupported("http.method", "This address does not take this method; see /openapi.json.")
    else:
        said = NotFound("http.no_route", "There is nothing at this address; see /openapi.json.")
    answer = answers.failure(said, request.scope["path"], status)
    if isinstance(error, HTTPException) and error.headers:
        answer.headers.update(error.headers)
    return answer
