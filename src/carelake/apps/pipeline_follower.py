"""Carries out what was started, resumes what was killed, and minds triggers: for a command, and beside a server."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from carelake.access.identity import Caller
from carelake.apps import pipelining
from carelake.apps.courier import Courier
from carelake.apps.errors import code_of
from carelake.core.errors import Conflict
from carelake.pipelines.execution import callbacks
from carelake.pipelines.execution.launching import Launcher
from carelake.pipelines.execution.rows import Execution, Rows
from carelake.pipelines.execution.triggers import Handlers, Triggers

if TYPE_CHECKING:
    from carelake.apps.wiring import Workspace

__all__ = ["Follower", "beside"]

_LONGEST = 300.0


class Follower:
    """One follower of an account's executions and triggers. Executions are carried out one after another.

    Args:
        delivers: hands events to triggers itself; a server's courier does that for it.
    """

    def __init__(
        self,
        workspace: Workspace,
        caller: Caller,
        as_: str | None,
        failed: Callable[[str], Any],
        *,
        delivers: bool = True,
    ) -> None:
        self._workspace = workspace
        self._caller = caller
        self._as = as_
        self._failed = failed
        self._triggers = Triggers(workspace.vault)
        self._courier = Courier(workspace, caller, handlers=Handlers(workspace.vault)) if delivers else None
        self._open = ExitStack()
        self._launcher: Launcher | None = None
        self._stop = threading.Event()
        self._rests: dict[str, tuple[float, float]] = {}  # of what broke off: until when, and how long

    def __enter__(self) -> Follower:
        if self._courier is not None:
            self._open.enter_context(self._courier)
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def stop(self) -> None:
        """End after the execution that is under way."""
        self._stop.set()

    def until_ended(self) -> int:
        """Turn after turn until SIGINT or SIGTERM; how many executions were carried out."""
        before = {one: signal.signal(one, lambda *_: self.stop()) for one in (signal.SIGINT, signal.SIGTERM)}
        try:
            return self.through()
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)

    def through(self) -> int:
        """Turn after turn until it is stopped."""
        count, said = 0, ""
        seconds = self._workspace.settings.pipelines.poll_seconds or 1.0
        while not self._stop.is_set():
            try:
                count += self.turn()
                code = ""
            except Exception as error:  # a busy database must not end it; the next turn tries again
                code = code_of(error)
            if code and code != said:
                self._failed(code)
            said = code
            self._stop.wait(seconds)
        return count

    def turn(self) -> int:
        """What is to be done now; how many executions were carried out."""
        workspace = self._workspace
        for report in self._courier.round(self._stop.is_set) if self._courier is not None else ():
            if report.failed:
                self._failed(report.failed)
        # A permit without an act: a look every second must not fill the trail.
        with workspace.vault.database.reading(workspace.gate.polling()) as tx:
            due = self._triggers.due(tx, self._caller.account)
        if due:
            with workspace.enter(self._caller, "pipeline:run", "pipelines") as permit:
                self._triggers.fire(permit)
        count, wrong = 0, list[Exception]()
        for one in self._free():
            if self._stop.is_set():
                break
            if time.monotonic() < self._rests.get(one.id, (0.0, 0.0))[0]:
                continue
            try:
                count += self._carry(one)
                self._rests.pop(one.id, None)
            except Exception as error:  # the others do not wait for it, and it not for the end of this process
                pause = min(_LONGEST, 2.0 * self._rests.get(one.id, (0.0, 0.5))[1])
                self._rests[one.id] = time.monotonic() + pause, pause
                wrong.append(error)
        if wrong:
            raise wrong[0]
        return count

    def _free(self) -> list[Execution]:
        """Executions that nobody carries out, the oldest first."""
        workspace = self._workspace
        with workspace.vault.database.reading(workspace.gate.polling()) as tx:
            found = Rows(tx, self._caller.account).executions(status=("Executing", "Stopping"))
        return [
            one
            for one in reversed(found)
            if (one.status == "Stopping" or one.process != callbacks.WAITING) and not pipelining.held(one)
        ]

    def _carry(self, one: Execution) -> int:
        if self._launcher is None:
            made = pipelining.launching(self._workspace, self._as, self._caller)
            self._launcher = self._open.enter_context(made)
        try:
            pipelining.carry_out(self._workspace, self._caller, self._launcher, one.id)
        except Conflict:
            return 0  # another process has it by now
        return 1


@contextmanager
def beside(workspace: Workspace, caller: Caller, as_: str | None, log: Callable[[str], Any]) -> Iterator[None]:
    """Follow in a thread while the block runs, where ``pipelines.poll_seconds`` is not 0."""
    if not workspace.settings.pipelines.poll_seconds:
        yield
        return
    with Follower(workspace, caller, as_, log, delivers=False) as follower:
        thread = threading.Thread(target=follower.through, name="carelake-pipelines", daemon=True)
        thread.start()
        try:
            yield
        finally:
            follower.stop()
            thread.join()
