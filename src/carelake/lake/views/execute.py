"""Running a view: the same rows whichever engine does it."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, TypeVar, get_args

import duckdb
import pyarrow as pa

from carelake.core.errors import Invalid, Unsupported
from carelake.core.settings import LakeSettings
from carelake.lake.engines.engine import connect
from carelake.lake.engines.spark import in_bounds, session
from carelake.lake.statements import bounded
from carelake.lake.views import oracle
from carelake.lake.views.build import DEPTHS, build
from carelake.lake.views.definition import Definition, read
from carelake.lake.views.duckdb import DuckDb
from carelake.lake.views.errors import cardinality_error, depth_error
from carelake.lake.views.plan import Plan
from carelake.lake.views.spark import Spark
from carelake.lake.views.tables import in_memory, named, rows

__all__ = [
    "ENGINES",
    "Engine",
    "deepening",
    "engine_named",
    "engine_of",
    "on_duckdb",
    "on_spark",
    "over_resources",
    "run",
    "spark_failed",
]

Engine = Literal["duckdb", "spark", "oracle"]
ENGINES: tuple[Engine, ...] = get_args(Engine)
_Found = TypeVar("_Found")
_STEP = r"(?:(?:select|unionAll|column|where|repeat)\[\d+\]|path|forEachOrNull|forEach|repeat)"
# Only what a view's own place can look like: an engine's message may hold data that begins as ours does.
_FAILED = re.compile(rf"carelake (lake\.view_cardinality|lake\.view_depth) ({_STEP}(?:\.{_STEP})*)(?![\w.\[])")
_DUCKDB = DuckDb()
_SPARK = Spark()
_NUMBERS = itertools.count()


def run(
    view: Mapping[str, Any], resources: Iterable[Mapping[str, Any]], *, engine: Engine = "duckdb"
) -> list[dict[str, Any]]:
    """The rows of a ViewDefinition over resources in memory.

    Args:
        view: the ViewDefinition, parsed.
        resources: of any types, parsed; `canonical.load` keeps the digits of decimals, which boundaries need.
        engine: ``oracle`` is the FHIRPath evaluator in plain Python.

    Returns:
        For each row the columns in their order: str, bool, int, float; a list where ``collection`` is true; a dict
        for a column of a complex type; None for nothing.

    Raises:
        Invalid: ``lake.view_definition``, ``lake.view_path``, ``lake.view_type``, ``lake.view_cardinality``.
        Unsupported: ``lake.view_sql``, for what only the oracle can do; ``lake.view_engine``.
    """
    engine = engine_named(engine)
    definition = read(view)
    if engine == "oracle":
        _checked(definition)
        return list(oracle.evaluate(definition, resources))
    held = list(resources)
    on_engine = on_duckdb if engine == "duckdb" else on_spark
    return deepening(definition, lambda plan: rows(plan, on_engine(plan, in_memory(plan, held), ordered=True)))


def over_resources(
    view: Mapping[str, Any], resources: Iterable[Mapping[str, Any]], *, limits: LakeSettings | None = None
) -> pa.Table:
    """The rows of a view over resources in memory, on DuckDB, as `over.over` gives those of the lake; see `run`."""
    held = list(resources)
    return deepening(
        read(view), lambda plan: named(plan, on_duckdb(plan, in_memory(plan, held), ordered=True, limits=limits))
    )


def engine_of(name: str | None, limits: LakeSettings) -> Literal["duckdb", "spark"]:
    """The engine that runs over the lake: the one that is asked for, else the setting's.

    Raises:
        Unsupported: ``lake.view_engine``.
    """
    if name is None:
        return limits.engine
    if name in ("duckdb", "spark"):
        return "spark" if name == "spark" else "duckdb"
    raise Unsupported("lake.view_engine", "There is no such engine over the lake; expected duckdb or spark.")


def engine_named(name: str) -> Engine:
    """The engine of that name.

    Raises:
        Unsupported: ``lake.view_engine``.
    """
    for engine in ENGINES:
        if engine == name:
            return engine
    raise Unsupported("lake.view_engine", f"There is no such engine; expected {', '.join(ENGINES)}.")


def _checked(definition: Definition) -> None:
    """Tell what is wrong by the types alone, as the other engines do; what has no SQL form is no error here."""
    try:
        build(definition)
    except Unsupported:
        return


def deepening(definition: Definition, work: Callable[[Plan], _Found]) -> _Found:
    """The work's result with a plan that goes as deep as the data needs."""
    for depth in DEPTHS:
        try:
            return work(build(definition, depth))
        except Invalid as error:
            if error.code != "lake.view_depth" or depth == DEPTHS[-1]:
                raise
    raise AssertionError


def on_duckdb(
    plan: Plan,
    resources: pa.Table,
    *,
    ordered: bool = False,
    numbered: bool = False,
    most: int | None = None,
    limits: LakeSettings | None = None,
) -> pa.Table:
    """The result of a plan over its relation ``resources``: one column for each output.

    Args:
        numbered: with the number of each row's resource, ``_n``.
        most: so many rows are enough.

    Raises:
        Invalid: ``lake.view_cardinality``, ``lake.view_depth``.
        Unavailable: ``lake.memory``, ``lake.too_large``, ``lake.too_long``.
    """
    with connect(limits) as connection:
        connection.register("resources", resources)
        try:
            text = _DUCKDB.select(plan, shown=ordered or numbered, ordered=ordered)
            text = text if most is None else f"{text} LIMIT {most:d}"
            return bounded.select(connection, text, limits or LakeSettings())
        except duckdb.OutOfMemoryException:
            raise
        except duckdb.Error as error:
            raise _failed(str(error)) from None


def on_spark(
    plan: Plan, resources: pa.Table, *, ordered: bool = False, limits: LakeSettings | None = None
) -> pa.Table:
    """The same on Spark.

    Raises:
        Invalid: as `on_duckdb`.
        Unavailable: ``lake.too_large``, ``lake.too_long``; as `spark.session`.
    """
    spark = session(limits.spark if limits else None)
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException

    name = f"resources_{next(_NUMBERS)}"
    spark.createDataFrame(resources).createOrReplaceTempView(name)
    try:
        text = _SPARK.select(plan, shown=ordered, table=name)
        made = in_bounds(spark, limits or LakeSettings(), lambda: spark.sql(text))
    except (PySparkException, Py4JError) as error:
        raise spark_failed(error) from None
    finally:
        spark.catalog.dropTempView(name)
    if not ordered:
        return made
    keys = ["_n", *(f"c{n}" for n, output in enumerate(plan.outputs) if output.name in plan.order)]
    return made.sort_by([(key, "ascending") for key in keys])


def spark_failed(error: Exception) -> Exception:
    """The error of the view that Spark's tells of."""
    return _failed(str(error))


def _failed(message: str) -> Exception:
    """The error of the view that an engine's message tells of."""
    told = _FAILED.search(message)
    if told is None:
        return Invalid("lake.view_data", "The engine refused the view over this data; compare with engine='oracle'.")
    if told[1] == "lake.view_depth":
        return depth_error(told[2], DEPTHS[-1])
    return cardinality_error(told[2])
