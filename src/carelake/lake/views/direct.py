"""A view on Spark over the lake's tables as they lie: nothing of them comes into this process but the view's rows."""

from __future__ import annotations

import itertools
from typing import Any

import pyarrow as pa

from carelake.core.nouns import Noun
from carelake.core.permit import Permit
from carelake.lake.drivers.spark import SparkLake, conformed, kind, reading
from carelake.lake.engines.spark import in_bounds
from carelake.lake.schema import arrow_type, column_of
from carelake.lake.views.build import ORDINAL
from carelake.lake.views.execute import spark_failed
from carelake.lake.views.plan import Plan
from carelake.lake.views.spark import Spark
from carelake.lake.views.tables import named, result_schema
from carelake.vault.workspace import Vault

__all__ = ["over_tables"]

_SPARK = Spark()
_NUMBERS = itertools.count()


def over_tables(permit: Permit, vault: Vault, snapshot: Noun, plan: Plan) -> pa.Table:
    """The rows of a plan over the current resources of a snapshot, in any order.

    Raises:
        As `execute.on_spark` and `drivers.spark.reading`.
    """
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException

    limits = vault.settings.lake
    with reading(permit, vault) as lake:
        name = f"lake_resources_{next(_NUMBERS)}"
        try:
            found = _resources(lake, snapshot, plan)
            if found is None:
                return result_schema(plan).empty_table()
            found.createOrReplaceTempView(name)
            made = in_bounds(lake.spark, limits, lambda: lake.spark.sql(_SPARK.select(plan, table=name)))
        except (PySparkException, Py4JError) as error:
            raise spark_failed(error) from None
        finally:
            lake.spark.catalog.dropTempView(name)
    return named(plan, made)


def _resources(lake: SparkLake, snapshot: Noun, plan: Plan) -> Any | None:
    """The relation ``resources`` of a plan: see `tables.of_lake`."""
    if not (snapshot.body["tables"].get(plan.resource) or {}).get("snapshot"):
        return None
    have = {field.name: field.type for field in lake.schema(plan.resource, snapshot)}
    columns = {ORDINAL: "monotonically_increasing_id()", "id": "t.id"}
    for field in arrow_type(plan.record):
        column = column_of(field.name)
        columns[field.name] = (
            conformed(f"t.{_SPARK.name(column)}", have[column], field.type)
            if column in have
            else f"CAST(NULL AS {kind(field.type)})"
        )
    return lake.current(plan.resource, snapshot, columns)
