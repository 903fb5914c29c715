"""Tables of the lake in the workspace's database: the catalog's pointers, and how far it has followed the record."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Integer, String, Table

from carelake.vault.database import metadata

__all__ = ["lake_position", "lake_table"]

_Big = BigInteger().with_variant(Integer, "sqlite")

lake_table = Table(
    "lake_table",
    metadata,
    Column("account", String(64), primary_key=True),
    Column("name", String(64), primary_key=True, comment="the resource type"),
    Column("location", String(512), nullable=False, comment="of the table's current metadata file, in the lake zone"),
    Column("previous", String(512), comment="the one before it"),
    comment="Iceberg catalog: a commit swaps location from what it read to what it wrote, or fails",
)

lake_position = Table(
    "lake_position",
    metadata,
    Column("account", String(64), primary_key=True),
    Column("seq", _Big, nullable=False, comment="every change up to this one is in the tables"),
    Column("snapshot", String(128), nullable=False, comment="ref of the snapshot at that position"),
)
