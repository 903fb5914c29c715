"""Beside a server: monitoring schedules that are due are run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from carelake.access.identity import Caller
from carelake.apps.errors import code_of
from carelake.core.clock import iso
from carelake.monitor.listing import waits

if TYPE_CHECKING:
    from carelake.apps.wiring import Workspace

__all__ = ["beside", "look"]

_SECONDS = 20.0


def look(workspace: Workspace, caller: Caller) -> list[dict[str, Any]]:
    """Run what is due in the caller's account; a look that finds nothing writes no act and imports no model."""
    with workspace.vault.database.reading(workspace.gate.polling()) as tx:
        if not waits(tx, caller.account, iso(workspace.vault.clock.now())):
            return []
    return workspace.platform.executions.run_due(lambda target: workspace.enter(caller, "monitor:check", target))


@contextmanager
def beside(workspace: Workspace, caller: Caller, log: Callable[[str], Any]) -> Iterator[None]:
    """Look every 20 seconds while the block runs, in a thread.

    Args:
        log: told the code of what hinders it, once until another one does.
    """
    stop = threading.Event()

    def work() -> None:
        said = ""
        while not stop.wait(_SECONDS):
            try:
                look(workspace, caller)
                code = ""
            except Exception as error:  # a busy database must not end it; the next turn tries again
                code = code_of(error)
            if code and code != said:
                log(code)
            said = code

    thread = threading.Thread(target=work, name="carelake-monitors", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
