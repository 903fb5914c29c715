"""How far the lake is behind the record, as numbers. Nothing heavy is imported: metrics ask for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from sqlalchemy import select

from carelake.core.permit import Permit
from carelake.lake.tables import lake_position
from carelake.vault.workspace import Vault

__all__ = ["Freshness", "Lag", "freshness", "of_accounts"]


class Lag(Protocol):
    """What `store.Resources` tells of its feed."""

    def lag(self, permit: Permit, account: str, after: int) -> tuple[int, int | None]:
        """The newest seq of the account, and when the oldest one beyond ``after`` was written (microseconds)."""
        ...


@dataclass(frozen=True, slots=True)
class Freshness:
    """How far behind.

    Attributes:
        behind: change numbers (of all accounts) between the record's newest change and the lake's position.
        seconds: since the oldest change that the lake does not have; 0.0 where it has all.
        seq: the lake's position.
        snapshot_ref: the snapshot of it; "" before the first sync.
    """

    behind: int
    seconds: float
    seq: int
    snapshot_ref: str


def freshness(permit: Permit, vault: Vault, feed: Lag) -> Freshness:
    """How far the lake of the permit's account is behind; needs the grant ``rows:read``."""
    return of_accounts(permit, vault, feed, permit.account)[permit.account]


def of_accounts(permit: Permit, vault: Vault, feed: Lag, *more: str) -> dict[str, Freshness]:
    """The same for every account that has a lake, and for those named."""
    with vault.database.reading(permit) as tx:
        found = {row.account: (row.seq, row.snapshot) for row in tx.execute(select(lake_position))}
    now = int(vault.clock.now().timestamp() * 1_000_000)
    told = {}
    for account in sorted({*found, *more}):
        seq, snapshot = found.get(account, (0, ""))
        newest, oldest = feed.lag(permit, account, seq)
        seconds = max(now - oldest, 0) / 1_000_000 if oldest is not None else 0.0
        told[account] = Freshness(max(newest - seq, 0), seconds, seq, snapshot)
    return told
