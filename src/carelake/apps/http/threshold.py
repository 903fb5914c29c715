"""The threshold that every request crosses: bounds, headers, the one log line, and the last word on faults.

Pure ASGI. The log line and the metrics hold the route's template, never the path or the query: FHIR searches carry
names in both.
"""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import MutableMapping
from typing import Any

import structlog
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from carelake.apps.http.answers import failure
from carelake.apps.http.metrics import Metrics, known_method
from carelake.core.errors import CarelakeError, Invalid
from carelake.core.ids import Ids, RandomIds

__all__ = ["NO_ROUTE", "Threshold", "TooLarge", "stderr_log"]

NO_ROUTE = "(none)"

_SECURITY = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}
_NO_CONTENT = "default-src 'none'; frame-ancestors 'none'"


class TooLarge(Invalid):
    """The body is larger than ``serve.max_body_bytes``."""


def stderr_log() -> Any:
    """A logger that writes one JSON object a line to standard error."""
    processors: list[Any] = [structlog.processors.TimeStamper(fmt="iso"), structlog.processors.JSONRenderer()]
    return structlog.wrap_logger(structlog.PrintLogger(sys.stderr), processors=processors)


class Threshold:
    """Wraps the routes of the application."""

    def __init__(
        self, app: ASGIApp, *, metrics: Metrics, max_body_bytes: int, log: Any = None, ids: Ids | None = None
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._max_body_bytes = max_body_bytes
        self._log = log or stderr_log()
        self._ids = ids or RandomIds()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        crossing = _Crossing(scope, send, self._max_body_bytes, self._ids)
        started = time.perf_counter()
        self._metrics.running.inc()
        try:
            _refuse_fragment(scope)
            crossing.refuse_long(scope)
            await self._app(scope, crossing.bounded(receive), crossing.send)
        except (
            Exception
        ) as error:  # the last word: a text that nobody foresaw could hold anything, so it goes nowhere
            await self._fault(crossing, scope, error)
        finally:
            self._metrics.running.dec()
            seconds = time.perf_counter() - started
            route = crossing.state.get("route", NO_ROUTE)
            self._metrics.answered(scope["method"], route, crossing.status, seconds)
            self._log.info(
                "request",
                method=known_method(scope["method"]),
                route=route,
                status=crossing.status,
                ms=round(seconds * 1000, 2),
                act=crossing.act,
            )

    async def _fault(self, crossing: _Crossing, scope: Scope, error: Exception) -> None:
        if not isinstance(error, CarelakeError):
            frames = [f"{frame.name}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)[-5:]]
            self._log.error("fault", kind=type(error).__name__, frames=frames, act=crossing.act)
        if not crossing.begun:
            await failure(error, scope["path"])(scope, _nothing, crossing.send)


def _refuse_fragment(scope: Scope) -> None:
    """A target has no fragment (RFC 9112 section 3.2): who sends one reads it otherwise than we do."""
    if b"#" in scope.get("raw_path", b"") or b"#" in scope["query_string"]:
        raise Invalid("http.target", "The address holds a #, which no request does; send it as %23.")


class _Crossing:
    """One request on its way."""

    def __init__(self, scope: Scope, send: Send, max_body_bytes: int, ids: Ids) -> None:
        self.state: MutableMapping[str, Any] = scope.setdefault("state", {})
        self._send = send
        self._max = max_body_bytes
        self._ids = ids
        self.status = 500
        self.begun = False

    @property
    def act(self) -> str:
        """The act's id, or a fresh one for an answer that no act stands for (a wrong address, a probe)."""
        if not self.state.get("act"):
            self.state["act"] = self._ids.new()
        return str(self.state["act"])

    def refuse_long(self, scope: Scope) -> None:
        """Do not even begin with a body that says it is too long."""
        for name, value in scope["headers"]:
            if name == b"content-length" and (not value.isdigit() or int(value) > self._max):
                raise self._too_large()

    def bounded(self, receive: Receive) -> Receive:
        """``receive`` that stops a body which turns out too long."""
        taken = 0

        async def bounded() -> Message:
            nonlocal taken
            message = await receive()
            if message["type"] == "http.request":
                taken += len(message.get("body", b""))
                if taken > self._max:
                    raise self._too_large()
            return message

        return bounded

    async def send(self, message: Message) -> None:
        """Add the headers that every answer has."""
        if message["type"] == "http.response.start":
            self.begun = True
            self.status = int(message["status"])
            headers = MutableHeaders(raw=message["headers"])
            headers["X-Request-Id"] = self.act
            for name, value in _SECURITY.items():
                headers[name] = value
            headers.setdefault("Content-Security-Policy", _NO_CONTENT)
        await self._send(message)

    def _too_large(self) -> TooLarge:
        return TooLarge(
            "http.body_too_large", f"The body is larger than serve.max_body_bytes ({self._max}); send less at once."
        )


async def _nothing() -> Message:
    return {"type": "http.disconnect"}
