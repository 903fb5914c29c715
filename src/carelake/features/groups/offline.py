"""The offline store: every row that was ever written, in Iceberg files and in the log before them.

`flush` moves the log into files, exactly once: the pointer of the table and the removal of the rows from the log are
one transaction, so a run that is killed at any point has either done a part or not; files that it leaves are
nobody's. Who reads sees both, in one snapshot of the database.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.expressions import AlwaysTrue, BooleanExpression, In
from pyiceberg.table import Table
from sqlalchemy import Connection

from carelake.core.errors import Gone, NotFound
from carelake.core.permit import Permit
from carelake.features.groups import log, online
from carelake.features.groups.definition import Feature, Group
from carelake.features.groups.iceberg import FeatureCatalog, arrow_type, column_of, concurrent, schema_of, stage
from carelake.features.groups.known import every, find
from carelake.features.groups.sight import shows
from carelake.features.groups.stores import settle
from carelake.features.groups.upkeep import tidy
from carelake.features.groups.values import Values, event_micros, micros
from carelake.lake.iceberg.files import Files
from carelake.vault.database import scope_of
from carelake.vault.workspace import Vault

__all__ = ["as_table", "flush", "rows_of", "table"]

_US = pa.timestamp("us", "UTC")
_AGAIN = 5


def table(permit: Permit, vault: Vault, name: str, as_of: datetime | None = None) -> pa.Table:
    """Everything that was written to a group, as `features.asof.join` takes it, in the order of writing.

    Args:
        permit: grants ``features:read``, ``rows:read``.
        as_of: only what was written by then (``write_time``).

    Returns:
        The record identifier's column, ``event_time``, ``write_time``, ``api_invocation_time`` (timestamps, UTC),
        ``is_deleted`` (none of them is a feature of the join), then the other features in their types; the event
        time's own column is left out. A feature that is called as one of these is ``NAME_feature``.

    Raises:
        NotFound: ``features.no_group``. Refused: ``features.scope``.
    """
    with vault.database.reading(permit) as tx:
        group, shown = find(tx, permit.account, name), shows(permit, tx)
    permit.log.read(group.ref)
    found = rows_of(permit, vault, group)
    if shown is not None:
        owners = found.column("patient").fill_null("").dictionary_encode().combine_chunks()
        seen = [one for one in pc.unique(found.column("patient").fill_null("")).to_pylist() if shown(one)]
        found = found.filter(pc.is_in(owners.cast(pa.string()), pa.array(seen, pa.string())))
    if as_of is not None:
        found = found.filter(pc.less_equal(found.column("write_time"), pa.scalar(as_of, _US)))
    return _as_joined(group, found)


def _as_joined(group: Group, found: pa.Table) -> pa.Table:
    made = {
        group.record: found.column(column_of(group.record)),
        "event_time": found.column("time"),
        **{name: found.column(name) for name in ("write_time", "api_invocation_time", "is_deleted")},
    }
    for feature in group.names:
        if feature not in (group.record, group.event):
            made[f"{feature}_feature" if feature in made else feature] = found.column(column_of(feature))
    return pa.table(made)


def rows_of(permit: Permit, vault: Vault, group: Group, patients: Collection[str] | None = None) -> pa.Table:
    """The rows of a group with the columns of `iceberg.schema_of`, by ``seq``.

    Args:
        patients: only rows of these.
    """
    vault.keyring.use(permit, "features:read", f"{permit.account}/features")
    for _ in range(_AGAIN - 1):
        try:
            return _rows(permit, vault, group, patients)
        except (NotFound, FileNotFoundError):  # an erasure swept files between: there are newer ones
            continue
    return _rows(permit, vault, group, patients)


def _rows(permit: Permit, vault: Vault, group: Group, patients: Collection[str] | None) -> pa.Table:
    with vault.database.reading(permit) as tx:
        logged = log.take(tx, group.id, limit=1 << 62)
        if patients is not None:
            logged = [row for row in logged if row.owner in patients]
        fresh = _opened(permit, tx, vault, group, logged)
        iceberg = FeatureCatalog(vault, permit).find(group.id)
    parts = [fresh] if iceberg is None else [*_files(permit, vault, group, iceberg, patients), fresh]
    return pa.concat_tables(parts).sort_by("seq")


def _files(
    permit: Permit, vault: Vault, group: Group, iceberg: Table, patients: Collection[str] | None
) -> Sequence[pa.Table]:
    if iceberg.current_snapshot() is None:
        return []
    place = FeatureCatalog.place(vault)
    files = Files(vault, permit, iceberg.metadata, place=place)
    only: BooleanExpression = AlwaysTrue() if patients is None else In("patient", tuple(sorted(patients)))
    wanted = schema_of(group)
    found = (files.read(task.file, wanted.names, only) for task in iceberg.scan(only).plan_files())
    return [_in_shape(part, wanted) for part in found]


def _in_shape(part: pa.Table, wanted: pa.Schema) -> pa.Table:
    """With the columns that were added to the group since."""
    have = set(part.column_names)
    columns = [
        part.column(one.name).cast(one.type) if one.name in have else pa.nulls(len(part), one.type) for one in wanted
    ]
    return pa.table(columns, schema=wanted)


def _opened(permit: Permit, tx: Connection, vault: Vault, group: Group, logged: Sequence[log.Stored]) -> pa.Table:
    """Rows of the log that can be opened; others are of patients who were erased."""
    keys = vault.sealer.keys_for(permit, tx, [row.owner for row in logged], create=False)
    rows: list[tuple[log.Stored, Values]] = []
    for row in logged:
        try:
            rows.append((row, row.open(keys, group.id)))
        except Gone:
            continue
    keyed: dict[str, Sequence[Any]] = {
        "seq": [row.seq for row, _ in rows],
        "patient": [row.owner or None for row, _ in rows],
        "write_time": [row.written for row, _ in rows],
        "api_invocation_time": [row.called for row, _ in rows],
        "is_deleted": [bool(row.deleted) for row, _ in rows],
    }
    return as_table(group, keyed, [values for _, values in rows])


def as_table(group: Group, keyed: Mapping[str, Sequence[Any]], rows: Sequence[Values]) -> pa.Table:
    """Records as they travel in the columns of `iceberg.schema_of`.

    Args:
        keyed: the key columns but ``time``, times in microseconds.
    """
    at = group.index[group.event]
    made: dict[str, Any] = dict(keyed)
    made["time"] = [event_micros(str(values[at]), group.event_kind) for values in rows]
    for number, feature in enumerate(group.features):
        texts = [values[number] if number < len(values) else None for values in rows]
        made[column_of(feature.name)] = _typed(feature, texts)
    schema = schema_of(group)
    return pa.table([_array(made[one.name], one.type) for one in schema], schema=schema)


def _array(values: Any, kind: pa.DataType) -> pa.Array:
    if pa.types.is_timestamp(kind):
        return pa.array(values, pa.int64()).cast(kind)
    return pa.array(values, kind)


def _typed(feature: Feature, texts: Sequence[Any]) -> pa.Array:
    read: Callable[[str], Any] = {"Integral": int, "Fractional": float, "String": str}[feature.kind]
    if feature.collection:
        return pa.array([None if one is None else [read(each) for each in one] for one in texts], arrow_type(feature))
    return pa.array([None if one is None else read(one) for one in texts], arrow_type(feature))


def flush(
    permit: Permit,
    vault: Vault,
    name: str | None = None,
    *,
    progress: Callable[[str, int], None] = lambda group, rows: None,
) -> dict[str, int]:
    """Move the log of a group, by default of all, deleted ones too, into files, and keep these few; rows by group.

    What has expired online is not there for anybody; here its bytes go, too.

    Args:
        permit: grants ``features:read``, ``features:write``, ``rows:read``, ``rows:write``.

    Raises:
        Conflict: ``features.concurrent``: nothing is lost or doubled, flush again.
    """
    with vault.database.reading(permit) as tx:
        groups = every(tx, permit.account, deleted=True) if name is None else [find(tx, permit.account, name)]
    moved: dict[str, int] = {}
    for group in groups:
        after, count = _flush(permit, vault, group, 0)
        while after:
            if count:
                moved[group.name] = moved.get(group.name, 0) + count
                progress(group.name, moved[group.name])
            after, count = _flush(permit, vault, group, after)
        tidy(permit, vault, group)
        with vault.database.transaction(permit) as tx:
            swept = online.sweep(tx, group.id, micros(vault.clock.now()))
            permit.log.count(features_expired=swept)
        settle(permit, vault, [group])
    return moved


def _flush(permit: Permit, vault: Vault, group: Group, after: int) -> tuple[int, int]:
    """One file's worth of the log beyond a number: the last number of it, 0 for none, and how many rows were moved.

    Rows that cannot be opened are of somebody who is being erased: they stay for the erasure, which goes by them.
    """
    with vault.database.reading(permit) as tx:
        catalog = FeatureCatalog(vault, permit, epoch=scope_of(tx).epoch)
        logged = log.take(tx, group.id, after, vault.settings.features.log_rows)
        rows = _opened(permit, tx, vault, group, logged)
    if not logged:
        return 0, 0
    there = set(rows.column("seq").to_pylist())
    kept = [one.seq for one in logged if one.seq not in there]
    staged = None
    try:
        with catalog.together():
            if len(rows):
                staged = stage(permit, vault, catalog, group, rows)
            with vault.database.transaction(permit) as tx:
                catalog.swap(tx)
                log.drop(tx, group.id, logged[0].seq, logged[-1].seq, kept)
                permit.log.wrote(group.ref)
                permit.log.count(features_flushed=len(rows))
    except CommitFailedException:
        if staged is not None:
            staged.take_back()
        raise concurrent() from None
    return logged[-1].seq, len(rows)
