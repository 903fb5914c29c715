"""A real server on loopback for tests of the HTTP door, and a logger that keeps what it is told."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from queue import Queue
from typing import Any

from carelake.access.principals import Principal, Principals
from carelake.apps.http.server import make_server
from carelake.apps.wiring import Workspace


class Lines:
    """A logger that keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[dict[str, Any]] = []

    def info(self, event: str, **facts: Any) -> None:
        self.said.append({"event": event, **facts})

    error = info


@contextmanager
def serving(workspace: Workspace, log: Lines, deliver: Any = None) -> Iterator[str]:
    addresses: Queue[str] = Queue()
    server = make_server(workspace, port=0, started=addresses.put, log=log, deliver=deliver)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield addresses.get(timeout=20)
    finally:
        server.should_exit = True
        thread.join(15)
    assert not thread.is_alive()


def known(workspace: Workspace, name: str) -> Principal:
    with workspace.vault.database.ledger() as connection:
        return Principals(connection).get(name)
