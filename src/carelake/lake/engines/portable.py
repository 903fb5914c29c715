"""The flat views on Spark: their SQL, which is DuckDB's, written as Spark's by sqlglot.

Not any SQL: what our own views use. Their few words (``flat_views/macros.sql``) are said here once more, as Spark
says them; ``tests/lake/test_lake_engines.py`` holds that both give the same rows.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

import msgspec
import pyarrow as pa

from carelake.core.errors import Unavailable
from carelake.core.nouns import Noun
from carelake.core.permit import Permit
from carelake.core.settings import LakeSettings
from carelake.lake.drivers.spark import SparkLake, conformed, kind, reading
from carelake.lake.engines.spark import in_bounds, session
from carelake.lake.flat import View, run_view, view
from carelake.lake.rows import conform
from carelake.lake.schema import column_of
from carelake.vault.workspace import Vault

__all__ = ["flat_on_spark", "flat_over_tables", "frame_of", "frame_over_tables", "spark_text"]

_NUMBERS = itertools.count()
_MOMENT = (
    "try_cast(CASE char_length({0}) WHEN 4 THEN concat({0}, '-01-01') WHEN 7 THEN concat({0}, '-01') ELSE {0} END "
    "AS TIMESTAMP)"
)
_OF_URL = "get(filter({0}, _p -> _p.url = '%s'), 0).%s"
_WORDS = {
    "utc": f"CAST({_MOMENT} AS TIMESTAMP_NTZ)",
    "pick": "coalesce(get(filter({0}, _c -> _c.system = {1}), 0), get({0}, 0))",
    "target": (
        "(CASE WHEN startswith({0}, concat({1}, '/')) AND NOT contains(substr({0}, char_length({1}) + 2), '/') "
        "THEN substr({0}, char_length({1}) + 2) ELSE nullif(regexp_extract({0}, concat('(?:^|/)', {1}, "
        r"'/([A-Za-z0-9.-]{{1,64}})(?:/_history/[^/]*)?\\z'), 1), '') END)"
    ),
    "us_core": (
        "get(filter({0}, _e -> _e.url = concat('http://hl7.org/fhir/us/core/StructureDefinition/us-core-', {1})), 0)"
        ".extension"
    ),
    "said_of": "coalesce({})".format(
        ", ".join(
            _OF_URL % part
            for part in (
                ("ombCategory", "valueCoding.display"),
                ("text", "valueString"),
                ("ombCategory", "valueCoding.code"),
            )
        )
    ),
}


@cache
def spark_text(name: str) -> str:
    """A flat view as Spark's SQL over the relation ``{resources}``.

    Raises:
        Unavailable: ``lake.spark``: sqlglot is not there.
    """
    try:
        import sqlglot
        from sqlglot import expressions as sql
    except ImportError:
        raise Unavailable("lake.spark", "Spark's SQL needs sqlglot; install carelake[spark].") from None
    tree = sqlglot.parse_one(view(name).sql, dialect="duckdb")
    for unnesting in list(tree.find_all(sql.Explode)):
        _exploded(sql, unnesting)
    # The innermost first: what is around them is written with them.
    for node in reversed(list(tree.bfs())):
        if isinstance(node, sql.Bracket):
            at = node.expressions[0].sql(dialect="spark")
            node.replace(sql.Var(this=f"get({_written(node.this)}, {at})"))
        elif isinstance(node, sql.Table) and node.name == "resources":
            node.replace(sql.Var(this="{resources}"))
        elif isinstance(node, sql.FromJson):
            shape = _type(msgspec.json.decode(_joined(node.expression)))
            node.replace(sql.Var(this=f"from_json({_written(node.this)}, '{shape}')"))
        elif isinstance(node, sql.Anonymous) and node.name.lower() in _WORDS:
            node.replace(sql.Var(this=_WORDS[node.name.lower()].format(*map(_written, node.expressions))))
    made: str = tree.sql(dialect="spark", identify=True, comments=False)
    return made


def _written(node: Any) -> str:
    text: str = node.sql(dialect="spark", identify=True, comments=False)
    return text


def _exploded(sql: Any, unnesting: Any) -> None:
    """``SELECT t.*, unnest(l) AS part, generate_subscripts(l, 1) AS nth FROM t``: a lateral view, from 1."""
    select = unnesting.find_ancestor(sql.Select)
    part, nth = (one.alias for one in select.expressions if isinstance(one, sql.Alias))
    listed, source = _written(unnesting.this), _written(select.args["from_"])
    text = f"SELECT *, _at + 1 AS {nth} {source} LATERAL VIEW posexplode({listed}) _t AS _at, {part}"
    select.replace(sql.Var(this=text))


def _joined(node: Any) -> str:
    """A text, or texts put together."""
    return node.this if node.is_string else _joined(node.left) + _joined(node.right)


def _type(said: Any) -> str:
    """Spark's type of what DuckDB's from_json is told as JSON."""
    if isinstance(said, list):
        return f"ARRAY<{_type(said[0])}>"
    if isinstance(said, Mapping):
        return f"STRUCT<{', '.join(f'{name}: {_type(inner)}' for name, inner in said.items())}>"
    return {"VARCHAR": "STRING"}[said]


def flat_on_spark(wanted: View, resources: pa.Table, *, limits: LakeSettings | None = None) -> pa.Table:
    """As `flat.run_view`, on Spark.

    Raises:
        Unavailable: ``lake.too_large``, ``lake.too_long``, ``lake.spark_job``; as `spark.session`.
    """
    spark = session(limits.spark if limits else None)
    return _run(spark, wanted, spark.createDataFrame(resources), limits or LakeSettings())


def flat_over_tables(permit: Permit, vault: Vault, snapshot: Noun, name: str) -> pa.Table:
    """A flat view over the lake's tables as they lie, on Spark; see `views.direct`."""
    wanted = view(name)
    with reading(permit, vault) as lake:
        found = _resources(lake, snapshot, wanted)
        return wanted.empty if found is None else _run(lake.spark, wanted, found, vault.settings.lake)


def _resources(lake: SparkLake, snapshot: Noun, wanted: View) -> Any | None:
    if not (snapshot.body["tables"].get(wanted.resource) or {}).get("snapshot"):
        return None
    have = {field.name: field.type for field in lake.schema(wanted.resource, snapshot)}
    columns = {"id": "t.id"}
    for field in wanted.elements:
        column = column_of(field.name)
        columns[field.name] = (
            conformed(f"t.`{column}`", have[column], field.type)
            if column in have
            else f"CAST(NULL AS {kind(field.type)})"
        )
    return lake.current(wanted.resource, snapshot, columns)


def frame_over_tables(lake: SparkLake, snapshot: Noun, wanted: View) -> Any | None:
    """A flat view over the lake's tables as a DataFrame, None where there is nothing to read; see `frame_of`."""
    found = _resources(lake, snapshot, wanted)
    return None if found is None else _frame(lake.spark, wanted, found)


def frame_of(spark: Any, wanted: View, resources: pa.Table) -> Any:
    """A flat view over rows that are handed over, as a DataFrame; nothing is computed yet.

    Raises:
        Unavailable: ``lake.spark_job``.
    """
    return _frame(spark, wanted, spark.createDataFrame(resources))


def _frame(spark: Any, wanted: View, resources: Any) -> Any:
    name = f"flat_resources_{next(_NUMBERS)}"
    resources.createOrReplaceTempView(name)
    try:
        with _told():
            return spark.sql(spark_text(wanted.name).replace("{resources}", name))
    finally:
        spark.catalog.dropTempView(name)


@contextmanager
def _told() -> Iterator[None]:
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException

    try:
        yield
    except (PySparkException, Py4JError):
        raise Unavailable("lake.spark_job", "Spark did not run the view; look at the cluster's log.") from None


def _run(spark: Any, wanted: View, resources: Any, limits: LakeSettings) -> pa.Table:
    with _told():
        made = in_bounds(spark, limits, lambda: _frame(spark, wanted, resources))
    shape = run_view(wanted, wanted.reads.empty_table()).schema
    return pa.table([conform(made.column(n), field.type) for n, field in enumerate(shape)], schema=shape)
