"""Tables of runs and erasures: where each one stands, and what each step gave."""

from __future__ import annotations

from sqlalchemy import Column, Connection, Index, Integer, LargeBinary, String, Table, Text, select

from carelake.vault.database import metadata

__all__ = ["erasure", "erasure_target", "run", "run_step", "unfinished"]

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

erasure = Table(
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
Index("erasure_state", erasure.c.account, erasure.c.state)

erasure_target = Table(
    "erasure_target",
    metadata,
    Column("erasure", String(32), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("sealed", LargeBinary, nullable=False, comment="whose and what is erased; the rows go at the end"),
)


def unfinished(connection: Connection) -> set[str]:
    """Accounts with an erasure that is under way, or was broken off."""
    return set(connection.scalars(select(erasure.c.account).where(erasure.c.state != "done")))
