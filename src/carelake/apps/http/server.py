"""Runs the application under uvicorn: bounded, with TLS away from loopback, and with a graceful end."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import ipaddress
import socket
import sys
from collections.abc import Callable
from typing import Any

import uvicorn

from carelake.apps.http import connections
from carelake.apps.http.app import create_app
from carelake.apps.http.channel import Follower
from carelake.apps.http.connections import MOST_CONNECTIONS, quickest
from carelake.apps.http.delivering import Round
from carelake.apps.http.ports import Door
from carelake.apps.http.rates import Table
from carelake.apps.http.threshold import stderr_log
from carelake.apps.http.tls import HANDSHAKE_SECONDS, Renewal, context_of
from carelake.core.errors import Unavailable, Unsupported
from carelake.core.settings import ServeSettings

__all__ = ["check_host", "make_server", "serve", "url_of"]

GRACE_SECONDS = 10
_BEAT_SECONDS = 1.0
_BEATS = 20  # in the time after which silence is taken for hanging
_RENEWAL_TICKS = 50  # of uvicorn's main loop, which are a tenth of a second
_YOUNG = 5000
"""Objects that are made between collections."""
_SWITCH_SECONDS = 0.001
"""How long a thread may keep the interpreter from the event loop; with Python's own 5 ms the slowest wait longer."""


class _Server(uvicorn.Server):
    """Tells its address once it listens; or takes connections that a parent has accepted (`channel`)."""

    def __init__(
        self,
        config: uvicorn.Config,
        started: Callable[[str], None],
        channel: socket.socket | None = None,
        beat: float = 1.0,
        renewal: Renewal | None = None,
    ) -> None:
        super().__init__(config)
        self._renewal = renewal
        self._tell = started
        self._channel = channel
        self._beat = beat
        self._follower: Follower | None = None

    async def on_tick(self, counter: int) -> bool:
        if self._renewal is not None and counter % _RENEWAL_TICKS == 0:
            self._renewal.look()
        return await super().on_tick(counter)

    async def startup(self, sockets: list[Any] | None = None) -> None:
        if self._channel is not None:
            await self._follow(self._channel)
            return
        await super().startup(sockets)
        for server in self.servers:
            for listener in server.sockets:
                self._tell(url_of(listener, tls=self.config.ssl is not None))
                return

    async def _follow(self, channel: socket.socket) -> None:
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            sys.exit(3)
        self.servers = []
        loop = asyncio.get_running_loop()
        follower = Follower(channel, lambda one: self._take(loop, follower, one), self._orphaned, self._beat)
        self._follower = follower
        self.started = True
        follower.start()
        self._tell("")

    def _orphaned(self) -> None:
        self.should_exit = True

    def _take(self, loop: asyncio.AbstractEventLoop, follower: Follower, one: socket.socket) -> None:
        task = loop.create_task(self._begin(loop, follower, one))
        self.server_state.tasks.add(task)
        task.add_done_callback(self.server_state.tasks.discard)

    async def _begin(self, loop: asyncio.AbstractEventLoop, follower: Follower, one: socket.socket) -> None:
        def made() -> Any:
            protocol: Any = self.config.http_protocol_class(  # type: ignore[call-arg]
                config=self.config, server_state=self.server_state, app_state=self.lifespan.state, _loop=loop
            )
            protocol.gone = follower.ended
            return protocol

        one.setblocking(False)
        tls = self.config.ssl
        told = {"ssl_handshake_timeout": HANDSHAKE_SECONDS} if tls else {}
        try:
            await loop.connect_accepted_socket(made, one, ssl=tls, **told)
        except (OSError, asyncio.CancelledError):  # a handshake that failed: its line ends, and no more
            one.close()
            follower.ended()

    async def shutdown(self, sockets: list[Any] | None = None) -> None:
        if self._follower is not None:
            self._follower.stop()
        await super().shutdown(sockets)
        # uvicorn would raise the signal again now, and SIGTERM end the process before the workspace is closed.
        self._captured_signals.clear()


def make_server(
    workspace: Door,
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    started: Callable[[str], None] = lambda _url: None,
    log: Any = None,
    deliver: Round | None = None,
    channel: socket.socket | None = None,
    table: Table | None = None,
) -> uvicorn.Server:
    """A server that is ready to run; setting its ``should_exit`` ends it.

    Args:
        channel: where connections come from that the parent has accepted; without, it listens itself.
        table: of rates, shared with other workers.

    Raises:
        Unsupported: ``http.loopback_only``. Invalid: ``http.tls``.
    """
    told = workspace.settings.serve
    check_host(host, told)
    workspace.platform  # noqa: B018 - imported now and not by the first request, which would wait for it
    config = uvicorn.Config(
        create_app(workspace, log=log, deliver=deliver, rates=table),
        host=host,
        port=port,
        http=quickest(),
        ws="none",
        loop="uvloop" if importlib.util.find_spec("uvloop") else "asyncio",
        access_log=False,  # it would write the query, and with it names
        log_level="error",  # a warning may hold a target
        server_header=False,
        proxy_headers=False,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=GRACE_SECONDS,
        h11_max_incomplete_event_size=connections.HEAD_BYTES,
    )
    config.load()
    config.ssl = context_of(told)
    beat = min(_BEAT_SECONDS, told.silent_seconds / _BEATS) or _BEAT_SECONDS
    renewal = Renewal(config.ssl, told, log or stderr_log()) if config.ssl is not None else None
    return _Server(config, started, channel, beat, renewal)


def serve(
    workspace: Door,
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    started: Callable[[str], None] = lambda _url: None,
    deliver: Round | None = None,
    channel: socket.socket | None = None,
    table: Table | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM; requests that have begun are finished first. The caller closes the workspace.

    Args:
        port: 0 takes a free one.
        started: told the server's address when it listens; "" when it takes connections of a parent.
        deliver: one round of deliveries of events, see `create_app`.
        channel, table: see `make_server`.

    Raises:
        Unsupported: ``http.loopback_only``. Invalid: ``http.tls``.
        Unavailable: ``http.port``, when the port is taken.
    """
    server = make_server(
        workspace, host=host, port=port, started=started, deliver=deliver, channel=channel, table=table
    )
    sys.setswitchinterval(_SWITCH_SECONDS)
    _collect_less()
    try:
        server.run()
    except SystemExit:
        # uvicorn ends the process when it cannot listen; there is a workspace to be closed first.
        raise no_port() from None
    finally:
        gc.unfreeze()  # at its end the interpreter frees what libraries would otherwise report as leaked


def _collect_less() -> None:
    """What is there by now stays: the collector need not look at it again and again, for many milliseconds."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG)


def no_port() -> Unavailable:
    """What is said when nobody can listen there."""
    return Unavailable("http.port", "The server could not listen; the port may be taken. Try another --port.")


def url_of(listener: Any, *, tls: bool) -> str:
    """The address of a socket that listens."""
    host, port = listener.getsockname()[:2]
    scheme = "https" if tls else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def check_host(host: str, told: ServeSettings) -> None:
    """Let pass loopback, and with TLS any address.

    Raises:
        Unsupported: ``http.loopback_only``.
    """
    if not told.tls_certificate and not _is_loopback(host):
        raise Unsupported(
            "http.loopback_only",
            "Without TLS the door is on loopback only: set serve.tls_certificate and serve.tls_key, or use "
            "--host 127.0.0.1 behind a TLS proxy.",
        )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
