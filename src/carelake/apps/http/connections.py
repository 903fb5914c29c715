"""Connections that ask for nothing: given up after a while, and at once when others need the room."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["MOST_CONNECTIONS", "Connection"]

MOST_CONNECTIONS = 512
_ROOM = 64  # below the limit at which uvicorn answers 503 to everybody
_HEAD_SECONDS = 10.0
_KEPT_SECONDS = 15.0
_DRAIN_SECONDS = 30.0


class Connection(H11Protocol):
    """One connection, with a time limit for the headers of each request, and for taking what was answered.

    uvicorn has a limit for idle connections after an answer only, and forgets it with the first byte of what follows.
    """

    _head: asyncio.TimerHandle | None = None
    _drain: asyncio.TimerHandle | None = None
    _since = 0.0

    @property
    def idle(self) -> bool:
        """No request of it is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait, and make room."""
        super().connection_made(transport)
        self._wait(_HEAD_SECONDS)
        others = [one for one in self.connections if isinstance(one, Connection) and one is not self]
        if len(others) >= MOST_CONNECTIONS - _ROOM:
            idle = [one for one in others if one.idle and not one.transport.is_closing()]
            if idle:
                min(idle, key=lambda one: one._since).transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing more."""
        for timer in (self._head, self._drain):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        self._wait(_KEPT_SECONDS)
        super().on_response_complete()

    def pause_writing(self) -> None:
        """The other side takes nothing: not for ever."""
        super().pause_writing()
        self._drain = self.loop.call_later(_DRAIN_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """It takes again."""
        if self._drain is not None:
            self._drain.cancel()
        super().resume_writing()

    def _wait(self, seconds: float) -> None:
        if self._head is not None:
            self._head.cancel()
        self._since = self.loop.time()
        self._head = self.loop.call_later(seconds, self._late)

    def _late(self) -> None:
        if self.idle:
            self.transport.abort()
