"""Revisions of endpoints as rows, and what follows from them and the clock: who answers whom now.

Nothing but these rows is kept of a rollout, so every process comes to the same routing, and one that was killed in
its midst goes on where the clock is. A rollout ends by one update of its row, which only one process makes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

import msgspec
from sqlalchemy import Connection, RowMapping, delete, insert, select, update

from carelake.core.clock import instant, iso
from carelake.core.errors import NotFound
from carelake.core.permit import Permit
from carelake.core.shapes import decodable
from carelake.serving.config import Revised, Variant, place_of
from carelake.serving.tables import revision as table
from carelake.vault.database import rows_of

__all__ = [
    "COMPLETED",
    "ROLLED_BACK",
    "Revision",
    "Routing",
    "begin",
    "current",
    "end",
    "every",
    "forget",
    "history",
    "is_out",
    "numbered",
    "reshadow",
    "routing",
    "rows",
    "told",
]

COMPLETED, ROLLED_BACK = "completed", "rolled_back"
_COLUMNS = "account, name, number, base, config, begun, step, ended, outcome, reason, act"
_NEWEST = f"SELECT {_COLUMNS} FROM endpoint_revision WHERE account = ? AND name = ? ORDER BY number DESC LIMIT 1"
_ONE = f"SELECT {_COLUMNS} FROM endpoint_revision WHERE account = ? AND name = ? AND number = ?"


@dataclass(frozen=True, slots=True)
class Revision:
    """One revision, as its row tells it."""

    account: str
    name: str
    number: int
    base: int
    told: Revised
    begun: datetime
    step: int
    ended: str
    outcome: str
    reason: str
    act: str

    @property
    def under_way(self) -> bool:
        """Whether its rollout has not ended."""
        return not self.ended

    def seconds(self, now: datetime) -> float:
        """Since its rollout began."""
        return (now - self.begun).total_seconds()


@dataclass(frozen=True, slots=True)
class Routing:
    """Who answers now.

    Attributes:
        newest: the revision that was told last.
        old: what served before it; None where that is nothing.
        share: of the newest revision; 0 once it was rolled back.
    """

    newest: Revision
    old: Revision | None
    share: float

    @property
    def main(self) -> Revision:
        """What serves when no rollout is under way; during one, what served before."""
        if self.old is not None and (self.newest.under_way or self.newest.outcome == ROLLED_BACK):
            return self.old
        return self.newest

    @property
    def shadows(self) -> tuple[Variant, ...]:
        """Those that score along with what is in service."""
        gone = self.newest.outcome == ROLLED_BACK
        return self.main.told.shadows if gone else self.newest.told.shadows

    def variant(self, key: str, target: str | None = None) -> Variant:
        """The variant that answers for a key, or the one of that name.

        Raises:
            NotFound: ``serving.no_such_variant``.
        """
        if target is not None:
            for one, _ in reversed(self.shares()):  # while two revisions have one of that name, the new one's
                if target in (one.name, one.endpoint):
                    return one
            raise NotFound("serving.no_such_variant", "The endpoint has no variant of that name; see its status.")
        name = self.newest.name
        chosen = self.newest if place_of(name, key) < self.share else (self.old or self.newest)
        variants = chosen.told.variants
        if len(variants) == 1:
            return variants[0]
        left = place_of(name, key, "variant") * sum(one.weight for one in variants)
        for one in variants:
            left -= one.weight
            if left < 0:
                return one
        return variants[-1]

    def shares(self) -> list[tuple[Variant, float]]:
        """Every variant and its share of the traffic; the old revision's first."""
        found = []
        if self.old is not None and self.share < 1:
            found += _weighed(self.old, 1 - self.share)
        if self.share > 0:
            found += _weighed(self.newest, self.share)
        return found


def _weighed(revision: Revision, share: float) -> list[tuple[Variant, float]]:
    whole = sum(one.weight for one in revision.told.variants)
    return [(one, share * one.weight / whole) for one in revision.told.variants]


def is_out(routing: Routing) -> bool:
    """Whether nothing serves: the only revision was rolled back."""
    return routing.newest.outcome == ROLLED_BACK and routing.old is None


@lru_cache(256)
def _read(config: str) -> Revised:
    return msgspec.json.decode(config, type=decodable(Revised))


def _revision(row: tuple[Any, ...]) -> Revision:
    account, name, number, base, config, begun, *rest = row
    return Revision(account, name, number, base, _read(config), instant(begun), *rest)


def current(tx: Connection, account: str, name: str) -> Revision | None:
    """The revision that a name was told last; None where it was told none."""
    found = rows_of(tx, _NEWEST, account, name)
    return _revision(found[0]) if found else None


def routing(tx: Connection, account: str, name: str, now: datetime) -> Routing | None:
    """Who answers under a name at a moment; None where nobody was ever deployed."""
    newest = current(tx, account, name)
    if newest is None:
        return None
    if newest.outcome == COMPLETED or not newest.base:
        return Routing(newest, None, 0.0 if newest.outcome == ROLLED_BACK else 1.0)
    old = _revision(rows_of(tx, _ONE, account, name, newest.base)[0])
    if newest.outcome == ROLLED_BACK:
        return Routing(newest, old, 0.0)
    return Routing(newest, old, newest.told.policy.share(newest.seconds(now)))


def numbered(tx: Connection, account: str, name: str, number: int) -> Revision | None:
    """The revision of that number."""
    found = rows_of(tx, _ONE, account, name, number)
    return _revision(found[0]) if found else None


def begin(
    permit: Permit,
    tx: Connection,
    name: str,
    told: Revised,
    base: int,
    now: datetime,
    *,
    at_once: bool,
    reason: str = "",
) -> Revision:
    """Enter a revision; ``at_once`` it is completed with that.

    Args:
        reason: why an earlier one serves again, "" for what is deployed.
    """
    before = current(tx, permit.account, name)
    row = {
        "account": permit.account,
        "name": name,
        "number": before.number + 1 if before else 1,
        "base": base,
        "config": msgspec.json.encode(told).decode(),
        "begun": iso(now),
        "step": 0,
        "ended": iso(now) if at_once else "",
        "outcome": COMPLETED if at_once else "",
        "reason": reason,
        "act": permit.act,
    }
    tx.execute(insert(table).values(row))
    return _revision(tuple(row.values()))


def end(tx: Connection, one: Revision, outcome: str, reason: str, now: datetime) -> bool:
    """End a rollout; False where another process has done it."""
    values = {"ended": iso(now), "outcome": outcome, "reason": reason}
    return tx.execute(update(table).where(*_of(one), table.c.ended == "").values(values)).rowcount == 1


def told(tx: Connection, one: Revision, step: int) -> bool:
    """Note that a step was told; False where it was already."""
    changed = update(table).where(*_of(one), table.c.ended == "", table.c.step < step).values(step=step)
    return tx.execute(changed).rowcount == 1


def reshadow(tx: Connection, one: Revision, shadows: tuple[Variant, ...]) -> None:
    """Leave a revision with these shadows; what else it was told stays."""
    config = msgspec.json.encode(msgspec.structs.replace(one.told, shadows=shadows)).decode()
    tx.execute(update(table).where(*_of(one)).values(config=config))


def _of(one: Revision) -> tuple[Any, ...]:
    return (table.c.account == one.account, table.c.name == one.name, table.c.number == one.number)


def every(tx: Connection, account: str | None = None, *, under_way: bool = False) -> list[tuple[str, str]]:
    """Account and name of endpoints; of those with a rollout ``under_way``."""
    query = select(table.c.account, table.c.name).distinct().order_by(table.c.account, table.c.name)
    if account is not None:
        query = query.where(table.c.account == account)
    if under_way:
        query = query.where(table.c.ended == "")
    return [(row.account, row.name) for row in tx.execute(query)]


def forget(tx: Connection, account: str, name: str) -> int:
    """Take a name out; its captures stay."""
    return tx.execute(delete(table).where(table.c.account == account, table.c.name == name)).rowcount


def history(tx: Connection, account: str, name: str) -> list[Revision]:
    """All revisions of a name, the newest first."""
    query = f"SELECT {_COLUMNS} FROM endpoint_revision WHERE account = ? AND name = ? ORDER BY number DESC"
    return [_revision(row) for row in rows_of(tx, query, account, name)]


def rows(tx: Connection, account: str, name: str) -> list[Mapping[str, Any]]:
    """All revisions of a name, oldest first."""
    query = select(table).where(table.c.account == account, table.c.name == name).order_by(table.c.number)
    found: list[RowMapping] = list(tx.execute(query).mappings())
    return [dict(one) for one in found]
