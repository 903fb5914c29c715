"""Old events go once everyone who follows them has them; none goes that somebody still waits for."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import Connection, delete, func, select, update

from carelake.core.clock import iso
from carelake.events.subscriptions import Subscription
from carelake.events.tables import cursor, dead, event, settled, stream

__all__ = ["trim"]


def trim(tx: Connection, consumers: Iterable[Subscription], before: datetime, *, account: str | None = None) -> int:
    """Delete the events of an account, or of all, that are older than a moment, up to the slowest consumer.

    A paused consumer holds them too, and so does a dead letter: remove the one, drop the other. Answers how many.
    """
    everyone = list(consumers)
    gone = 0
    query = select(stream) if account is None else select(stream).where(stream.c.account == account)
    for row in tx.execute(query).all():
        own = (event.c.account == row.account) & (event.c.type == row.type)
        old = own & (event.c.time < iso(before)) & event.c.seq.not_in(select(dead.c.seq))
        slowest = _slowest(tx, everyone, row.account, row.type)
        if slowest is not None:
            old &= event.c.seq <= slowest
        last, time = tx.execute(select(func.max(event.c.seq), func.max(event.c.time)).where(old)).one()
        if last is None:
            continue
        tx.execute(delete(settled).where(settled.c.id.in_(select(event.c.id).where(old))))
        gone += tx.execute(delete(event).where(old)).rowcount
        here = (stream.c.account == row.account) & (stream.c.type == row.type)
        tx.execute(update(stream).where(here).values(trimmed=last, trimmed_time=time))
    return gone


def _slowest(tx: Connection, everyone: list[Subscription], account: str, kind: str) -> int | None:
    """The sequence up to which every follower of a stream has it, or None when nobody follows it."""
    own = (stream.c.account == account) & (stream.c.type == kind)
    followers = [
        one.name for one in everyone if tx.execute(select(stream.c.type).where(own, one.filter.streams())).first()
    ]
    if not followers:
        return None
    same = (cursor.c.account == account) & (cursor.c.type == kind)
    query = select(cursor.c.consumer, cursor.c.seq).where(same, cursor.c.consumer.in_(followers))
    places: dict[str, int] = {row.consumer: row.seq for row in tx.execute(query)}
    return min(places.get(name, 0) for name in followers)
