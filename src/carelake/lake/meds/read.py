"""Reading a MEDS dataset, anybody's: its rows in the standard's types, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from carelake.core.errors import Invalid
from carelake.lake.meds.schema import CODES, DATA, SPLITS

__all__ = ["check", "shards"]


def shards(folder: Path) -> Iterator[pa.Table]:
    """The tables of ``data/``, in the order of their names, columns of `schema.DATA` first and in its types.

    Raises:
        Invalid: ``meds.unreadable``, ``meds.columns``.
    """
    for path in sorted((folder / "data").glob("**/*.parquet")):
        yield _typed(_read(path), DATA)


def _read(path: Path) -> pa.Table:
    try:
        return pq.read_table(path)
    except (OSError, pa.ArrowException):
        raise Invalid("meds.unreadable", "A file of the dataset cannot be read; expected Parquet.") from None


def _typed(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Optional columns that are not there are null."""
    columns = {}
    for field in schema:
        if field.name in table.column_names:
            try:
                columns[field.name] = table.column(field.name).cast(field.type)
            except pa.ArrowException:
                raise _columns(field) from None
        elif field.nullable and field.name != "time":
            columns[field.name] = pa.nulls(len(table), field.type)
        else:
            raise _columns(field)
    columns.update({name: table.column(name) for name in table.column_names if name not in columns})
    return pa.table(columns)


def _columns(field: pa.Field) -> Invalid:
    return Invalid("meds.columns", f"The column {field.name} is missing or of another type; expected {field.type}.")


def check(folder: Path) -> dict[str, int]:
    """Numbers of a dataset: subjects, events, codes.

    Raises:
        Invalid: ``meds.unreadable``, ``meds.columns``, and ``meds.rows`` where a subject is in two files, rows are
            out of order, a value is missing, or a code or a subject is not in ``metadata/``.
    """
    codes = set(_typed(_read(folder / "metadata" / "codes.parquet"), CODES).column("code").to_pylist())
    splits = _typed(_read(folder / "metadata" / "subject_splits.parquet"), SPLITS).column("subject_id").to_pylist()
    seen: set[int] = set()
    events = 0
    for table in shards(folder):
        mine = _subjects(table)
        if seen.intersection(mine):
            raise _rows("a subject is in two files")
        seen.update(mine)
        events += len(table)
        if table.column("code").null_count or not codes.issuperset(table.column("code").unique().to_pylist()):
            raise _rows("a code is missing, or is not in metadata/codes.parquet")
    if len(set(splits)) != len(splits) or not seen.issubset(splits):
        raise _rows("a subject has no split, or two")
    return {"subjects": len(seen), "events": events, "codes": len(codes)}


def _subjects(table: pa.Table) -> list[int]:
    """In the order of the table, each once."""
    column = table.column("subject_id").combine_chunks()
    if column.null_count:
        raise _rows("a subject_id is missing")
    runs = pc.run_end_encode(column)
    found: list[int] = (
        (runs.chunk(0) if isinstance(runs, pa.ChunkedArray) else runs).values.to_pylist() if len(table) else []
    )
    if len(set(found)) != len(found):
        raise _rows("the rows of a subject do not lie together")
    times = pc.fill_null(table.column("time").cast(pa.int64()), -(2**63) + 1).combine_chunks()
    same = pc.equal(column.slice(1), column.slice(0, max(len(column) - 1, 0)))
    back = pc.less(times.slice(1), times.slice(0, max(len(times) - 1, 0)))
    if pc.any(pc.and_(same, back)).as_py():
        raise _rows("the rows of a subject are not sorted by time")
    return found


def _rows(what: str) -> Invalid:
    return Invalid("meds.rows", f"The dataset breaks a rule of MEDS 0.4: {what}.")
