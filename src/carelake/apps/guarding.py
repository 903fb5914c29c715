"""Beside a server: rollouts of endpoints are looked after, and RiskAssessments that are due are written."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from carelake.apps.errors import code_of

if TYPE_CHECKING:
    from carelake.apps.wiring import Workspace

__all__ = ["beside"]

_PIECES, _REST = 2, 0.4


@contextmanager
def beside(workspace: Workspace, log: Callable[[str], Any]) -> Iterator[None]:
    """Look every ``serving.tick_seconds`` while the block runs, in a thread; with 0 never.

    Args:
        log: told the code of what hinders it, once until another one does.
    """
    seconds = workspace.settings.serving.tick_seconds
    if seconds <= 0:
        yield
        return
    stop = threading.Event()

    def work() -> None:
        said = ""
        while not stop.wait(seconds):
            try:
                workspace.endpoints.tick()
                # What is due in small pieces, with room between them: requests wait for nobody long.
                for _ in range(_PIECES):
                    if not workspace.endpoints.catch_up() or stop.wait(_REST):
                        break
                code = ""
            except Exception as error:  # a busy database must not end it; the next turn tries again
                code = code_of(error)
            if code and code != said:
                log(code)
            said = code

    thread = threading.Thread(target=work, name="carelake-endpoints", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
