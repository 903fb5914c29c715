"""The schema as first released (format 1)."""

from __future__ import annotations

from alembic import op
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
    func,
    true,
)

revision = "0001"
down_revision = None

metadata = MetaData()
_Big = BigInteger().with_variant(Integer, "sqlite")

Table(
    "vault_epoch",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("epoch", Integer, nullable=False),
    comment="Counts erasures of keys: a cached key is good for the epoch it was read in only.",
)

# vault

patient_key = Table(
    "patient_key",
    metadata,
    Column("account", String(32), primary_key=True),
    Column("patient", String(256), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("parent_version", Integer, nullable=False),
    Column("wrapped", LargeBinary(128), nullable=False),
    Column("created", String(32), nullable=False),
    comment="Decision D4: a patient's key lies here and nowhere else; deleting the row forgets the patient.",
    sqlite_with_rowid=False,
)

object_version = Table(
    "object_version",
    metadata,
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("account", String(32), nullable=False),
    Column("zone", String(32), nullable=False),
    Column("name", String(1024), nullable=False, comment="can be a patient's name; only ever here"),
    Column("version", String(32), nullable=False, unique=True),
    Column("object", String(32), nullable=False, unique=True, comment="opaque name on disk"),
    Column("size", BigInteger, nullable=False),
    Column("stored_size", BigInteger, nullable=False),
    Column("sha256", String(64), nullable=False, comment="of the plaintext"),
    Column("created", String(32), nullable=False),
    Column("tags", String, nullable=False, comment="JSON object of text to text"),
    Column("current", Boolean, nullable=False, server_default=true()),
    Column("deleted", Boolean, nullable=False, server_default=false()),
)

Index(
    "object_version_current",
    object_version.c.account,
    object_version.c.zone,
    object_version.c.name,
    unique=True,
    sqlite_where=object_version.c.current,
    postgresql_where=object_version.c.current,
)

Index("object_version_name", object_version.c.account, object_version.c.zone, object_version.c.name)

# audit

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

Index("act_phase", act.c.phase, act.c.correlation)

segment = Table(
    "segment",
    metadata,
    Column("number", _Big, primary_key=True, autoincrement=False),
    Column("first", _Big, nullable=False),
    Column("last", _Big, nullable=False),
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
    Column("number", _Big, nullable=False),
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

# events

event = Table(
    "event",
    metadata,
    Column("seq", _Big, primary_key=True, autoincrement=True),
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
    Column("seq", _Big, nullable=False),
)

# access

principal = Table(
    "principal",
    metadata,
    Column("name", String(128), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("roles", Text, nullable=False),
    Column("accounts", Text, nullable=False),
    Column("uid", Integer),
    Column("disabled", Boolean, nullable=False),
)

# ingest

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

# store

HEAD = 200

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


# lake

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

# pipelines

run = Table(
    "run",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("recipe", String(64), nullable=False),
    Column("account", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    Column("parameters", Text, nullable=False),
    Column("process", Text, nullable=False),
    Column("started", String(24), nullable=False),
    Column("ended", String(24)),
)

Index("run_recipe", run.c.account, run.c.recipe, run.c.started)

run_step = Table(
    "run_step",
    metadata,
    Column("run", String(32), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("name", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    Column("output", Text, nullable=False),
    Column("milliseconds", Integer, nullable=False),
)

# serving

prediction = Table(
    "prediction",
    metadata,
    Column("ref", String(96), primary_key=True),
    Column("account", String(64), nullable=False),
    Column("endpoint", String(96), nullable=False),
    Column("model", String(96), nullable=False),
    # The patient whose key seals the row; erasure deletes the row with the key.
    Column("owner", String(256), nullable=False),
    Column("at", String(24), nullable=False),
    Column("resource", String(64), nullable=False),
    Column("act", String(32), nullable=False),
    Column("sealed", LargeBinary, nullable=False),
)

Index("prediction_endpoint", prediction.c.account, prediction.c.endpoint, prediction.c.at)

Index("prediction_owner", prediction.c.account, prediction.c.owner)


def upgrade() -> None:
    """Make every table; only a database that has none is upgraded from here."""
    metadata.create_all(op.get_bind())
