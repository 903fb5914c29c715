"""Counts and means over enough patients, for who may see nothing else (`sight`, scope ``cells``).

Two rules, each of which can be tested by itself:

1. *Rare values are not there.* A statement reads coarse tables: times by month, numbers to two digits, no ids; and a
   value that fewer than k patients have in its column is null. So no statement can tell of such a value, whatever it
   asks: two records that differ in rare values alone give the same bytes.
2. *Small cells are not there.* A statement is one SELECT of groups, counts and means (a grammar of its own, an
   allow-list), and a group of fewer than k patients is left out; a mean is over k patients who have a value.

Expressions cannot fail (``TRY``), since an error would tell that a row was there. Groups come in an order that
depends on what is shown. What this does not do is in docs/lake-access.md: groups that differ by little can be
subtracted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from carelake.core.errors import Invalid
from carelake.lake.statements.statement import Relation, Statement, written

if TYPE_CHECKING:
    from carelake.lake.seeing.relations import Asked

__all__ = ["coarse", "counted"]

_WHO = ("patient", "subject_id")
_HIDDEN = frozenset({"id", "version", "deleted", "value_text"})
_DAY = r"^([0-9]{4}-[0-9]{2})-[0-9]{2}.*$"
_MOST_TABLES = 4

_EXPRESSIONS = {
    "BETWEEN", "CASE", "CAST", "COLUMN_REF", "COMPARISON", "CONJUNCTION", "CONSTANT", "FUNCTION", "OPERATOR",
    "PARAMETER", "TYPE",
}  # fmt: skip
_OPERATORS = {
    "COMPARE_IN", "COMPARE_NOT_IN", "OPERATOR_COALESCE", "OPERATOR_IS_NOT_NULL", "OPERATOR_IS_NULL", "OPERATOR_NOT",
}  # fmt: skip
_FUNCTIONS = {
    "!~~", "!~~*", "%", "*", "+", "-", "/", "//", "||", "~~", "~~*", "abs", "ceil", "contains", "date_part",
    "date_trunc", "datepart", "datetrunc", "decade", "floor", "greatest", "least", "left", "lower", "month",
    "monthname", "nullif", "prefix", "quarter", "round", "starts_with", "substr", "substring", "upper", "year",
}  # fmt: skip
_MEANS = {"avg", "mean", "sum"}


# -- coarse tables --------------------------------------------------------------------------------------------------


def coarse(asked: Asked, k: int) -> Asked | None:
    """A relation without ids, by months and rounded numbers, and without the values that fewer than k patients have.

    None where it is about no patients, or holds past versions.
    """
    who = next((name for name in _WHO if name in asked.schema.names), None)
    if who is None or "deleted" in asked.schema.names:
        return None
    shown = pa.schema([one for one in asked.schema if _is_shown(one, who)])

    def read(columns: Collection[str] | None) -> pa.Table:
        names = [one for one in shown.names if columns is None or one in columns or one == who]
        found = asked.read(names).select(names)
        found = found.filter(pc.is_valid(found.column(who)))
        made = {name: _coarse(found.column(name)) for name in names if name != who}
        told = pa.table({who: found.column(who), **made})
        schema = pa.schema([shown.field(one) for one in names])
        return pa.table([_common(told, one, who, k) for one in names], schema=schema)

    return asked._replace(schema=shown, read=read)


def _is_shown(field: pa.Field, who: str) -> bool:
    if field.name == who:
        return True
    return field.name not in _HIDDEN and not field.name.endswith("_id") and not pa.types.is_nested(field.type)


def _coarse(column: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = column.type
    if pa.types.is_temporal(kind):
        return pc.floor_temporal(column, unit="month").cast(kind)
    if pa.types.is_string(kind):
        return pc.replace_substring_regex(column, _DAY, r"\1")
    if pa.types.is_floating(kind) or pa.types.is_integer(kind):
        found = column.combine_chunks().dictionary_encode()
        rounded = [None if one is None else float(f"{one:.1e}") for one in found.dictionary.to_pylist()]
        return pa.chunked_array([pa.array(rounded, pa.float64()).take(found.indices).cast(kind)])
    return column


def _common(table: pa.Table, name: str, who: str, k: int) -> pa.ChunkedArray:
    """A column without the values that fewer than k patients have."""
    column = table.column(name)
    if name == who:
        return column
    pairs = pa.table({"value": column, "who": table.column(who)})
    counts = pairs.group_by("value").aggregate([("who", "count_distinct")])
    common = counts.filter(pc.field("who_count_distinct") >= k).column("value").drop_null()
    return pc.if_else(pc.is_in(column, common.combine_chunks()), column, pa.scalar(None, column.type))


# -- statements -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Shape:
    """What a statement is about.

    Attributes:
        patient: SQL of the patient's column.
        patients: names of such columns.
        hidden: these, and what tables are called: a table's name stands for its rows where a column may stand.
    """

    patient: str
    patients: frozenset[str]
    hidden: frozenset[str]


def counted(said: Statement, relations: Mapping[Relation, Asked], k: int) -> str:
    """The statement with its small groups left out.

    Raises:
        Invalid: ``lake.cells``, when it is no SELECT of groups, counts and means.
    """
    tree = said.tree
    if tree["type"] != "SELECT_NODE" or any(tree.get(one) for one in ("having", "qualify", "sample")):
        raise _no_cells()
    if (tree.get("cte_map") or {}).get("map") or len(tree.get("group_sets") or ()) > 1:
        raise _no_cells()
    who = {one: name for one, asked in relations.items() for name in _WHO if name in asked.schema.names}
    tables = list(_tables(tree["from_table"], who))
    patients = frozenset(name for _, name in tables)
    called = {name.lower() for name, _ in tables} | {one.name for one in relations}
    shape = _Shape(f"{_quoted(tables[0][0])}.{_quoted(tables[0][1])}", patients, patients | called)
    groups = [_group(one, shape) for one in tree.get("group_expressions") or ()]
    shown = [_column(one, shape, k) for one in tree["select_list"]]
    order, limits = _modifiers(tree.get("modifiers") or (), shape)
    parts = [f"SELECT {', '.join(shown)} FROM {_from(tree['from_table'])}"]
    if tree.get("where_clause"):
        parts.append(f"WHERE TRY({_expression(tree['where_clause'], shape)})")
    if groups:
        parts.append(f"GROUP BY {', '.join(groups)}")
    elif tree.get("aggregate_handling") == "FORCE_AGGREGATES":
        parts.append("GROUP BY ALL")
    parts.append(f"HAVING count(DISTINCT {shape.patient}) >= {k}")
    # Ties, and a statement without an order, come in the order of what is shown.
    order += [str(n + 1) for n in range(len(shown))]
    return " ".join([*parts, f"ORDER BY {', '.join(order)}", *limits])


def _no_cells() -> Invalid:
    return Invalid(
        "lake.cells",
        "Expected one SELECT of columns with GROUP BY, count(*), count(DISTINCT patient), avg or sum, over tables "
        "joined by patient; docs/lake-access.md has examples.",
    )


def _tables(node: Mapping[str, Any], who: Mapping[Relation, str]) -> Iterable[tuple[str, str]]:
    """Each table's name in the statement, and its column of patients; joined by patient or not at all."""
    waiting, found = [node], []
    while waiting:
        one = waiting.pop()
        if one["type"] == "JOIN":
            waiting += [one["right"], one["left"]]
            continue
        if one["type"] != "BASE_TABLE" or one.get("sample") or one.get("column_name_alias"):
            raise _no_cells()
        *above, name = (part.lower() for part in one["qualified_name"]["path"])
        relation = Relation(above[0] if above else "", name)
        if relation not in who:
            raise _no_cells()
        found.append((one.get("alias") or name, who[relation]))
    if len(found) > _MOST_TABLES or len({name.lower() for name, _ in found}) < len(found):
        raise _no_cells()
    _joined(node, {name.lower(): column for name, column in found})
    return found


def _joined(node: Mapping[str, Any], columns: Mapping[str, str]) -> set[str]:
    """The names of the tables of a join, each side of which goes with the other by patient."""
    if node["type"] != "JOIN":
        return {(node.get("alias") or node["qualified_name"]["path"][-1]).lower()}
    left, right = _joined(node["left"], columns), _joined(node["right"], columns)
    using = [str(name).lower() for name in node.get("using_columns") or ()]
    told = node.get("condition")
    if using:
        fits = len(using) == 1 and {columns[name] for name in left | right} == set(using)
    elif told and told["type"] == "COMPARE_EQUAL":
        named = {_patient_of(told["left"], columns), _patient_of(told["right"], columns)}
        fits = len(named & left) == len(named & right) == 1
    else:
        fits = False
    if not fits or node.get("join_type") != "INNER" or node.get("ref_type") != "REGULAR":
        raise _no_cells()
    return left | right


def _patient_of(node: Mapping[str, Any], columns: Mapping[str, str]) -> str:
    """The table whose column of patients it is, "" where it is none."""
    names = [str(name).lower() for name in node.get("column_names", ())]
    fits = node["class"] == "COLUMN_REF" and len(names) == 2 and columns.get(names[0]) == names[1]
    return names[0] if fits else ""


def _group(node: Mapping[str, Any], shape: _Shape) -> str:
    text = _expression(node, shape)
    return text if node["class"] in ("COLUMN_REF", "CONSTANT") else f"TRY({text})"


def _column(node: Mapping[str, Any], shape: _Shape, k: int) -> str:
    made = _aggregate(node, shape, k) or _group(node, shape)
    name = node.get("alias") or ("" if node["class"] in ("COLUMN_REF", "CONSTANT") else _sql(node))
    return f"{made} AS {_quoted(name)}" if name else made


def _aggregate(node: Mapping[str, Any], shape: _Shape, k: int) -> str | None:
    if node["class"] != "FUNCTION":
        return None
    name, given = node["function_name"].lower(), [one["expression"] for one in node.get("arguments") or ()]
    if name not in ("count", "count_star", *_MEANS):
        return None
    if node.get("filter") or (node.get("order_bys") or {}).get("orders") or node.get("export_state"):
        raise _no_cells()
    if name in ("count", "count_star") and (not given or given[0]["class"] == "STAR") and not node.get("distinct"):
        return "count(*)"
    if len(given) != 1 or given[0]["class"] != "COLUMN_REF":
        raise _no_cells()
    if name == "count":
        if not node.get("distinct") or _last(given[0]) not in shape.patients:
            raise _no_cells()
        return f"count(DISTINCT {shape.patient})"
    if node.get("distinct"):
        raise _no_cells()
    value = _expression(given[0], shape)
    enough = f"count(DISTINCT {shape.patient}) FILTER (WHERE {value} IS NOT NULL) >= {k}"
    return f"CASE WHEN {enough} THEN {name}({value}) END"


def _last(node: Mapping[str, Any]) -> str:
    return str(node["column_names"][-1]).lower()


def _expression(node: Mapping[str, Any], shape: _Shape) -> str:
    """An expression over columns, each of whose parts is on the list; the patient's column is on none."""
    waiting: list[Any] = [node]
    while waiting:
        one = waiting.pop()
        if isinstance(one, list):
            waiting += one
            continue
        if not isinstance(one, dict):
            continue
        kind = one.get("class")
        if kind is not None and (kind not in _EXPRESSIONS or not _is_plain(one, kind, shape)):
            raise _no_cells()
        waiting += one.values()
    return _sql({**node, "alias": ""})


def _is_plain(node: Mapping[str, Any], kind: str, shape: _Shape) -> bool:
    if kind == "COLUMN_REF":
        return len(node["column_names"]) <= 2 and _last(node) not in shape.hidden
    if kind == "OPERATOR":
        return node["type"] in _OPERATORS
    if kind == "FUNCTION":
        return node["function_name"].lower() in _FUNCTIONS and not (node.get("filter") or node.get("distinct"))
    return True


def _modifiers(told: Iterable[Mapping[str, Any]], shape: _Shape) -> tuple[list[str], list[str]]:
    order: list[str] = []
    limits: list[str] = []
    for one in told:
        if one["type"] == "ORDER_MODIFIER":
            order = [_ordered(each, shape) for each in one["orders"]]
        elif one["type"] == "LIMIT_MODIFIER":
            for name in ("limit", "offset"):
                if one.get(name):
                    if one[name]["class"] not in ("CONSTANT", "PARAMETER"):
                        raise _no_cells()
                    limits.append(f"{name.upper()} {_sql(one[name])}")
        else:
            raise _no_cells()
    return order, limits


_WAYS = {"ASCENDING": " ASC", "DESCENDING": " DESC", "ORDER_DEFAULT": ""}
_NULLS = {"NULLS_FIRST": " NULLS FIRST", "NULLS_LAST": " NULLS LAST", "ORDER_DEFAULT": ""}


def _ordered(one: Mapping[str, Any], shape: _Shape) -> str:
    node = one["expression"]
    if node["class"] == "STAR":  # ORDER BY ALL, as it is without
        return "1"
    if node["class"] not in ("COLUMN_REF", "CONSTANT", "FUNCTION"):
        raise _no_cells()
    text = _aggregate(node, shape, 1) if node["class"] == "FUNCTION" else None
    if text is not None and not text.startswith("count"):
        raise _no_cells()  # a mean that is not shown would be told by its place: name it by its column
    return (text or _group(node, shape)) + _WAYS[one["type"]] + _NULLS[one["null_order"]]


_NOTHING: Mapping[str, Any] = {"type": "EMPTY", "alias": "", "sample": None}


def _sql(expression: Mapping[str, Any]) -> str:
    return written(_select([expression], _NOTHING)).removeprefix("SELECT ")


def _from(table: Mapping[str, Any]) -> str:
    star = {"class": "STAR", "type": "STAR", "alias": "", "relation_name": "", "exclude_list": [], "replace_list": []}
    return written(_select([star], table)).removeprefix("SELECT * FROM ")


def _select(shown: list[Mapping[str, Any]], table: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "SELECT_NODE", "modifiers": [], "cte_map": {"map": []}, "select_list": shown, "from_table": table,
        "where_clause": None, "group_expressions": [], "group_sets": [], "aggregate_handling": "STANDARD_HANDLING",
        "having": None, "sample": None, "qualify": None,
    }  # fmt: skip


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
