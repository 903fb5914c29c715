"""Tables of the record.

``resource_version`` is append-only and is the change feed; ``resource`` points to the current version of each id.
Index tables (``ix_*``) hold rows of current versions only, keyed by the version's ``seq``: an index row is there
exactly as long as its version is the current one. Texts that repeat (types, sources, code systems, patients) are
numbers of ``symbol``. A type's and a source's symbol belong to one account, so that every row that is found by
one belongs to it too: an account can not even name another's rows.

``param`` is the symbol of a *source* (`carelake.fhir.search`): one path of one resource type, read as one index type.
Parameters are unions of sources, so a value is written once however many parameters find it.

Index tables have no key but the whole row: it is the order in which searches read. A second index by ``(seq, param)``
answers "has this version such a value", and finds the rows of a version that is replaced. On PostgreSQL they are
indexed by the heads of their texts, since an entry of an index has a bound there and a text has none.

``_lastUpdated`` has no rows: it is ``resource.updated``, indexed with the type.
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
    "BY_SEQ",
    "HEAD",
    "INDEXES",
    "counter",
    "display",
    "index_registry",
    "index_state",
    "ix_date",
    "ix_owner",
    "ix_part",
    "ix_position",
    "ix_quantity",
    "ix_reference",
    "ix_string",
    "ix_token",
    "ix_uri",
    "ix_word",
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
    Column("updated", _Big, nullable=False, server_default="0", comment="microseconds since 1970 UTC"),
    sqlite_with_rowid=False,
)
Index("resource_seq", resource.c.kind, resource.c.seq)
Index("resource_updated", resource.c.kind, resource.c.updated, resource.c.seq)

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

Index("version_updated", resource_version.c.kind, resource_version.c.updated, resource_version.c.seq)

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
    if "seq" in table.c and "param" in table.c:
        Index(f"{name}_seq", table.c.seq, table.c.param)
    return table


def _number(name: str, comment: str | None = None) -> Column[object]:
    return Column(name, _Big, primary_key=True, autoincrement=False, comment=comment)


def _text(name: str) -> Column[object]:
    return Column(name, Text, primary_key=True)


def _real(name: str) -> Column[object]:
    return Column(name, Float, primary_key=True)


ix_owner = _index("ix_owner", _number("owner"), _number("kind"), _number("seq"))
ix_token = _index("ix_token", _number("param"), _text("code"), _number("system"), _number("seq"))
ix_string = _index("ix_string", _number("param"), _text("value"), _text("given"), _number("seq"))
ix_date = _index("ix_date", _number("param"), _number("low"), _number("high"), _number("seq"))
ix_quantity = _index(
    "ix_quantity",
    _number("param"),
    _real("low"),
    _real("high"),
    _number("system"),
    _number("code", comment="symbol of the unit's code, of the space of units"),
    _number("seq"),
)
ix_reference = _index("ix_reference", _number("param"), _text("target"), _number("type"), _number("seq"))
ix_uri = _index("ix_uri", _number("param"), _text("value"), _number("seq"))
ix_position = _index("ix_position", _number("param"), _real("latitude"), _real("longitude"), _number("seq"))
ix_word = _index("ix_word", _number("param"), _text("word"), _number("seq"))
ix_part = _index(
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
# Rows that begin before a number and end after it are found by these; nothing else bounds where such a row begins.
for _table in (ix_quantity, ix_part):
    Index(
        f"{_table.name}_wide",
        _table.c.param,
        _table.c.low,
        sqlite_where=_table.c.high > _table.c.low,
        postgresql_where=_table.c.high > _table.c.low,
    )
display = _index("display", _number("param"), _text("value"), _number("system"), _text("code"))
"""Folded texts of codes, each once for a source, of whatever resource came first with it."""

INDEXES = (
    ix_owner,
    ix_token,
    ix_string,
    ix_date,
    ix_quantity,
    ix_reference,
    ix_uri,
    ix_position,
    ix_word,
    ix_part,
)
"""Tables with rows of versions."""

BY_SEQ = INDEXES[1:]
"""Those that find a version's rows by its ``seq``; ``ix_owner`` finds them by its key."""

index_registry = Table(
    "index_registry",
    metadata,
    Column("account", String(64), primary_key=True),
    Column("stamp", _Big, nullable=False, comment="another one after each change here and in index_state"),
    Column(
        "base",
        String(64),
        nullable=False,
        comment="rules and definitions that came with carelake",
    ),
    Column("custom", Text, nullable=False, comment="JSON: the account's own definitions, as registered"),
    comment="What writers index by, for each account.",
)

index_state = Table(
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
