"""An outbox, permits, and a worker to try things with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from sqlalchemy import Connection

from carelake.core.clock import FixedClock
from carelake.core.permit import Permit
from carelake.events.backoff import Backoff
from carelake.events.delivery import Delivery, Report
from carelake.events.envelopes import Event
from carelake.events.filters import Filter, start_of
from carelake.events.letters import Letter, Letters
from carelake.events.outbox import Outbox
from carelake.events.port import DONE, HELD, Driver, Outcome, held_after
from carelake.events.standing import Standing, standing
from carelake.events.subscriptions import Subscriptions

NOTHING = Filter()


@dataclass
class Receiver:
    """A driver that notes what it got, and fails as it is told.

    Attributes:
        fails: what to answer for a sequence, taken one by one; then it is done.
    """

    fails: dict[int, list[Outcome]] = field(default_factory=dict)
    got: list[Event] = field(default_factory=list)
    batch: int = 10
    joins: bool = False
    before: Callable[[], None] = lambda: None

    def deliver(self, events: Sequence[Event], tx: Connection | None) -> list[Outcome]:
        assert (tx is not None) == self.joins
        self.before()
        outcomes: list[Outcome] = []
        for number, one in enumerate(events):
            if held_after(events, number, outcomes):
                outcomes.append(HELD)
                continue
            fate = self.fails.get(one.seq)
            outcomes.append(fate.pop(0) if fate else DONE)
            if outcomes[-1] == DONE:
                self.got.append(one)
        return outcomes

    def close(self) -> None:
        pass

    @property
    def sequences(self) -> list[int]:
        return [one.seq for one in self.got]


@dataclass
class Desk:
    """The events of one workspace, with everything at hand."""

    vault: Any
    clock: FixedClock
    permit_for: Callable[..., Permit]
    outbox: Outbox

    receiver = Receiver

    def permit(self, account: str = "production") -> Permit:
        return self.permit_for("rows:read", "rows:write", account=account)

    def publish(self, kind: str = "model.state", account: str = "production", subject: str = "model:1") -> int:
        with self.vault.database.transaction(self.permit(account)) as tx:
            return self.outbox.publish(tx, account, kind, subject, {"n": 1})

    def add(
        self,
        name: str = "lab",
        *,
        driver: str = "pull",
        start: str = "beginning",
        account: str = "production",
        target: dict[str, Any] | None = None,
        **wanted: tuple[str, ...],
    ) -> str | None:
        said = Filter.of(wanted.get("types", ()), wanted.get("accounts", ()), wanted.get("kinds", ()))
        with self.vault.database.transaction(self.permit(account)) as tx:
            return self.subscriptions(tx).add(self.permit(account), name, driver, said, target or {}, start_of(start))

    def subscriptions(self, tx: Connection) -> Subscriptions:
        return Subscriptions(tx, self.clock, self.vault.sealer)

    def worker(self, driver: Driver, *, tries: int = 3, lease: float = 60.0) -> Delivery:
        waits = Backoff(first=1.0, cap=60.0, tries=tries, chance=lambda: 0.5)
        return Delivery(self.vault, lambda _told, _secrets: driver, backoff=waits, lease_seconds=lease)

    def turn(self, driver: Driver, name: str = "lab", *, account: str = "production", **other: Any) -> Report:
        return self.worker(driver, **other).turn(self.permit(account), name)

    def replay(self, start: str, name: str = "lab") -> int:
        with self.vault.database.transaction(self.permit()) as tx:
            return self.subscriptions(tx).replay(name, start_of(start))

    def standing(self, name: str = "lab") -> Standing:
        with self.vault.database.reading(self.permit()) as tx:
            told = self.subscriptions(tx)
            return standing(tx, told, told.get(name), self.clock)

    def letters(self, name: str = "lab") -> list[Letter]:
        with self.vault.database.reading(self.permit()) as tx:
            return Letters(tx, name).all()


@pytest.fixture
def desk(vault: Any, clock: FixedClock, permit_for: Callable[..., Permit]) -> Desk:
    return Desk(vault, clock, permit_for, Outbox(clock, vault.ids, workspace="w1"))
