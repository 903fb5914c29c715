"""Rows of a statement as JSON pages, NDJSON, CSV and Arrow; what is streamed is made batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import pyarrow as pa
from pyarrow import csv

from carelake.apps.asking import listed, values_of
from carelake.core import canonical
from carelake.core.errors import Unsupported

__all__ = ["ARROW", "FORMS", "JSON", "STREAMED", "Batches", "Page", "apart", "columns_of", "form_of", "page_of"]

JSON, ARROW = "application/json", "application/vnd.apache.arrow.stream"
FORMS = {"json": JSON, "ndjson": "application/x-ndjson", "csv": "text/csv", "arrow": ARROW}
_ALIASES = {"application/ndjson": "ndjson", "application/*": "json", "*/*": "json", "text/*": "csv"}
_PAGE_BYTES = 4 << 20


def form_of(said: str | None, accepted: str) -> str:
    """The form that is asked for, by name in the body or by ``Accept``.

    Raises:
        Unsupported: ``http.format``.
    """
    if said is not None:
        if said in FORMS:
            return said
    elif not accepted.strip():
        return "json"
    else:
        known = {media: name for name, media in FORMS.items()} | _ALIASES
        for one in accepted.lower().split(","):
            media, _, rest = one.partition(";")
            if media.strip() in known and rest.replace(" ", "") not in ("q=0", "q=0.0"):
                return known[media.strip()]
    raise Unsupported("http.format", f"Rows are answered as {', '.join(FORMS.values())}.")


class Batches(Protocol):
    """Batches by number, as `pyarrow.RecordBatchFileReader` has them."""

    @property
    def num_record_batches(self) -> int:
        """How many there are."""
        ...

    def get_batch(self, number: int) -> pa.RecordBatch:
        """One of them."""
        ...


class Page(NamedTuple):
    """Rows from a place on.

    Attributes:
        after: (batch, row) where the next page begins, None on the last.
    """

    rows: list[tuple[Any, ...]]
    after: tuple[int, int] | None


def page_of(batches: Batches, place: tuple[int, int], rows: int) -> Page:
    """So many rows; fewer, where they are large."""
    number, row = place
    found: list[tuple[Any, ...]] = []
    left = _PAGE_BYTES
    while number < batches.num_record_batches and len(found) < rows and left > 0:
        batch = batches.get_batch(number)
        part = batch.slice(row, rows - len(found))
        size = part.nbytes
        if size > left:
            part = part.slice(0, max(part.num_rows * left // size, 0 if found else 1))
        left -= size
        found += values_of(part)
        row += part.num_rows
        if row >= batch.num_rows:
            number, row = number + 1, 0
    return Page(found, (number, row) if number < batches.num_record_batches else None)


def columns_of(schema: pa.Schema) -> list[dict[str, str]]:
    """Names and types of Arrow."""
    return [{"name": one.name, "type": str(one.type)} for one in schema]


def _arrow(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> Iterator[bytes]:
    sink = _Pieces()
    with pa.ipc.new_stream(pa.PythonFile(sink, "w"), schema) as stream:
        for batch in batches:
            stream.write_batch(batch)
            yield sink.taken()
    yield sink.taken()


def _ndjson(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> Iterator[bytes]:
    names = apart(schema.names)
    for batch in batches:
        lines = (canonical.dump_as_given(dict(zip(names, row, strict=True))) for row in values_of(batch))
        yield b"".join(line + b"\n" for line in lines)


def _csv(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> Iterator[bytes]:
    flat = pa.schema([pa.field(one.name, _flat(one.type)) for one in schema])
    sink = _Pieces()
    with csv.CSVWriter(pa.PythonFile(sink, "w"), flat) as stream:
        for batch in batches:
            columns = [_flattened(column, one.type) for column, one in zip(batch.columns, flat, strict=True)]
            stream.write_batch(pa.RecordBatch.from_arrays(columns, schema=flat))
            yield sink.taken()
    yield sink.taken()


def _flat(kind: pa.DataType) -> pa.DataType:
    """What a cell can hold as it is; of everything else its JSON is text."""
    told = pa.types
    plain = (
        told.is_integer,
        told.is_floating,
        told.is_boolean,
        told.is_decimal,
        told.is_string,
        told.is_large_string,
    )
    moments = (told.is_date, told.is_time, told.is_timestamp)
    return kind if any(fits(kind) for fits in (*plain, *moments)) else pa.string()


def _flattened(column: pa.Array, kind: pa.DataType) -> pa.Array:
    if column.type.equals(kind):
        return column
    told = (None if one is None else canonical.dump_as_given(one).decode() for one in listed(column))
    return pa.array(told, pa.string())


def apart(names: Sequence[str]) -> list[str]:
    """Names of columns, none of them twice: a JSON object has one value for each."""
    found: dict[str, None] = {}
    for name in names:
        number, told = 0, name
        while told in found:
            number += 1
            told = f"{name}_{number}"
        found[told] = None
    return list(found)


STREAMED: Mapping[str, Callable[[pa.Schema, Iterable[pa.RecordBatch]], Iterator[bytes]]] = {
    "arrow": _arrow,
    "csv": _csv,
    "ndjson": _ndjson,
}


class _Pieces:
    """A file that gives what was written to it since the last time."""

    closed = False

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def write(self, data: Any) -> int:
        self._pieces.append(bytes(data))
        return len(self._pieces[-1])

    def taken(self) -> bytes:
        found = b"".join(self._pieces)
        self._pieces.clear()
        return found

    def writable(self) -> bool:
        return True

    def flush(self) -> None:
        """Nothing waits here."""

    def close(self) -> None:
        """Nothing is held."""
