"""What was done about cards: kept by card, counted by model version (https://cds-hooks.hl7.org/2.0/#feedback)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from carelake.audit.patients import note
from carelake.core import canonical
from carelake.core.clock import iso
from carelake.core.errors import NotFound
from carelake.core.permit import Permit
from carelake.serving.predictions import Prediction
from carelake.serving.tables import card as table
from carelake.vault.workspace import Vault

__all__ = ["ACCEPTED", "OVERRIDDEN", "Rate", "Told", "beside", "forget", "rates", "reaches", "shown", "tell"]

ACCEPTED, OVERRIDDEN = "accepted", "overridden"


@dataclass(frozen=True, slots=True)
class Told:
    """The outcome of one card.

    Attributes:
        reason: our code of an override, "" for none.
        beside: what else was said: free text and codes of others. It may tell of a patient, so it is sealed.
    """

    card: str
    outcome: str
    at: datetime
    reason: str = ""
    beside: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rate:
    """How cards of one model version were taken.

    Attributes:
        reasons: how many overrides by our code.
    """

    model: str
    version: str
    cards: int
    accepted: int
    overridden: int
    reasons: dict[str, int]

    @property
    def unanswered(self) -> int:
        """Cards of which nothing was told."""
        return self.cards - self.accepted - self.overridden

    def as_json(self) -> dict[str, Any]:
        """Counts, and rates of those that were answered; None where none was."""
        answered = self.accepted + self.overridden
        return {
            "model": self.model,
            "version": self.version,
            "cards": self.cards,
            "accepted": self.accepted,
            "overridden": self.overridden,
            "unanswered": self.unanswered,
            "acceptance_rate": round(self.accepted / answered, 4) if answered else None,
            "override_rate": round(self.overridden / answered, 4) if answered else None,
            "reasons": self.reasons,
        }


def shown(
    permit: Permit,
    tx: Connection,
    vault: Vault,
    prediction: Prediction,
    card: str,
    service: str,
    named: tuple[str, str],
) -> None:
    """Keep that a card showed a prediction.

    Args:
        named: name of the endpoint, and version of its model.
    """
    name, version = named
    row = {
        "id": card,
        "account": permit.account,
        "name": name,
        "service": service,
        "model": prediction.model,
        "version": version,
        "prediction": prediction.ref,
        "owner": prediction.subject,
        "shown": iso(vault.clock.now()),
        "outcome": "",
        "reason": "",
        "told": "",
        "act": permit.act,
    }
    tx.execute(insert(table).values(row))
    permit.log.count(cards=1)


def tell(permit: Permit, tx: Connection, vault: Vault, service: str, told: Sequence[Told]) -> int:
    """Keep outcomes; of several of one card the latest counts. Answers how many changed something.

    Raises:
        NotFound: ``serving.no_such_card``, also of another service, and of a patient that the permit does not reach.
    """
    rows = _found(permit, tx, service, {one.card for one in told})
    keys = vault.sealer.keys_for(permit, tx, {row.owner for row in rows.values()})
    note(permit, vault.keyring, {row.owner for row in rows.values()})
    permit.log.read(*dict.fromkeys(row.prediction for row in rows.values()))
    kept = 0
    latest = {name: row.told for name, row in rows.items()}
    for one in told:
        if iso(one.at) <= latest[one.card]:
            continue
        latest[one.card] = iso(one.at)
        beside = _sealed(keys, rows[one.card].owner, one)
        said = {
            "outcome": one.outcome,
            "reason": one.reason,
            "told": iso(one.at),
            "act": permit.act,
            "sealed": beside,
        }
        tx.execute(update(table).where(table.c.id == one.card, table.c.account == permit.account).values(said))
        permit.log.count(**{one.outcome: 1}, **({f"reason_{one.reason.replace('-', '_')}": 1} if one.reason else {}))
        kept += 1
    return kept


def _sealed(keys: Any, owner: str, one: Told) -> bytes | None:
    return keys.seal(owner, _context(one.card), canonical.dump(one.beside)) if one.beside else None


def _context(card: str) -> bytes:
    return b"card\x1f" + card.encode()


def _found(permit: Permit, tx: Connection, service: str, cards: set[str]) -> dict[str, Any]:
    query = select(table.c.id, table.c.owner, table.c.prediction, table.c.told)
    query = query.where(table.c.account == permit.account, table.c.service == service, table.c.id.in_(sorted(cards)))
    rows = {row.id: row for row in tx.execute(query)}
    if rows.keys() != cards or any(not reaches(permit, row.owner) for row in rows.values()):
        raise NotFound(
            "serving.no_such_card", "A card that feedback is given on is not one that this service showed."
        )
    return rows


def reaches(permit: Permit, patient: str) -> bool:
    """Whether a permit's scope has room for a patient: any that is not known here has none."""
    return all(name in ("account", f"patient:{patient}") for name in permit.scope)


def beside(permit: Permit, tx: Connection, vault: Vault, card: str) -> dict[str, Any]:
    """What was written beside the outcome of a card; empty for nothing. `Gone` when the patient was erased."""
    query = select(table.c.owner, table.c.sealed).where(table.c.account == permit.account, table.c.id == card)
    row = tx.execute(query).first()
    if row is None or row.sealed is None or not reaches(permit, row.owner):
        return {}
    note(permit, vault.keyring, (row.owner,))
    found: dict[str, Any] = canonical.load(vault.sealer.open(permit, tx, row.owner, _context(card), row.sealed))
    return found


def rates(tx: Connection, account: str, name: str, since: datetime, until: datetime) -> list[Rate]:
    """How the cards of an endpoint that were shown in [since, until) were taken, by model version."""
    count = func.count()
    query = (
        select(table.c.model, table.c.version, table.c.outcome, table.c.reason, count)
        .where(table.c.account == account, table.c.name == name)
        .where(table.c.shown >= iso(since), table.c.shown < iso(until))
        .group_by(table.c.model, table.c.version, table.c.outcome, table.c.reason)
    )
    found: dict[tuple[str, str], dict[tuple[str, str], int]] = {}
    for model, version, outcome, reason, number in tx.execute(query):
        found.setdefault((version, model), {})[outcome, reason] = number
    return [_rate(model, version, counts) for (version, model), counts in sorted(found.items())]


def _rate(model: str, version: str, counts: dict[tuple[str, str], int]) -> Rate:
    def of(outcome: str) -> int:
        return sum(number for (told, _), number in counts.items() if told == outcome)

    reasons = {reason: number for (_, reason), number in sorted(counts.items()) if reason}
    return Rate(model, version, sum(counts.values()), of(ACCEPTED), of(OVERRIDDEN), reasons)


def forget(tx: Connection, account: str, owner: str) -> int:
    """Delete the cards of an erased patient."""
    return tx.execute(delete(table).where(table.c.account == account, table.c.owner == owner)).rowcount
