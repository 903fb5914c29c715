"""Data files of a table: Parquet through the vault, written with the bounds that scans leave them out by.

Not by pyiceberg's own writer and reader: that one writes buckets through a Rust library, and this one gives an empty
list back for a null one. Columns are found by their names, which never change here.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from pyiceberg.conversions import to_bytes
from pyiceberg.expressions import AlwaysTrue, BooleanExpression
from pyiceberg.expressions.visitors import bind
from pyiceberg.io.pyarrow import expression_to_pyarrow, schema_to_pyarrow
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.partitioning import PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.typedef import Record
from pyiceberg.types import PrimitiveType

from carelake.core.permit import Permit
from carelake.lake.iceberg.layout import STATISTICS, buckets
from carelake.lake.iceberg.zone import Zone, zone
from carelake.lake.rows import conform
from carelake.vault.workspace import Vault

__all__ = ["Files", "Written", "name_of"]

_ROWS_OF_A_GROUP = 64_000
_LEVEL = 1


def name_of(path: str) -> str:
    """The file's name in the lake's zone, out of its address."""
    return "iceberg/" + path.rpartition("/iceberg/")[2]


class Written(NamedTuple):
    """A file in memory.

    Attributes:
        bounds: as Iceberg keeps them, by field id.
    """

    data: pa.Buffer
    rows: int
    spec_id: int
    partition: Record
    bounds: dict[str, dict[int, Any]]


class Files:
    """Reads and writes the data files of one table."""

    def __init__(
        self,
        vault: Vault,
        permit: Permit,
        metadata: TableMetadata,
        schema: Schema | None = None,
        place: Zone | None = None,
    ) -> None:
        self._vault = vault
        self._zone = place or zone(vault)
        self._permit = permit
        self._metadata = metadata
        self.schema = schema or metadata.schema()
        self.arrow = schema_to_pyarrow(self.schema, include_field_ids=False)
        self._shape = schema_to_pyarrow(self.schema, include_field_ids=True)

    def encode(self, rows: pa.Table, spec: PartitionSpec, bucket: int | None) -> Written:
        """Rows that lie in one partition as a Parquet file, in their order; needs no permit.

        Args:
            rows: with all columns of the table's schema, or fewer; others are null.
        """
        whole = self.shaped(rows)
        sink = pa.BufferOutputStream()
        with pq.ParquetWriter(
            sink,
            self._shape,
            compression="zstd",
            compression_level=_LEVEL,
            write_statistics=list(STATISTICS),
            store_schema=False,
        ) as writer:
            writer.write_table(whole, row_group_size=_ROWS_OF_A_GROUP)
        partition = Record(bucket) if buckets(spec) else Record()
        return Written(sink.getvalue(), len(whole), spec.spec_id, partition, self._bounds(whole))

    def shaped(self, rows: pa.Table) -> pa.Table:
        """The rows with all columns of the table's schema, in its order and types."""
        return pa.table([_column(rows, field) for field in self.arrow], schema=self.arrow)

    def put(self, made: Written) -> DataFile:
        """Keep a file; it belongs to no table before a commit says so."""
        path = f"{self._metadata.location}/data/{self._vault.ids.new()}.parquet"
        self._zone.put(self._permit, name_of(path), made.data)
        file: DataFile = DataFile.from_args(
            content=DataFileContent.DATA,
            file_path=path,
            file_format=FileFormat.PARQUET,
            partition=made.partition,
            record_count=made.rows,
            file_size_in_bytes=made.data.size,
            column_sizes={},
            split_offsets=None,
            sort_order_id=None,
            equality_ids=None,
            key_metadata=None,
            **made.bounds,
        )
        file.spec_id = made.spec_id
        return file

    def _bounds(self, rows: pa.Table) -> dict[str, dict[int, Any]]:
        nulls, lower, upper = {}, {}, {}
        for name in STATISTICS:
            if name not in rows.column_names:
                continue
            field, column = self.schema.find_field(name), rows.column(name)
            nulls[field.field_id] = column.null_count
            if column.null_count < len(rows):
                found = pc.min_max(column)
                assert isinstance(field.field_type, PrimitiveType)
                lower[field.field_id] = _as_bytes(field.field_type, found["min"])
                upper[field.field_id] = _as_bytes(field.field_type, found["max"])
        return {
            "value_counts": dict.fromkeys(nulls, len(rows)),
            "null_value_counts": nulls,
            "nan_value_counts": {},
            "lower_bounds": lower,
            "upper_bounds": upper,
        }

    def read(
        self,
        file: DataFile,
        columns: Collection[str] | None = None,
        only: BooleanExpression | pc.Expression | None = None,
        *,
        coded: Sequence[str] = (),
    ) -> pa.Table:
        """The rows of one file in the schema's types.

        Args:
            columns: top-level columns, by default all; in the schema's order.
            only: a condition on key columns, of Iceberg's or of Arrow's.
            coded: columns of text that are given as dictionaries.
        """
        wanted = [field for field in self.arrow if columns is None or field.name in columns]
        options = ds.ParquetReadOptions(dictionary_columns=list(coded))
        shape = ds.ParquetFileFormat(read_options=options, pre_buffer=True)
        with self._zone.open(self._permit, name_of(file.file_path)) as source:
            fragment = shape.make_fragment(source)
            have = set(fragment.physical_schema.names)
            condition = only
            if isinstance(only, BooleanExpression):
                every = isinstance(only, AlwaysTrue)
                condition = None if every else expression_to_pyarrow(bind(self.schema, only, True), self.schema)
            # A file from before a column was added has none of it: what is asked of the column is null there.
            table = fragment.to_table(columns=[f.name for f in wanted if f.name in have], filter=condition)
        made = [_column(table, field, coded) for field in wanted]
        return pa.table(made, schema=pa.schema([pa.field(f.name, c.type) for f, c in zip(wanted, made, strict=True)]))


def _column(rows: pa.Table, field: pa.Field, coded: Collection[str] = ()) -> pa.Array | pa.ChunkedArray:
    if field.name not in rows.column_names:
        return pa.nulls(len(rows), field.type)
    column = rows.column(field.name)
    if column.type.equals(field.type) or field.name in coded:
        return column
    return conform(column, field.type)


def _as_bytes(kind: PrimitiveType, value: pa.Scalar) -> bytes:
    made: bytes = to_bytes(kind, value.value if pa.types.is_timestamp(value.type) else value.as_py())
    return made
