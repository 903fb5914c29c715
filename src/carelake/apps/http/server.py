"""Runs the application under uvicorn: bounded, with TLS away from loopback, and with a graceful end."""

from __future__ import annotations

import asyncio
import importlib.util
import ipaddress
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import uvicorn

from carelake.apps.http import connections
from carelake.apps.http.app import create_app
from carelake.apps.http.connections import MOST_CONNECTIONS, quickest
from carelake.apps.http.delivering import Round
from carelake.apps.http.ports import Door
from carelake.apps.http.rates import Table
from carelake.apps.http.tls import HANDSHAKE_SECONDS, context_of
from carelake.core.errors import Unavailable, Unsupported
from carelake.core.settings import ServeSettings

__all__ = ["check_host", "make_server", "serve", "url_of"]

GRACE_SECONDS = 10
_SWITCH_SECONDS = 0.001
"""How long a thread may keep the interpreter from the event loop; with Python's own 5 ms the slowest wait longer."""


class _Server(uvicorn.Server):
    """Tells its address once it listens; or takes connections that a parent has accepted (`server_crew`)."""

    def __init__(
        self, config: uvicorn.Config, started: Callable[[str], None], channel: socket.socket | None = None
    ) -> None:
        super().__init__(config)
        self._tell = started
        self._channel = channel

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
        channel.setblocking(False)
        loop = asyncio.get_running_loop()
        loop.add_reader(channel, self._take, loop, channel)
        self.started = True
        channel.send(b"r")

    def _take(self, loop: asyncio.AbstractEventLoop, channel: socket.socket) -> None:
        try:
            said, handles, _, _ = socket.recv_fds(channel, 1, 1)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            said, handles = b"", []
        if not said:
            # The parent is gone: nobody would end us any more.
            loop.remove_reader(channel)
            self.should_exit = True
            return
        for handle in handles:
            task = loop.create_task(self._begin(loop, channel, socket.socket(fileno=handle)))
            self.server_state.tasks.add(task)
            task.add_done_callback(self.server_state.tasks.discard)

    async def _begin(self, loop: asyncio.AbstractEventLoop, channel: socket.socket, one: socket.socket) -> None:
        def gone() -> None:
            with suppress(OSError):  # the parent is gone, or counts wrongly for a while
                channel.send(b"x")

        def made() -> Any:
            protocol: Any = self.config.http_protocol_class(  # type: ignore[call-arg]
                config=self.config, server_state=self.server_state, app_state=self.lifespan.state, _loop=loop
            )
            protocol.gone = gone
            return protocol

        one.setblocking(False)
        tls = self.config.ssl
        told = {"ssl_handshake_timeout": HANDSHAKE_SECONDS} if tls else {}
        try:
            await loop.connect_accepted_socket(made, one, ssl=tls, **told)
        except (OSError, asyncio.CancelledError):  # a handshake that failed: its line ends, and no more
            one.close()
            gone()

    async def shutdown(self, sockets: list[Any] | None = None) -> None:
        if self._channel is not None:
            asyncio.get_running_loop().remove_reader(self._channel)
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
    return _Server(config, started, channel)


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
        started: told the server's address when it listens.
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
    try:
        server.run()
    except SystemExit:
        # uvicorn ends the process when it cannot listen; there is a workspace to be closed first.
        raise no_port() from None


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
