"""Upkeep of offline stores: many small files as few, old snapshots and what nothing uses any more removed.

A reader finds its files by the pointer that it read, and reads again by the newer one where they went meanwhile; so
files stay for a time of grace (``lake.grace_seconds``) after they were made, and no longer.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta

import pyarrow as pa
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table import Table
from pyiceberg.table.update.snapshot import ExpireSnapshots

from carelake.core.clock import instant
from carelake.core.errors import NotFound
from carelake.core.permit import Permit
from carelake.features.groups.definition import Group
from carelake.features.groups.erase import used
from carelake.features.groups.iceberg import FeatureCatalog, FeatureZone
from carelake.lake.following.told import SEQ, seq_of
from carelake.lake.iceberg.changing import change
from carelake.lake.iceberg.files import Files
from carelake.lake.iceberg.layout import ROWS_OF_A_BUCKET, bucketed, bucketed_spec, buckets, tray_spec
from carelake.vault.database import scope_of
from carelake.vault.workspace import Vault

__all__ = ["tidy"]

_MANY = 32
"""So many small files are merged, and so many snapshots are expired."""
_SMALL_BYTES = 32 << 20


def tidy(permit: Permit, vault: Vault, group: Group) -> int:
    """Merge, expire and remove where it is worth it; how many files went.

    Args:
        permit: grants ``features:read``, ``features:write``, ``rows:read``, ``rows:write``.
    """
    with vault.database.reading(permit) as tx:
        catalog = FeatureCatalog(vault, permit, epoch=scope_of(tx).epoch)
    table = catalog.find(group.id)
    if table is None or len(table.snapshots()) < _MANY:
        return 0
    try:
        table = _merged(permit, vault, table)
        _expire(table)
    except CommitFailedException:
        return 0  # somebody writes: the next flush looks again
    return _remove(permit, vault, catalog, group)


def _merged(permit: Permit, vault: Vault, table: Table) -> Table:
    specs = table.metadata.specs()
    files = [task.file for task in table.scan().plan_files()]
    small = [one for one in files if not buckets(specs[one.spec_id]) and one.file_size_in_bytes < _SMALL_BYTES]
    if len(small) < _MANY:
        return table
    tx = table.transaction()
    data = Files(vault, permit, tx.table_metadata, place=FeatureCatalog.place(vault))
    rows = pa.concat_tables([data.read(one) for one in small])
    spec = bucketed_spec(tx.table_metadata)
    if len(rows) < buckets(spec) * ROWS_OF_A_BUCKET:
        spec = tray_spec(tx.table_metadata)
    made = [data.put(data.encode(part, spec, at)) for at, part in bucketed(rows, buckets(spec))]
    change(tx, made, small, properties={SEQ: str(seq_of(table))})
    return tx.commit_transaction()


def _expire(table: Table) -> None:
    snapshot = table.current_snapshot()
    old = [one.snapshot_id for one in table.snapshots() if snapshot and one.snapshot_id != snapshot.snapshot_id]
    tx = table.transaction()
    ExpireSnapshots(tx).by_ids(old).commit()
    tx.commit_transaction()


def _remove(permit: Permit, vault: Vault, catalog: FeatureCatalog, group: Group) -> int:
    table = catalog.find(group.id)
    assert table is not None
    edge = vault.clock.now() - timedelta(seconds=vault.settings.lake.grace_seconds)
    keep, place, count = used(table), FeatureZone(vault), 0
    for one in place.list(permit, f"iceberg/{group.id}/"):
        if one.name not in keep and instant(one.created) < edge:
            with suppress(NotFound):
                place.remove(permit, one.name)
                count += 1
    return count
