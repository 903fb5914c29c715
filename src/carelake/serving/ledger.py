"""The requests that an endpoint answered, numbered without a gap in the transactions of their captures.

A request that is not captured is not answered, and takes no number: so every number up to the newest has its row, and
each row tells how many predictions it answered with and a digest of their refs. `verify` looks at all of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, func, select

from carelake.audit.tables import act, noun
from carelake.core.clock import iso
from carelake.core.permit import Permit
from carelake.serving.capture import ERASED
from carelake.serving.tables import invocation as table
from carelake.serving.tables import prediction
from carelake.vault.database import bulk, rows_of
from carelake.vault.keyring import Keyring

__all__ = ["Verified", "enter", "event_of", "verify"]

_MARK, _HEX = "i-", 62

_NEWEST = "SELECT number FROM endpoint_invocation WHERE account = ? AND name = ? ORDER BY number DESC LIMIT 1"
_INSERT = (
    "INSERT INTO endpoint_invocation (account, name, number, event, endpoint, rows, digest, at, act) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


@dataclass(frozen=True)
class Verified:
    """What became of a check of an endpoint's captures.

    Attributes:
        requests: rows of the ledger; ``newest``: the highest number.
        gaps: numbers that are missing.
        unproven: requests whose act is not in the trail.
        predictions: captured and there; ``erased``: gone with their patients; ``lost``: neither.
    """

    name: str
    requests: int
    newest: int
    gaps: int
    unproven: int
    predictions: int
    erased: int
    lost: int

    @property
    def whole(self) -> bool:
        """Nothing is missing that was not erased."""
        return not (self.gaps or self.unproven or self.lost)

    def as_json(self) -> dict[str, Any]:
        """For a report."""
        return {**{name: getattr(self, name) for name in self.__dataclass_fields__}, "whole": self.whole}


def event_of(permit: Permit, keyring: Keyring, name: str, inference_id: str) -> str:
    """What is kept of a caller's InferenceId: an HMAC under the account's reference key, by which it is found again.

    Callers have put record numbers of patients there; nothing of it lies anywhere in the clear.
    """
    said = keyring.reference(permit, "inference", f"{name}\x1f{inference_id}".encode())
    return _MARK + said.partition(":")[2][:_HEX]


def enter(
    permit: Permit, tx: Connection, name: str, endpoint: str, event: str, refs: Sequence[str], now: datetime
) -> int:
    """Number a request in the transaction of its captures; writers are served one after another.

    Args:
        event: the act's id, or `event_of` the caller's InferenceId.
        refs: of the predictions that it is answered with.
    """
    found = rows_of(tx, _NEWEST, permit.account, name)
    number = int(found[0][0]) + 1 if found else 1
    digest = hashlib.sha256("\n".join(refs).encode()).hexdigest()
    bulk(tx, _INSERT, [(permit.account, name, number, event, endpoint, len(refs), digest, iso(now), permit.act)])
    return number


def verify(tx: Connection, account: str, name: str, endpoints: Sequence[str]) -> Verified:
    """Look at every number of an endpoint, every act, and every prediction of its variants.

    Args:
        endpoints: refs of all variants that it ever had.
    """
    own = (table.c.account == account, table.c.name == name)
    requests, newest = tx.execute(select(func.count(), func.max(table.c.number)).where(*own)).one()
    proven = select(act.c.correlation).where(act.c.correlation == table.c.act)
    unproven = tx.scalar(select(func.count()).select_from(table).where(*own, ~proven.exists())) or 0
    there = tx.scalar(select(func.count()).select_from(prediction).where(prediction.c.endpoint.in_(endpoints))) or 0
    erased = lost = 0
    if endpoints:
        kept = select(prediction.c.ref).where(prediction.c.ref == noun.c.ref)
        query = select(noun.c.state, noun.c.body).where(noun.c.kind == "prediction", noun.c.account == account)
        for row in tx.execute(query.where(~kept.exists())):
            ours = any(one.encode() in row.body for one in endpoints)
            erased += ours and row.state == ERASED
            lost += ours and row.state != ERASED
    return Verified(name, requests, newest or 0, (newest or 0) - requests, unproven, there, erased, lost)
