"""Numbers without gaps in the order of commits: whoever takes one holds the counter until the commit.

A sequence of the database would give numbers that commit in another order, and a sealer that has passed number 9
while 8 was still open would leave 8 out for ever.
"""

from __future__ import annotations

from typing import Any, Literal

from sqlalchemy import Connection, func, insert, select
from sqlalchemy.exc import IntegrityError

from carelake.audit.tables import act, noun, trail_counter
from carelake.vault.database import rows_of

__all__ = ["begin", "take"]

_TAKE = (
    "UPDATE trail_counter SET last = last + ?, at = CASE WHEN at < ? THEN ? ELSE at END WHERE name = ? "
    "RETURNING last, at"
)
_GIVEN: dict[str, Any] = {"act": act.c.seq, "noun": noun.c.number}


def take(connection: Connection, name: Literal["act", "noun"], many: int, moment: str) -> tuple[int, str]:
    """The first of ``many`` new numbers, and the latest time that was ever taken with (this one included)."""
    said = (many, moment, moment, name)
    rows = rows_of(connection, _TAKE, *said)
    if not rows:
        begin(connection, name, moment)
        rows = rows_of(connection, _TAKE, *said)
    (row,) = rows
    return int(row[0]) - many + 1, str(row[1])


def begin(connection: Connection, name: str, moment: str) -> None:
    """The counter's row, from what is there already: a new workspace, or one made before there were counters."""
    last = connection.execute(select(func.coalesce(func.max(_GIVEN[name]), 0))).scalar_one()
    try:
        with connection.begin_nested():
            connection.execute(insert(trail_counter).values(name=name, last=last, at=moment))
    except IntegrityError:
        return  # another process began it while this one waited for it
