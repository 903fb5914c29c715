"""One number for the rows of a table, whatever their order and whichever engine made them.

Each row is written in one way (canonical JSON: names of a struct in order, a double with 15 significant digits, as
views show it, moments in UTC at microseconds) and hashed with SHA-256; the hashes are added up. So equal tables have
equal numbers, a row that is there twice counts twice, and shards can be added.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import msgspec
import pyarrow as pa

__all__ = ["row_hash", "together"]

_MODULUS = 1 << 256
_BATCH = 10_000
_Plain = Callable[[Any], Any]


def row_hash(table: pa.Table) -> str:
    """``COUNT:HEX`` of a table's rows; the names of its columns and their order are part of it."""
    works = [_plain(field.type) for field in table.schema]
    names = msgspec.json.encode(table.column_names)
    total = 0
    for batch in table.to_batches(_BATCH):
        columns = [
            column if work is None else [None if value is None else work(value) for value in column]
            for work, column in zip(works, (one.to_pylist() for one in batch.columns), strict=True)
        ]
        rows = zip(*columns, strict=True) if columns else iter([()] * len(batch))
        for row in rows:
            total += int.from_bytes(hashlib.sha256(names + msgspec.json.encode(row)).digest(), "big")
    return f"{len(table)}:{total % _MODULUS:064x}"


def together(parts: Sequence[str]) -> str:
    """The hash of tables of the same columns, one after the other."""
    counts, sums = zip(*((int(one.partition(":")[0]), int(one.partition(":")[2], 16)) for one in parts), strict=True)
    return f"{sum(counts)}:{sum(sums) % _MODULUS:064x}"


def _plain(kind: pa.DataType) -> _Plain | None:
    """What writes a value that is not its own JSON in one way."""
    if pa.types.is_floating(kind):
        return _number
    if pa.types.is_timestamp(kind):
        return _moment
    if pa.types.is_date(kind):
        return date.isoformat
    if pa.types.is_decimal(kind):
        return _decimal
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        inner = _plain(kind.value_type)
        return None if inner is None else lambda values: [None if v is None else inner(v) for v in values]
    if pa.types.is_struct(kind):
        parts = sorted(((field.name, _plain(field.type)) for field in kind), key=lambda part: part[0])
        return lambda value: [_part(value[name], work) for name, work in parts]
    return None


def _part(value: Any, work: _Plain | None) -> Any:
    return value if value is None or work is None else work(value)


def _number(value: float) -> str:
    return format(value + 0.0, ".15g")  # no minus at zero


def _moment(value: datetime) -> str:
    return (value.astimezone(UTC) if value.tzinfo else value).replace(tzinfo=None).isoformat()


def _decimal(value: Decimal) -> str:
    return format(value.normalize(), "f")
