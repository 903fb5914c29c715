"""Many records at once: files of the offline store and rows of the online store, in one transaction.

What a batch leaves is what PutRecord of its rows, one after another, would have left; only that the offline rows go
into files at once, not through the log.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
from pyiceberg.exceptions import CommitFailedException
from sqlalchemy import Connection

from carelake.audit.patients import note
from carelake.core.permit import Permit
from carelake.features.groups import log, online, turns
from carelake.features.groups.definition import Feature, Group, owner_of
from carelake.features.groups.iceberg import FeatureCatalog, Staged, column_of, concurrent, schema_of, stage
from carelake.features.groups.stores import settle
from carelake.features.groups.values import Values, expiry, micros
from carelake.vault.database import bulk, scope_of
from carelake.vault.workspace import Vault

__all__ = ["Batch", "Refused", "texts_of", "write"]

_US = pa.timestamp("us", "UTC")
_REFUSE = (
    "INSERT INTO feature_refused (grp, source, line, account, owner, reason, at, sealed) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (grp, source, line) DO NOTHING"
)


class Batch(NamedTuple):
    """Rows that go in together.

    Attributes:
        rows: a column for each feature, in its type.
        time: event times, timestamps in UTC.
        known: when each row is said to have become known, None for now.
    """

    rows: pa.Table
    time: pa.Array
    known: pa.Array | None = None


class Refused(NamedTuple):
    """A row that broke a gate."""

    line: int
    reason: str
    values: Values


def write(
    permit: Permit,
    vault: Vault,
    group: Group,
    batch: Batch,
    *,
    refused: Sequence[Refused] = (),
    source: str = "",
    beside: Callable[[Connection], None] = lambda tx: None,
) -> int:
    """Write a batch to the stores that the group has; how many records of the online store that changed.

    Args:
        permit: grants ``features:read``, ``features:write``, ``rows:read``, ``rows:write``.
        refused: rows that are set apart, of this source.
        beside: what is done in the same transaction; a CommitFailedException of it stops the batch.

    Raises:
        Conflict: ``features.concurrent``: nothing of the batch was written.
    """
    vault.keyring.use(permit, "features:write", f"{permit.account}/features")
    now = micros(vault.clock.now())
    with vault.database.reading(permit) as tx:
        catalog = FeatureCatalog(vault, permit, epoch=scope_of(tx).epoch)
    owners = _owners(group, batch.rows)
    staged: Staged | None = None
    try:
        with catalog.together():
            if group.offline is not None and len(batch.rows):
                rows = _offline(permit, vault, group, batch, owners, now)
                staged = stage(permit, vault, catalog, group, rows)
            with vault.database.transaction(permit) as tx:
                catalog.swap(tx)
                changed = _online(permit, tx, vault, group, batch, owners, now) if group.online is not None else 0
                _set_apart(permit, tx, vault, group, refused, source)
                beside(tx)
                note(permit, vault.keyring, set(owners))
                permit.log.count(features_records=len(batch.rows), features_refused=len(refused))
    except CommitFailedException:
        if staged is not None:
            staged.take_back()
        raise concurrent() from None
    settle(permit, vault, [group])
    return changed


def _owners(group: Group, rows: pa.Table) -> list[str]:
    if not group.said.subject:
        return [""] * len(rows)
    subject = group.features[group.index[group.said.subject]]
    return [owner_of(one) for one in _text_column(subject, rows.column(subject.name))]


def _offline(permit: Permit, vault: Vault, group: Group, batch: Batch, owners: list[str], now: int) -> pa.Table:
    size = len(batch.rows)
    with vault.database.transaction(permit) as tx:
        first = log.numbers(tx, group.id, size)
    stamp = pa.array([now] * size, pa.int64()).cast(_US)
    made: dict[str, Any] = {
        "seq": pa.array(range(first, first + size), pa.int64()),
        "patient": pa.array([one or None for one in owners], pa.string()),
        "time": batch.time,
        "write_time": stamp if batch.known is None else batch.known,
        "api_invocation_time": stamp,
        "is_deleted": pa.array([False] * size),
    }
    made |= {column_of(name): batch.rows.column(name) for name in group.names}
    schema = schema_of(group)
    return pa.table([made[name] for name in schema.names], schema=schema)


def _online(
    permit: Permit, tx: Connection, vault: Vault, group: Group, batch: Batch, owners: list[str], now: int
) -> int:
    events = batch.time.cast(pa.int64()).to_pylist()
    records = _text_column(group.features[group.index[group.record]], batch.rows.column(group.record))
    newest: dict[str, int] = {}
    for at, record in enumerate(records):  # of the same event time the first one stays
        best = newest.get(record)
        if best is None or events[at] > events[best]:
            newest[record] = at
    stored = online.latest(tx, group.id, list(newest))
    chosen = [at for record, at in newest.items() if _later(stored.get(record), events[at], now)]
    lives = [(at, expiry(events[at], group.ttl)) for at in chosen]
    there = [(at, expires) for at, expires in lives if expires is None or expires > now]
    online.drop(tx, group.id, [records[at] for at, expires in lives if expires is not None and expires <= now])
    keys = vault.sealer.keys_for(permit, tx, dict.fromkeys(owners[at] for at, _ in there))
    values = _texts(group, batch.rows.take(pa.array([at for at, _ in there], pa.int64())))
    rows = (
        (online.Latest(records[at], owners[at], events[at], expires, False, b""), online.packed(said))
        for (at, expires), said in zip(there, values, strict=True)
    )
    online.put(tx, keys, permit.account, group.id, rows)
    turns.changed(permit, tx, vault, group, [records[at] for at in chosen])
    return len(chosen)


def _later(stored: online.Latest | None, event: int, now: int) -> bool:
    return stored is None or not stored.there(now) or event > stored.event


def _texts(group: Group, rows: pa.Table) -> list[Values]:
    """Rows as they travel."""
    columns = [_text_column(feature, rows.column(feature.name)) for feature in group.features]
    return [list(one) for one in zip(*columns, strict=True)]


def _text_column(feature: Feature, column: pa.ChunkedArray) -> list[Any]:
    values = column.to_pylist()
    if feature.collection:
        return [None if one is None else [_text(each) for each in one] for one in values]
    return values if feature.kind == "String" else [None if one is None else _text(one) for one in values]


def _text(value: Any) -> str:
    """A number as PutRecord takes it."""
    text = value if isinstance(value, str) else repr(value)
    return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}.get(text, text)


def _set_apart(
    permit: Permit, tx: Connection, vault: Vault, group: Group, refused: Sequence[Refused], source: str
) -> None:
    if not refused:
        return
    owners = [group.owner(one.values) for one in refused]
    keys = vault.sealer.keys_for(permit, tx, owners)
    at = vault.clock.now().isoformat(timespec="milliseconds")[:23] + "Z"
    rows = []
    for one, owner in zip(refused, owners, strict=True):
        place = f"feature-refused\x1f{group.id}\x1f{source}\x1f{one.line}".encode()
        sealed = keys.seal(owner, place, online.packed(one.values))
        rows.append((group.id, source, one.line, permit.account, owner, one.reason[:160], at, sealed))
    bulk(tx, _REFUSE, rows)


def texts_of(group: Group, rows: pa.Table) -> list[Values]:
    """Rows as they travel, for those that are set apart."""
    return _texts(group, rows)
