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

__all__ = ["FORMATS", "blocks", "write"]

_BATCH = 10_000
_PIECE = 1 << 20


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


def _csv(table: pa.Table, header: bool) -> Iterator[bytes]:
    """Quoted where needed (RFC 4180); a collection and an object are JSON in their cell, nothing is an empty cell."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    if header:
        writer.writerow(table.column_names)
    for rows in _batches(table):
        writer.writerows([_cell(value) for value in row.values()] for row in rows)
        yield text.getvalue().encode()
        text.seek(0)
        text.truncate()
    yield text.getvalue().encode()


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    return canonical.dump_as_given(value).decode() if isinstance(value, dict | list) else value


def _ndjson(table: pa.Table, header: bool) -> Iterator[bytes]:
    for rows in _batches(table):
        yield b"".join(canonical.dump_as_given(row) + b"\n" for row in rows)


def _json(table: pa.Table, header: bool) -> Iterator[bytes]:
    yield b"["
    for n, rows in enumerate(_batches(table)):
        yield (b",\n" if n else b"\n") + b",\n".join(canonical.dump_as_given(row) for row in rows)
    yield b"\n]\n" if len(table) else b"]\n"


def _parquet(table: pa.Table, header: bool) -> Iterator[bytes]:
    made = io.BytesIO()
    pq.write_table(table, made, compression="zstd")
    yield from _pieces(made)


def _arrow(table: pa.Table, header: bool) -> Iterator[bytes]:
    made = io.BytesIO()
    with pa.ipc.new_stream(made, table.schema) as stream:
        stream.write_table(table)
    yield from _pieces(made)


def _pieces(made: io.BytesIO) -> Iterator[bytes]:
    made.seek(0)
    while piece := made.read(_PIECE):
        yield piece


FORMATS: dict[str, Callable[[pa.Table, bool], Iterator[bytes]]] = {
    "csv": _csv,
    "ndjson": _ndjson,
    "json": _json,
    "parquet": _parquet,
    "arrow": _arrow,
}
"""Name of a format to what writes it in blocks."""


def blocks(table: pa.Table, form: str, *, header: bool = True) -> Iterator[bytes]:
    """The table in a format, piece by piece.

    Args:
        header: whether CSV begins with the names of the columns.

    Raises:
        Invalid: ``lake.view_format``.
    """
    work = FORMATS.get(form)
    if work is None:
        raise Invalid("lake.view_format", f"There is no such format; expected one of {', '.join(FORMATS)}.")
    return work(table, header)


def write(table: pa.Table, form: str, out: BinaryIO) -> None:
    """The table in a format, as `blocks`."""
    out.writelines(blocks(table, form))
