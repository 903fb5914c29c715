"""Capture: every prediction is kept before it is answered, all of it or none.

One transaction holds the sealed inputs and output, the prediction's noun, the request's number (`ledger`) and its
counts (`windows`), and the RiskAssessment in the patient's record, or that it is due. If any of them fails, nothing
is kept and nothing is answered: there is no sampling and no silent gap.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import msgspec
import numpy as np
from sqlalchemy import Connection, delete, select, update

from carelake.audit.nouns import Nouns
from carelake.audit.patients import note
from carelake.audit.tables import noun
from carelake.core.clock import iso
from carelake.core.errors import Gone
from carelake.core.nouns import Noun
from carelake.core.permit import Permit
from carelake.core.shapes import decodable
from carelake.models.matrix import Floats
from carelake.serving import feedback
from carelake.serving.predictions import Prediction
from carelake.serving.tables import due, outcome
from carelake.serving.tables import prediction as table
from carelake.vault.database import bulk, rows_of
from carelake.vault.workspace import Vault

__all__ = [
    "ERASED",
    "PRODUCTION",
    "SHADOW",
    "Captured",
    "Keeper",
    "Seen",
    "capture",
    "forget",
    "known",
    "opened",
    "outcome_context",
    "replay",
    "resolver",
]

PRODUCTION, SHADOW = "production", "shadow"
ERASED = "erased"
"""The state of the noun of a prediction whose patient was erased."""

_PAGE = 500
_INSERT = (
    "INSERT INTO prediction (ref, account, endpoint, model, owner, at, resource, act, sealed, role) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


class Keeper(Protocol):
    """Writes resources into the record, in the caller's transaction; `apps` and `pipelines` hand over the store's."""

    def __call__(self, permit: Permit, tx: Connection, resources: Sequence[Mapping[str, Any]]) -> object:
        """Keep each as a new version, unless its current one is the same."""
        ...


class Captured(msgspec.Struct, frozen=True, array_like=True):
    """What is sealed: the features as little-endian float64 in the model's order, and what came out."""

    features: bytes
    probability: float
    encounter: str
    at: str


@dataclass(frozen=True)
class Seen:
    """Captured predictions, read back.

    Attributes:
        x: (n, p) features in the model's order.
        p: (n,) probabilities.
        owner: (n,) a number per patient.
        erased: how many could not be read, since their patient was erased.
        y: (n,) outcomes, 0 or 1; NaN where the follow-up has not ended.
        at: n prediction times, as ISO 8601 text in UTC.
        refs: n refs of the predictions.
        encounter: n stays that were asked about.
        asked: n moments at which they were asked, as ISO 8601 text in UTC.
    """

    x: Floats
    p: Floats
    owner: np.ndarray
    erased: int
    y: Floats
    at: tuple[str, ...]
    refs: tuple[str, ...]
    encounter: tuple[str, ...]
    asked: tuple[str, ...]


def content(values: Floats, probability: float, encounter: str, at: datetime) -> bytes:
    """The bytes that are sealed, and whose HMAC names the prediction."""
    packed = np.ascontiguousarray(values, dtype="<f8").tobytes()
    return msgspec.msgpack.encode(Captured(packed, probability, encounter, iso(at)))


def _context(ref: str) -> bytes:
    return b"prediction\x1f" + ref.encode()


def known(tx: Connection, refs: Sequence[str]) -> set[str]:
    """Those of ``refs`` that are kept already."""
    found: set[str] = set()
    for start in range(0, len(refs), _PAGE):
        page = refs[start : start + _PAGE]
        marks = ", ".join("?" * len(page))
        found.update(ref for (ref,) in rows_of(tx, f"SELECT ref FROM prediction WHERE ref IN ({marks})", *page))
    return found


def capture(
    permit: Permit,
    tx: Connection,
    vault: Vault,
    nouns: Nouns,
    rows: Sequence[tuple[Prediction, bytes, Sequence[str]]],
    role: str = PRODUCTION,
) -> None:
    """Keep predictions in the caller's transaction; those that are kept already stay as they are.

    Args:
        rows: each a prediction, its `content`, and refs that it was made from.
        role: ``shadow`` for what is not answered.
    """
    there = known(tx, [prediction.ref for prediction, *_ in rows])
    fresh = {row[0].ref: row for row in rows if row[0].ref not in there}
    if not fresh:
        return
    keys = vault.sealer.keys_for(permit, tx, [prediction.subject for prediction, *_ in fresh.values()])
    note(permit, vault.keyring, (prediction.subject for prediction, *_ in fresh.values()))
    now, state = iso(vault.clock.now()), "answered" if role == PRODUCTION else role
    entries, things = [], []
    for one, said, sources in fresh.values():
        made_from = tuple(dict.fromkeys([one.endpoint, *sources]))
        body = {"endpoint": one.endpoint, "model": one.model}
        things.append(Noun(one.ref, permit.account, state, permit.act, made_from, body))
        sealed = keys.seal(one.subject, _context(one.ref), said)
        told = (one.ref, permit.account, one.endpoint, one.model, one.subject, now, one.resource, permit.act)
        entries.append((*told, sealed, role))
    nouns.write_all(tx, things)
    bulk(tx, _INSERT, entries)
    permit.log.wrote(*fresh)
    permit.log.count(**{"predictions" if role == PRODUCTION else "shadows": len(fresh)})


def forget(tx: Connection, account: str, owner: str) -> int:
    """Delete the predictions of an erased patient, their outcomes and the cards that showed them; the nouns stay, and
    say no more than that there was one, and why it is gone."""
    feedback.forget(tx, account, owner)
    own = select(table.c.ref).where(table.c.account == account, table.c.owner == owner)
    tx.execute(delete(due).where(due.c.ref.in_(own)))
    tx.execute(update(noun).where(noun.c.ref.in_(own)).values(state=ERASED))
    tx.execute(delete(outcome).where(outcome.c.account == account, outcome.c.owner == owner))
    return tx.execute(delete(table).where(table.c.account == account, table.c.owner == owner)).rowcount


def replay(
    permit: Permit,
    tx: Connection,
    vault: Vault,
    endpoint: str | Sequence[str],
    since: datetime,
    until: datetime,
    most: int = 200_000,
    *,
    role: str = PRODUCTION,
) -> Seen:
    """Read back what an endpoint (or several of its variants) predicted in [since, until), the latest ``most`` of it,
    with what came of it where that is known.

    Needs ``rows:read``.
    """
    vectors, risks, owners, labels, moments, refs, erased = [], [], [], [], [], [], 0
    stays: list[str] = []
    asked: list[str] = []
    endpoints = [endpoint] if isinstance(endpoint, str) else list(endpoint)
    for page in _pages(tx, permit.account, endpoints, since, until, most, role):
        for row, captured, label in opened(permit, tx, vault, page):
            if captured is None:
                erased += 1
                continue
            vectors.append(captured.features)
            risks.append(captured.probability)
            owners.append(row.owner)
            labels.append(label)
            moments.append(captured.at)
            refs.append(row.ref)
            stays.append(captured.encounter)
            asked.append(row.at)
    x = np.frombuffer(b"".join(vectors), dtype="<f8").reshape(len(vectors), -1) if vectors else np.empty((0, 0))
    _, numbers = np.unique(np.asarray(owners, dtype=np.str_), return_inverse=True)
    p, y = np.asarray(risks, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    told = (tuple(some) for some in (moments, refs, stays, asked))
    return Seen(x.astype(np.float64), p, numbers, erased, y, *told)


def opened(
    permit: Permit, tx: Connection, vault: Vault, page: Sequence[Any]
) -> Iterator[tuple[Any, Captured | None, float]]:
    """Rows with their content, None where the patient was erased, and their outcome, NaN where it is not known.

    Args:
        page: rows with ``ref``, ``owner``, ``sealed`` and ``outcome``, the sealed outcome or None.
    """
    keys = vault.sealer.keys_for(permit, tx, [row.owner for row in page], create=False)
    note(permit, vault.keyring, (row.owner for row in page))
    for row in page:
        try:
            said = keys.open(row.owner, _context(row.ref), row.sealed)
            told = keys.open(row.owner, outcome_context(row.ref), row.outcome) if row.outcome else None
        except Gone:
            yield row, None, np.nan
            continue
        label = np.nan if told is None else float(msgspec.msgpack.decode(told, type=float))
        yield row, msgspec.msgpack.decode(said, type=decodable(Captured)), label


def outcome_context(ref: str) -> bytes:
    """What a sealed outcome is bound to."""
    return b"outcome\x1f" + ref.encode()


def _pages(
    tx: Connection, account: str, endpoints: Sequence[str], since: datetime, until: datetime, most: int, role: str
) -> Iterator[Sequence[Any]]:
    query = (
        select(table.c.ref, table.c.owner, table.c.at, table.c.sealed, outcome.c.sealed.label("outcome"))
        .join_from(table, outcome, outcome.c.ref == table.c.ref, isouter=True)
        .where(table.c.account == account, table.c.endpoint.in_(endpoints), table.c.role == role)
        .where(table.c.at >= iso(since), table.c.at < iso(until))
        .order_by(table.c.at.desc(), table.c.ref)
        .limit(most)
    )
    yield from tx.execute(query).partitions(_PAGE)


def resolver(tx: Connection, ref: str) -> dict[str, str] | None:
    """Where a prediction is written back: its endpoint, model, RiskAssessment and act; None when there is none."""
    row = tx.execute(select(table.c.endpoint, table.c.model, table.c.resource, table.c.act).where(table.c.ref == ref))
    found = row.mappings().first()
    return dict(found) if found else None
