"""Tables of runs: where each one stands, and what each step gave."""

from __future__ import annotations

from sqlalchemy import Column, Index, Integer, String, Table, Text

from carelake.vault.database import metadata

__all__ = ["run", "run_step"]

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
