"""Events leave with the data they tell of (decision D12).

An event is a row in the same transaction as its cause: CloudEvents 1.0 attributes, data without clinical values.
A consumer reads after its durable offset and moves it when its work is done: at least once, so work must be
idempotent. https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Column, Connection, Integer, String, Table, Text, insert, select

from carelake.core import canonical
from carelake.core.clock import Clock, iso
from carelake.core.ids import Ids
from carelake.vault.database import metadata

__all__ = ["Outbox", "event", "event_offset"]

event = Table(
    "event",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("id", String(32), nullable=False, unique=True),
    Column("type", String(128), nullable=False),
    Column("account", String(64), nullable=False),
    Column("subject", String(128), nullable=False),
    Column("time", String(24), nullable=False),
    Column("data", Text, nullable=False),
    sqlite_autoincrement=True,
)

event_offset = Table(
    "event_offset",
    metadata,
    Column("consumer", String(64), primary_key=True),
    Column("seq", Integer, nullable=False),
)


class Outbox:
    """Publishes in the caller's transaction; consumers follow in order."""

    def __init__(self, clock: Clock, ids: Ids, *, workspace: str) -> None:
        self._clock = clock
        self._ids = ids
        self._source = f"urn:carelake:{workspace}"

    def publish(self, tx: Connection, account: str, kind: str, subject: str, data: Mapping[str, Any]) -> None:
        """Append an event of type ``carelake.KIND``; ``subject`` is a ref, ``data`` counts and refs."""
        tx.execute(
            insert(event).values(
                id=self._ids.new(),
                type="carelake." + kind,
                account=account,
                subject=subject,
                time=iso(self._clock.now()),
                data=canonical.dump(dict(data)).decode(),
            )
        )

    def read(self, tx: Connection, consumer: str, limit: int = 1000) -> list[dict[str, Any]]:
        """The next events after the consumer's offset, as CloudEvents JSON with the extension ``sequence``."""
        offset = tx.execute(select(event_offset.c.seq).where(event_offset.c.consumer == consumer)).scalar() or 0
        rows = tx.execute(select(event).where(event.c.seq > offset).order_by(event.c.seq).limit(limit)).mappings()
        return [
            {
                "specversion": "1.0",
                "id": row["id"],
                "source": self._source,
                "type": row["type"],
                "subject": row["subject"],
                "time": row["time"],
                "datacontenttype": "application/json",
                "data": canonical.load(row["data"]),
                "account": row["account"],
                "sequence": row["seq"],
            }
            for row in rows
        ]

    def done(self, tx: Connection, consumer: str, sequence: int) -> None:
        """Move the consumer's offset, in the transaction of the work that the events caused."""
        tx.exec_driver_sql(
            "INSERT INTO event_offset (consumer, seq) VALUES (?, ?) "
            "ON CONFLICT (consumer) DO UPDATE SET seq = max(seq, excluded.seq)",
            (consumer, sequence),
        )
