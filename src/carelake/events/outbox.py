"""Events leave with the data they tell of (decision D12): a row in the same transaction as its cause.

Writers of a database are served one after another, whatever the database (decision 0021): the order of sequences is
the order of commits, and a consumer that has passed a sequence never finds a lower one later.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, insert, select

from carelake.core import canonical
from carelake.core.clock import Clock, iso
from carelake.core.ids import Ids
from carelake.events.tables import event, stream

__all__ = ["Outbox", "known_streams"]


class Outbox:
    """Publishes in the caller's transaction."""

    def __init__(self, clock: Clock, ids: Ids, *, workspace: str) -> None:
        self._clock = clock
        self._ids = ids
        self.source = f"urn:carelake:{workspace}"

    def publish(self, tx: Connection, account: str, kind: str, subject: str, data: Mapping[str, Any]) -> int:
        """Append an event of type ``carelake.KIND``; ``subject`` is a ref, ``data`` counts and refs.

        Returns:
            Its sequence.
        """
        named = {"account": account, "type": "carelake." + kind}
        _enter(tx, named)
        row = {
            **named,
            "id": self._ids.new(),
            "subject": subject,
            "time": iso(self._clock.now()),
            "data": canonical.dump(dict(data)).decode(),
        }
        return int(tx.execute(insert(event).values(**row)).inserted_primary_key[0])  # type: ignore[index]


def _enter(tx: Connection, named: Mapping[str, str]) -> None:
    own = (stream.c.account == named["account"]) & (stream.c.type == named["type"])
    if tx.execute(select(stream.c.type).where(own)).first() is None:
        tx.execute(insert(stream).values(**named, trimmed=0, trimmed_time=""))


def known_streams(tx: Connection) -> None:
    """Enter the streams of events that were published before there was a table of streams."""
    there = {(row.account, row.type) for row in tx.execute(select(stream.c.account, stream.c.type))}
    rows = [
        {"account": account, "type": kind, "trimmed": 0, "trimmed_time": ""}
        for account, kind in tx.execute(select(event.c.account, event.c.type).distinct())
        if (account, kind) not in there
    ]
    if rows:
        tx.execute(insert(stream), rows)
