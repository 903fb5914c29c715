"""Tables of the trail: acts, the segments that seal them, and the nouns that acts made."""

from __future__ import annotations

from sqlalchemy import Column, Index, Integer, LargeBinary, String, Table, Text

from carelake.vault.database import metadata

__all__ = ["act", "noun", "noun_from", "segment"]

act = Table(
    "act",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("correlation", String(32), nullable=False),
    Column("phase", String(12), nullable=False),
    Column("at", String(24), nullable=False),
    Column("principal", String(128), nullable=False),
    Column("account", String(64), nullable=False),
    Column("purpose", String(32), nullable=False),
    Column("action", String(64), nullable=False),
    Column("target", String(256), nullable=False),
    # Everything else that the act says, as canonical JSON: reasons, scope, counts, refs, keys, policy, process.
    Column("facts", Text, nullable=False),
    sqlite_autoincrement=True,
)
Index("act_correlation", act.c.correlation)
Index("act_phase", act.c.phase, act.c.correlation)

segment = Table(
    "segment",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("first", Integer, nullable=False),
    Column("last", Integer, nullable=False),
    Column("name", String(64), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("at", String(24), nullable=False),
)

noun = Table(
    "noun",
    metadata,
    Column("ref", String(96), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("account", String(64), nullable=False),
    Column("state", String(32), nullable=False),
    Column("act", String(32), nullable=False),
    Column("at", String(24), nullable=False),
    Column("number", Integer, nullable=False),
    Column("body", LargeBinary, nullable=False),
)
Index("noun_number", noun.c.number, unique=True)
Index("noun_kind", noun.c.account, noun.c.kind, noun.c.number)

noun_from = Table(
    "noun_from",
    metadata,
    Column("ref", String(96), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("source", String(96), nullable=False),
)
Index("noun_from_source", noun_from.c.source)
