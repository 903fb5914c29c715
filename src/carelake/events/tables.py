"""Tables of the outbox and of those who follow it.

A stream is the events of one type in one account; within it their order is kept.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, String, Table, Text

from carelake.vault.database import metadata

__all__ = ["cursor", "dead", "event", "settled", "stream", "subscription"]

_SEQ = BigInteger().with_variant(Integer, "sqlite")

event = Table(
    "event",
    metadata,
    Column("seq", _SEQ, primary_key=True, autoincrement=True),
    Column("id", String(32), nullable=False, unique=True),
    Column("type", String(128), nullable=False),
    Column("account", String(64), nullable=False),
    Column("subject", String(128), nullable=False),
    Column("time", String(24), nullable=False),
    Column("data", Text, nullable=False),
    sqlite_autoincrement=True,
)
Index("event_stream_seq", event.c.account, event.c.type, event.c.seq)

stream = Table(
    "event_stream",
    metadata,
    Column("account", String(64), primary_key=True),
    Column("type", String(128), primary_key=True),
    Column("trimmed", _SEQ, nullable=False, comment="highest sequence that was trimmed, 0 for none"),
    Column("trimmed_time", String(24), nullable=False, comment="its time, '' for none"),
)

subscription = Table(
    "event_subscription",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("account", String(64), nullable=False, comment="whose permit delivers; its own streams only, or all"),
    Column("driver", String(16), nullable=False),
    Column("state", String(16), nullable=False, comment="active or paused"),
    Column("filter", Text, nullable=False, comment="JSON: types, accounts, kinds"),
    Column("target", Text, nullable=False, comment="JSON: the driver's own, without secrets"),
    Column("secret", LargeBinary, nullable=True, comment="sealed JSON: the signing secrets, newest first"),
    Column("created", String(24), nullable=False),
    # The lease: who delivers now. The fence grows with each new owner; a settlement under an old one is refused.
    Column("owner", String(64), nullable=False),
    Column("fence", _SEQ, nullable=False),
    Column("until", String(24), nullable=False),
)

cursor = Table(
    "event_cursor",
    metadata,
    Column("consumer", String(64), primary_key=True),
    Column("account", String(64), primary_key=True),
    Column("type", String(128), primary_key=True),
    Column("seq", _SEQ, nullable=False, comment="all events of the stream up to here are settled"),
    Column("attempts", Integer, nullable=False, comment="of the event after it, which holds the stream up"),
    Column("due", String(24), nullable=False, comment="not before this, '' for now"),
    Column("reason", String(64), nullable=False),
)

settled = Table(
    "event_settled",
    metadata,
    Column("consumer", String(64), primary_key=True),
    Column("id", String(32), primary_key=True),
    Column("seq", _SEQ, nullable=False),
    comment="Events whose effect was had: ahead of a stream's cursor, or kept so that a replay has none twice.",
)

dead = Table(
    "event_dead",
    metadata,
    Column("consumer", String(64), primary_key=True),
    Column("seq", _SEQ, primary_key=True),
    Column("account", String(64), nullable=False),
    Column("type", String(128), nullable=False),
    Column("id", String(32), nullable=False),
    Column("at", String(24), nullable=False),
    Column("reason", String(64), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("state", String(8), nullable=False, comment="dead, or again: to be delivered once more"),
    Column("due", String(24), nullable=False),
)
