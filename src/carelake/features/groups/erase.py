"""Taking patients out of feature groups: both stores, the log, refused rows, and files that still have them.

Rows say whose they are where the group declares a subject. Those that do not are looked through: a row goes that has
a patient's id as a value, or the identifier of a record that went.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.expressions import AlwaysTrue, BooleanExpression, In, IsNull
from pyiceberg.table import Table
from pyiceberg.table.update.snapshot import ExpireSnapshots
from sqlalchemy import Connection, delete, func, select

from carelake.core.errors import NotFound
from carelake.core.permit import Permit
from carelake.features.groups import log, online, turns
from carelake.features.groups.definition import Group
from carelake.features.groups.iceberg import FeatureCatalog, FeatureZone, column_of, concurrent
from carelake.features.groups.known import every
from carelake.features.groups.stores import store_of
from carelake.features.groups.tables import feature_due, feature_log, feature_refused, feature_row
from carelake.lake.following.told import SEQ, seq_of
from carelake.lake.iceberg.files import Files, name_of
from carelake.lake.iceberg.rewriting import rewrite
from carelake.vault.workspace import Vault

__all__ = ["erase", "residue", "used"]

_OWNED = (feature_row, feature_log, feature_refused, feature_due)
_SOME = 500


def erase(
    permit: Permit,
    vault: Vault,
    patients: Collection[str],
    *,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> dict[str, int]:
    """Take them out of every group of the account, deleted ones too.

    Args:
        permit: grants ``features:read``, ``features:write``, ``rows:read``, ``rows:write``.

    Raises:
        Conflict: ``features.concurrent``: another process wrote meanwhile; erase again.
        Unavailable: ``features.redis``: copies could not be removed; erase again.
    """
    told = {"feature_rows_online": 0, "feature_rows_offline": 0, "feature_files_removed": 0}
    with vault.database.reading(permit) as tx:
        groups = every(tx, permit.account, deleted=True)
    for number, group in enumerate(groups, 1):
        try:
            _group(permit, vault, group, patients, told)
        except CommitFailedException:
            raise concurrent() from None
        progress(number, len(groups))
    with vault.database.transaction(permit) as tx:
        for table in _OWNED:
            for some in _some(patients):
                where = (table.c.account == permit.account, table.c.owner.in_(some))
                told["feature_rows_online"] += tx.execute(delete(table).where(*where)).rowcount
        for group in groups:
            turns.forget(tx, permit.account, group)
        permit.log.count(**told)
    for group in groups:
        store_of(vault, group).purge(permit, vault, group)
    return told


def _group(permit: Permit, vault: Vault, group: Group, patients: Collection[str], told: dict[str, int]) -> None:
    catalog = FeatureCatalog(vault, permit)
    table = catalog.find(group.id)
    with vault.database.reading(permit) as tx:
        refs = _refs(tx, group, patients)
    named = _named(patients)
    if table is not None and table.current_snapshot() is not None:
        named |= _records_in_files(permit, vault, group, table, patients)
        named |= _referred(permit, vault, group, table, refs)
    with vault.database.transaction(permit) as tx:
        named |= _records(tx, group, patients)
        told["feature_rows_online"] += _drop_unowned(permit, tx, vault, group, named, refs)
        turns.forget(tx, permit.account, group)
    if table is not None:
        gone = _seqs(permit, vault, group, table, patients, named) if table.current_snapshot() else set()
        if gone:
            rewrite(permit, vault, table, gone, None, {SEQ: str(seq_of(table))}, catalog.place(vault))
            told["feature_rows_offline"] += len(gone)
        told["feature_files_removed"] += _sweep(permit, vault, catalog, group)


def _refs(tx: Connection, group: Group, patients: Collection[str]) -> set[bytes]:
    """What the log says of the identifiers of their records: their keys are gone, so nobody can read these there."""
    found: set[bytes] = set()
    for some in _some(patients):
        own = (feature_log.c.grp == group.id, feature_log.c.owner.in_(some), feature_log.c.record.is_not(None))
        found.update(bytes(one) for one in tx.execute(select(feature_log.c.record).where(*own)).scalars())
    return found


def _referred(permit: Permit, vault: Vault, group: Group, table: Table, refs: set[bytes]) -> set[str]:
    """Identifiers of rows of nobody in the files, which are markers of these records."""
    if not refs:
        return set()
    column, tell = column_of(group.record), log.teller(permit, vault, group.id)
    found: set[str] = set()
    for part in _read(permit, vault, table, IsNull("patient"), [column, "patient"]):
        names = (str(one) for one in pc.unique(part.column(column)).to_pylist() if one is not None)
        found.update(one for one in names if tell(one) in refs)
    return found


def _named(patients: Collection[str]) -> set[str]:
    """How a value may name them."""
    return {*patients, *(f"Patient/{one}" for one in patients)}


def _some(patients: Collection[str]) -> Iterator[list[str]]:
    listed = sorted(patients)
    for start in range(0, len(listed), _SOME):
        yield listed[start : start + _SOME]


def _records(tx: Connection, group: Group, patients: Collection[str]) -> set[str]:
    """Identifiers of the records that are theirs."""
    found: set[str] = set()
    for some in _some(patients):
        query = select(feature_row.c.record).where(feature_row.c.grp == group.id, feature_row.c.owner.in_(some))
        found.update(tx.execute(query).scalars())
    return found


def _texts(group: Group) -> list[str]:
    """Columns whose values may name somebody."""
    return [column_of(one.name) for one in group.features if one.kind == "String"]


def _read(
    permit: Permit, vault: Vault, table: Table, only: BooleanExpression, columns: Sequence[str]
) -> Iterator[pa.Table]:
    files = Files(vault, permit, table.metadata, place=FeatureCatalog.place(vault))
    have = set(table.schema().column_names)
    for task in table.scan(only).plan_files():
        yield files.read(task.file, [name for name in columns if name in have], only)


def _records_in_files(
    permit: Permit, vault: Vault, group: Group, table: Table, patients: Collection[str]
) -> set[str]:
    column = column_of(group.record)
    found: set[str] = set()
    for part in _read(permit, vault, table, In("patient", sorted(patients)), [column, "patient"]):
        found.update(str(one) for one in pc.unique(part.column(column)).to_pylist() if one is not None)
    return found


def _seqs(
    permit: Permit, vault: Vault, group: Group, table: Table, patients: Collection[str], named: Collection[str]
) -> set[int]:
    """Numbers of the rows that go."""
    gone: set[int] = set()
    for part in _read(permit, vault, table, In("patient", sorted(patients)), ["seq", "patient"]):
        gone.update(part.column("seq").to_pylist())
    column, texts = column_of(group.record), _texts(group)
    wanted = pa.array(sorted(named), pa.string())
    for part in _read(permit, vault, table, IsNull("patient"), ["seq", "patient", column, *texts]):
        for name in {column, *texts} & set(part.column_names):
            gone.update(part.filter(_names(part.column(name), wanted)).column("seq").to_pylist())
    return gone


def _names(column: pa.ChunkedArray, wanted: pa.Array) -> pa.Array | pa.ChunkedArray:
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        told = set(wanted.to_pylist())
        return pa.array([bool(told & set(one or ())) for one in column.to_pylist()])
    if pa.types.is_floating(column.type):  # as they are told
        column = pa.array([None if one is None else repr(one) for one in column.to_pylist()], pa.string())
    return pc.is_in(column.cast(pa.string()), wanted)


def _drop_unowned(
    permit: Permit, tx: Connection, vault: Vault, group: Group, named: Collection[str], refs: set[bytes]
) -> int:
    """Rows of nobody that name somebody, or that are of a record of somebody's."""
    keys = vault.sealer.keys_for(permit, tx, [""], create=False)
    told, tell = set(named), log.teller(permit, vault, group.id)
    records: list[str] = []
    rows = select(feature_row.c.record, feature_row.c.sealed)
    for record, sealed in tx.execute(rows.where(feature_row.c.grp == group.id, feature_row.c.owner == "")):
        values = online.unpacked(keys.open("", online.row_context(group.id, record), sealed))
        if record in told or (refs and tell(record) in refs) or _mentions(values, told):
            records.append(record)
    online.drop(tx, group.id, records)
    seqs: list[int] = []
    lines = select(feature_log.c.seq, feature_log.c.record, feature_log.c.sealed)
    for seq, ref, sealed in tx.execute(lines.where(feature_log.c.grp == group.id, feature_log.c.owner == "")):
        values = online.unpacked(keys.open("", log.log_context(group.id, seq), sealed))
        if (ref is not None and bytes(ref) in refs) or _mentions(values, told):
            seqs.append(seq)
    for seq in seqs:
        log.drop(tx, group.id, seq, seq)
    # What was refused may be of whatever form: it was not kept to be used, and goes whole.
    refused = delete(feature_refused).where(feature_refused.c.grp == group.id, feature_refused.c.owner == "")
    return len(records) + len(seqs) + tx.execute(refused).rowcount


def _mentions(values: Sequence[Any], told: set[str]) -> bool:
    flat = (each for one in values for each in (one if isinstance(one, list) else (one,)))
    return not told.isdisjoint(flat)


def _sweep(permit: Permit, vault: Vault, catalog: FeatureCatalog, group: Group) -> int:
    """Expire older snapshots, and remove what the table does not use; how many files."""
    table = catalog.find(group.id)
    assert table is not None
    snapshot = table.current_snapshot()
    old = [one.snapshot_id for one in table.snapshots() if snapshot and one.snapshot_id != snapshot.snapshot_id]
    if old:
        change = table.transaction()
        ExpireSnapshots(change).by_ids(old).commit()
        table = change.commit_transaction()
    unused = _there(permit, vault, group) - used(table)
    place = FeatureZone(vault)
    for name in sorted(unused):
        with suppress(NotFound):
            place.remove(permit, name)
    return len(unused)


def _there(permit: Permit, vault: Vault, group: Group) -> set[str]:
    return {one.name for one in FeatureZone(vault).list(permit, f"iceberg/{group.id}/")}


def used(table: Table) -> set[str]:
    """Names of the files that a table is made of now."""
    files = {str(table.metadata_location)}
    for snapshot in table.snapshots():
        files.add(snapshot.manifest_list)
        for manifest in snapshot.manifests(table.io):
            files.add(manifest.manifest_path)
            files.update(one.data_file.file_path for one in manifest.fetch_manifest_entry(table.io))
    return {name_of(path) for path in files}


def residue(permit: Permit, vault: Vault, patients: Collection[str]) -> int:
    """Rows that are theirs still, by owner or by a value, copies of such, and files that no table uses."""
    count = 0
    with vault.database.reading(permit) as tx:
        for table in _OWNED:
            for some in _some(patients):
                owned = (table.c.account == permit.account, table.c.owner.in_(some))
                count += int(tx.execute(select(func.count()).select_from(table).where(*owned)).scalar_one())
        groups = every(tx, permit.account, deleted=True)
    for group in groups:
        count += _left(permit, vault, group, patients) + store_of(vault, group).left(permit, vault, group, patients)
    return count


def _left(permit: Permit, vault: Vault, group: Group, patients: Collection[str]) -> int:
    named = _named(patients)
    count = 0
    with vault.database.reading(permit) as tx:
        keys = vault.sealer.keys_for(permit, tx, [""], create=False)
        rows: dict[bytes, bytes] = {
            online.row_context(group.id, record): sealed
            for record, sealed in tx.execute(
                select(feature_row.c.record, feature_row.c.sealed).where(
                    feature_row.c.grp == group.id, feature_row.c.owner == ""
                )
            )
        }
        lines = select(feature_log.c.seq, feature_log.c.sealed)
        unowned = (feature_log.c.grp == group.id, feature_log.c.owner == "")
        rows |= {log.log_context(group.id, seq): sealed for seq, sealed in tx.execute(lines.where(*unowned))}
        count += sum(_mentions(online.unpacked(keys.open("", place, data)), named) for place, data in rows.items())
    catalog = FeatureCatalog(vault, permit)
    iceberg = catalog.find(group.id)
    if iceberg is None:
        return count
    if iceberg.current_snapshot() is not None:
        wanted = pa.array(sorted(named), pa.string())
        texts = _texts(group)
        for part in _read(permit, vault, iceberg, AlwaysTrue(), ["patient", column_of(group.record), *texts]):
            hits = [_names(part.column(name), wanted) for name in part.column_names]
            count += sum(int(pc.sum(hit).as_py() or 0) for hit in hits)
    # Metadata of earlier commits tells no values; what a commit after the sweep leaves of it is no residue.
    unused = _there(permit, vault, group) - used(iceberg)
    return count + sum(not name.endswith(".metadata.json") for name in unused)
