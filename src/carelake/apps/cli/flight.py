"""``flight``: the lake over Arrow Flight until it is ended."""

from __future__ import annotations

import signal
import threading

from carelake.apps.cli.session import Session, note

__all__ = ["fly"]

_TURN_SECONDS = 0.5


def fly(session: Session, *, json_out: bool, port: int, host: str) -> None:
    """Serve over Arrow Flight; SIGINT and SIGTERM end it, and with it the statements that run."""
    from carelake.apps.flight import open_door
    from carelake.audit.background import sealing_beside

    workspace, caller, ended = session.workspace, session.caller(), threading.Event()
    with workspace.enter(caller, "status:read", "serve"):
        note(f"Serving as {caller.principal.name}'s workspace; end with Ctrl-C.")
    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, lambda *_: ended.set())
    with (
        sealing_beside(workspace.trail, workspace.gate.sealing, workspace.settings.serve.seal_seconds),
        open_door(workspace, host, port, lambda url: note(f"Listening on {url}")),
    ):
        while not ended.wait(_TURN_SECONDS):  # a signal that another thread is given wakes nobody
            pass
