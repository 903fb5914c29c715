"""Followers of the record for the lake: for a command that runs until it is ended, and beside a server."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from carelake.access.identity import Caller
from carelake.core.errors import CarelakeError, Refused
from carelake.lake.following.fresh import of_accounts

if TYPE_CHECKING:
    from carelake.apps.wiring import Workspace
    from carelake.lake.following.follow import Follower, Following

__all__ = ["beside", "until_ended"]

Failed = Callable[[CarelakeError], None]


def _follower(workspace: Workspace, caller: Caller, seconds: float, failed: Failed) -> Follower:
    from carelake.lake.following.follow import Follower  # the lake's libraries take a second to import

    vault, resources = workspace.vault, workspace.resources
    return Follower(
        vault,
        resources,
        workspace.nouns,
        enter=lambda job: workspace.enter(caller, "lake:sync", "lake", job=job),
        # A permit without an act: a look several times a second must not fill the trail.
        look=lambda: of_accounts(workspace.gate.polling(), vault, resources, caller.account)[caller.account],
        seconds=seconds,
        failed=failed,
    )


def until_ended(workspace: Workspace, caller: Caller, seconds: float, failed: Failed) -> Following:
    """Follow until SIGINT or SIGTERM; what has begun is written before it ends.

    Raises:
        Refused: the caller may not, or may not any more.
    """
    with workspace.enter(caller, "lake:sync", "lake"):
        pass  # a refusal is said at once, not with the first change
    stop = threading.Event()
    before = {one: signal.signal(one, lambda *_: stop.set()) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        return _follower(workspace, caller, seconds, failed).run(stop)
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


@contextmanager
def beside(workspace: Workspace, caller: Caller, log: Callable[[str], Any]) -> Iterator[None]:
    """Follow in a thread while the block runs, where the setting ``lake.follow`` says so.

    Args:
        log: told the code of what hinders it, once until another one does.
    """
    told = workspace.settings.lake
    if not told.follow:
        yield
        return
    stop, said = threading.Event(), [""]

    def hindered(error: CarelakeError) -> None:
        if error.code != said[0]:
            said[0] = error.code
            log(error.code)

    def work() -> None:
        try:
            _follower(workspace, caller, told.follow_seconds, hindered).run(stop)
        except Refused as error:
            hindered(error)

    thread = threading.Thread(target=work, name="carelake-lake-follow", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
