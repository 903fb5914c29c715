"""What was refused, kept with its source, line and reason until someone has looked at it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from sqlalchemy import Connection, delete, select

from carelake.core.clock import Clock, iso
from carelake.core.permit import Permit
from carelake.core.records import Rejected
from carelake.ingest.landing import Landing
from carelake.ingest.tables import quarantine as table
from carelake.vault.database import Database, bulk

__all__ = ["Quarantine", "Quarantined"]

_INSERT = (
    'INSERT INTO quarantine (account, landing, source, "offset", length, line, position, path, code, message, at) '
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


class Quarantined(msgspec.Struct, frozen=True):
    """One refusal, as it is listed. ``source`` is PHI when it is a patient's name: shown to permit holders only."""

    source: str
    line: int
    path: str
    code: str
    message: str
    landing: str
    position: int
    offset: int
    length: int
    at: str


class Quarantine:
    """The refusals of an account."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def keep(self, permit: Permit, tx: Connection, landing: Landing, rejected: Sequence[Rejected]) -> None:
        """Add refusals, in the transaction that moves the landing's mark."""
        if not rejected:
            return
        if not landing.id:
            same = (table.c.account == permit.account, table.c.landing == "", table.c.source == landing.source)
            tx.execute(delete(table).where(*same))
        at = iso(self._clock.now())
        head = (permit.account, landing.id, landing.source)
        rows = [
            (*head, one.offset, one.length, one.line, one.position, one.path, one.code, one.message, at)
            for one in rejected
        ]
        bulk(tx, _INSERT, rows)

    def list(self, permit: Permit, *, limit: int = 10_000) -> list[Quarantined]:
        """Refusals in the order in which they were met, the first ``limit``."""
        names = Quarantined.__struct_fields__
        query = select(*(table.c[name] for name in names)).where(table.c.account == permit.account)
        with self._database.reading(permit) as tx:
            return [Quarantined(*row) for row in tx.execute(query.order_by(table.c.number).limit(limit))]
