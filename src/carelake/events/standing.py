"""Where a consumer stands: how far it is behind, what holds it up, what it could not take."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, func, select

from carelake.core.clock import Clock, instant
from carelake.events.letters import Letters
from carelake.events.subscriptions import Subscription, Subscriptions
from carelake.events.tables import cursor, event

__all__ = ["Standing", "standing"]


@dataclass(frozen=True, slots=True)
class Standing:
    """One consumer's progress.

    Attributes:
        offset: every event up to this sequence that it follows is settled.
        lag: how many events wait for it.
        oldest: time of the oldest of these, "" for none.
        oldest_seconds: and how long ago that was.
        blocked: streams whose next event failed and waits: account, type, attempts, due, reason.
    """

    offset: int
    lag: int
    oldest: str
    oldest_seconds: float
    dead: int
    blocked: list[dict[str, Any]]


def standing(tx: Connection, subscriptions: Subscriptions, told: Subscription, clock: Clock) -> Standing:
    """Where it stands now."""
    ahead = subscriptions.ahead(told)
    rows = tx.execute(select(cursor).where(cursor.c.consumer == told.name)).all()
    places = {(row.account, row.type): row.seq for row in rows}
    first, oldest = None, ""
    for account, kind in ahead:
        past = event.c.seq > places.get((account, kind), 0)
        query = select(event.c.seq, event.c.time).where(event.c.account == account, event.c.type == kind, past)
        row = tx.execute(query.order_by(event.c.seq).limit(1)).one()
        if first is None or row.seq < first:
            first, oldest = row.seq, row.time
    newest = tx.execute(select(func.max(event.c.seq))).scalar() or 0
    blocked = [
        {"account": r.account, "type": r.type, "attempts": r.attempts, "due": r.due, "reason": r.reason}
        for r in rows
        if r.attempts
    ]
    return Standing(
        offset=newest if first is None else first - 1,
        lag=sum(ahead.values()),
        oldest=oldest,
        oldest_seconds=_seconds(oldest, clock.now()),
        dead=Letters(tx, told.name).count(),
        blocked=blocked,
    )


def _seconds(oldest: str, now: datetime) -> float:
    return max(0.0, round((now - instant(oldest)).total_seconds(), 3)) if oldest else 0.0
