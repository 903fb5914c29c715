"""Rows of a view as CSV, NDJSON, JSON, Parquet or an Arrow stream."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from carelake.core import canonical
from carelake.core.errors import Invalid
from carelake.lake.views.numbers import plain_number

__all__ = ["FORMATS", "write"]

_BATCH = 10_000


def _batches(table: pa.Table) -> Iterator[list[dict[str, Any]]]:
    for batch in table.to_batches(max_chunksize=_BATCH):
        yield [_plain(row) for row in batch.to_pylist()]


def _plain(value: Any) -> Any:
    """A value as JSON shows it: decimals without noise, parts that are not there left out."""
    if isinstance(value, float):
        return plain_number(value)
    if isinstance(value, dict):
        return {name: _inner(inner) for name, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list) else value


def _inner(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _inner(inner) for name, inner in value.items() if inner is not None}
    return _plain(value)


def _csv(table: pa.Table, out: BinaryIO) -> None:
    """Quoted where needed (RFC 4180); a collection and an object are JSON in their cell, nothing is an empty cell."""
    text = io.TextIOWrapper(out, "utf-8", newline="", write_through=True)
    writer = csv.writer(text)
    writer.writerow(table.column_names)
    for rows in _batches(table):
        writer.writerows([_cell(value) for value in row.values()] for row in rows)
    text.flush()
    text.detach()


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    return canonical.dump_as_given(value).decode() if isinstance(value, dict | list) else value


def _ndjson(table: pa.Table, out: BinaryIO) -> None:
    for rows in _batches(table):
        out.writelines(canonical.dump_as_given(row) + b"\n" for row in rows)


def _json(table: pa.Table, out: BinaryIO) -> None:
    out.write(b"[")
    for n, rows in enumerate(_batches(table)):
        for m, row in enumerate(rows):
            out.write((b",\n" if n or m else b"\n") + canonical.dump_as_given(row))
    out.write(b"\n]\n" if len(table) else b"]\n")


def _parquet(table: pa.Table, out: BinaryIO) -> None:
    pq.write_table(table, out, compression="zstd")


def _arrow(table: pa.Table, out: BinaryIO) -> None:
    with pa.ipc.new_stream(out, table.schema) as stream:
        stream.write_table(table)


FORMATS: dict[str, Callable[[pa.Table, BinaryIO], None]] = {
    "csv": _csv,
    "ndjson": _ndjson,
    "json": _json,
    "parquet": _parquet,
    "arrow": _arrow,
}
"""Name of a format to what writes it."""


def write(table: pa.Table, form: str, out: BinaryIO) -> None:
    """The table in a format.

    Raises:
        Invalid: ``lake.view_format``.
    """
    work = FORMATS.get(form)
    if work is None:
        raise Invalid("lake.view_format", f"There is no such format; expected one of {', '.join(FORMATS)}.")
    work(table, out)
