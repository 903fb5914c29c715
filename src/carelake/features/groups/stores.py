"""Where the latest records are read from: SQL, which has them all, or a driver that has copies of them.

A group whose ``StorageType`` is InMemory is copied where ``features.redis`` says so. Whatever the driver, what is
answered is what the caller's snapshot of the database holds (decision 0063).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Protocol

from sqlalchemy import Connection

from carelake.core.errors import CarelakeError
from carelake.core.permit import Permit
from carelake.core.settings import FeatureSettings
from carelake.features.groups import online
from carelake.features.groups.definition import Group
from carelake.vault.workspace import Vault

__all__ = ["OnlineStore", "Sql", "settle", "store_of"]


class OnlineStore(Protocol):
    """The latest records of a group."""

    def latest(
        self, permit: Permit, tx: Connection, vault: Vault, group: Group, records: Sequence[str]
    ) -> dict[str, online.Latest]:
        """What the snapshot holds of these identifiers; of those that are not there for anybody perhaps nothing."""

    def settle(self, permit: Permit, vault: Vault, group: Group) -> None:
        """Bring copies up to what is committed; that they are not up to it is never an error."""

    def purge(self, permit: Permit, vault: Vault, group: Group) -> None:
        """Remove all copies.

        Raises:
            Unavailable: ``features.redis``: they cannot be reached.
        """

    def left(self, permit: Permit, vault: Vault, group: Group, patients: Collection[str]) -> int:
        """How many copies are of these patients; `Unavailable` as `purge`."""


class Sql:
    """The database itself."""

    def latest(
        self, permit: Permit, tx: Connection, vault: Vault, group: Group, records: Sequence[str]
    ) -> dict[str, online.Latest]:
        """See `OnlineStore`."""
        return online.latest(tx, group.id, records)

    def settle(self, permit: Permit, vault: Vault, group: Group) -> None:
        """See `OnlineStore`."""

    def purge(self, permit: Permit, vault: Vault, group: Group) -> None:
        """See `OnlineStore`."""

    def left(self, permit: Permit, vault: Vault, group: Group, patients: Collection[str]) -> int:
        """See `OnlineStore`."""
        return 0


_SQL = Sql()


def store_of(vault: Vault, group: Group) -> OnlineStore:
    """Where this group's records are read from here.

    Raises:
        Unavailable: ``features.redis_extra``, ``features.redis_password``.
    """
    settings = vault.settings.features
    return _redis(settings) if settings.redis and group.copied else _SQL


@lru_cache(maxsize=8)
def _redis(settings: FeatureSettings) -> OnlineStore:
    from carelake.features.groups.drivers.redis import Redis

    return Redis(settings)


def settle(permit: Permit, vault: Vault, groups: Collection[Group]) -> None:
    """Bring copies of groups that were written up to what is committed, if they can be reached."""
    for group in {one.id: one for one in groups}.values():
        with suppress(CarelakeError):  # what is committed is committed
            store_of(vault, group).settle(permit, vault, group)
