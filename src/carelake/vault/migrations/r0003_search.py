"""Search by sources: index rows of every parameter, made anew by ``carelake reindex``."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy import BigInteger, Column, Float, Index, Integer, MetaData, String, Table, Text, func

revision = "0003"
down_revision = "0002"

HEAD = 200

metadata = MetaData()
_Big = BigInteger().with_variant(Integer, "sqlite")


def _index(name: str, *columns: Column[object]) -> Table:
    table = Table(name, metadata, *columns, sqlite_with_rowid=False)
    if any(isinstance(column.type, Text) for column in columns):
        table.primary_key.ddl_if(dialect="sqlite")
        searched = [column for column in table.columns if column.name != "given"]
        heads = [func.left(c, HEAD) if isinstance(c.type, Text) else c for c in searched]
        Index(f"{name}_row", *heads).ddl_if(dialect="postgresql")
    if "seq" in table.c and "param" in table.c:
        Index(f"{name}_seq", table.c.seq, table.c.param)
    return table


def _number(name: str, comment: str | None = None) -> Column[object]:
    return Column(name, _Big, primary_key=True, autoincrement=False, comment=comment)


def _text(name: str) -> Column[object]:
    return Column(name, Text, primary_key=True)


def _real(name: str) -> Column[object]:
    return Column(name, Float, primary_key=True)


_index("ix_token", _number("param"), _text("code"), _number("system"), _number("seq"))
_index("ix_string", _number("param"), _text("value"), _text("given"), _number("seq"))
_index("ix_date", _number("param"), _number("low"), _number("high"), _number("seq"))
_index(
    "ix_quantity",
    _number("param"),
    _real("low"),
    _real("high"),
    _number("system"),
    _number("code", comment="symbol of the unit's code, of the space of units"),
    _number("seq"),
)
_index("ix_reference", _number("param"), _text("target"), _number("type"), _number("seq"))
_index("ix_uri", _number("param"), _text("value"), _number("seq"))
_index("ix_position", _number("param"), _real("latitude"), _real("longitude"), _number("seq"))
_index("ix_word", _number("param"), _text("word"), _number("seq"))
_index(
    "ix_part",
    _number("param"),
    _text("text"),
    _real("low"),
    _real("high"),
    _number("system", comment="symbol of a code system, or of the type that a reference points to"),
    _number("unit", comment="symbol of the unit's code, of the space of units"),
    _number("seq"),
    _number("item", comment="which of the repeating elements: conditions on one element meet in it"),
)
_index("display", _number("param"), _text("value"), _number("system"), _text("code"))

Table(
    "index_registry",
    metadata,
    Column("account", String(64), primary_key=True),
    Column("stamp", _Big, nullable=False, comment="another one after each change here and in index_state"),
    Column("base", String(64), nullable=False, comment="rules and definitions that came with carelake"),
    Column("custom", Text, nullable=False, comment="JSON: the account's own definitions, as registered"),
    comment="What writers index by, for each account.",
)

Table(
    "index_state",
    metadata,
    Column("kind", _Big, primary_key=True, autoincrement=False, comment="symbol of account and type"),
    Column("param", _Big, primary_key=True, autoincrement=False, comment="symbol of the source"),
    Column("state", String(8), nullable=False, comment="ready or building"),
    Column("position", _Big, nullable=False, comment="versions up to this seq have their rows"),
    Column("goal", _Big, nullable=False, comment="later versions got theirs when they were written"),
    comment="Which sources are indexed; one that has no row here is not.",
    sqlite_with_rowid=False,
)


def upgrade() -> None:
    """Change the schema. No source has a row in ``index_state`` then, so searches ask for a reindex."""
    for name in ("ix_token", "ix_string", "ix_date", "ix_quantity", "ix_reference", "ix_uri"):
        op.drop_table(name)
    metadata.create_all(op.get_bind())
    op.add_column(
        "resource",
        Column("updated", _Big, nullable=False, server_default="0", comment="microseconds since 1970 UTC"),
    )
    op.execute(
        "UPDATE resource SET updated = "
        "(SELECT updated FROM resource_version WHERE resource_version.seq = resource.seq)"
    )
    op.create_index("resource_seq", "resource", ["kind", "seq"])
    op.create_index("resource_updated", "resource", ["kind", "updated", "seq"])
    # What was a search parameter's symbol is a source's now; theirs are made anew, so that none means two things.
    op.execute(sa.text("DELETE FROM symbol WHERE space LIKE 'param:%'"))
