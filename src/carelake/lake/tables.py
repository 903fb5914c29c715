"""Tables of the lake in the workspace's database: the catalog's pointers, and how far it has followed the record."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, String, Table

from carelake.vault.database import metadata

__all__ = ["lake_position", "lake_question", "lake_table", "lake_view"]

_Big = BigInteger().with_variant(Integer, "sqlite")

lake_table = Table(
    "lake_table",
    metadata,
    Column("account", String(64), primary_key=True),
    Column("name", String(64), primary_key=True, comment="the resource type, or view.NAME"),
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

lake_view = Table(
    "lake_view",
    metadata,
    Column("account", String(64), primary_key=True),
    Column("key", String(64), primary_key=True, comment="the view's name in small letters: SQL minds no capitals"),
    Column("definition", LargeBinary, nullable=False, comment="sealed: the ViewDefinition, which may name patients"),
    Column(
        "state", String(16), nullable=False, comment="saved; kept: its rows are a table; erasing: kept, and empty"
    ),
    Column("at", String(32), nullable=False, comment="when it was saved"),
    Column("error", String(64), nullable=False, server_default="", comment="code of why its rows are not fresh"),
    comment="Views that were saved by name.",
)

lake_question = Table(
    "lake_question",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("account", String(64), nullable=False),
    Column("principal", String(64), nullable=False),
    Column("sealed", LargeBinary, nullable=False, comment="name, statement and chart; a statement may name patients"),
    Column("at", String(32), nullable=False),
    comment="Questions that principals keep for themselves.",
)
Index("lake_question_own", lake_question.c.account, lake_question.c.principal)
