"""How a table's files are laid out: buckets of patients, sorted by time inside, and a tray for what is new.

A table has two partition specs. By the first one, which is unpartitioned, small flushes are appended: one file each
(the tray), where buckets would cost as many small objects as there are buckets. By the second one, a bucket of the
patient's id, large flushes and maintenance write: an erasure or a question about one patient reads the patient's
bucket and the tray. Resources of no patient are in the bucket null.

Engines that read Iceberg see neither: every file carries its spec.
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.partitioning import PARTITION_FIELD_ID_START, PartitionField, PartitionSpec
from pyiceberg.table import Transaction
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.sorting import UNSORTED_SORT_ORDER, SortField, SortOrder
from pyiceberg.transforms import BucketTransform, IdentityTransform
from pyiceberg.types import StringType

__all__ = [
    "BUCKETED",
    "PROPERTIES",
    "ROWS_OF_A_BUCKET",
    "STATISTICS",
    "bucketed",
    "bucketed_spec",
    "buckets",
    "laid",
    "lay",
    "tray_spec",
]

BUCKETED = "patient_bucket"
ROWS_OF_A_BUCKET = 1_000
"""Rows that a flush must have for each bucket to be written by buckets at once."""

STATISTICS = ("id", "patient", "time", "seq", "last_updated", "version", "deleted", "replaced_seq")
PROPERTIES = {
    "format-version": "2",
    "commit.retry.num-retries": "0",  # a retried append would add its rows a second time beside the other writer's
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "10",
    "write.metadata.metrics.default": "none",
    **{f"write.metadata.metrics.column.{name}": "full" for name in STATISTICS},
}


def lay(change: Transaction, count: int) -> None:
    """Give a table its buckets, if it has none or another number of them; nothing is rewritten."""
    spec = change.table_metadata.spec()
    if buckets(spec) == count:
        return
    with change.update_spec() as update:
        for field in spec.fields:
            update.remove_field(field.name)
        update.add_field("patient", BucketTransform(count), f"{BUCKETED}_{count}")
    if change.table_metadata.sort_order().is_unsorted:
        with change.update_sort_order() as order:
            order.asc("time", IdentityTransform())


def laid(metadata: TableMetadata, count: int) -> TableMetadata:
    """As `lay`, of a table that is being made."""
    patient, time = (metadata.schema().find_field(name).field_id for name in ("patient", "time"))
    field = PartitionField(patient, PARTITION_FIELD_ID_START, BucketTransform(count), f"{BUCKETED}_{count}")
    order = SortOrder(SortField(time, IdentityTransform()), order_id=1)
    told = {
        "partition_specs": [PartitionSpec(spec_id=0), PartitionSpec(field, spec_id=1)],
        "default_spec_id": 1,
        "last_partition_id": PARTITION_FIELD_ID_START,
        "sort_orders": [UNSORTED_SORT_ORDER, order],
        "default_sort_order_id": 1,
    }
    made: TableMetadata = metadata.model_copy(update=told)
    return made


def buckets(spec: PartitionSpec) -> int:
    """How many buckets a spec has; 0 for the tray."""
    transform = spec.fields[0].transform if spec.fields else None
    return transform.num_buckets if isinstance(transform, BucketTransform) else 0


def bucketed_spec(metadata: TableMetadata) -> PartitionSpec:
    """The spec by which files are written to buckets."""
    return metadata.spec()


def tray_spec(metadata: TableMetadata) -> PartitionSpec:
    """The spec by which small flushes are appended."""
    return next(spec for spec in metadata.partition_specs if spec.is_unpartitioned())


def one_array(column: pa.ChunkedArray) -> pa.Array:
    """The column in one piece."""
    whole = column.combine_chunks()
    return whole.chunk(0) if isinstance(whole, pa.ChunkedArray) else whole


def numbers(patients: pa.ChunkedArray, count: int) -> pa.Array:
    """The bucket of each patient, null for none."""
    coded = one_array(patients.dictionary_encode())
    bucket = BucketTransform(count).transform(StringType())
    return pa.array([bucket(one) for one in coded.dictionary.to_pylist()], pa.int32()).take(coded.indices)


def bucketed(rows: pa.Table, count: int) -> Iterator[tuple[int | None, pa.Table]]:
    """The rows of each bucket, sorted by time; with a count of 0 all of them, as of the tray."""
    if not count:
        yield None, rows.take(pc.sort_indices(rows, [("time", "ascending", "at_start")]))
        return
    keys = pa.table({"bucket": numbers(rows.column("patient"), count), "time": rows.column("time")})
    order = pc.sort_indices(keys, [("bucket", "ascending", "at_start"), ("time", "ascending", "at_start")])
    ordered = rows.take(order)
    encoded = pc.run_end_encode(one_array(keys.column("bucket").take(order)))
    start = 0
    for value, end in zip(encoded.values.to_pylist(), encoded.run_ends.to_pylist(), strict=True):
        yield value, ordered.slice(start, end - start)
        start = end
