"""Proof of a data set: for each row what was known when, and a hash of every value, kept beside the rows.

A row has a ``key`` (its subject, time and place among the rows of these), a ``row`` hash of its key and all values,
and per source the **high-water marks**: the latest event time and the latest write time of what it may rest on. Where
a row of the source was joined, these are its own, of a deletion too; all are at or before the prediction time, which
`late` counts. Joined groups have a hash of their values of their own, so that a replay can say which source differs.

Hashes are HMACs under the account's reference key (decision D4). A row is encoded at a fixed width: numbers and
moments as they are, text by its SHA-256, each with a byte that tells null; so the same values have the same hash
whichever engine made them, and whatever Arrow type of their kind they are in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from carelake.core import canonical
from carelake.features import asof
from carelake.features.ticks import NEVER, moments, ticks

__all__ = [
    "EVENT",
    "WRITE",
    "Mac",
    "Marks",
    "digest",
    "joined_marks",
    "keyed",
    "late",
    "proof",
    "row_hashes",
    "view_marks",
]

EVENT, WRITE = "event_time", "write_time"
Mac = Callable[[bytes], bytes]
_Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Marks:
    """High-water marks of one source for each row, as timestamps in UTC; null where nothing was known."""

    event: pa.Array
    write: pa.Array


def joined_marks(groups: Mapping[str, pa.Table], found: Mapping[str, asof.Best]) -> dict[str, Marks]:
    """The times of the rows that `asof.best` found."""
    marks = {}
    for name, group in groups.items():
        rows = pa.array(found[name].rows, mask=found[name].rows < 0)
        event, write = group.column(EVENT), pc.coalesce(*_alike(group.column(WRITE), group.column(EVENT)))
        marks[name] = Marks(_taken(event, rows), _taken(write, rows))
    return marks


def view_marks(
    rows: pa.Table, sources: Mapping[str, pa.Table], *, subject: str = "subject_id", at: str = "prediction_time"
) -> dict[str, Marks]:
    """The latest event and the latest write that were known of each row's subject, of anything in a source.

    Args:
        sources: each has ``subject``, ``event_time`` and ``write_time`` (null: known when it happened).
    """
    marks = {}
    for name, table in sources.items():
        event, write = table.column(EVENT), pc.coalesce(*_alike(table.column(WRITE), table.column(EVENT)))
        columns = {subject: table.column(subject), asof.KEYS[2]: pa.nulls(len(table), pa.bool_())}
        known = {
            EVENT: pa.table({**columns, EVENT: event, WRITE: write}),
            WRITE: pa.table({**columns, EVENT: write, WRITE: event}),  # the best by write time
        }
        found = asof.best(rows, known, subject=subject, at=at)
        taken = {
            one: _taken(known[one].column(EVENT), pa.array(found[one].rows, mask=found[one].rows < 0))
            for one in known
        }
        marks[name] = Marks(taken[EVENT], taken[WRITE])
    return marks


def _alike(write: pa.ChunkedArray, event: pa.ChunkedArray) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    kind = pa.timestamp("us", "UTC")
    return _moments(write).cast(kind), _moments(event).cast(kind)


def _moments(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pa.chunked_array([moments(ticks(column))])


def _taken(column: pa.ChunkedArray, rows: pa.Array) -> pa.Array:
    return _moments(column).take(rows).combine_chunks()


def proof(
    rows: pa.Table,
    mac: Mac,
    marks: Mapping[str, Marks],
    *,
    values: Sequence[str],
    parts: Mapping[str, Sequence[str]] | None = None,
    subject: str = "subject_id",
    at: str = "prediction_time",
) -> pa.Table:
    """A row for each row, in its order: ``key``, ``row``, then per source ``NAME__event_time``, ``NAME__write_time``
    and, where it is in ``parts``, ``NAME__hash``.

    Args:
        mac: of many bytes, `Keyring.referrer`. values: the columns that ``row`` covers beside the key.
        parts: by source, the columns that came of it.
    """
    keys = keyed(rows, mac, subject=subject, at=at)
    columns: dict[str, pa.Array] = {"key": keys, "row": row_hashes(rows.select(list(values)), mac, keys)}
    for name, one in marks.items():
        columns[f"{name}__{EVENT}"], columns[f"{name}__{WRITE}"] = one.event, one.write
        if parts and name in parts:
            columns[f"{name}__hash"] = row_hashes(rows.select(list(parts[name])), mac, keys)
    return pa.table(columns)


def late(rows: pa.Table, proved: pa.Table, *, at: str = "prediction_time") -> dict[str, int]:
    """By source, rows with a mark after their prediction time: none, or the data set leaks."""
    when = ticks(rows.column(at))
    found: dict[str, int] = {}
    for column in proved.column_names:
        name, _, end = column.rpartition("__")
        if end in (EVENT, WRITE):
            found[name] = found.get(name, 0) + int((ticks(proved.column(column)) > when).sum())
    return found


def digest(proved: pa.Table, mac: Mac) -> str:
    """One HMAC over all rows of a proof, whatever their order."""
    total = 0
    for found in zip(*(proved.column(name).to_pylist() for name in ("key", "row")), strict=True):
        total += int.from_bytes(mac(b"".join(found)), "big")
    return f"{len(proved)}:{total % (1 << 256):064x}"


def keyed(rows: pa.Table, mac: Mac, *, subject: str = "subject_id", at: str = "prediction_time") -> pa.Array:
    """A name for each row: of its subject and time, and how many of these came before it."""
    plain = pa.table({"subject": rows.column(subject), "at": pa.array(ticks(rows.column(at)))})
    seen: dict[bytes, int] = {}
    names = []
    for data in _encoded(plain):
        nth = seen[data] = seen.get(data, -1) + 1
        names.append(mac(b"key\x1f" + data + nth.to_bytes(8, "big")))
    return pa.array(names, pa.binary(32))


def row_hashes(rows: pa.Table, mac: Mac, keys: pa.Array) -> pa.Array:
    """An HMAC of each row's key, the columns' names and its values."""
    head = hashlib.sha256(canonical.dump([[field.name, _kind(field.type)] for field in rows.schema])).digest()
    found = [mac(head + key + data) for key, data in zip(keys.to_pylist(), _encoded(rows), strict=True)]
    return pa.array(found, pa.binary(32))


def _encoded(rows: pa.Table) -> Iterator[bytes]:
    """Each row as bytes of one width."""
    if not rows.num_columns:
        yield from (b"" for _ in range(len(rows)))
        return
    block = np.concatenate([part for column in rows.columns for part in _parts(column)], axis=1)
    width, data = block.shape[1], block.tobytes()
    yield from (data[at : at + width] for at in range(0, len(data), width))


def _parts(column: pa.ChunkedArray) -> Iterator[_Bytes]:
    """A byte that tells whether there is a value, then the value."""
    there: _Bytes = pc.is_valid(column).to_numpy().astype(np.uint8)
    yield there.reshape(-1, 1)
    match _kind(column.type):
        case "number":
            numbers = pc.fill_null(column.cast(pa.float64()), 0.0).to_numpy() + 0.0  # no minus at zero
            yield _bytes(np.where(np.isnan(numbers), np.nan, numbers).astype("<f8"))
        case "whole":
            yield _bytes(pc.fill_null(column.cast(pa.int64()), 0).to_numpy().astype("<i8"))
        case "time":
            found = ticks(column, 1000)
            yield _bytes(np.where(found == NEVER, 0, found).astype("<i8"))
        case "null":
            yield np.zeros((len(column), 0), dtype=np.uint8)
        case kind:
            yield _digests(column, kind)


def _bytes(numbers: npt.NDArray[np.generic]) -> _Bytes:
    return np.ascontiguousarray(numbers).view(np.uint8).reshape(len(numbers), 8)


def _digests(column: pa.ChunkedArray, kind: str) -> _Bytes:
    if kind != "text":
        said = [None if value is None else canonical.dump(_plain(value)) for value in column.to_pylist()]
        column = pa.chunked_array([pa.array(said, pa.large_binary())])
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    coded = column.combine_chunks().dictionary_encode()
    words = coded.dictionary.to_pylist()
    named = [hashlib.sha256(one if isinstance(one, bytes) else one.encode()).digest() for one in words]
    table = np.frombuffer(b"".join([*named, bytes(32)]), dtype=np.uint8).reshape(-1, 32)
    found: _Bytes = table[pc.fill_null(coded.indices, len(named)).to_numpy()]
    return found


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value if isinstance(value, str | int | bool | type(None)) else str(value)


def _kind(kind: pa.DataType) -> str:
    """What a type holds, whatever its width."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_floating(kind):
        return "number"
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return "whole"
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return "time"
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return "text"
    return "null" if pa.types.is_null(kind) else "other"
