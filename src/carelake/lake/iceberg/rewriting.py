"""Rows taken out of a table and put in anew: copy on write of the files that hold them, in their buckets.

And tables from before rows told what they replaced, laid out as new ones are.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.expressions import And, BooleanExpression, GreaterThanOrEqual, LessThanOrEqual
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table
from pyiceberg.types import LongType

from carelake.core.permit import Permit
from carelake.lake.engines.engine import run
from carelake.lake.iceberg.changing import change
from carelake.lake.iceberg.files import Files, Written
from carelake.lake.iceberg.layout import bucketed, bucketed_spec, buckets, lay
from carelake.lake.iceberg.zone import Zone
from carelake.vault.workspace import Vault

__all__ = ["is_old", "relay", "rewrite"]


def rewrite(
    permit: Permit,
    vault: Vault,
    table: Table,
    gone: Collection[int],
    anew: pa.Table | None,
    properties: Mapping[str, str],
    place: Zone | None = None,
) -> Table:
    """One commit that leaves out rows by their seqs, and adds others.

    Files keep their partition, also where they are of an older spec than the table's.

    Args:
        gone: seqs of rows that there are.
        anew: rows with the columns of `schema.table_schema`.
        properties: of the snapshot.
        place: where its files lie, by default the lake's zone.

    Raises:
        CommitFailedException: another writer was first.
    """
    files = Files(vault, permit, table.metadata, place=place)
    wanted = pa.array(sorted(gone), pa.int64())
    touched: list[DataFile] = []
    made: list[Written] = []
    for task in table.scan(_between(wanted)).plan_files() if len(wanted) else ():
        hit = pc.is_in(files.read(task.file, ["seq"]).column("seq"), wanted)
        if not pc.any(hit).as_py():
            continue
        touched.append(task.file)
        left = files.read(task.file).filter(pc.invert(hit))
        if len(left):
            spec = table.metadata.specs()[task.file.spec_id]
            made.append(files.encode(left, spec, task.file.partition[0] if buckets(spec) else None))
    if anew is not None and len(anew):
        spec = bucketed_spec(table.metadata)
        made += [files.encode(part, spec, bucket) for bucket, part in bucketed(anew, buckets(spec))]
    tx = table.transaction()
    change(tx, [files.put(one) for one in made], touched, properties=properties)
    return tx.commit_transaction()


def _between(seqs: pa.Array) -> BooleanExpression:
    return And(GreaterThanOrEqual("seq", seqs[0].as_py()), LessThanOrEqual("seq", seqs[-1].as_py()))


_REPLACED = "SELECT seq, lag(seq) OVER (PARTITION BY id ORDER BY seq) AS replaced_seq FROM versions ORDER BY seq"


def is_old(table: Table) -> bool:
    """Was the table made before rows told what they replaced? Its snapshots from then stay readable as they are."""
    return "replaced_seq" not in table.schema().column_names


def relay(permit: Permit, vault: Vault, table: Table, count: int, properties: Mapping[str, str]) -> Table:
    """Lay an old table out by buckets, each row with what it replaced: one commit, all rows in memory.

    Raises:
        CommitFailedException: another writer was first.
    """
    old = Files(vault, permit, table.metadata)
    gone = [task.file for task in table.scan().plan_files()]
    tx = table.transaction()
    lay(tx, count)
    with tx.update_schema() as evolve:
        evolve.add_column("replaced_seq", LongType())
    if gone:
        whole = pa.concat_tables([old.read(file) for file in gone]).sort_by("seq")
        told = run(_REPLACED, {"versions": whole.select(["id", "seq"])}, limits=vault.settings.lake)
        whole = whole.append_column("replaced_seq", told.column("replaced_seq").cast(pa.int64()))
        new = Files(vault, permit, tx.table_metadata)
        spec = bucketed_spec(tx.table_metadata)
        made = [new.put(new.encode(part, spec, at)) for at, part in bucketed(whole, buckets(spec))]
        change(tx, made, gone, properties=properties)
    return tx.commit_transaction()
