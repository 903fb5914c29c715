"""Connections that ask for nothing: given up after a while, and at once when others need the room.

Over either parser: httptools (llhttp, in C) where it is installed, and h11 elsewhere; the bounds are the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import cache
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["HEAD_BYTES", "MOST_CONNECTIONS", "Bounded", "Connection", "quickest"]

MOST_CONNECTIONS = 512
HEAD_BYTES = 64 * 1024
_MOST_HEADERS = 128
_ROOM = 64  # below the limit at which uvicorn answers 503 to everybody
_HEAD_SECONDS = 10.0
_KEPT_SECONDS = 15.0
_DRAIN_SECONDS = 30.0


class Bounded:
    """One connection, with a time limit for the headers of each request, and for taking what was answered.

    uvicorn has a limit for idle connections after an answer only, and forgets it with the first byte of what follows.
    Stands before a protocol of uvicorn among the bases of a class.

    Attributes:
        gone: called once when the connection has ended.
    """

    # Of the protocol:
    cycle: Any
    connections: set[Any]
    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport

    gone: Callable[[], None] | None = None
    _head: asyncio.TimerHandle | None = None
    _drain: asyncio.TimerHandle | None = None
    _since = 0.0
    _until = 0.0

    @property
    def idle(self) -> bool:
        """No request of it is being answered."""
        return self.cycle is None or bool(self.cycle.response_complete)

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Begin to wait, and make room."""
        super().connection_made(transport)  # type: ignore[misc]
        self._wait(_HEAD_SECONDS)
        if len(self.connections) > MOST_CONNECTIONS - _ROOM:
            others = [one for one in self.connections if isinstance(one, Bounded) and one is not self]
            idle = [one for one in others if one.idle and not one.transport.is_closing()]
            if idle:
                min(idle, key=lambda one: one._since).transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing more."""
        for timer in (self._head, self._drain):
            if timer is not None:
                timer.cancel()
        self._head = self._drain = None
        super().connection_lost(exc)  # type: ignore[misc]
        if self.gone is not None:
            self.gone()
            self.gone = None

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        self._wait(_KEPT_SECONDS)
        super().on_response_complete()  # type: ignore[misc]

    def pause_writing(self) -> None:
        """The other side takes nothing: not for ever."""
        super().pause_writing()  # type: ignore[misc]
        self._drain = self.loop.call_later(_DRAIN_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """It takes again."""
        if self._drain is not None:
            self._drain.cancel()
        super().resume_writing()  # type: ignore[misc]

    def _wait(self, seconds: float) -> None:
        """One timer for all requests of a connection: it is moved on when it rings, and not at each of them."""
        self._since = self.loop.time()
        self._until = self._since + seconds
        if self._head is None or self._head.when() > self._until:
            if self._head is not None:
                self._head.cancel()
            self._head = self.loop.call_at(self._until, self._late)

    def _late(self) -> None:
        self._head = None
        if self.loop.time() < self._until - 0.001:
            self._head = self.loop.call_at(self._until, self._late)
        elif self.idle:
            self.transport.abort()


class Connection(Bounded, H11Protocol):  # type: ignore[misc]
    """Over h11."""


@cache
def quickest() -> type[Any]:
    """The protocol of this machine: over httptools where it is installed."""
    try:
        from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
    except ImportError:
        return Connection

    class QuickConnection(Bounded, HttpToolsProtocol):  # type: ignore[misc]
        """Over httptools, with the bounds on heads that h11 has by itself.

        Its parser gives up with an answer 400 when one of these methods raises.
        """

        _taken = 0
        _fed = 0
        _hosts = 0
        _in_head = False

        def data_received(self, data: bytes) -> None:
            """Bound what is kept of a head that is not whole yet; llhttp does not tell of its parts."""
            super().data_received(data)
            if self._in_head:
                self._fed += len(data)
                if self._fed > HEAD_BYTES and not self.transport.is_closing():
                    self.send_400_response("The head of the request is too long.")

        def on_message_begin(self) -> None:
            """Count anew."""
            self._taken = self._fed = self._hosts = 0
            self._in_head = True
            super().on_message_begin()

        def on_url(self, url: bytes) -> None:
            """Count."""
            self._take(url)
            super().on_url(url)

        def on_header(self, name: bytes, value: bytes) -> None:
            """Count; a request for this version has one Host (RFC 9112 section 3.2)."""
            self._take(name + value)
            if len(self.headers) >= _MOST_HEADERS:
                raise ValueError("too many headers")
            if len(name) == 4 and name.lower() == b"host":
                self._hosts += 1
            super().on_header(name, value)

        def on_headers_complete(self) -> None:
            """Begin the request; its fragment, which none has, is left to be seen and refused (`threshold`)."""
            self._in_head = False
            version = self.parser.get_http_version()
            if version not in ("1.0", "1.1") or (self._hosts != 1 and (self._hosts or version == "1.1")):
                raise ValueError("not of a version that is spoken here, or not one Host")
            super().on_headers_complete()
            if b"#" in self.url:
                self.scope["raw_path"] = self.url

        def _take(self, part: bytes) -> None:
            self._taken += len(part)
            if self._taken > HEAD_BYTES:
                raise ValueError("too long a head")

    return QuickConnection
