"""The newest executions of an account, for a page that shows where things stand."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, select

from carelake.pipelines.execution.rows import ENDED, Rows
from carelake.pipelines.tables import run

__all__ = ["recent"]

_WORDS = {"Executing": "running", "Stopping": "stopping", "Succeeded": "done", "Failed": "failed"}


def recent(tx: Connection, account: str, limit: int = 10) -> list[dict[str, Any]]:
    """``id``, ``recipe``, ``state``, ``started``, ``ended`` of executions, and of runs before schema 0006."""
    found = [
        {
            "id": one.id,
            "recipe": one.pipeline,
            "state": _WORDS.get(one.status, one.status.lower()),
            "started": one.created,
            "ended": one.modified if one.status in ENDED else None,
        }
        for one in Rows(tx, account).executions(limit=limit)
    ]
    query = select(run).where(run.c.account == account).order_by(run.c.started.desc()).limit(limit)
    found += [
        {k: row[k] for k in ("id", "recipe", "state", "started", "ended")} for row in tx.execute(query).mappings()
    ]
    return found[:limit]
