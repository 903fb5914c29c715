"""Tables of the record.

``resource_version`` is append-only and is the change feed; ``resource`` points to the current version of each id.
Index tables (``ix_*``) hold rows of current versions only, keyed by the version's ``seq``: an index row is there
exactly as long as its version is the current one. Texts that repeat (types, parameters, code systems, patients) are
numbers of ``symbol``. A type's and a parameter's symbol belong to one account, so that every row that is found by
one belongs to it too: an account can not even name another's rows.

Index tables have no key but the whole row: it is the order in which searches read, there is no second B-tree to
write, and the rows of a replaced version are found again by extracting them from its body. On PostgreSQL they are
indexed by the heads of their texts, since an entry of an index has a bound there and a text has none.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    UniqueConstraint,
    func,
)

from carelake.vault.database import metadata

__all__ = [
    "HEAD",
    "INDEXES",
    "counter",
    "ix_date",
    "ix_owner",
    "ix_quantity",
    "ix_reference",
    "ix_string",
    "ix_token",
    "ix_uri",
    "origin_run",
    "resource",
    "resource_version",
    "symbol",
]

_Big = BigInteger().with_variant(Integer, "sqlite")

HEAD = 200
"""PostgreSQL bounds an index entry to a third of a page: of texts it indexes this many characters."""

symbol = Table(
    "symbol",
    metadata,
    Column("key", _Big, primary_key=True, autoincrement=True),
    Column("space", String(96), nullable=False),
    Column("text", Text, nullable=False),
    UniqueConstraint("space", "text").ddl_if(dialect="sqlite"),
    sqlite_autoincrement=True,
)
# A text has no bound. That a symbol is made once is due to writers being served one after another.
Index("symbol_text", symbol.c.text, postgresql_using="hash").ddl_if(dialect="postgresql")
Index("symbol_space", symbol.c.space).ddl_if(dialect="postgresql")

counter = Table(
    "counter",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("last", _Big, nullable=False),
    comment="the last number given out: never given out again, also when rows are erased",
)

resource = Table(
    "resource",
    metadata,
    Column("kind", _Big, primary_key=True, autoincrement=False, comment="symbol of account and type"),
    Column("id", String(64), primary_key=True),
    Column("seq", _Big, nullable=False),
    Column("version", Integer, nullable=False),
    Column("deleted", Boolean, nullable=False),
    Column("digest", LargeBinary(24), nullable=False, comment="HMAC of type, id, version and content"),
    sqlite_with_rowid=False,
)

resource_version = Table(
    "resource_version",
    metadata,
    Column("seq", _Big, primary_key=True, autoincrement=False),
    Column("kind", _Big, nullable=False),
    Column("id", String(64), nullable=False),
    Column("version", Integer, nullable=False),
    Column("previous", _Big, nullable=False, comment="seq of the version before, 0 for none"),
    Column("deleted", Boolean, nullable=False),
    Column("owner", _Big, nullable=False, comment="symbol of the patient it is sealed for, 0 for the zone"),
    Column("updated", _Big, nullable=False, comment="microseconds since 1970 UTC"),
    Column("origin", _Big, nullable=False, comment="symbol of the landing's ref, 0 for none"),
    Column("offset", _Big, nullable=False),
    Column("length", _Big, nullable=False),
    Column("line", _Big, nullable=False),
    Column("act", String(32), nullable=False),
    Column("digest", LargeBinary(24), nullable=False),
    Column("body", LargeBinary, nullable=False, comment="sealed, zstd, canonical JSON"),
)

origin_run = Table(
    "origin_run",
    metadata,
    Column("origin", _Big, primary_key=True, autoincrement=False, comment="symbol of the landing's ref"),
    Column("first", _Big, primary_key=True, autoincrement=False, comment="seq of the first version of a run from it"),
    Column("last", _Big, nullable=False),
    sqlite_with_rowid=False,
)


def _index(name: str, *columns: Column[object]) -> Table:
    table = Table(name, metadata, *columns, sqlite_with_rowid=False)
    if any(isinstance(column.type, Text) for column in columns):
        table.primary_key.ddl_if(dialect="sqlite")
        searched = [column for column in table.columns if column.name != "given"]
        heads = [func.left(c, HEAD) if isinstance(c.type, Text) else c for c in searched]
        Index(f"{name}_row", *heads).ddl_if(dialect="postgresql")
    return table


def _number(name: str) -> Column[object]:
    return Column(name, _Big, primary_key=True, autoincrement=False)


def _text(name: str) -> Column[object]:
    return Column(name, Text, primary_key=True)


ix_owner = _index("ix_owner", _number("owner"), _number("kind"), _number("seq"))
ix_token = _index("ix_token", _number("param"), _text("code"), _number("system"), _number("seq"))
ix_string = _index("ix_string", _number("param"), _text("value"), _text("given"), _number("seq"))
ix_date = _index("ix_date", _number("param"), _number("low"), _number("high"), _number("seq"))
ix_quantity = _index(
    "ix_quantity",
    _number("param"),
    Column("low", Float, primary_key=True),
    Column("high", Float, primary_key=True),
    _number("system"),
    _number("code"),
    _number("seq"),
)
ix_reference = _index("ix_reference", _number("param"), _text("target"), _number("type"), _number("seq"))
ix_uri = _index("ix_uri", _number("param"), _text("value"), _number("seq"))

INDEXES = (ix_owner, ix_token, ix_string, ix_date, ix_quantity, ix_reference, ix_uri)
