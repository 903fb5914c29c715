"""Between resources and tables: the columns that a plan reads, and rows of the result as plain values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import duckdb
import msgspec
import pyarrow as pa

from carelake.core import canonical
from carelake.core.errors import Invalid
from carelake.lake.engines.engine import connect
from carelake.lake.rows import conform, elements_sql, typed
from carelake.lake.schema import Leaf, Listed, Node, Record, arrow_type, column_of
from carelake.lake.views.build import ORDINAL
from carelake.lake.views.numbers import plain_number
from carelake.lake.views.plan import Output, Plan

__all__ = ["in_memory", "named", "of_lake", "read_columns", "result_schema", "rows"]


def in_memory(plan: Plan, resources: Iterable[Mapping[str, Any]]) -> pa.Table:
    """The relation ``resources`` of a plan: its number, id and the elements that the view reads, natively nested.

    Raises:
        Invalid: ``lake.view_data``, for resources that are not of the shape that R4 gives them.
    """
    mine = [resource for resource in resources if resource.get("resourceType") == plan.resource]
    try:
        bodies = [canonical.dump(resource).decode() for resource in mine]
    except (TypeError, ValueError, msgspec.MsgspecError):
        raise _misshaped() from None
    ids = pa.array([resource.get("id") for resource in mine], pa.string())
    columns = {ORDINAL: pa.array(range(len(mine)), pa.int64()), "id": ids}
    if plan.record.fields:
        parsed = _parsed(plan.record, pa.table({"body": pa.array(bodies, pa.string())}))
        columns.update({name: parsed.column(name) for name in parsed.column_names if name != "id"})
    return pa.table(columns)


def _parsed(record: Record, bodies: pa.Table) -> pa.Table:
    with connect() as connection:
        connection.register("bodies", bodies)
        try:
            return typed(record, connection.sql(elements_sql(record)).to_arrow_table())
        except duckdb.Error:
            raise _misshaped() from None


def _misshaped() -> Invalid:
    return Invalid("lake.view_data", "A resource is not of the shape that its type says; validate the resources.")


def read_columns(plan: Plan) -> list[str]:
    """The columns of the lake's table that a plan reads, the digits of decimals too."""
    return [column_of(field.name) for field in arrow_type(plan.record)]


def of_lake(plan: Plan, table: pa.Table) -> pa.Table:
    """The same of a lake table's rows; elements that the table does not have are null."""
    have = set(table.column_names)
    columns = {
        ORDINAL: pa.array(range(len(table)), pa.int64()),
        "id": conform(table.column("id"), pa.string()),
    }
    for field in arrow_type(plan.record):
        name = column_of(field.name)
        columns[field.name] = (
            conform(table.column(name), field.type) if name in have else pa.nulls(len(table), field.type)
        )
    return pa.table(columns)


# --- results ---

_Plain = Callable[[Any], Any]


def result_schema(plan: Plan) -> pa.Schema:
    """Arrow types of the view's columns, before anything is run."""
    return pa.schema([pa.field(output.name, arrow_type(output.kind)) for output in _shown(plan)])


def named(plan: Plan, table: pa.Table) -> pa.Table:
    """A result with the view's names and types."""
    schema = result_schema(plan)
    columns = [conform(table.column(n), field.type) for n, field in enumerate(schema)]
    return pa.table(columns, schema=schema)


def _shown(plan: Plan) -> tuple[Output, ...]:
    return plan.outputs[: len(plan.outputs) - len(plan.order)] if plan.order else plan.outputs


def rows(plan: Plan, table: pa.Table) -> list[dict[str, Any]]:
    """The rows of a result whose columns are in the order of the plan's outputs."""
    shown = _shown(plan)
    columns = []
    for n, output in enumerate(shown):
        work = _plain(output.kind)
        values = table.column(n).to_pylist()
        columns.append(values if work is None else [None if value is None else work(value) for value in values])
    names = [output.name for output in shown]
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def _plain(kind: Node) -> _Plain | None:
    """What makes a value of JSON out of one of Arrow, or None where it is one."""
    if isinstance(kind, Leaf):
        return plain_number if kind.kind == "decimal" else canonical_json if kind.kind == "json" else None
    if isinstance(kind, Listed):
        inner = _plain(kind.item)
        return None if inner is None else lambda values: [None if v is None else inner(v) for v in values]
    return _object(kind)


def canonical_json(text: str) -> Any:
    """JSON text as plain values."""
    return _numbers(canonical.load(text))


def _numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _numbers(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_numbers(inner) for inner in value]
    return plain_number(value) if not isinstance(value, str | int | bool | None) else value


def _object(record: Record) -> _Plain:
    parts = [(name, _plain(node)) for name, node in record.fields.items()]

    def made(value: Mapping[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, work in parts:
            inner = value.get(name)
            if inner is not None and inner != []:
                found[name] = inner if work is None else work(inner)
        return found

    return made
