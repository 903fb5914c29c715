"""Delivers events while something runs: each turn of a consumer passes the gate in its account and leaves an act."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from carelake.access.identity import Caller
from carelake.core.errors import CarelakeError, Conflict
from carelake.events.backoff import Backoff
from carelake.events.delivery import Delivery, Report
from carelake.events.drivers.choice import Choice
from carelake.events.drivers.local import Handler
from carelake.events.subscriptions import Subscription

if TYPE_CHECKING:
    from carelake.apps.wiring import Workspace

__all__ = ["Courier", "delivery_of"]

_MOST_AT_ONCE = 500
_REST = timedelta(seconds=30)

Write = Callable[[dict[str, Any]], None]


def delivery_of(workspace: Workspace, choice: Choice) -> Delivery:
    """A worker with the settings of the workspace."""
    told = workspace.settings.events
    waits = Backoff(first=told.first_seconds, cap=told.cap_seconds, tries=told.tries)
    return Delivery(workspace.vault, choice, backoff=waits, lease_seconds=told.lease_seconds)


class Courier:
    """One worker for all consumers that this process can deliver to, on behalf of one caller."""

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

    def round(self, stop: Callable[[], bool] = lambda: False) -> list[Report]:
        """One turn for each consumer that has something due."""
        now = self._workspace.vault.clock.now()
        reports = []
        for told in self._delivery.waiting():
            if stop():
                break
            if self._choice.can(told) and self._allowed(told) and self._resting.get(told.name, now) <= now:
                try:
                    reports.append(self.turn(told, stop))
                except Conflict:
                    continue  # another one delivers to it by now
                except CarelakeError:
                    # Its act tells of it. Another round in a second would fill the trail with the same.
                    self._resting[told.name] = now + _REST
        return reports

    def turn(self, told: Subscription, stop: Callable[[], bool] = lambda: False, most: int = _MOST_AT_ONCE) -> Report:
        """Deliver to one consumer, under a permit of its account."""
        caller = Caller(self._caller.principal, self._caller.purpose, told.account)
        with self._workspace.enter(caller, "event:manage", "events") as permit:
            return self._delivery.turn(permit, told.name, most=most, stop=stop)

    def _allowed(self, told: Subscription) -> bool:
        who = self._caller
        return self._workspace.gate.explain(who.principal, "event:manage", told.account, who.purpose).allowed
