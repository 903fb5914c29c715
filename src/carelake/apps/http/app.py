"""The application: routes from the table, one asynchronous edge around plain synchronous handlers."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
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
from starlette.types import ASGIApp, Receive, Scope, Send

from carelake.apps.http import answers
from carelake.apps.http.aws import door as aws
from carelake.apps.http.bulk.running import keep_working
from carelake.apps.http.calls import Call
from carelake.apps.http.cors import Cors
from carelake.apps.http.delivering import Round, keep_delivering
from carelake.apps.http.fhir.asking import is_id, of_r4
from carelake.apps.http.metrics import Metrics
from carelake.apps.http.openapi import document
from carelake.apps.http.packing import packed, unpacked
from carelake.apps.http.ports import Door
from carelake.apps.http.rates import Rates, Table
from carelake.apps.http.routes import ANY_TYPE, Operation
from carelake.apps.http.sealing import keep_sealed
from carelake.apps.http.sql.running import Statements
from carelake.apps.http.table import operations
from carelake.apps.http.threshold import Threshold, stderr_log, too_many
from carelake.apps.http.workers import Bodies, Lane, Reading, Workers, readings
from carelake.apps.http.writers import Steps, writings
from carelake.core.errors import CarelakeError, Invalid, NotFound, Unsupported
from carelake.core.settings import MIB
from carelake.fhir.definitions import resource_types

__all__ = ["create_app"]

_BODY_SECONDS = 15.0
_FORM = "application/x-www-form-urlencoded"
_MAX_FIELDS = 1000
_BODIES_BYTES = 64 * MIB


def create_app(
    workspace: Door, *, log: Any = None, deliver: Round | None = None, rates: Table | None = None
) -> Starlette:
    """The application over one open workspace; whoever opened it closes it.

    Args:
        log: told one line per request (``info``) and faults (``error``); default: JSON on standard error.
        deliver: one round of deliveries of events, made again and again while the server runs.
        rates: the table of rates that workers share.
    """
    metrics = Metrics()
    log = log or stderr_log()
    statements = Statements(workspace, log)
    table = operations(metrics, statements)
    table = [*table, _described(table), *aws.operations()]
    told = workspace.settings
    workers = Workers(seconds=told.serve.answer_seconds)
    gate, database = workspace.gate, workspace.vault.database
    quick = Lane(readings(gate.together), told.serve.answer_seconds)
    writes = writings(gate.gathering, gate.sharing, database.grouped_all)
    small = Lane(writes, told.serve.answer_seconds)
    bodies = Bodies(max(_BODIES_BYTES, told.serve.max_body_bytes))
    serve = told.serve
    memory = rates or Table()
    sources = Rates(memory, "source", serve.source_per_second, serve.burst_seconds)
    principals = Rates(memory, "principal", serve.principal_per_second, serve.burst_seconds)
    edges = _Edges(workspace, metrics, principals, quick, small, workers, bodies)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        async with (
            keep_sealed(workspace, metrics, told.serve.seal_seconds),
            keep_delivering(deliver, told.events.poll_seconds, metrics, log),
            workers.until_done(),
            statements.until_done(),
            keep_working(workspace, log),
            quick.until_done(),
            small.until_done(),
        ):
            yield

    made = {one.name: edges.of(one) for one in table}
    app = Starlette(
        routes=[Route(one.path, made[one.name], methods=[one.method]) for one in table],
        middleware=[
            Middleware(
                Threshold,
                metrics=metrics,
                max_body_bytes=serve.max_body_bytes,
                log=log,
                wait=sources.wait,
                hsts_seconds=serve.hsts_seconds,
                cors=Cors(serve.cors_origins),
            ),
            Middleware(
                _Shortcut,
                edges={("GET", 2): made["read"], ("POST", 1): made["create"], ("PUT", 2): made["update"]},
            ),
        ],
        exception_handlers={HTTPException: _no_such_route, CarelakeError: _known_error},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False  # a redirect answers no FHIR client; see _Shortcut
    return app


def _described(table: Sequence[Operation]) -> Operation:
    """``/openapi.json``, which lists itself too."""

    def describe(call: Call) -> Response:
        call.only()
        return answers.json(document([*table, operation]))

    operation = Operation(
        "GET", "/openapi.json", "openapi", "This interface, as an OpenAPI document", describe, "service", open=True
    )
    return operation


class _Shortcut:
    """To what is asked for most, past the other routes: reading, creating and updating one resource."""

    def __init__(self, app: ASGIApp, *, edges: Mapping[tuple[str, int], _Edge]) -> None:
        """Args: edges: by method, and whether the address is ``/fhir/{type}`` (1) or ``/fhir/{type}/{id}`` (2)."""
        self._app = app
        self._edges = edges
        self._types = resource_types() - {"Binary"}  # which is not always answered as a resource

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith("/fhir/"):
            if scope["path"].endswith("/"):  # clients write the base, and what follows it, both ways
                scope = {**scope, "path": scope["path"][:-1]}
            root, _, *named = scope["path"].split("/")
            edge = self._edges.get((scope["method"], len(named)))
            if edge is not None and not root and named[0] in self._types and all(map(is_id, named[1:])):
                scope["path_params"] = dict(zip(("type", "id"), named, strict=False))
                try:
                    answer = await edge(Request(scope, receive))
                except CarelakeError as error:
                    answer = answers.failure(error, scope["path"])
                await answer(scope, receive, send)
                return
        await self._app(scope, receive, send)


_Edge = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class _Edges:
    """What stands between the server and the handlers, made for each of them."""

    workspace: Door
    metrics: Metrics
    principals: Rates
    quick: Lane[Reading]
    small: Lane[Steps]
    workers: Workers
    bodies: Bodies

    def of(self, operation: Operation) -> _Edge:
        """The asynchronous function that answers by the handler of an operation."""
        gzip = self.workspace.settings.serve.gzip and operation.name != "start"

        async def edge(request: Request) -> Response:
            request.scope["state"]["route"] = operation.path
            with self.bodies.share() if operation.body is not None else nullcontext(_nothing) as take:
                call = self._call(operation, request)
                try:
                    if operation.first is not None:
                        answer = await self.workers.run(partial(operation.first, call))
                        if answer is not None:
                            return answer
                    if operation.body is not None:
                        await self._read(operation, call, request, take)
                    # A credential that is new here may be wrong, and is counted then: that is a write, and not quick.
                    known = call.known
                    if operation.steps is not None and known and operation.small(call):
                        return await self.small.run(_stepped(operation.steps(call), call, gzip))
                    work = partial(_answered, operation.handler, call, gzip)
                    if known and (operation.quick if isinstance(operation.quick, bool) else operation.quick(call)):
                        return await self.quick.run(Reading(work, _expected(operation, call)))
                    return await self.workers.run(work)
                finally:
                    request.scope["state"].update(act=call.act, route=call.route)

        return edge

    def _count(self, name: str) -> None:
        seconds = self.principals.wait(name)
        if seconds:
            self.metrics.limited("principal")
            raise too_many(seconds, "of this principal")

    def _call(self, operation: Operation, request: Request) -> Call:
        """The request, before its body is read."""
        scope = request.scope
        raw, headers = _headers(scope)
        if operation.body is None and _has_body(headers):
            raise Invalid("http.body_not_taken", "This address takes no body; see /openapi.json.")
        query = scope["query_string"]
        pairs = _pairs(query) if query else []
        if any(name == "X-Amz-Signature" for name, _ in pairs):
            pairs = [(name, value) for name, value in pairs if not name.startswith("X-Amz-")]  # for `access.sigv4`
        client = scope.get("client")
        return Call(
            self.workspace,
            operation.method,
            operation.path,
            scope["path"],
            scope["path_params"],
            pairs,
            headers,
            b"",
            client[0] if client else "",
            _raw_path(scope),
            query.decode("latin-1"),
            raw,
            scheme=scope["scheme"],
            count=self._count,
        )

    async def _read(self, operation: Operation, call: Call, request: Request, take: Callable[[int], None]) -> None:
        """The body. Of somebody unnamed nothing is read: the handler is about to refuse.

        What is open has its credential inside, or looked at it `first`.
        """
        headers = call.headers
        if operation.open or call.named:
            call.sent = await _body(request, take, operation.most)
            most = operation.most or self.workspace.settings.serve.max_body_bytes
            call.body = await self._unpacked(call.sent, headers.get("content-encoding", ""), take, most)
            said = bool(call.sent) or "content-type" in headers  # an operation without parameters has no body
            if operation.body_type not in (_FORM, ANY_TYPE) and said and not _is_json(headers):
                raise Unsupported("http.media_type", f"The body must be sent as {operation.body_type}.")
        if operation.body_type == _FORM:
            call.pairs = [*call.pairs, *_form(headers, call.body)]

    async def _unpacked(self, sent: bytes, encoding: str, take: Callable[[int], None], most: int) -> bytes:
        if not encoding:
            return sent
        body = await anyio.to_thread.run_sync(unpacked, sent, encoding, most)
        take(len(body))
        return body


def _expected(operation: Operation, call: Call) -> tuple[str, str] | None:
    """The resource that is read, so that those of one group are looked up at once; see `Resources.shown`."""
    return (call.path["type"], call.path["id"]) if operation.name == "read" else None


def _answered(handler: Callable[[Call], Response], call: Call, gzip: bool) -> Response:
    answer = handler(call)
    return packed(answer, call.headers.get("accept-encoding", "")) if gzip else answer


def _stepped(steps: Steps, call: Call, gzip: bool) -> Steps:
    answer = yield from steps
    return packed(answer, call.headers.get("accept-encoding", "")) if gzip else answer


def _nothing(_size: int) -> None:
    """Of an operation without a body there is nothing to take."""


def _raw_path(scope: Scope) -> str:
    """The path as it came, for the verification of signatures."""
    path: bytes = scope.get("raw_path") or scope["path"].encode()
    return path.partition(b"?")[0].decode("latin-1")


def _headers(scope: Scope) -> tuple[list[tuple[str, str]], dict[str, str]]:
    """The headers as they came, and by name; the first of several counts."""
    raw = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"]]
    return raw, dict(reversed(raw))


def _has_body(headers: Mapping[str, str]) -> bool:
    return headers.get("content-length", "0").strip("0") != "" or "transfer-encoding" in headers


async def _body(request: Request, take: Callable[[int], None], most: int) -> bytes:
    body = bytearray()
    most = most or sys.maxsize
    if int(request.headers.get("content-length", "0")) > most:
        raise _too_large(most)
    try:
        with anyio.fail_after(_BODY_SECONDS):
            async for piece in request.stream():
                take(len(piece))
                body += piece
                if len(body) > most:
                    raise _too_large(most)
        return bytes(body)
    except (TimeoutError, ClientDisconnect):
        raise Invalid("http.body_incomplete", f"The body did not arrive within {_BODY_SECONDS:g} s.") from None


def _too_large(most: int) -> Invalid:
    return Invalid("http.body_too_large", f"The body is larger than {most} bytes; send less.")


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


def _form(headers: Mapping[str, str], body: bytes) -> list[tuple[str, str]]:
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if body and media_type != _FORM:
        raise Unsupported("http.media_type", f"The body must be sent as {_FORM}.")
    return _pairs(body)


def _is_json(headers: Mapping[str, str]) -> bool:
    told = headers.get("content-type", "")
    media_type = told.partition(";")[0].strip().lower()
    return (media_type == "application/json" or media_type.endswith("+json")) and of_r4(told)


async def _known_error(request: Request, error: Exception) -> Response:
    return answers.failure(error, request.scope["path"])


async def _no_such_route(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    if status == 405:
        said: CarelakeError = Unsupported("http.method", "This address does not take this method; see /openapi.json.")
    else:
        said = NotFound("http.no_route", "There is nothing at this address; see /openapi.json.")
    answer = answers.failure(said, request.scope["path"], status)
    if status == 405:
        answer.headers["Allow"] = ", ".join(sorted(_methods(request)))
    return answer


def _methods(request: Request) -> set[str]:
    """What an address takes, of all routes that it is one of; the framework tells of the first alone."""
    routes = [route for route in request.app.routes if isinstance(route, Route)]
    matching = (route for route in routes if route.path_regex.match(request.scope["path"]))
    return {method for route in matching for method in route.methods or ()}
