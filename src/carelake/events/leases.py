"""One owner per consumer at a time: a lease with a fence (a number that grows with each new owner).

An owner that slept past its lease may still believe that it has it. So the fence is compared in the transaction that
settles: under an old one nothing is settled, whatever the clocks say.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, case, select, update

from carelake.core.clock import Clock, iso
from carelake.core.errors import Conflict
from carelake.events.tables import subscription

__all__ = ["Lease", "free", "hold", "release", "take"]

_S = subscription.c


@dataclass(frozen=True, slots=True)
class Lease:
    """Leave to deliver to one consumer."""

    name: str
    owner: str
    fence: int


def free(tx: Connection, owner: str, now: datetime) -> set[str]:
    """The consumers whose lease nobody else has."""
    return set(tx.execute(select(_S.name).where((_S.owner == owner) | (_S.until <= iso(now)))).scalars())


def take(tx: Connection, name: str, owner: str, clock: Clock, seconds: float) -> Lease | None:
    """The lease of an active consumer, if nobody else has it; an owner's own is renewed."""
    now = clock.now()
    open_to_us = (_S.owner == owner) | (_S.until <= iso(now))
    changed = tx.execute(
        update(subscription)
        .where(_S.name == name, _S.state == "active", open_to_us)
        .values(
            owner=owner,
            fence=_S.fence + case((_S.owner == owner, 0), else_=1),
            until=iso(now + timedelta(seconds=seconds)),
        )
    ).rowcount
    if not changed:
        return None
    return Lease(name, owner, int(tx.execute(select(_S.fence).where(_S.name == name)).scalar_one()))


def hold(tx: Connection, lease: Lease, clock: Clock, seconds: float) -> None:
    """Go on, in the transaction that settles.

    Raises:
        Conflict: ``events.lease_lost``: another one delivers by now, or the consumer was moved or removed.
    """
    until = iso(clock.now() + timedelta(seconds=seconds))
    own = (_S.name == lease.name) & (_S.owner == lease.owner) & (_S.fence == lease.fence)
    if not tx.execute(update(subscription).where(own).values(until=until)).rowcount:
        raise Conflict(
            "events.lease_lost",
            "Another process delivers to this consumer by now, or it was moved; nothing was settled.",
        )


def release(tx: Connection, lease: Lease) -> None:
    """Let the next one have it at once."""
    own = (_S.name == lease.name) & (_S.owner == lease.owner) & (_S.fence == lease.fence)
    tx.execute(update(subscription).where(own).values(owner="", until=""))
