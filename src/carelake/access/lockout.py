"""Lock-out: who fails too often from one place waits, longer each time; nobody else waits with them.

What is locked is a pair of source and claimed name. Somebody elsewhere who claims a name cannot lock out its owner,
and one name's failures do not stop other names from the same source. Names that nobody has are counted as those that
somebody has, so that a lock tells nothing of who there is; a row that locked nothing goes when its window has passed.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from carelake.access.tables import access_failure as table
from carelake.core.clock import instant, iso
from carelake.core.errors import Unauthenticated
from carelake.core.settings import LockoutSettings
from carelake.vault.database import rows_of, scope_of
from carelake.vault.workspace import Vault

__all__ = ["FAILED", "UNKNOWN", "Lockout"]

UNKNOWN = "\0"
"""What those claim who claim no name at all."""

_FORGOTTEN = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Lockout:
    """Counts failures of one workspace, in its database: all its processes count together."""

    vault: Vault
    settings: LockoutSettings

    def check(self, source: str, claimed: str) -> bool:
        """Let pass unless this pair is locked; answers whether it has failed lately.

        Raises:
            Unauthenticated: ``access.locked``, with ``retry_after`` in seconds.
        """
        with self.vault.database.ledger_reading() as connection:
            row = _row(connection, _pair(source, claimed)) if _any(connection) else None
        now = self.vault.clock.now()
        if row is not None and row.locked_until is not None and now < instant(row.locked_until):
            wait = int((instant(row.locked_until) - now).total_seconds()) + 1
            raise Unauthenticated(
                "access.locked",
                f"Too many failed attempts from here under this name; try again in {wait} s.",
                retry_after=wait,
            )
        return row is not None

    def stands(self, connection: Connection, source: str, claimed: str) -> bool:
        """Whether anything at all is noted against this pair: then `check` is to be asked."""
        return _any(connection) and bool(rows_of(connection, _NOTED, _pair(source, claimed)))

    def failed(self, source: str, claimed: str) -> datetime | None:
        """Count a failure; answers until when the pair is locked now, None when it is not."""
        pair = _pair(source, claimed)
        try:
            return self._count(pair)
        except IntegrityError:
            return self._count(pair)  # another process made the row between our look and our note

    def _count(self, pair: str) -> datetime | None:
        now = self.vault.clock.now()
        with self.vault.database.ledger() as connection:
            row = _row(connection, pair)
            if row is None:
                self._sweep(connection, now)
                connection.execute(insert(table).values(id=pair, **_first(now)))
                row = _row(connection, pair)
                assert row is not None
            values = self._counted(row, now)
            connection.execute(update(table).where(table.c.id == pair).values(**values))
        return instant(values["locked_until"]) if values["locked_until"] else None

    def succeeded(self, source: str, claimed: str) -> None:
        """Forget the failures of a pair; only needed where `check` says that there were some."""
        with self.vault.database.ledger() as connection:
            connection.execute(delete(table).where(table.c.id == _pair(source, claimed)))

    def _sweep(self, connection: Connection, now: datetime) -> None:
        window = timedelta(seconds=self.settings.window_seconds)
        idle = (table.c.locks == 0) & (table.c.last < iso(now - window))
        connection.execute(delete(table).where(idle | (table.c.last < iso(now - _FORGOTTEN))))

    def _counted(self, row: Row[Any], now: datetime) -> dict[str, Any]:
        told = self.settings
        within = now - instant(row.first) <= timedelta(seconds=told.window_seconds)
        failures = (row.failures if within else 0) + 1
        first = row.first if within else iso(now)
        locks = row.locks if now - instant(row.last) < _FORGOTTEN else 0
        if failures < told.failures:
            return {"failures": failures, "locks": locks, "first": first, "last": iso(now), "locked_until": None}
        wait = min(told.max_seconds, told.first_seconds * 2 ** min(locks, 30))
        until = iso(now + timedelta(seconds=wait))
        return {"failures": 0, "locks": locks + 1, "first": iso(now), "last": iso(now), "locked_until": until}


def _pair(source: str, claimed: str) -> str:
    return hashlib.sha256(f"{source}\x1f{claimed}".encode(errors="replace")).hexdigest()


def _first(now: datetime) -> dict[str, Any]:
    return {"failures": 0, "locks": 0, "first": iso(now), "last": iso(now), "locked_until": None}


def _any(connection: Connection) -> bool:
    """Whether anybody has failed lately; asked once in a snapshot, however many requests share it."""
    scope = scope_of(connection)
    if scope.writing:
        return True
    if FAILED not in scope.memo:
        scope.memo[FAILED] = rows_of(connection, FAILED)
    return bool(scope.memo[FAILED])


FAILED = "SELECT 1 FROM access_failure LIMIT 1"
"""Asked by everybody; see `Database.together`."""

_NOTED = "SELECT 1 FROM access_failure WHERE id = ?"


def _row(connection: Connection, pair: str) -> Row[Any] | None:
    return connection.execute(select(table).where(table.c.id == pair)).first()
