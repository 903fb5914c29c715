"""Which process seals: one, elected by a row with an end and a fencing number (decision 0024).

The lease saves work; that the chain never forks rests on more. A sealer proves in the transaction of its segments
that its fence is still the newest, a segment's number is a primary key, and its object's name in the locked zone can
be taken once. So a sealer that slept through its lease, or a clock that lies, costs a wasted round and no more.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, insert, select, update
from sqlalchemy.exc import IntegrityError

from carelake.audit.processes import alive, elsewhere, this_process
from carelake.audit.tables import seal_lease
from carelake.core import canonical
from carelake.core.clock import instant, iso
from carelake.core.errors import CarelakeError
from carelake.vault.workspace import Vault

__all__ = ["Lease"]

_ID = 1
_T = seal_lease.c
_ROW = select(_T.holder, _T.until, _T.fence).where(_T.id == _ID)


class Lease:
    """One sealer's view of the lease. Not for several threads at once."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._seconds = vault.settings.audit.lease_seconds
        self._me = this_process()
        self._number = vault.ids.new()
        self.fence = 0

    def take(self) -> bool:
        """Become the sealer, or stay it; False while another one is alive."""
        with self._vault.database.ledger_reading() as connection:
            row = connection.execute(_ROW).mappings().first()
        if row is not None and self.fence and row["fence"] == self.fence:
            return True  # `hold` looks again, and makes it longer
        if row is not None and not self._free(row):
            self.fence = 0
            return False
        try:
            with self._vault.database.ledger() as connection:
                self.fence = self._seize(connection, row)
        except IntegrityError:
            self.fence = 0
        return bool(self.fence)

    def anchor_due(self, connection: Connection) -> bool:
        """In the transaction of a sealing: is it time for the outside anchor? Asked once, it is so again later."""
        now, every = self._vault.clock.now(), self._vault.settings.audit.anchor_seconds
        last = connection.execute(select(_T.anchored).where(_T.id == _ID)).scalar_one()
        if last and iso(now - timedelta(seconds=every)) < last <= iso(now):
            return False
        connection.execute(update(seal_lease).where(_T.id == _ID).values(anchored=iso(now)))
        return True

    def hold(self, connection: Connection, *, closing: bool = False) -> bool:
        """In the transaction of a sealing: is this still the newest fence? Then the lease is made longer.

        Args:
            closing: end it instead, since this process goes; the transaction itself still counts.
        """
        kept = update(seal_lease).where(_T.id == _ID, _T.fence == self.fence).values(until=self._until(closing))
        if connection.execute(kept).rowcount == 1:
            return True
        self.fence = 0
        return False

    def release(self) -> None:
        """Let another one seal at once, if this one was elected."""
        if not self.fence:
            return
        with self._vault.database.ledger() as connection:
            self.hold(connection, closing=True)
        self.fence = 0

    def _seize(self, connection: Connection, seen: Mapping[Any, Any] | None) -> int:
        fence = (seen["fence"] if seen else 0) + 1
        mine = canonical.dump({**self._me, "sealer": self._number}).decode()
        values = {"holder": mine, "until": self._until(closing=False), "fence": fence}
        if seen is None:
            connection.execute(insert(seal_lease).values(id=_ID, **values))
            return fence
        taken = update(seal_lease).where(_T.id == _ID, _T.fence == seen["fence"]).values(**values)
        return fence if connection.execute(taken).rowcount == 1 else 0

    def _until(self, closing: bool) -> str:
        now = self._vault.clock.now()
        return iso(now if closing else now + timedelta(seconds=self._seconds))

    def _free(self, row: Mapping[Any, Any]) -> bool:
        now, until = self._vault.clock.now(), instant(row["until"])
        if now >= until or until > now + timedelta(seconds=2 * self._seconds):
            return True  # it ran out; or the clock was set back, and its end would come hours late
        try:
            holder = canonical.load(row["holder"])
        except CarelakeError:
            return True
        same = {name: holder.get(name) for name in self._me} == self._me
        return same or not (elsewhere(holder) or alive(holder))
