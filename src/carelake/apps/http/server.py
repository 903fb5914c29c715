"""Runs the application under uvicorn: loopback only until TLS is here, bounded, and with a graceful end."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Any

import uvicorn

from carelake.apps.http.app import create_app
from carelake.apps.http.connections import MOST_CONNECTIONS, Connection
from carelake.apps.http.delivering import Round
from carelake.apps.http.ports import Door
from carelake.core.errors import Unavailable, Unsupported

__all__ = ["make_server", "serve"]

_GRACE_SECONDS = 10


class _Server(uvicorn.Server):
    """Tells its address once it listens."""

    def __init__(self, config: uvicorn.Config, started: Callable[[str], None]) -> None:
        super().__init__(config)
        self._tell = started

    async def startup(self, sockets: list[Any] | None = None) -> None:
        await super().startup(sockets)
        for server in self.servers:
            for socket in server.sockets:
                host, port = socket.getsockname()[:2]
                self._tell(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")
                return

    async def shutdown(self, sockets: list[Any] | None = None) -> None:
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
) -> uvicorn.Server:
    """A server that is ready to run; setting its ``should_exit`` ends it.

    Raises:
        Unsupported: ``http.loopback_only``.
    """
    if not _is_loopback(host):
        raise Unsupported(
            "http.loopback_only",
            "This version serves without TLS and so on loopback only; use --host 127.0.0.1 behind a TLS proxy.",
        )
    workspace.platform  # noqa: B018 - imported now and not by the first request, which would wait for it
    config = uvicorn.Config(
        create_app(workspace, log=log, deliver=deliver),
        host=host,
        port=port,
        http=Connection,
        access_log=False,  # it would write the query, and with it names
        log_level="warning",
        server_header=False,
        proxy_headers=False,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=_GRACE_SECONDS,
        h11_max_incomplete_event_size=64 * 1024,
    )
    return _Server(config, started)


def serve(
    workspace: Door,
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    started: Callable[[str], None] = lambda _url: None,
    deliver: Round | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM; requests that have begun are finished first. The caller closes the workspace.

    Args:
        port: 0 takes a free one.
        started: told the server's address when it listens.
        deliver: one round of deliveries of events, see `create_app`.

    Raises:
        Unsupported: ``http.loopback_only``.
        Unavailable: ``http.port``, when the port is taken.
    """
    server = make_server(workspace, host=host, port=port, started=started, deliver=deliver)
    try:
        server.run()
    except SystemExit:
        # uvicorn ends the process when it cannot listen; there is a workspace to be closed first.
        raise Unavailable(
            "http.port", "The server could not listen; the port may be taken. Try another --port."
        ) from None


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
