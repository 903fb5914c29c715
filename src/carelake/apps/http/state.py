"""The state of the loop: counts and state words, read under a permit for ``status:read``; no patient data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Select, false, func, select

from carelake.apps.http.ports import Door
from carelake.audit.readings import Acts
from carelake.audit.tables import act, noun, segment
from carelake.core import canonical
from carelake.core.permit import Permit
from carelake.ingest.tables import quarantine
from carelake.pipelines.recent import recent
from carelake.store.symbols import kinds_of
from carelake.store.tables import resource, symbol

__all__ = ["Latest", "State", "state_of"]

# The chain, in its order: noun kind or table -> what people call it.
_CHAIN = {
    "landing": "Landing objects",
    "resource": "Resources",
    "quarantined": "Quarantined",
    "snapshot": "Lake snapshots",
    "view": "View results",
    "featureset": "Feature sets",
    "trainingset": "Training sets",
    "model": "Model versions",
    "endpoint": "Endpoints",
    "prediction": "Predictions",
    "finding": "Findings",
}


@dataclass(frozen=True, slots=True)
class Latest:
    """The newest noun of a kind."""

    ref: str
    state: str
    at: str
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class State:
    """Where the loop stands in one account.

    Attributes:
        chain: (name, how many) along the chain.
        sealed: how many of ``acts`` are covered by a signed segment.
    """

    account: str
    chain: tuple[tuple[str, int], ...]
    runs: tuple[dict[str, Any], ...]
    model: Latest | None
    endpoint: Latest | None
    finding: Latest | None
    acts: int
    sealed: int
    segments: int
    refused: int


def state_of(workspace: Door, permit: Permit) -> State:
    """Read it, as one consistent snapshot."""
    account = permit.account
    with workspace.vault.database.reading(permit) as tx:
        counts = workspace.nouns.counts(tx, account)
        counts["resource"] = tx.execute(_resources(account)).scalar_one()
        counts["quarantined"] = tx.execute(_refused(account)).scalar_one()
        number, last = tx.execute(select(func.max(segment.c.number), func.max(segment.c.last))).one()
        refused = select(func.count()).where(act.c.phase == "refused")
        return State(
            account,
            tuple((title, counts.get(kind, 0)) for kind, title in _CHAIN.items()),
            tuple(recent(tx, account, 5)),
            _latest(tx, account, "model"),
            _latest(tx, account, "endpoint"),
            _latest(tx, account, "finding"),
            Acts(tx).count(),
            last or 0,
            number or 0,
            tx.execute(refused).scalar_one(),
        )


def _resources(account: str) -> Select[int]:
    joined = resource.join(symbol, symbol.c.key == resource.c.kind)
    of_account = symbol.c.space == kinds_of(account)
    return select(func.count()).select_from(joined).where(of_account, resource.c.deleted == false())


def _refused(account: str) -> Select[int]:
    return select(func.count()).select_from(quarantine).where(quarantine.c.account == account)


def _latest(tx: Connection, account: str, kind: str) -> Latest | None:
    query = select(noun.c.ref, noun.c.state, noun.c.at, noun.c.body)
    query = query.where(noun.c.kind == kind, noun.c.account == account).order_by(noun.c.number.desc())
    row = tx.execute(query.limit(1)).first()
    return Latest(row.ref, row.state, row.at, canonical.load(row.body)) if row else None
