"""Tables of the trail: acts, the segments that seal them, and the nouns that acts made. No act is ever deleted."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, String, Table, Text

from carelake.vault.database import metadata

__all__ = [
    "act",
    "act_patient",
    "noun",
    "noun_from",
    "patient_act",
    "patient_run",
    "seal_lease",
    "segment",
    "trail_counter",
]

_Big = BigInteger().with_variant(Integer, "sqlite")

act = Table(
    "act",
    metadata,
    Column("seq", _Big, primary_key=True, autoincrement=True),
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
# Most acts are of readings that were done, and are not written into it.
_not_done = act.c.phase != "done"
Index("act_phase", act.c.phase, act.c.seq, sqlite_where=_not_done, postgresql_where=_not_done)

act_patient = Table(
    "act_patient",
    metadata,
    Column("seq", _Big, primary_key=True, autoincrement=False),
    Column("patient", LargeBinary(32), primary_key=True, comment="the HMAC of `patient:HEX`; the act binds the list"),
    sqlite_with_rowid=False,
)

# Both are made of `act_patient`, after the acts were sealed: see `runs`.
patient_run = Table(
    "patient_run",
    metadata,
    Column("number", _Big, primary_key=True, autoincrement=False),
    Column("first", _Big, nullable=False, comment="the first act in it"),
    Column("last", _Big, nullable=False),
)

patient_act = Table(
    "patient_act",
    metadata,
    Column("run", _Big, primary_key=True, autoincrement=False),
    Column("patient", LargeBinary(32), primary_key=True),
    Column("seq", _Big, primary_key=True, autoincrement=False),
    sqlite_with_rowid=False,
)

trail_counter = Table(
    "trail_counter",
    metadata,
    Column("name", String(8), primary_key=True, comment="act or noun"),
    Column("last", _Big, nullable=False, comment="the last number given out; locked until its writer commits"),
    Column("at", String(24), nullable=False, comment="the latest time that was ever written"),
)

seal_lease = Table(
    "seal_lease",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("holder", Text, nullable=False, comment="host, process and a number of its own, as JSON"),
    Column("until", String(24), nullable=False),
    Column("fence", _Big, nullable=False, comment="grows with each election"),
    Column(
        "anchored", String(24), nullable=False, server_default="", comment="when the anchor was last given a head"
    ),
)

segment = Table(
    "segment",
    metadata,
    Column("number", _Big, primary_key=True, autoincrement=False),
    Column("first", _Big, nullable=False),
    Column("last", _Big, nullable=False),
    Column("name", String(64), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("at", String(24), nullable=False),
    Column("peaks", Text, nullable=False, server_default="", comment="the tree of headers up to this one, folded"),
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
    Column("number", _Big, nullable=False),
    Column("body", LargeBinary, nullable=False),
)
Index("noun_number", noun.c.number, unique=True)
Index("noun_kind", noun.c.account, noun.c.kind, noun.c.number)
Index("noun_act", noun.c.act)

noun_from = Table(
    "noun_from",
    metadata,
    Column("ref", String(96), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("source", String(96), nullable=False),
)
Index("noun_from_source", noun_from.c.source)
