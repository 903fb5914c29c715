"""Tables of the room: landings with how far each was read, and what was refused."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from carelake.vault.database import metadata

__all__ = ["landing", "landing_manifest", "quarantine"]

_Big = BigInteger().with_variant(Integer, "sqlite")

landing = Table(
    "landing",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("account", String(64), nullable=False),
    # HMACs under the account's reference key: of the content (with its fault), and of the bytes on disk.
    Column("ref", String(96), nullable=False),
    Column("packed", String(96), nullable=False),
    Column("sha256", String(64), nullable=False),
    # The path may be a patient's name: it lies here, encrypted, and nowhere else.
    Column("source", Text, nullable=False),
    Column("object", String(96), nullable=False),
    Column("size", _Big, nullable=False),
    Column("format", String(16), nullable=False),
    Column("fault", String(32), nullable=False),
    # The bounds and the parser's version it is read under; another set of rules reads it again.
    Column("rules", String(64), nullable=False),
    Column("again", Boolean, nullable=False, comment="it was read before, under other rules"),
    Column("state", String(16), nullable=False),
    Column("at", String(24), nullable=False),
    # Progress: entries committed, and where the next line starts.
    Column("entries", _Big, nullable=False),
    Column("offset", _Big, nullable=False),
    Column("line", _Big, nullable=False),
    Column("stored", _Big, nullable=False),
    Column("unchanged", _Big, nullable=False),
    Column("quarantined", _Big, nullable=False),
    UniqueConstraint("account", "ref"),
)
Index("landing_packed", landing.c.account, landing.c.packed)

quarantine = Table(
    "quarantine",
    metadata,
    Column("number", _Big, primary_key=True, autoincrement=True),
    Column("account", String(64), nullable=False),
    Column("landing", String(32), nullable=False),
    Column("source", Text, nullable=False),
    Column("offset", _Big, nullable=False),
    Column("length", _Big, nullable=False),
    Column("line", _Big, nullable=False),
    Column("position", _Big, nullable=False),
    Column("path", Text, nullable=False),
    Column("code", String(64), nullable=False),
    Column("message", Text, nullable=False),
    Column("at", String(24), nullable=False),
    sqlite_autoincrement=True,
)
Index("quarantine_landing", quarantine.c.account, quarantine.c.landing)

landing_manifest = Table(
    "landing_manifest",
    metadata,
    Column("landing", String(32), primary_key=True),
    Column("digest", String(96), nullable=False, comment="HMAC of the ranges, as the proof of the erasure names it"),
    Column("ranges", LargeBinary, nullable=False, comment="zstd, JSON: hashes of what stays, and what was blanked"),
    comment="Decision D4: of a landing that somebody was taken out of, the rest still verifies.",
)
