"""The command line, killed at a chosen moment: ``python journeys_crash_child.py POINT ARGUMENT...``.

A moment is told by what becomes durable: each commit of the database that changed something, and each file that is
given its final name, counted from 1. POINT is ``before:N`` or ``after:N`` of them, or ``count``, which kills nothing
and says how many there were as the last line of stderr. Kills the whole process group, as ``kill -9`` would.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from threading import Lock
from typing import Any

from sqlalchemy.engine.default import DefaultDialect

MOMENT, _, NUMBER = sys.argv[1].partition(":")
passed = 0
counting = Lock()
changes: dict[int, tuple[int, Any]] = {}


def durable(act: Callable[[], Any]) -> Any:
    """Do something durable, or be dead before or after."""
    global passed
    with counting:  # the sealer is a thread of its own
        passed += 1
        number = passed
    if MOMENT == "before" and number == int(NUMBER):
        os.killpg(os.getpgrp(), signal.SIGKILL)
    done = act()
    if MOMENT == "after" and number == int(NUMBER):
        os.killpg(os.getpgrp(), signal.SIGKILL)
    return done


def watch_commits() -> None:
    commit = DefaultDialect.do_commit

    def watched(self: Any, connection: Any) -> None:
        now, (before, _) = connection.total_changes, changes.get(id(connection), (0, None))
        changes[id(connection)] = now, connection  # held, or a later connection could get its id
        if now == before:
            commit(self, connection)
        else:
            durable(lambda: commit(self, connection))

    DefaultDialect.do_commit = watched  # type: ignore[method-assign]


def watch_files() -> None:
    replace, link = os.replace, os.link
    os.replace = lambda *args, **other: durable(lambda: replace(*args, **other))
    os.link = lambda *args, **other: durable(lambda: link(*args, **other))


if __name__ == "__main__":
    from carelake.apps.cli.main import main

    watch_commits()
    watch_files()
    del sys.argv[1]
    try:
        main()
    finally:
        if MOMENT == "count":
            sys.stderr.write(f"\n{passed}\n")
