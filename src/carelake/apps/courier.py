"""Delivers events while something runs: each turn of a consumer passes the gate in its account and leaves an act."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from datetime import datetime, timedelta
from threading import Event
from typing import TYPE_CHECKING, Any

from carelake.access.identity import Caller
from carelake.apps.errors import code_of
from carelake.core.errors import Conflict
from carelake.events.backoff import Backoff
from carelake.events.delivery import Delivery, Report
from carelake.events.drivers.choice import Choice
from carelake.events.drivers.local import Handler
from carelake.events.progress import Tally
from carelake.events.subscriptions import Subscription

if TYPE_CHECKING:
    from carelake.apps.wiring import Workspace

__all__ = ["Courier", "delivery_of"]

_MOST_AT_ONCE = 500
_REST = timedelta(seconds=30)
_AT_ONCE = 8
_SLICE_SECONDS = 10.0
_HERE = ("local", "pull")

Write = Callable[[dict[str, Any]], None]


def delivery_of(workspace: Workspace, choice: Choice) -> Delivery:
    """A worker with the settings of the workspace."""
    told = workspace.settings.events
    waits = Backoff(first=told.first_seconds, cap=told.cap_seconds, tries=told.tries)
    return Delivery(workspace.vault, choice, backoff=waits, lease_seconds=told.lease_seconds)


class Courier:
    """One worker for all consumers that this process can deliver to, on behalf of one caller.

    Those outside this process are delivered to beside each other, so that a slow one delays nobody. As a context
    manager it waits at its end for what is on its way.
    """

    def __init__(
        self,
        workspace: Workspace,
        caller: Caller,
        *,
        handlers: Mapping[str, Handler] | None = None,
        write: Write | None = None,
    ) -> None:
        self._workspace = workspace
        self._caller = caller
        self._choice = Choice(
            workspace.settings.events,
            source=workspace.outbox.source,
            clock=workspace.vault.clock,
            handlers=handlers,
            write=write,
        )
        self._delivery = delivery_of(workspace, self._choice)
        self._resting: dict[str, datetime] = {}
        self._pool = ThreadPoolExecutor(_AT_ONCE, "courier")
        self._running: dict[str, Future[Report]] = {}
        self._ending = Event()

    def __enter__(self) -> Courier:
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._pool.shutdown(cancel_futures=True)

    def round(self, stop: Callable[[], bool] = lambda: False, *, patience: float | None = None) -> list[Report]:
        """One turn for each consumer that has something due; one that fails has its error's code in its report.

        Args:
            patience: seconds to wait; who takes longer is reported by a later round. Default: all are waited for.
        """
        ready = [told for told in self._delivery.waiting() if self._ready(told)]
        until = None if patience is None else time.monotonic() + _SLICE_SECONDS

        def halt() -> bool:
            # Slices, so that eight slow ones do not keep the pool to themselves.
            return stop() or self._ending.is_set() or (until is not None and time.monotonic() > until)

        reports = []
        begun = []
        for told in ready:
            if told.driver in _HERE:
                continue
            begun.append(self._pool.submit(self._guarded, told, halt))
            self._running[told.name] = begun[-1]
        reports += [self._guarded(told, halt) for told in ready if told.driver in _HERE and not halt()]
        wait(begun, patience)
        done = [name for name, one in self._running.items() if one.done()]
        reports += [self._running.pop(name).result() for name in done]
        return [one for one in reports if not one.busy]

    def _ready(self, told: Subscription) -> bool:
        resting = self._resting.get(told.name)
        rested = resting is None or resting <= self._workspace.vault.clock.now()
        return rested and told.name not in self._running and self._choice.can(told)

    def _guarded(self, told: Subscription, stop: Callable[[], bool]) -> Report:
        """A turn whose error ends with it: whatever one consumer is, the others have theirs."""
        try:
            if stop() or not self._allowed(told):
                return Report(told.name, Tally(), busy=True)
            return self.turn(told, stop)
        except Conflict:
            return Report(told.name, Tally(), busy=True)  # another one delivers to it by now
        except Exception as error:
            # Its act tells of it. Another round in a second would fill the trail with the same.
            self._resting[told.name] = self._workspace.vault.clock.now() + _REST
            return Report(told.name, Tally(), failed=code_of(error))

    def turn(self, told: Subscription, stop: Callable[[], bool] = lambda: False, most: int = _MOST_AT_ONCE) -> Report:
        """Deliver to one consumer, under a permit of its account."""
        caller = Caller(self._caller.principal, self._caller.purpose, told.account)
        with self._workspace.enter(caller, "event:manage", "events") as permit:
            return self._delivery.turn(permit, told.name, most=most, stop=stop)

    def _allowed(self, told: Subscription) -> bool:
        who = self._caller
        return self._workspace.gate.explain(who.principal, "event:manage", told.account, who.purpose).allowed
