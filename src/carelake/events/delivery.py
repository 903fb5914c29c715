"""Delivers: takes the lease of a consumer, hands over what is next, keeps what became of it.

At least once: between a delivery and its settlement a process may die, and the next one delivers again. A driver that
joins our transaction has each effect exactly once: effect and settlement commit together.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

from sqlalchemy import Connection

from carelake.core.errors import Conflict
from carelake.core.permit import Permit
from carelake.events import leases
from carelake.events.backoff import Backoff
from carelake.events.leases import Lease
from carelake.events.port import Driver, Outcome
from carelake.events.progress import Due, Tally, due_now, settle
from carelake.events.subscriptions import Subscription, Subscriptions
from carelake.vault.workspace import Vault

__all__ = ["Delivery", "Report"]

Making = Callable[[Subscription, list[str]], Driver]
"""Makes the driver of a consumer, given the signing secrets that are good now."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a turn did.

    Attributes:
        busy: another process has the lease, or the consumer is paused; nothing was done.
        more: there is more to do at once.
        failed: code of the error that ended it; what it had not settled comes again.
    """

    name: str
    tally: Tally
    busy: bool = False
    more: bool = False
    failed: str = ""


class Delivery:
    """One worker. Each has an owner's name of its own, so that two in one process are two."""

    def __init__(self, vault: Vault, making: Making, *, backoff: Backoff, lease_seconds: float) -> None:
        self._vault = vault
        self._making = making
        self._backoff = backoff
        self._seconds = lease_seconds
        self._owner = vault.ids.new()

    def waiting(self) -> list[Subscription]:
        """Active consumers that have something due now and whose lease is to be had."""
        now = self._vault.clock.now()
        with self._vault.database.ledger_reading() as tx:
            free = leases.free(tx, self._owner, now)
            told = [one for one in self._subscriptions(tx).all() if one.state == "active" and one.name in free]
            return [one for one in told if due_now(tx, one, now, 1)]

    def turn(
        self, permit: Permit, name: str, *, most: int = 1000, stop: Callable[[], bool] = lambda: False
    ) -> Report:
        """Deliver to one consumer until nothing is due, or ``most`` events were handed over.

        Raises:
            Refused: the permit has no grants ``rows:read`` and ``rows:write``.
            NotFound: ``events.no_such_consumer``.
            Conflict: ``events.lease_lost``, when it was slower than its lease; what it had done will come again.
        """
        database = self._vault.database
        with database.reading(permit) as tx:
            told = self._subscriptions(tx).get(name, permit.account)
            if not due_now(tx, told, self._vault.clock.now(), 1):
                return Report(name, Tally())
            secrets = self._subscriptions(tx).signing(permit, told)
            told = self._subscriptions(tx).opened(permit, told)
        with database.ledger() as tx:
            lease = leases.take(tx, name, self._owner, self._vault.clock, self._seconds)
        if lease is None:
            return Report(name, Tally(), busy=True)
        total = Tally()
        try:
            with closing(self._making(told, secrets)) as driver:
                more = self._until_done(permit, told, driver, lease, total, most, stop)
        finally:
            with database.ledger() as tx:
                leases.release(tx, lease)
        return Report(name, total, more=more)

    def _until_done(
        self,
        permit: Permit,
        told: Subscription,
        driver: Driver,
        lease: Lease,
        total: Tally,
        most: int,
        stop: Callable[[], bool],
    ) -> bool:
        handed = 0
        while handed < most and not stop():
            limit = min(driver.batch, most - handed)
            one = self._joined(permit, told, driver, lease, limit) if driver.joins else None
            one = one or self._apart(permit, told, driver, lease, limit)
            count = one.moved + one.retried + one.held
            _add(total, one)
            if not count:
                return False
            handed += count
        return True

    def _joined(self, permit: Permit, told: Subscription, driver: Driver, lease: Lease, limit: int) -> Tally:
        now = self._vault.clock.now()
        with self._vault.database.transaction(permit) as tx:
            leases.hold(tx, lease, self._vault.clock, self._seconds)
            dues = due_now(tx, told, now, limit)
            outcomes = _handed(driver, dues, tx)
            return self._settled(permit, tx, told, dues, outcomes)

    def _apart(self, permit: Permit, told: Subscription, driver: Driver, lease: Lease, limit: int) -> Tally:
        database = self._vault.database
        with database.reading(permit) as tx:
            dues = due_now(tx, told, self._vault.clock.now(), limit)
        if not dues:
            return Tally()
        outcomes = _handed(driver, dues, None)
        with database.transaction(permit) as tx:
            leases.hold(tx, lease, self._vault.clock, self._seconds)
            return self._settled(permit, tx, told, dues, outcomes)

    def _settled(
        self, permit: Permit, tx: Connection, told: Subscription, dues: list[Due], outcomes: dict[str, Outcome]
    ) -> Tally:
        found = settle(tx, told, dues, outcomes, self._vault.clock.now(), self._backoff)
        permit.log.count(**{k: v for k, v in (("delivered", found.delivered), ("dead", found.dead)) if v})
        return found

    def _subscriptions(self, tx: Connection) -> Subscriptions:
        return Subscriptions(tx, self._vault.clock, self._vault.sealer)


def _handed(driver: Driver, dues: list[Due], tx: Connection | None) -> dict[str, Outcome]:
    events = [due.event for due in dues if not due.known]
    if not events:
        return {}
    outcomes = driver.deliver(events, tx)
    if len(outcomes) != len(events):
        raise Conflict("events.outcomes", "A driver told of another number of events than it was given.")
    return {one.id: outcome for one, outcome in zip(events, outcomes, strict=True)}


def _add(total: Tally, one: Tally) -> None:
    for name in ("delivered", "retried", "dead", "known", "held"):
        setattr(total, name, getattr(total, name) + getattr(one, name))
    for reason, number in one.reasons.items():
        total.reasons[reason] = total.reasons.get(reason, 0) + number
