"""A plan as Spark's SQL: the same steps with higher-order functions and `posexplode`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from carelake.lake.schema import Node
from carelake.lake.views.dialect import Dialect, call, infix, template
from carelake.lake.views.plan import Unnest

__all__ = ["Spark"]

_TYPES = {"text": "STRING", "bool": "BOOLEAN", "int": "INT", "decimal": "DOUBLE", "json": "STRING"}
_MANY = 1_000_000_000


def _edge(sign: str) -> Callable[..., str]:
    """Half a unit of the last digit away; exact to 8 decimals, outward beyond."""
    half = "CAST(concat('0.', repeat('0', length(split_part({0}, '.', 2))), '5') AS DECIMAL(30,14))"
    exact = f"CAST(CAST(try_cast({{0}} AS DECIMAL(30,14)) {sign} {half} AS STRING) AS DOUBLE)"
    cut = "floor" if sign == "-" else "ceil"
    long = f"{cut}(({exact}) * 100000000) / 100000000"
    return template(f"(CASE WHEN length(split_part({{0}}, '.', 2)) > 7 THEN {long} ELSE {exact} END)")


def _whole(sign: str) -> Callable[..., str]:
    """Of two Integers; nothing where the result is none."""
    return template(f"try_cast(CAST({{0}} AS BIGINT) {sign} CAST({{1}} AS BIGINT) AS INT)")


def _decimal(text: str) -> Callable[..., str]:
    """Computed with doubles and cut to the digits that they keep, so that 0.1 + 0.2 is 0.3."""
    made = text.format("CAST({0} AS DOUBLE)", "CAST({1} AS DOUBLE)")
    return template(f"try_cast(format_string('%.14e', {made}) AS DOUBLE)")


def _cat(*args: str) -> str:
    return f"concat({', '.join(f'coalesce({arg}, array())' for arg in args)})"


_SUM = "aggregate({0}, CAST(0 AS {1}), (_a, _b) -> _a + _b)"
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
    "is_same": infix("<=>"),
    "coalesce": call("coalesce"),
    "least": call("least"),
    "greatest": call("greatest"),
    "same": template("{0}"),
    # lists
    "list": call("array"),
    "first": template("get({0}, 0)"),
    "last": template("try_element_at({0}, -1)"),
    "item": template("get({0}, {1})"),
    "skip": template(f"slice({{0}}, greatest({{1}}, 0) + 1, {_MANY})"),
    "take": template("slice({0}, 1, greatest({1}, 0))"),
    "size": template("coalesce(array_size({0}), 0)"),
    "some": template("coalesce({0}, array())"),
    "flatten": template("flatten(filter({0}, _x -> _x IS NOT NULL))"),
    "compact": template("filter({0}, _x -> _x IS NOT NULL)"),
    "cat": _cat,
    "keyed": template("named_struct('k', {0}, 'v', {1})"),
    "append": call("array_append"),
    "sorted": call("array_sort"),
    "position": template("(array_position({0}, {1}) - 1)"),
    "has": call("array_contains"),
    "decimals": template("CAST({0} AS ARRAY<DOUBLE>)"),
    "join": call("array_join"),
    "split": template(
        "(CASE WHEN {1} = '' THEN filter(split({0}, ''), _x -> _x <> '') "
        "ELSE split({0}, concat('\\\\Q', {1}, '\\\\E')) END)"
    ),
    "list_sum": template(f"(CASE WHEN array_size({{0}}) > 0 THEN {_SUM.format('{0}', 'DOUBLE')} END)"),
    "list_sum_int": template(
        f"(CASE WHEN array_size({{0}}) > 0 THEN try_cast({_SUM.format('{0}', 'BIGINT')} AS INT) END)"
    ),
    "list_min": call("array_min"),
    "list_max": call("array_max"),
    "list_avg": template(
        f"(CASE WHEN array_size({{0}}) > 0 THEN {_SUM.format('{0}', 'DOUBLE')} / array_size({{0}}) END)"
    ),
    # numbers
    "neg": template("(- {0})"),
    "add": _decimal("{0} + {1}"),
    "sub": _decimal("{0} - {1}"),
    "mul": _decimal("{0} * {1}"),
    "add_int": _whole("+"),
    "sub_int": _whole("-"),
    "mul_int": _whole("*"),
    "quotient": _decimal("{0} / nullif({1}, 0)"),
    "div": template("try_cast(CAST({0} AS DOUBLE) / nullif(CAST({1} AS DOUBLE), 0) AS INT)"),
    "div_int": template("try_cast(CAST({0} AS BIGINT) div nullif(CAST({1} AS BIGINT), 0) AS INT)"),
    "mod": _decimal("{0} % nullif({1}, 0)"),
    "mod_int": template("({0} % nullif({1}, 0))"),
    "abs": call("abs"),
    "ceiling": template("try_cast(ceil({0}) AS INT)"),
    "floor": template("try_cast(floor({0}) AS INT)"),
    "truncate": template("try_cast(CAST({0} AS DOUBLE) AS INT)"),
    "round": template("round(CAST({0} AS DOUBLE), {1})"),
    "sqrt": template("(CASE WHEN {0} >= 0 THEN sqrt({0}) END)"),
    "ln": template("(CASE WHEN {0} > 0 THEN ln({0}) END)"),
    "exp": call("exp"),
    "to_int": template("try_cast({0} AS INT)"),
    "to_decimal": template("try_cast({0} AS DOUBLE)"),
    "to_text": template("CAST({0} AS STRING)"),
    "low_edge": _edge("-"),
    "high_edge": _edge("+"),
    # texts
    "concat": call("concat"),
    "length": call("char_length"),
    "upper": call("upper"),
    "lower": call("lower"),
    "fold": call("lower"),
    "trim": template("btrim({0}, ' \\t\\n\\r')"),
    "left": call("left"),
    "substr": template("substr({0}, {1} + 1)"),
    "index_of": template("(instr({0}, {1}) - 1)"),
    "starts": call("startswith"),
    "ends": call("endswith"),
    "contains": call("contains"),
    "replace": call("replace"),
    "matches": template("rlike({0}, concat('(?s)', {1}))"),
    "extract": call("regexp_extract"),
    "replace_matches": template("regexp_replace({0}, concat('(?s)', {1}), {2})"),
    "split_part": call("split_part"),
    "drop_prefix": template("(CASE WHEN startswith({0}, {1}) THEN substr({0}, char_length({1}) + 1) ELSE {0} END)"),
    # moments
    "moment": template("unix_micros(try_cast({0} AS TIMESTAMP))"),
    "clock": template("unix_micros(try_cast(concat('1970-01-01T', {0}) AS TIMESTAMP))"),
    "month_end": template("CAST(last_day(try_cast(concat({0}, '-01') AS DATE)) AS STRING)"),
}


class Spark(Dialect):
    """Spark 4 and later, with ANSI mode, in UTC, with names that mind capital letters."""

    words = _WORDS
    types = _TYPES
    error = "raise_error"

    def name(self, name: str) -> str:
        return "`" + name.replace("`", "``") + "`"

    def text(self, value: str) -> str:
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"

    def listed(self, item: str) -> str:
        return f"ARRAY<{item}>"

    def structured(self, parts: Sequence[tuple[str, str]]) -> str:
        return f"STRUCT<{', '.join(f'{name}: {kind}' for name, kind in parts)}>"

    def each(self, source: str, var: str, body: str, index: str) -> str:
        return f"transform({source}, {self._bound(var, index)} -> {body})"

    def keep(self, source: str, var: str, test: str, index: str) -> str:
        return f"filter({source}, {self._bound(var, index)} -> {test})"

    def _bound(self, var: str, index: str) -> str:
        return f"({self.name(var)}, {self.name(index)})" if index else self.name(var)

    def let(self, var: str, value: str, body: str) -> str:
        return f"get(transform(array({value}), {self.name(var)} -> {body}), 0)"

    def read_json(self, source: str, node: Node) -> str:
        return f"from_json({source}, {self.text(self.kind(node))})"

    def unnest(self, rel: Unnest, base: str, source: str) -> str:
        columns = [self.name(name) for name in (*rel.base.names, *([rel.alive] if rel.alive else []))]
        held = (
            f"SELECT *, {self.kept(rel, source, f'coalesce(array_size({source}), 0) > 0', 'array(NULL)')} FROM {base}"
        )
        exploded = f"LATERAL VIEW posexplode(_list) _t AS {self.name(rel.index)}, {self.name(rel.var)}"
        names = [*columns, self.name(rel.var), self.name(rel.index)]
        return f"SELECT {', '.join(names)} FROM ({held}) {exploded}"
