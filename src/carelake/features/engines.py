"""This room's statements on Spark: the same text, written as Spark's by sqlglot, gives the same rows.

Not any SQL: what `cohort.sql` and `readmission.sql` use. Their code lists and other small tables become constants of
the text, so that nothing but patients' rows is joined over the cluster. Results come back in the types and the order
that DuckDB gives them, and with them the bytes of a training set, whichever engine made it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import pyarrow as pa

from carelake.core.errors import Unavailable
from carelake.core.settings import LakeSettings
from carelake.lake.engines.engine import Parameter, run
from carelake.lake.rows import conform

__all__ = ["Frame", "OnSpark", "Run", "failing"]

_NUMBERS = itertools.count()
_INTERVALS = {"TO_DAYS": "make_dt_interval({0})", "TO_HOURS": "make_dt_interval(0, {0})"}
# DuckDB: born on 29 February, a year is full on the 28th where that is the month's last day.
_YEARS = (
    "(year({1}) - year({0}) - CASE WHEN month({1}) * 100 + day({1}) + CASE WHEN month({1}) = 2 AND day({1}) = 28 "
    "AND day(last_day({1})) = 28 THEN 1 ELSE 0 END < month({0}) * 100 + day({0}) THEN 1 ELSE 0 END)"
)


class Run(Protocol):
    """Runs one of this room's statements: `lake.engines.engine.run`, or `OnSpark.run`."""

    def __call__(
        self,
        sql: str,
        tables: Mapping[str, Any],
        parameters: Mapping[str, Parameter] | None = None,
        *,
        constants: Mapping[str, pa.Table] | None = None,
        limits: LakeSettings | None = None,
    ) -> pa.Table:
        """The statement's rows."""


@dataclass(frozen=True)
class Frame:
    """A relation on Spark, in the place of an Arrow table: what a statement needs to know of it.

    Attributes:
        frame: the DataFrame.
        schema: its columns as DuckDB would have them.
    """

    frame: Any
    schema: pa.Schema


@dataclass(frozen=True)
class OnSpark:
    """Statements in one session."""

    spark: Any

    def run(
        self,
        sql: str,
        tables: Mapping[str, Any],
        parameters: Mapping[str, Parameter] | None = None,
        *,
        constants: Mapping[str, pa.Table] | None = None,
        limits: LakeSettings | None = None,
    ) -> pa.Table:
        """As `lake.engines.engine.run`, over frames and Arrow tables.

        Raises:
            Unavailable: ``lake.spark``, ``lake.spark_job``.
        """
        empty = {name: one.schema.empty_table() for name, one in tables.items()}
        shape = run(sql, empty, parameters, constants=constants, limits=limits).schema
        with self._views(tables) as names, failing():
            made = self.spark.sql(spark_text(sql, names, parameters or {}, constants or {})).toArrow()
        return pa.table([conform(made.column(f.name), f.type) for f in shape], schema=shape)

    @contextmanager
    def _views(self, tables: Mapping[str, Any]) -> Iterator[dict[str, str]]:
        names = {name: f"carelake_{next(_NUMBERS)}" for name in tables}
        try:
            for name, one in tables.items():
                frame = one.frame if isinstance(one, Frame) else self.spark.createDataFrame(one)
                frame.createOrReplaceTempView(names[name])
            yield names
        finally:
            for name in names.values():
                self.spark.catalog.dropTempView(name)


@contextmanager
def failing() -> Iterator[None]:
    """Tell that Spark failed, without what it says: that shows values.

    Raises:
        Unavailable: ``lake.spark_job``.
    """
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException

    try:
        yield
    except (PySparkException, Py4JError):
        raise Unavailable(
            "lake.spark_job",
            "Spark did not make the rows; look at the cluster's log, and at lake.spark.memory.",
        ) from None


def spark_text(
    text: str, names: Mapping[str, str], parameters: Mapping[str, Parameter], constants: Mapping[str, pa.Table]
) -> str:
    """A statement as Spark's.

    Args:
        names: of the statement's relations in the session.

    Raises:
        Unavailable: ``lake.spark``: sqlglot is not there.
    """
    try:
        import sqlglot
        from sqlglot import expressions as sql
    except ImportError:
        raise Unavailable("lake.spark", "Spark's SQL needs sqlglot; install carelake[spark].") from None
    tree = sqlglot.parse_one(text, dialect="duckdb")
    for one in list(tree.find_all(sql.In)):
        _listed(sql, one, constants)
    for found in list(tree.find_all(sql.Table)):
        if found.name in names:
            found.replace(sql.Table(this=sql.to_identifier(names[found.name]), alias=_alias(sql, found)))
        elif found.name in constants:
            found.replace(sql.Var(this=_values(constants[found.name], found.alias_or_name)))
    # The innermost first: what is around them is written with them.
    for node in reversed(list(tree.bfs())):
        _said(sql, node, parameters)
    made: str = tree.sql(dialect="spark", identify=True, comments=False)
    return made


def _alias(sql: Any, found: Any) -> Any:
    return sql.TableAlias(this=sql.to_identifier(found.alias_or_name))


def _listed(sql: Any, found: Any, constants: Mapping[str, pa.Table]) -> None:
    """``IN (SELECT code FROM codes WHERE list = 'x')`` as the codes themselves."""
    query = found.args.get("query")
    if query is None:
        return
    wanted = next(one.this for one in query.find_all(sql.Literal))
    told = constants["codes"].to_pydict()
    codes = [code for name, code in zip(told["list"], told["code"], strict=True) if name == wanted]
    found.set("query", None)
    found.set("expressions", [sql.Literal.string(code) for code in codes])


def _values(table: pa.Table, alias: str) -> str:
    rows = ", ".join("(" + ", ".join(map(_constant, row.values())) + ")" for row in table.to_pylist())
    columns = ", ".join(f"`{name}`" for name in table.column_names)
    return f"(SELECT * FROM VALUES {rows} AS _v({columns})) AS `{alias}`"


def _constant(value: Any) -> str:
    if isinstance(value, str):
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    return "NULL" if value is None else f"CAST('{float(value)!r}' AS DOUBLE)"


def _said(sql: Any, node: Any, parameters: Mapping[str, Parameter]) -> None:
    """What sqlglot does not say as Spark does."""
    made: str | None = None
    if isinstance(node, sql.Parameter | sql.Placeholder):
        value = parameters[node.name]
        made = f"TIMESTAMP_NTZ '{value.isoformat(sep=' ')}'" if isinstance(value, datetime) else f"{value:d}"
    elif isinstance(node, sql.DayOfWeekIso):
        made = f"(weekday({_written(node.this)}) + 1)"
    elif isinstance(node, sql.Anonymous | sql.ToDays) and (called := _OWN.get(_name(node))) is not None:
        made = called([_written(one) for one in _arguments(node)])
    if made is not None:
        node.replace(sql.Var(this=made))


def _micros(said: list[str]) -> str:
    return f"unix_micros(CAST({said[0]} AS TIMESTAMP))"


_OWN: dict[str, Callable[[list[str]], str]] = {
    "EPOCH_US": _micros,
    "DATESUB": lambda said: _YEARS.format(said[1], said[2]),
    **{name: (lambda said, text=text: text.format(*said)) for name, text in _INTERVALS.items()},  # type: ignore[misc]
}


def _name(node: Any) -> str:
    return str(node.name if type(node).__name__ == "Anonymous" else node.sql_name()).upper()


def _arguments(node: Any) -> list[Any]:
    return list(node.expressions) or [node.this]


def _written(node: Any) -> str:
    text: str = node.sql(dialect="spark", identify=True, comments=False)
    return text
