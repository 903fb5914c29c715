"""A plan as DuckDB's SQL over native nested columns: lambdas, `unnest`, no functions of our own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from carelake.core import canonical
from carelake.lake.schema import Node, structure
from carelake.lake.views.dialect import Dialect, call, infix, template
from carelake.lake.views.plan import Unnest

__all__ = ["DuckDb"]

_TYPES = {"text": "VARCHAR", "bool": "BOOLEAN", "int": "INTEGER", "decimal": "DOUBLE", "json": "VARCHAR"}


def _edge(sign: str) -> Callable[..., str]:
    """Half a unit of the last digit away; exact to 8 decimals, outward beyond."""
    half = "CAST('0.' || repeat('0', length(split_part({0}, '.', 2))::BIGINT) || '5' AS DECIMAL(38,18))"
    exact = f"CAST(CAST(try_cast({{0}} AS DECIMAL(38,18)) {sign} {half} AS VARCHAR) AS DOUBLE)"
    cut = "floor" if sign == "-" else "ceil"
    long = f"{cut}(({exact}) * 100000000) / 100000000"
    return template(f"CASE WHEN length(split_part({{0}}, '.', 2)) > 7 THEN {long} ELSE {exact} END")


def _whole(sign: str) -> Callable[..., str]:
    """Of two Integers; nothing where the result is none."""
    return template(f"try_cast(CAST({{0}} AS BIGINT) {sign} CAST({{1}} AS BIGINT) AS INTEGER)")


def _decimal(text: str) -> Callable[..., str]:
    """Computed with doubles and cut to the digits that they keep, so that 0.1 + 0.2 is 0.3."""
    made = text.format("CAST({0} AS DOUBLE)", "CAST({1} AS DOUBLE)")
    return template(f"CAST(format('{{{{:.15g}}}}', {made}) AS DOUBLE)")


_WORDS: dict[str, Callable[..., str]] = {
    # logic and order
    "is_null": template("({0} IS NULL)"),
    "is_not_null": template("({0} IS NOT NULL)"),
    "not": template("(NOT {0})"),
    "and": infix("AND"),
    "or": infix("OR"),
    "eq": infix("="),
    "ne": infix("<>"),
    "lt": infix("<"),
    "le": infix("<="),
    "gt": infix(">"),
    "ge": infix(">="),
    "is_same": infix("IS NOT DISTINCT FROM"),
    "coalesce": call("coalesce"),
    "least": call("least"),
    "greatest": call("greatest"),
    "same": template("{0}"),
    # lists
    "list": call("list_value"),
    "first": template("{0}[1]"),
    "last": template("{0}[-1]"),
    "item": template("(CASE WHEN {1} >= 0 THEN {0}[{1} + 1] END)"),
    "skip": template("{0}[greatest({1}, 0) + 1 :]"),
    "take": template("{0}[1 : greatest({1}, 0)]"),
    "size": template("coalesce(len({0}), 0)"),
    "some": template("coalesce({0}, [])"),
    "flatten": call("flatten"),
    "compact": template("list_filter({0}, lambda _x: _x IS NOT NULL)"),
    "cat": call("list_concat"),
    "keyed": template("{{'k': {0}, 'v': {1}}}"),
    "append": call("list_append"),
    "sorted": call("list_sort"),
    "position": template("(list_position({0}, {1}) - 1)"),
    "has": call("list_contains"),
    "decimals": template("CAST({0} AS DOUBLE[])"),
    "join": call("array_to_string"),
    "split": call("string_split"),
    "list_sum": call("list_sum"),
    "list_sum_int": template("try_cast(list_sum({0}) AS INTEGER)"),
    "list_min": call("list_min"),
    "list_max": call("list_max"),
    "list_avg": call("list_avg"),
    # numbers
    "neg": template("(- {0})"),
    "add": _decimal("{0} + {1}"),
    "sub": _decimal("{0} - {1}"),
    "mul": _decimal("{0} * {1}"),
    "add_int": _whole("+"),
    "sub_int": _whole("-"),
    "mul_int": _whole("*"),
    "quotient": _decimal("{0} / nullif({1}, 0)"),
    "div": template("try_cast(trunc(CAST({0} AS DOUBLE) / nullif(CAST({1} AS DOUBLE), 0)) AS INTEGER)"),
    "div_int": template("try_cast(CAST({0} AS BIGINT) // nullif(CAST({1} AS BIGINT), 0) AS INTEGER)"),
    "mod": _decimal("{0} % nullif({1}, 0)"),
    "mod_int": template("({0} % nullif({1}, 0))"),
    "abs": call("abs"),
    "ceiling": template("try_cast(ceil({0}) AS INTEGER)"),
    "floor": template("try_cast(floor({0}) AS INTEGER)"),
    "truncate": template("try_cast(trunc({0}) AS INTEGER)"),
    "round": template("round(CAST({0} AS DOUBLE), {1})"),
    "sqrt": template("(CASE WHEN {0} >= 0 THEN sqrt({0}) END)"),
    "ln": template("(CASE WHEN {0} > 0 THEN ln({0}) END)"),
    "exp": call("exp"),
    "to_int": template("try_cast({0} AS INTEGER)"),
    "to_decimal": template("try_cast({0} AS DOUBLE)"),
    "to_text": template("CAST({0} AS VARCHAR)"),
    "low_edge": _edge("-"),
    "high_edge": _edge("+"),
    # texts
    "concat": infix("||"),
    "length": call("length"),
    "upper": call("upper"),
    "lower": call("lower"),
    "fold": call("lower"),
    "trim": template("trim({0}, ' ' || chr(9) || chr(10) || chr(13))"),
    "left": call("left"),
    "substr": template("substr({0}, {1} + 1)"),
    "index_of": template("(instr({0}, {1}) - 1)"),
    "starts": call("starts_with"),
    "ends": call("ends_with"),
    "contains": call("contains"),
    "replace": call("replace"),
    "matches": template("regexp_matches({0}, {1}, 's')"),
    "extract": call("regexp_extract"),
    "replace_matches": template("regexp_replace({0}, {1}, {2}, 'gs')"),
    "split_part": call("split_part"),
    "drop_prefix": template("(CASE WHEN starts_with({0}, {1}) THEN substr({0}, length({1}) + 1) ELSE {0} END)"),
    # moments
    "moment": template("epoch_us(try_cast({0} AS TIMESTAMPTZ))"),
    "clock": template("try_cast({0} AS TIME)"),
    "month_end": template("CAST(last_day(try_cast({0} || '-01' AS DATE)) AS VARCHAR)"),
}


class DuckDb(Dialect):
    """DuckDB 1.5 and later."""

    words = _WORDS
    types = _TYPES
    error = "error"

    def name(self, name: str) -> str:
        return '"' + name.replace('"', '""') + '"'

    def text(self, value: str) -> str:
        return "'" + value.replace("'", "''") + "'"

    def listed(self, item: str) -> str:
        return f"{item}[]"

    def structured(self, parts: Sequence[tuple[str, str]]) -> str:
        return f"STRUCT({', '.join(f'{name} {kind}' for name, kind in parts)})"

    def each(self, source: str, var: str, body: str, index: str) -> str:
        return f"list_transform({source}, lambda {self._bound(var, index)}: {self._shifted(body, index)})"

    def keep(self, source: str, var: str, test: str, index: str) -> str:
        return f"list_filter({source}, lambda {self._bound(var, index)}: {self._shifted(test, index)})"

    def _bound(self, var: str, index: str) -> str:
        return f"{self.name(var)}, {self.name(index)}" if index else self.name(var)

    def _shifted(self, body: str, index: str) -> str:
        # DuckDB counts places from 1
        return body.replace(self.name(index), f"({self.name(index)} - 1)") if index else body

    def let(self, var: str, value: str, body: str) -> str:
        return f"list_transform([{value}], lambda {self.name(var)}: {body})[1]"

    def read_json(self, source: str, node: Node) -> str:
        return f"from_json({source}, {self.text(canonical.dump(structure(node)).decode())})"

    def unnest(self, rel: Unnest, base: str, source: str) -> str:
        columns = [self.name(name) for name in (*rel.base.names, *([rel.alive] if rel.alive else []))]
        held = f"SELECT *, {self.kept(rel, source, f'coalesce(len({source}), 0) > 0', '[NULL]')} FROM {base}"
        items = f"unnest(_list) AS {self.name(rel.var)}"
        places = f"CAST(unnest(range(len(_list))) AS INTEGER) AS {self.name(rel.index)}"
        return f"SELECT {', '.join([*columns, items, places])} FROM ({held})"
