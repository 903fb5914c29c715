"""The threshold that every request crosses: bounds, headers, the one log line, and the last word on faults.

Pure ASGI. The log line and the metrics hold the route's template, never the path or the query: FHIR searches carry
names in both.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time
import traceback
from collections.abc import Callable, MutableMapping
from typing import Any

import msgspec
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from carelake.apps.http.answers import failure, is_fhir
from carelake.apps.http.aws.routing import is_aws
from carelake.apps.http.connections import HEAD_BYTES
from carelake.apps.http.cors import Cors
from carelake.apps.http.metrics import Metrics, known_method
from carelake.apps.http.rates import source_of
from carelake.core.clock import SystemClock, iso
from carelake.core.errors import CarelakeError, Invalid, Unavailable
from carelake.core.ids import Ids, RandomIds

__all__ = ["NO_ROUTE", "Threshold", "TooLarge", "stderr_log", "too_many"]

NO_ROUTE = "(none)"

_is_name = re.compile(rb"[A-Za-z0-9._:-]{1,128}").fullmatch

_SECURITY = {
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-resource-policy": b"same-origin",
    b"cross-origin-opener-policy": b"same-origin",
    b"permissions-policy": b"camera=(), geolocation=(), microphone=()",
    b"cache-control": b"no-store",
}
_OURS = frozenset({*_SECURITY, b"x-request-id"})
_CSP = b"content-security-policy"
_NO_CONTENT = (_CSP, b"default-src 'none'; frame-ancestors 'none'")


class TooLarge(Invalid):
    """The body is larger than ``serve.max_body_bytes``."""


class _Lines:
    """One JSON object a line; those of one turn of the event loop in one write."""

    def __init__(self) -> None:
        self._encode = msgspec.json.Encoder().encode
        self._clock = SystemClock()
        self._unsaid: list[str] = []

    def info(self, event: str, **facts: Any) -> None:
        """Say it."""
        line = self._line(event, facts)
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # in a thread beside it
            _say([line])
            return
        if not self._unsaid:
            loop.call_soon(self._flush)
        self._unsaid.append(line)

    def error(self, event: str, **facts: Any) -> None:
        """Say it now."""
        _say([self._line(event, facts)])

    def _line(self, event: str, facts: dict[str, Any]) -> str:
        return self._encode({**facts, "event": event, "timestamp": iso(self._clock.now())}).decode()

    def _flush(self) -> None:
        lines, self._unsaid = self._unsaid, []
        _say(lines)


def _say(lines: list[str]) -> None:
    if lines:
        sys.stderr.write("\n".join((*lines, "")))
        sys.stderr.flush()


def stderr_log() -> Any:
    """A logger that writes one JSON object a line to standard error."""
    return _Lines()


def too_many(seconds: float, what: str) -> Unavailable:
    """What is answered over a rate: 429, with the time to wait."""
    wait = int(seconds) + 1
    return Unavailable("http.too_many", f"Too many requests {what}; try again in {wait} s.", retry_after=wait)


class Threshold:
    """Wraps the routes of the application."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        metrics: Metrics,
        max_body_bytes: int,
        log: Any = None,
        ids: Ids | None = None,
        wait: Callable[[str], float] = lambda _source: 0.0,
        hsts_seconds: int = 0,
        cors: Cors | None = None,
    ) -> None:
        """Wrap ``app``.

        Args:
            wait: counts a request from an address; how long it has to wait, 0 for not at all.
            hsts_seconds: for so long browsers shall come by TLS only, where they came by it.
            cors: what browsers are told of other origins.
        """
        self._app = app
        self._wait = wait
        self._hsts = (b"strict-transport-security", b"max-age=%d" % hsts_seconds) if hsts_seconds else None
        self._cors = cors or Cors(())
        self._metrics = metrics
        self._max_body_bytes = max_body_bytes
        self._log = log or stderr_log()
        self._ids = ids or RandomIds()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        crossing = _Crossing(scope, send, self._max_body_bytes, self._ids)
        if self._hsts and scope["scheme"] == "https":
            crossing.more.append(self._hsts)
        crossing.more += self._cors.headers(scope)
        crossing.more += _correlated(scope)
        started = time.perf_counter()
        self._metrics.running.inc()
        try:
            self._count(scope)
            _refuse_fragment(scope)
            crossing.refuse_long(scope)
            app = _ALLOWED if self._cors.asks_before(scope) else self._app
            await app(scope, crossing.bounded(receive), crossing.send)
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

    def _count(self, scope: Scope) -> None:
        client = scope.get("client")
        seconds = self._wait(source_of(client[0])) if client else 0.0
        if seconds:
            self._metrics.limited("source")
            raise too_many(seconds, "from this address")

    async def _fault(self, crossing: _Crossing, scope: Scope, error: Exception) -> None:
        if not isinstance(error, CarelakeError):
            frames = [f"{frame.name}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)[-5:]]
            self._log.error("fault", kind=type(error).__name__, frames=frames, act=crossing.act)
        if not crossing.begun:
            await failure(error, scope["path"])(scope, _nothing, crossing.send)


_ALLOWED = Response(status_code=204)  # what a browser is told before it sends is in the headers


def _refuse_fragment(scope: Scope) -> None:
    """A target has no fragment (RFC 9112 section 3.2): who sends one reads it otherwise than we do."""
    if b"#" in scope.get("raw_path", b"") or b"#" in scope["query_string"]:
        raise Invalid("http.target", "The address holds a #, which no request does; send it as %23.")


def _correlated(scope: Scope) -> list[tuple[bytes, bytes]]:
    """What a client calls its request, beside our own name for it (https://hl7.org/fhir/R4/http.html#custom)."""
    said = [value for name, value in scope["headers"] if name == b"x-request-id"] if is_fhir(scope["path"]) else []
    return [(b"x-correlation-id", said[0])] if len(said) == 1 and _is_name(said[0]) else []


class _Crossing:
    """One request on its way."""

    def __init__(self, scope: Scope, send: Send, max_body_bytes: int, ids: Ids) -> None:
        self.state: MutableMapping[str, Any] = scope.setdefault("state", {})
        self._send = send
        self._max = max_body_bytes
        self._ids = ids
        self.status = 500
        self.begun = False
        self._named = (b"x-request-id", b"x-amzn-requestid") if is_aws(scope["path"]) else (b"x-request-id",)
        self.more: list[tuple[bytes, bytes]] = []

    @property
    def act(self) -> str:
        """The act's id, or a fresh one for an answer that no act stands for (a wrong address, a probe)."""
        if not self.state.get("act"):
            self.state["act"] = self._ids.new()
        return str(self.state["act"])

    def refuse_long(self, scope: Scope) -> None:
        """Do not even begin with a head that is too long (a parser may bound its parts alone), or such a body."""
        taken = 0
        for name, value in scope["headers"]:
            taken += len(name) + len(value)
            if name == b"content-length" and (not value.isdigit() or int(value) > self._max):
                raise self._too_large()
        if taken > HEAD_BYTES:
            raise Invalid("http.head_too_large", f"The headers are larger than {HEAD_BYTES} bytes; send fewer.")

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
            given = message["headers"]
            headers = [header for header in given if header[0] not in _OURS]
            if all(name != _CSP for name, _ in headers):
                headers.append(_NO_CONTENT)
            act = self.act.encode()
            headers += (*_SECURITY.items(), *((name, act) for name in self._named), *self.more)
            message["headers"] = headers
        await self._send(message)

    def _too_large(self) -> TooLarge:
        return TooLarge(
            "http.body_too_large", f"The body is larger than serve.max_body_bytes ({self._max}); send less at once."
        )


async def _nothing() -> Message:
    return {"type": "http.disconnect"}
