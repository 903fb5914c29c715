"""Finding a feature group by its name or ARN. What it says is read once for each of its versions."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, select

from carelake.core.arns import resource_of
from carelake.core.errors import NotFound
from carelake.features.groups.definition import Group
from carelake.features.groups.tables import feature_group as table
from carelake.vault.database import rows_of, scope_of

__all__ = ["CREATED", "DELETED", "every", "find", "name_of", "of_id"]

CREATED, DELETED = "Created", "Deleted"
_RESOURCE = "feature-group/"
_NOW = "SELECT id, version, turn, word FROM feature_group WHERE account = ? AND name = ? AND state = 'Created'"
_KNOWN = 512


_read: dict[tuple[str, int], Group] = {}
"""Groups by id and version: what a version says never changes."""


def name_of(text: str, account: str) -> str:
    """The name in an ARN of this account, or the name that it is.

    Raises:
        Invalid: ``core.arn``.
    """
    return resource_of(text, "sagemaker", account).removeprefix(_RESOURCE)


def find(tx: Connection, account: str, name: str) -> Group:
    """The group of that name or ARN.

    Raises:
        NotFound: ``features.no_group``.
    """
    rows = rows_of(tx, _NOW, account, name_of(name, account))
    if not rows:
        raise NotFound("features.no_group", "There is no such feature group in this account; `features list` tells.")
    scope = scope_of(tx)
    if not scope.writing:
        scope.memo["features.state", rows[0][0]] = (rows[0][2], rows[0][3])
    known = _read.get((rows[0][0], rows[0][1]))
    if known is None:
        if len(_read) >= _KNOWN:
            _read.clear()
        known = of_id(tx, rows[0][0])
        _read[known.id, known.version] = known
    return known


def of_id(tx: Connection, group_id: str) -> Group:
    """The group of an id, deleted or not; it is there."""
    return Group.read(tx.execute(select(table).where(table.c.id == group_id)).one())


def every(tx: Connection, account: str, *, deleted: bool = False) -> list[Group]:
    """The groups of an account by name.

    Args:
        deleted: those too that are deleted: their offline stores are there.
    """
    query = select(table).where(table.c.account == account).order_by(table.c.name, table.c.id)
    if not deleted:
        query = query.where(table.c.state == CREATED)
    rows: Any = tx.execute(query).all()
    return [Group.read(row) for row in rows]
