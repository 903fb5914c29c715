"""What came of what was predicted: labels joined to captures once the follow-up has ended, sealed as these are.

Monitors read both together by `capture.replay`. The counts that the calibration alarm looks at are of the same
transaction. The first label of a prediction stays.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import Connection, insert, null, select

from carelake.core.clock import iso
from carelake.core.errors import Invalid
from carelake.core.permit import Permit
from carelake.core.shapes import decodable
from carelake.serving import capture, ledger, windows
from carelake.serving.capture import Captured
from carelake.serving.tables import invocation, outcome, prediction
from carelake.vault.workspace import Vault

__all__ = ["Truth", "Waiting", "ground_truth", "join", "named", "waiting"]

_PAGE = 500
_MILLION = 1_000_000


@dataclass(frozen=True)
class Waiting:
    """A prediction of which nothing is known yet."""

    ref: str
    owner: str
    captured: Captured


@dataclass(frozen=True)
class Truth:
    """A label as SageMaker's ground truth has it.

    Attributes:
        event: eventId or inferenceId of the request, or the ref of a prediction.
    """

    event: str
    label: bool


class _Data(msgspec.Struct):
    data: str
    encoding: str = "CSV"


class _Meta(msgspec.Struct, rename="camel"):
    event_id: str = ""
    inference_id: str = ""


class _Line(msgspec.Struct, rename="camel"):
    ground_truth_data: _Data
    event_metadata: _Meta


def ground_truth(lines: Iterator[bytes]) -> Iterator[Truth]:
    """Labels of JSON lines in SageMaker's format; the inferenceId wins over the eventId.

    Raises:
        Invalid: ``serving.ground_truth``, naming the line.
    """
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            told = msgspec.json.decode(line, type=decodable(_Line))
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise _not_truth(number) from None
        data, meta = told.ground_truth_data.data.strip(), told.event_metadata
        event = meta.inference_id or meta.event_id
        if data not in ("0", "1", "0.0", "1.0") or not event:
            raise _not_truth(number)
        yield Truth(event, data.startswith("1"))


def _not_truth(number: int) -> Invalid:
    return Invalid(
        "serving.ground_truth",
        f"Line {number} is not ground truth: groundTruthData.data 0 or 1, and eventMetadata.eventId.",
    )


def waiting(permit: Permit, tx: Connection, vault: Vault, endpoints: Sequence[str]) -> Iterator[list[Waiting]]:
    """Pages of predictions of these variants, shadows too, of which no outcome is known. Needs ``rows:read``."""
    query = (
        select(prediction.c.ref, prediction.c.owner, prediction.c.sealed, null().label("outcome"))
        .join_from(prediction, outcome, outcome.c.ref == prediction.c.ref, isouter=True)
        .where(prediction.c.account == permit.account, prediction.c.endpoint.in_(list(endpoints)))
        .where(outcome.c.ref.is_(None))
        .order_by(prediction.c.ref)
    )
    for page in tx.execute(query).partitions(_PAGE):
        found = capture.opened(permit, tx, vault, page)
        yield [Waiting(row.ref, row.owner, captured) for row, captured, _ in found if captured is not None]


def named(permit: Permit, tx: Connection, vault: Vault, name: str, truths: Sequence[Truth]) -> dict[str, bool]:
    """Labels by the ref of a prediction; an event is looked up, and must have answered with one prediction.

    An InferenceId of before it was kept as an HMAC is looked up as it lies.
    """
    account = permit.account
    found = {}
    for one in truths:
        if one.event.startswith("prediction:"):
            found[one.event] = one.label
            continue
        acts = select(invocation.c.act).where(invocation.c.account == account, invocation.c.name == name)
        events = (one.event, ledger.event_of(permit, vault.keyring, name, one.event))
        own = prediction.c.act.in_(acts.where(invocation.c.event.in_(events), invocation.c.rows == 1))
        refs = (
            tx.execute(select(prediction.c.ref).where(own, prediction.c.role == capture.PRODUCTION)).scalars().all()
        )
        if len(refs) == 1:
            found[refs[0]] = one.label
    return found


def join(permit: Permit, tx: Connection, vault: Vault, labels: Mapping[str, bool]) -> int:
    """Keep outcomes by the ref of a prediction; answers how many are new. Needs ``rows:read``, ``rows:write``."""
    kept = 0
    refs = list(labels)
    for start in range(0, len(refs), _PAGE):
        query = (
            select(
                prediction.c.ref,
                prediction.c.owner,
                prediction.c.endpoint,
                prediction.c.role,
                prediction.c.sealed,
                null().label("outcome"),
            )
            .join_from(prediction, outcome, outcome.c.ref == prediction.c.ref, isouter=True)
            .where(prediction.c.account == permit.account, outcome.c.ref.is_(None))
            .where(prediction.c.ref.in_(refs[start : start + _PAGE]))
        )
        opened = [(row, told) for row, told, _ in capture.opened(permit, tx, vault, tx.execute(query).all())]
        kept += _keep(permit, tx, vault, labels, [(row, told) for row, told in opened if told is not None])
    permit.log.count(outcomes=kept)
    return kept


def _keep(
    permit: Permit, tx: Connection, vault: Vault, labels: Mapping[str, bool], page: Sequence[tuple[Any, Captured]]
) -> int:
    if not page:
        return 0
    now, counts = vault.clock.now(), Counter[tuple[str, str, int]]()
    keys = vault.sealer.keys_for(permit, tx, [row.owner for row, _ in page])
    rows = []
    for row, told in page:
        label, p = labels[row.ref], told.probability
        sealed = keys.seal(row.owner, capture.outcome_context(row.ref), msgspec.msgpack.encode(float(label)))
        said = {"ref": row.ref, "account": permit.account, "endpoint": row.endpoint, "owner": row.owner}
        rows.append({**said, "at": iso(now), "act": permit.act, "sealed": sealed})
        if row.role == capture.PRODUCTION:
            counts[row.endpoint, "labelled", 0] += 1
            counts[row.endpoint, "observed", 0] += int(label)
            counts[row.endpoint, "expected", 0] += round(p * _MILLION)
            counts[row.endpoint, "spread", 0] += round(p * (1 - p) * _MILLION)
    tx.execute(insert(outcome), rows)
    windows.add(tx, permit.account, now, counts)
    return len(rows)
