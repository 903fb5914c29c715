"""Capture: every prediction is kept before it is answered, all of it or none.

One transaction holds the sealed inputs and output, the prediction's noun, and the RiskAssessment in the patient's
record. If any of them fails, nothing is kept and nothing is answered: there is no sampling and no silent gap.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import msgspec
import numpy as np
from sqlalchemy import Connection, delete, insert, select

from carelake.audit.nouns import Nouns
from carelake.audit.patients import note
from carelake.core.clock import iso
from carelake.core.errors import Gone
from carelake.core.nouns import Noun
from carelake.core.permit import Permit
from carelake.core.shapes import decodable
from carelake.models.matrix import Floats
from carelake.serving import feedback
from carelake.serving.predictions import Prediction
from carelake.serving.tables import prediction as table
from carelake.vault.workspace import Vault

__all__ = ["Captured", "Keeper", "Seen", "capture", "forget", "known", "replay", "resolver"]

_PAGE = 1_000


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
    """

    x: Floats
    p: Floats
    owner: np.ndarray
    erased: int


def content(values: Floats, probability: float, encounter: str, at: datetime) -> bytes:
    """The bytes that are sealed, and whose HMAC names the prediction."""
    packed = np.ascontiguousarray(values, dtype="<f8").tobytes()
    return msgspec.msgpack.encode(Captured(packed, probability, encounter, iso(at)))


def _context(ref: str) -> bytes:
    return b"prediction\x1f" + ref.encode()


def known(tx: Connection, account: str, refs: Sequence[str]) -> set[str]:
    """Those of ``refs`` that are kept already."""
    found: set[str] = set()
    for start in range(0, len(refs), _PAGE):
        page = table.c.ref.in_(refs[start : start + _PAGE])
        found.update(tx.execute(select(table.c.ref).where(page, table.c.account == account)).scalars())
    return found


def capture(
    permit: Permit,
    tx: Connection,
    vault: Vault,
    nouns: Nouns,
    keep: Keeper,
    rows: Sequence[tuple[Prediction, bytes, dict[str, Any], Sequence[str]]],
) -> None:
    """Keep predictions in the caller's transaction.

    Args:
        rows: each a prediction, its `content`, its RiskAssessment, and refs that it was made from.
    """
    if not rows:
        return
    keys = vault.sealer.keys_for(permit, tx, [prediction.subject for prediction, *_ in rows])
    note(permit, vault.keyring, (prediction.subject for prediction, *_ in rows))
    entries = []
    keep(permit, tx, [resource for _, _, resource, _ in rows])
    for prediction, said, _, sources in rows:
        made_from = tuple(dict.fromkeys([prediction.endpoint, *sources]))
        body = {"endpoint": prediction.endpoint, "model": prediction.model}
        nouns.write(tx, Noun(prediction.ref, permit.account, "answered", permit.act, made_from, body))
        entries.append(
            {
                "ref": prediction.ref,
                "account": permit.account,
                "endpoint": prediction.endpoint,
                "model": prediction.model,
                "owner": prediction.subject,
                "at": iso(vault.clock.now()),
                "resource": prediction.resource,
                "act": permit.act,
                "sealed": keys.seal(prediction.subject, _context(prediction.ref), said),
            }
        )
    tx.execute(insert(table), entries)
    permit.log.wrote(*(prediction.ref for prediction, *_ in rows))
    permit.log.count(predictions=len(entries))


def forget(tx: Connection, account: str, owner: str) -> int:
    """Delete the predictions of an erased patient and the cards that showed them; the nouns stay, and say no more
    than that there was one."""
    feedback.forget(tx, account, owner)
    return tx.execute(delete(table).where(table.c.account == account, table.c.owner == owner)).rowcount


def replay(
    permit: Permit, tx: Connection, vault: Vault, endpoint: str, since: datetime, until: datetime, most: int = 200_000
) -> Seen:
    """Read back what an endpoint predicted in [since, until), the latest ``most`` of it.

    Needs ``rows:read``.
    """
    vectors, risks, owners, erased = [], [], [], 0
    for page in _pages(tx, permit.account, endpoint, since, until, most):
        keys = vault.sealer.keys_for(permit, tx, [row.owner for row in page], create=False)
        note(permit, vault.keyring, (row.owner for row in page))
        for row in page:
            try:
                said = keys.open(row.owner, _context(row.ref), row.sealed)
            except Gone:
                erased += 1
                continue
            captured = msgspec.msgpack.decode(said, type=decodable(Captured))
            vectors.append(captured.features)
            risks.append(captured.probability)
            owners.append(row.owner)
    x = np.frombuffer(b"".join(vectors), dtype="<f8").reshape(len(vectors), -1) if vectors else np.empty((0, 0))
    _, numbers = np.unique(np.asarray(owners, dtype=np.str_), return_inverse=True)
    return Seen(x.astype(np.float64), np.asarray(risks, dtype=np.float64), numbers, erased)


def _pages(
    tx: Connection, account: str, endpoint: str, since: datetime, until: datetime, most: int
) -> Iterator[Sequence[Any]]:
    query = (
        select(table.c.ref, table.c.owner, table.c.sealed)
        .where(table.c.account == account, table.c.endpoint == endpoint)
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
