"""Canonical JSON to columns, in DuckDB's own JSON reader and not in Python, and back again.

A double loses the digits of ``1.10``, so before parsing each number gets a neighbour that holds its text
(``"value":1.10`` becomes ``"value":1.10,"value_text":"1.10"``); in parts that stay JSON text the neighbour is folded
back afterwards. Both are one regular expression over canonical bytes, where a quote inside a text is always escaped
and so never looks like a name. Which elements occur is read from the distinct skeletons of a batch (the JSON with its
values blanked), since a batch of one type has few. That costs more than the parsing does: so where most elements are
known, those are parsed, and names are counted in the columns and in the JSON, which is cheap; only where some are
missing the skeletons are looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import duckdb
import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from carelake.core import canonical
from carelake.core.errors import Corrupt
from carelake.lake.moments import TIME_MACROS
from carelake.lake.schema import (
    NOT_STORED,
    TEXT_OF,
    Leaf,
    Listed,
    Node,
    Record,
    arrow_type,
    column_of,
    merge,
    occurring,
    structure,
    table_schema,
)

__all__ = ["CHANGES", "CODES", "conform", "elements_sql", "known", "occurs", "restore", "rows", "typed"]

CHANGES = pa.schema(
    [
        pa.field("seq", pa.int64()),
        pa.field("id", pa.string()),
        pa.field("version", pa.int32()),
        pa.field("last_updated", pa.timestamp("us", "UTC")),
        pa.field("patient", pa.string()),
        pa.field("deleted", pa.bool_()),
        pa.field("replaced_seq", pa.int64()),
        pa.field("body", pa.string()),
    ]
)
"""Resource versions of one type as they come from the store; ``body`` is canonical JSON, null in a deletion."""

_NUMBER = r"-?[0-9][0-9.eE+-]*"
_DOUBLED = rf"""regexp_replace(body, '"([A-Za-z]+)":({_NUMBER})', '"\1":\2,"\1{TEXT_OF}":"\2"', 'g')"""
# With its key: a text in a list may itself be a colon.
_SKELETON = rf"""regexp_replace(body, '"([A-Za-z_]+)":(?:"(?:[^"\\]|\\.)*"|{_NUMBER})', '"\1":0', 'g')"""
_NAME = '":'
_NAMES = r'[{,]"[A-Za-z_0-9]+":'
"""Neither a text nor the end of one: a quote inside is escaped, and none of what closes a text is a letter."""
_UNDOUBLE = rf'"([A-Za-z]+)":{_NUMBER},"[A-Za-z]+{TEXT_OF}":"({_NUMBER})"'

_SAMPLE = 1_000
_Counting = Callable[[pa.Array | pa.ChunkedArray], pa.Array | pa.ChunkedArray]

# Where a resource says what it is about and when it happened: the first of these that it has.
CODES = ("code", "medicationCodeableConcept", "vaccineCode", "type", "class", "category")
_TIMES = (
    "effectiveDateTime",
    "effectivePeriod.start",
    "effectiveInstant",
    "performedDateTime",
    "performedPeriod.start",
    "onsetDateTime",
    "onsetPeriod.start",
    "occurrenceDateTime",
    "occurrencePeriod.start",
    "period.start",
    "billablePeriod.start",
    "servicedDate",
    "servicedPeriod.start",
    "started",
    "authoredOn",
    "recordedDate",
    "issued",
    "date",
    "created",
    "recorded",
)


def occurs(connection: duckdb.DuckDBPyConnection, resource_type: str, changes: pa.Table) -> Record:
    """Which elements a batch of one type has.

    Raises:
        Corrupt: ``lake.unknown_element``, ``lake.json``.
    """
    connection.register("changes", changes)
    try:
        said = connection.sql(
            "SELECT json_group_structure(k::JSON) "
            f"FROM (SELECT DISTINCT {_SKELETON} AS k FROM changes WHERE NOT deleted)"
        ).fetchall()
    except duckdb.Error:
        raise Corrupt("lake.json", "A stored resource body is not JSON; run `carelake verify`.") from None
    finally:
        connection.unregister("changes")
    found = msgspec.json.decode(said[0][0]) if said and said[0][0] else {}
    return occurring(resource_type, found if isinstance(found, dict) else {})


def rows(connection: duckdb.DuckDBPyConnection, record: Record, changes: pa.Table) -> pa.Table:
    """The columns of `schema.table_schema` for a batch of `CHANGES` of one type, in the batch's order."""
    schema = table_schema(record)
    parsed = _parse(connection, record, changes)
    columns: dict[str, pa.ChunkedArray] = {name: changes.column(name) for name in CHANGES.names if name != "body"}
    columns.update(_primary(connection, record, parsed))
    columns.update({column_of(name): parsed.column(name) for name in parsed.column_names})
    return pa.table([columns[field.name] for field in schema], schema=schema)


def known(
    connection: duckdb.DuckDBPyConnection, resource_type: str, record: Record | None, changes: pa.Table
) -> tuple[Record, pa.Table]:
    """As `occurs` and `rows`, where most elements are known.

    Args:
        record: elements that are known to occur; None for none.

    Returns:
        The elements that are known now, and the rows.
    """
    if record is None:
        record = occurs(connection, resource_type, changes.slice(0, _SAMPLE))
    made = rows(connection, record, changes)
    if not _all_told(record, made, changes):
        found = merge(record, occurs(connection, resource_type, changes))
        if found != record:
            record, made = found, rows(connection, found, changes)
    return record, made


def _all_told(record: Record, made: pa.Table, changes: pa.Table) -> bool:
    """Whether the rows have every name of the JSON that they were made from.

    Rows never have more. Counted the quick way, JSON may seem to have more (a text with ``":`` inside), never fewer.
    """
    there = [(made.column(column_of(name)), node) for name, node in record.fields.items()]
    count: _Counting
    for count in (partial(pc.count_substring, pattern=_NAME), partial(pc.count_substring_regex, pattern=_NAMES)):
        deleted = pc.sum(changes.column("deleted")).as_py() or 0
        want = (pc.sum(count(changes.column("body"))).as_py() or 0) - len(NOT_STORED) * (len(changes) - deleted)
        if sum(_names(_joined(column), node, count) for column, node in there) == want:
            return True
    return False


def _names(array: pa.Array, node: Node, count: _Counting) -> int:
    """How many names the JSON of these values has, their own among them."""
    found: int = len(array) - array.null_count
    if found:
        found += _inside(array, node, count)
    return found


def _inside(array: pa.Array, node: Node, count: _Counting) -> int:
    if isinstance(node, Leaf):
        return (pc.sum(count(array)).as_py() or 0) if node.kind == "json" else 0
    if isinstance(node, Listed):
        return _inside(array.flatten(), node.item, count)
    parts = dict(zip((one.name for one in array.type), array.flatten(), strict=True))
    return sum(_names(parts[name], part, count) for name, part in node.fields.items())


def _parse(connection: duckdb.DuckDBPyConnection, record: Record, bodies: pa.Table) -> pa.Table:
    """The elements of ``record`` out of a table with a column ``body``, as columns under their JSON names."""
    if not record.fields:
        return pa.table({"_": pa.nulls(len(bodies))}).select([])
    connection.register("bodies", bodies)
    try:
        return typed(record, connection.sql(elements_sql(record)).to_arrow_table())
    except duckdb.ConversionException:
        raise Corrupt("lake.json", "A stored resource body is not JSON; run `carelake verify`.") from None
    finally:
        connection.unregister("bodies")


def elements_sql(record: Record) -> str:
    """The statement that reads the elements of ``record`` from ``bodies (body)``; `typed` completes its answer."""
    told = canonical.dump(structure(record)).decode().replace("'", "''")
    return f"SELECT unnest(from_json({_DOUBLED if _with_digits(record) else 'body'}, '{told}')) FROM bodies"


def _with_digits(node: Node) -> bool:
    """Whether it has a place for numbers that must keep their digits."""
    if isinstance(node, Leaf):
        return node.kind in ("decimal", "json")
    return _with_digits(node.item) if isinstance(node, Listed) else any(map(_with_digits, node.fields.values()))


def typed(record: Record, table: pa.Table, fields: pa.StructType | None = None) -> pa.Table:
    """The answer of `elements_sql` in the types of `schema.arrow_type`, which may be given as ``fields``."""
    fields = fields or arrow_type(record)
    columns = [_undoubled(_joined(table.column(f.name)), node, f.type) for f, node in _walk(record, fields)]
    return pa.table(columns, schema=pa.schema(list(fields)))


def _walk(record: Record, fields: pa.StructType) -> Iterator[tuple[pa.Field, Node]]:
    for field in fields:
        yield field, record.fields.get(field.name) or Leaf("text")


def _joined(column: pa.ChunkedArray) -> pa.Array:
    whole = column.combine_chunks()
    return whole.chunk(0) if isinstance(whole, pa.ChunkedArray) else whole


def _undoubled(array: pa.Array, node: Node, kind: pa.DataType) -> pa.Array:
    """The array with the doubled numbers inside its JSON texts folded back, as ``kind``, the node's `arrow_type`."""
    if isinstance(node, Leaf):
        if node.kind == "json":
            return pc.replace_substring_regex(array, _UNDOUBLE, r'"\1":\2')
        return array
    if isinstance(node, Listed):
        inner = _undoubled(array.values, node.item, kind.value_type)
        return pa.ListArray.from_arrays(array.offsets, inner, type=kind, mask=_mask(array))
    parts = [_undoubled(array.field(f.name), part, f.type) for f, part in _walk(node, kind)]
    return pa.StructArray.from_arrays(parts, fields=list(kind), mask=_mask(array))


def _mask(array: pa.Array) -> pa.Array | None:
    return array.is_null() if array.null_count else None


def _primary(connection: duckdb.DuckDBPyConnection, record: Record, parsed: pa.Table) -> dict[str, pa.ChunkedArray]:
    codes = [pair for name in CODES for pair in _coding(record, name)]
    times = [f"moment({_quoted(path)})" for path in _TIMES if _has(record, path)]
    whole = parsed.append_column("_n", pa.nulls(len(parsed)))
    connection.register("parsed", whole)
    try:
        connection.sql(TIME_MACROS)
        found = connection.sql(
            f"SELECT {_first(c for c, _ in codes)} AS code, {_first(s for _, s in codes)} AS code_system, "
            f"{_first(iter(times), 'TIMESTAMPTZ')} AS time FROM parsed"
        ).to_arrow_table()
    finally:
        connection.unregister("parsed")
    zoned = found.column("time").cast(pa.timestamp("us", "UTC"))
    return {"code": found.column("code"), "code_system": found.column("code_system"), "time": zoned}


def _first(texts: Iterator[str] | Any, kind: str = "VARCHAR") -> str:
    return f"coalesce({', '.join([*texts, f'NULL::{kind}'])})"


def _quoted(path: str) -> str:
    return ".".join(f'"{part}"' for part in path.split("."))


def _has(record: Node | None, path: str) -> bool:
    for part in path.split("."):
        record = record.fields.get(part) if isinstance(record, Record) else None
    return record is not None


def _coding(record: Record, name: str) -> list[tuple[str, str]]:
    """SQL of the code and the system of an element, where it is a Coding or a CodeableConcept, one or many."""
    node, at = record.fields.get(name), _quoted(name)
    if isinstance(node, Listed):
        node, at = node.item, f"{at}[1]"
    inner = node.fields.get("coding") if isinstance(node, Record) else None
    if isinstance(inner, Listed):
        node, at = inner.item, f'{at}."coding"[1]'
    if not isinstance(node, Record) or "code" not in node.fields:
        return []
    # a code without a system must not be given the next element's
    system = f"coalesce({at}.system, '')" if "system" in node.fields else "''"
    return [(f"{at}.code", f"CASE WHEN {at}.code IS NOT NULL THEN {system} END")]


def conform(array: pa.Array | pa.ChunkedArray, wanted: pa.DataType) -> pa.Array:
    """The array in a type with more or fewer named parts: missing ones are null, others are left out."""
    if isinstance(array, pa.ChunkedArray):
        array = _joined(array)
    if array.type.equals(wanted):
        return array
    if pa.types.is_struct(wanted) and pa.types.is_struct(array.type):
        have = {field.name for field in array.type}
        parts = [
            conform(array.field(f.name), f.type) if f.name in have else pa.nulls(len(array), f.type) for f in wanted
        ]
        return pa.StructArray.from_arrays(parts, fields=list(wanted), mask=_mask(array))
    if pa.types.is_list(wanted) and (pa.types.is_list(array.type) or pa.types.is_large_list(array.type)):
        inner = conform(array.values, wanted.value_type)
        return pa.ListArray.from_arrays(array.offsets.cast(pa.int32()), inner, type=wanted, mask=_mask(array))
    return array.cast(wanted)


def restore(resource_type: str, record: Record, table: pa.Table) -> Iterator[dict[str, Any]]:
    """The resources that a table's rows were made from, as `canonical.load` would give them.

    An empty list is taken as absent: FHIR has none, and pyiceberg reads a null list of structs back as an empty one.
    """
    for row in table.to_pylist():
        body = {name: row.get(column_of(name)) for name in record.fields}
        body.update({name + TEXT_OF: row.get(name + TEXT_OF) for name in record.fields})
        made = _value(record, body)
        yield {"resourceType": resource_type, "id": row["id"], **made}


def _value(node: Node, value: Any) -> Any:
    if isinstance(node, Leaf):
        return canonical.load(value) if node.kind == "json" else value
    if isinstance(node, Listed):
        return [None if item is None else _value(node.item, item) for item in value]
    return _parts(node.fields, value)


def _parts(fields: Mapping[str, Node], value: Mapping[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name, node in fields.items():
        if node == Leaf("decimal"):
            if value.get(name + TEXT_OF) is not None:
                made[name] = canonical.load(value[name + TEXT_OF])
        elif value.get(name) is not None and value[name] != []:
            made[name] = _value(node, value[name])
    return made
