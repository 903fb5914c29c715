"""What only a keeper may do: retention, legal hold, and removing an object for good. Grant ``ZONE:keep``."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row

from carelake.core.permit import Permit
from carelake.vault.catalogue import Catalogue
from carelake.vault.depot import Depot
from carelake.vault.places import LOCKED
from carelake.vault.retention import Mode, hold, locked, protect, retain
from carelake.vault.space import blobs_of
from carelake.vault.versions import ObjectVersion

__all__ = ["Keeping"]


class Keeping:
    """See the module."""

    def __init__(self, depot: Depot, catalogue: Catalogue) -> None:
        self._depot = depot
        self._catalogue = catalogue

    def retain(
        self,
        permit: Permit,
        zone: str,
        name: str,
        mode: Mode | None,
        until: datetime | None,
        *,
        version: str | None = None,
    ) -> ObjectVersion:
        """Keep a version until a date; None and None lifts a retention under governance.

        Raises:
            Refused: ``vault.retained``, ``vault.locked``, or the permit has no grant ``ZONE:keep``.
            Invalid: ``vault.retention``. NotFound, Gone.
        """
        return self._set(permit, zone, name, version, lambda tx, row: retain(tx, self._depot, row, mode, until))

    def hold(self, permit: Permit, zone: str, name: str, *, on: bool, version: str | None = None) -> ObjectVersion:
        """Put a version under legal hold, or lift it; `Refused` ``vault.locked``, `NotFound`, `Gone`."""
        return self._set(permit, zone, name, version, lambda tx, row: hold(tx, self._depot, row, on=on))

    def purge(self, permit: Permit, zone: str, name: str) -> int:
        """Remove an object for good: every version, every row, and with them its name. Returns how many versions.

        The bytes go after the commit; if the process dies before they are gone, the next open removes them.

        Raises:
            Refused: ``vault.held``, ``vault.retained`` of any version; ``vault.locked``. NotFound.
        """
        self._depot.keeper(permit, zone)
        if zone in LOCKED:
            raise locked(zone)
        return self._catalogue.delete(permit, permit.account, zone, name, forget=True)

    def _set(
        self,
        permit: Permit,
        zone: str,
        name: str,
        version: str | None,
        change: Callable[[Connection, Row[Any]], ObjectVersion],
    ) -> ObjectVersion:
        self._depot.keeper(permit, zone)
        with self._depot.database.writing(permit, join=True) as connection:
            row = self._catalogue.exact(connection, permit.account, zone, name, version)
            told = change(connection, row)
            blobs = [blob for blob, form in blobs_of(connection, [row]) if form == "file"]
            # First the place, then the row: a version that counts as kept is kept there too.
            protect(connection, self._depot, blobs)
            permit.log.wrote(f"object:{told.version}")
        return told
