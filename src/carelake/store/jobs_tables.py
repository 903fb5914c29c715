"""Tables of bulk jobs: what was asked for, and how far each part is."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, LargeBinary, String, Table, false

from carelake.vault.database import metadata

__all__ = ["bulk_job", "bulk_part"]

_Big = BigInteger().with_variant(Integer, "sqlite")

bulk_job = Table(
    "bulk_job",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("account", String(64), nullable=False),
    Column("kind", String(8), nullable=False, comment="export, import or views"),
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
Index("bulk_job_state", bulk_job.c.account, bulk_job.c.state, bulk_job.c.created)

bulk_part = Table(
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
