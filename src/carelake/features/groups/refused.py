"""What broke the gates of a group: counts and lines by source and reason."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select

from carelake.core.permit import Permit
from carelake.features.groups.known import find
from carelake.features.groups.tables import feature_refused as table
from carelake.vault.workspace import Vault

__all__ = ["told"]

_SHOWN = 20


def told(permit: Permit, vault: Vault, name: str) -> list[dict[str, Any]]:
    """``source`` (of a file an HMAC), ``reason``, ``rows``, ``first`` and ``last`` (instants); of files ``lines``.

    Raises:
        NotFound: ``features.no_group``.
    """
    with vault.database.reading(permit) as tx:
        group = find(tx, permit.account, name)
        query = select(table.c.source, table.c.reason, table.c.line, table.c.at).where(table.c.grp == group.id)
        found = tx.execute(query.order_by(table.c.source, table.c.line)).all()
    made: dict[tuple[str, str], dict[str, Any]] = {}
    for row in found:
        said = {"source": row.source, "reason": row.reason, "rows": 0, "first": row.at, "last": row.at, "lines": []}
        one = made.setdefault((row.source, row.reason), said)
        one["rows"] += 1
        one["first"], one["last"] = min(one["first"], row.at), max(one["last"], row.at)
        if row.source != "computed" and len(one["lines"]) < _SHOWN:
            one["lines"].append(row.line)
    return list(made.values())
