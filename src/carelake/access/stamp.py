"""The stamp of all rights: it changes with each change of them, in the same transaction.

Whoever keeps something that was made from rights (a standing, a job's verdict) keeps the stamp beside it and looks
whether it is still the same: one small read instead of many, and good for every process.
"""

from __future__ import annotations

import secrets

from sqlalchemy import Connection, insert, update

from carelake.access.tables import access_stamp
from carelake.vault.database import rows_of, scope_of

__all__ = ["STAMP", "changed", "stamp_of"]

_ONE = 1


def changed(connection: Connection) -> None:
    """Note that rights have changed."""
    # Drawn, not counted: a number would come again after a rollback, with other rights under it.
    stamp = secrets.token_hex(16)
    done = connection.execute(update(access_stamp).where(access_stamp.c.id == _ONE).values(stamp=stamp))
    if not done.rowcount:
        connection.execute(insert(access_stamp).values(id=_ONE, stamp=stamp))


STAMP = f"SELECT stamp FROM access_stamp WHERE id = {_ONE}"
"""Asked by everybody; see `Database.together`."""


def stamp_of(connection: Connection) -> str:
    """The stamp as this transaction sees it; "" before the first change."""
    scope = scope_of(connection)
    found = scope.memo.get(STAMP)
    if found is None:
        found = rows_of(connection, STAMP)
        if not scope.writing:
            scope.memo[STAMP] = found
    return str(found[0][0]) if found else ""
