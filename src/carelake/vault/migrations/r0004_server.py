"""The FHIR server: jobs of bulk export and import, and erasures."""

from __future__ import annotations

from alembic import op
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    false,
    text,
)

revision = "0004"
down_revision = "0003"

metadata = MetaData()
_Big = BigInteger().with_variant(Integer, "sqlite")

_job = Table(
    "bulk_job",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("account", String(64), nullable=False),
    Column("kind", String(8), nullable=False, comment="export or import"),
    Column("state", String(12), nullable=False, comment="accepted, running, done, failed, cancelled or expired"),
    Column("principal", String(128), nullable=False, comment="who asked, and alone may see it"),
    Column("purpose", String(16), nullable=False),
    Column("scope", String(64), nullable=False, comment="digest of the permit's scope; who sees less may not see it"),
    Column("asked", LargeBinary, nullable=False, comment="sealed: what was asked for, which can name patients"),
    Column("seq", _Big, nullable=False, comment="the newest version that an export has; 0 until it is known"),
    Column("time", String(32), nullable=False, comment="transactionTime"),
    Column("process", String(512), nullable=False, comment="who carries it out, as in `run`"),
    Column("created", String(32), nullable=False),
    Column("ended", String(32)),
    Column("expires", String(32)),
    Column("error", String(64), nullable=False, server_default=""),
)
Index("bulk_job_state", _job.c.account, _job.c.state, _job.c.created)

Table(
    "bulk_part",
    metadata,
    Column("job", String(32), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("role", String(8), nullable=False, comment="output, deleted or error; input of an import"),
    Column("type", String(64), nullable=False),
    Column("source", LargeBinary, nullable=False, comment="packed seqs of an export; sealed place of an input"),
    Column("position", _Big, nullable=False, comment="versions or bytes that are done"),
    Column("goal", _Big, nullable=False, comment="versions or bytes in all"),
    Column("lines", _Big, nullable=False, comment="resources in the file, or lines read"),
    Column("failed", _Big, nullable=False),
    Column("size", _Big, nullable=False, comment="bytes of the file"),
    Column("object", String(96), nullable=False, comment="name of its file"),
    Column("done", Boolean, nullable=False, server_default=false()),
    comment="Parts of a bulk job: a file each.",
    sqlite_with_rowid=False,
)

Table(
    "forgotten_due",
    metadata,
    Column("account", String(32), primary_key=True),
    Column("patient", String(256), primary_key=True),
    comment="Whose keys a replay ended in this copy: their rows, ranges and files go before anybody opens it.",
    sqlite_with_rowid=False,
)
Table(
    "landing_manifest",
    metadata,
    Column("landing", String(32), primary_key=True),
    Column("digest", String(96), nullable=False, comment="HMAC of the ranges, as the proof of the erasure names it"),
    Column("ranges", LargeBinary, nullable=False, comment="zstd, JSON: hashes of what stays, and what was blanked"),
    comment="Decision D4: of a landing that somebody was taken out of, the rest still verifies.",
)
_erasure = Table(
    "erasure",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("account", String(64), nullable=False),
    Column("state", String(16), nullable=False, comment="the step that is under way, or done"),
    Column("reason", LargeBinary, nullable=False, comment="sealed: free text"),
    Column("reason_ref", String(96), nullable=False, comment="HMAC of it, which the trail names"),
    Column("counts", Text, nullable=False, comment="JSON: what was done so far"),
    Column("process", Text, nullable=False, comment="who carries it out, as in `run`"),
    Column("proof", String(96), nullable=False, comment='ref of the noun, "" before the end'),
    Column("act", String(32), nullable=False),
    Column("started", String(32), nullable=False),
    Column("ended", String(32)),
)
Index("erasure_state", _erasure.c.account, _erasure.c.state)
Table(
    "erasure_target",
    metadata,
    Column("erasure", String(32), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("sealed", LargeBinary, nullable=False, comment="whose and what is erased; the rows go at the end"),
)

Table(
    "access_client",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("principal", String(128), nullable=False, index=True),
    Column("account", String(64), nullable=False),
    Column("purpose", String(16), nullable=False),
    Column("scopes", Text, nullable=False, comment="SMART scopes that it may ask for, space between two"),
    Column("keys_url", Text, nullable=False, comment="https address of its JSON Web Key Set, or an empty text"),
    Column("keys", Text, nullable=False, comment="its JSON Web Key Set, or an empty text"),
    Column("created", String(24), nullable=False),
    Column("disabled", Boolean, nullable=False),
    comment="Backend services: clients that sign assertions, by SMART App Launch 2.2.",
)

_card = Table(
    "card",
    metadata,
    Column("id", String(36), primary_key=True, comment="the card's uuid, by which feedback names it"),
    Column("account", String(64), nullable=False),
    Column("name", String(64), nullable=False, comment="of the endpoint"),
    Column("service", String(64), nullable=False),
    Column("model", String(96), nullable=False),
    Column("version", String(32), nullable=False, comment="of the model"),
    Column("prediction", String(96), nullable=False),
    Column("owner", String(256), nullable=False),
    Column("shown", String(32), nullable=False),
    Column("outcome", String(16), nullable=False, comment="accepted or overridden; empty while nothing is told"),
    Column("reason", String(32), nullable=False, comment="our code of an override"),
    Column("told", String(32), nullable=False, comment="outcomeTimestamp"),
    Column("act", String(32), nullable=False, comment="of the feedback; until then of the card"),
    Column("sealed", LargeBinary, comment="what was written beside the outcome"),
    comment="Cards of CDS Hooks, and what was done about them.",
)
Index("card_shown", _card.c.account, _card.c.name, _card.c.shown)
Index("card_owner", _card.c.account, _card.c.owner)


def upgrade() -> None:
    """Change the schema: tables that were not there, and the order in which histories are read."""
    metadata.create_all(op.get_bind())
    op.create_index("version_updated", "resource_version", ["kind", "updated", "seq"])
    wide = text("high > low")
    for table in ("ix_quantity", "ix_part"):
        op.create_index(f"{table}_wide", table, ["param", "low"], sqlite_where=wide, postgresql_where=wide)
