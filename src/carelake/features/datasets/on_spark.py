"""The rows of the readmission recipe on Spark: flat views, cohort, features and marks, the same as DuckDB's.

Spark reads the lake where it lies in a bucket and the permit shows all of the account; else rows are handed over,
some patients at a time. What comes back to this process is one row for each stay, and the times of encounters that
tell where the data end; hashes are made here, since Spark has no key.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from carelake.core.nouns import Noun
from carelake.core.permit import Permit
from carelake.features import cohort
from carelake.features.datasets import make
from carelake.features.datasets.shelf import view
from carelake.features.engines import Frame, OnSpark, failing
from carelake.features.featureset import MARKED
from carelake.features.proof import Marks
from carelake.features.ticks import moments, ticks
from carelake.lake.drivers.spark import reaches, reading
from carelake.lake.engines.portable import frame_of, frame_over_tables
from carelake.lake.engines.spark import session
from carelake.lake.flat import names
from carelake.lake.ready.shards import people
from carelake.lake.seeing.relations import check_rows, resources_of
from carelake.vault.workspace import Vault

__all__ = ["marks_of", "rows"]

Tell = Callable[[int, int], None]
Ending = Callable[[], datetime]
_COLUMNS = {
    "patients": ("subject_id", "sex", "race", "ethnicity", "birth_date", "deceased_time", "deceased_day_only"),
    "encounters": (
        "encounter_id", "subject_id", "class", "status", "start_time", "end_time", "admission_type", "admit_source",
        "discharge_disposition", "service", "service_text",
    ),
    "conditions": ("subject_id", "system", "code", "verification_status", "time", "recorded_time"),
    "observations": (
        "subject_id", "observation_id", "component", "code", "system", "unit", "value", "comparator", "status",
        "time", "issued",
    ),
    "medications": ("subject_id", "medication_id", "code", "display", "status", "time"),
    "procedures": ("subject_id", "status", "time"),
}  # fmt: skip
"""What of each view the recipe's statements and marks read."""
_MARKS = """
SELECT '{name}' AS source, i.encounter_id,
    max(v.event) FILTER (WHERE v.event <= i.as_of AND coalesce(v.write, v.event) <= i.as_of) AS event,
    max(coalesce(v.write, v.event)) FILTER (
        WHERE coalesce(v.write, v.event) <= i.as_of AND coalesce(v.event, v.write) <= i.as_of
    ) AS write
FROM index_rows i LEFT JOIN {name} v ON v.subject_id = i.subject_id
GROUP BY i.encounter_id
"""
_MOMENTS = ("event", "write")


def rows(
    permit: Permit, vault: Vault, snapshot: Noun, *, data_end: datetime | None, ending: Ending, shard: int, tell: Tell
) -> tuple[make.Made, dict[str, int]]:
    """The recipe's rows, and how many each view has.

    Args:
        data_end: the end of the data, UTC; None looks for it, as `cohort.data_end_of`.
        ending: finds it where rows are handed over.
        shard: patients whose rows are handed over at a time.
        tell: how many parts of how many are done.

    Raises:
        Unavailable: ``lake.spark_job``; as `lake.engines.spark.session`.
    """
    check_rows(permit)
    if reaches(permit, vault):
        with reading(permit, vault) as lake:
            found = {name: frame_over_tables(lake, snapshot, view(name)) for name in names()}
            with _kept(lake.spark, found, vault.settings.lake.buckets) as (tables, counts):
                tell(1, 2)
                return _made(lake.spark, vault, tables, counts, data_end), counts
    return _handed(permit, vault, snapshot, ending() if data_end is None else data_end, shard, tell)


def _handed(
    permit: Permit, vault: Vault, snapshot: Noun, data_end: datetime, shard: int, tell: Tell
) -> tuple[make.Made, dict[str, int]]:
    """By shards of patients."""
    spark = session(vault.settings.lake.spark)
    parts, told = [], Counter[str]()
    everybody = people(permit, vault, snapshot, [view(name).resource for name in names()], shard)
    for n, some in enumerate(everybody):
        tell(n, len(everybody))
        found = {
            name: frame_of(spark, view(name), resources_of(permit, vault, snapshot, view(name), some))
            for name in names()
        }
        with _kept(spark, found, 2) as (tables, counts):
            parts.append(_made(spark, vault, tables, counts, data_end))
            told.update(counts)
    return (parts[0] if len(parts) == 1 else make.together(parts)), dict(told)


@contextmanager
def _kept(spark: Any, found: Mapping[str, Any], parts: int) -> Iterator[tuple[dict[str, Frame], dict[str, int]]]:
    """Views by patient, computed once; what does not fit into memory is on the session's sealed disk meanwhile."""
    from pyspark import StorageLevel

    tables = {}
    try:
        for name, frame in found.items():
            empty = view(name).empty.select(list(_COLUMNS[name]))
            kept = spark.createDataFrame(empty) if frame is None else frame.select(*_COLUMNS[name])
            kept = kept.repartition(parts, "subject_id").persist(StorageLevel.MEMORY_AND_DISK)
            tables[name] = Frame(kept, empty.schema)
        counting = " UNION ALL ".join(f"SELECT '{name}' AS name, count(*) AS n FROM {name}" for name in tables)
        counts = OnSpark(spark).run(counting, tables).to_pylist()  # all views at once
        yield tables, {one["name"]: one["n"] for one in counts}
    finally:
        for one in tables.values():
            one.frame.unpersist()


def _made(
    spark: Any, vault: Vault, tables: Mapping[str, Frame], counts: Mapping[str, int], data_end: datetime | None
) -> make.Made:
    engine = OnSpark(spark)
    end = _data_end(vault, tables, counts) if data_end is None else data_end

    def marks(built: pa.Table, _: Mapping[str, Any]) -> dict[str, Marks]:
        return marks_of(engine, built, tables)

    limits = vault.settings.lake
    return make.of_readmission(tables, data_end=end, now=None, limits=limits, on=engine.run, marks=marks)


def _data_end(vault: Vault, tables: Mapping[str, Frame], counts: Mapping[str, int]) -> datetime:
    """As `datasets.build` finds it: observations are looked at where there are few encounters only."""
    asked: dict[str, tuple[str, ...]] = {"encounters": ("status", "start_time", "end_time")}
    if counts["encounters"] < 10 * cohort.MANY:
        asked["observations"] = ("time",)
    found = {}
    for name, columns in asked.items():
        schema = pa.schema([tables[name].schema.field(one) for one in columns])
        with failing():
            found[name] = tables[name].frame.select(*columns).toArrow().cast(schema)
    return cohort.data_end_of(found, vault.clock.now())


def marks_of(engine: OnSpark, built: pa.Table, tables: Mapping[str, Frame]) -> dict[str, Marks]:
    """As `featureset.marks_of`, of the views that are there."""
    sources: dict[str, Any] = {}
    for name, columns in MARKED.items():
        if name in tables:
            said = dict(zip(_MOMENTS, columns, strict=True))
            fields = [tables[name].schema.field(one).with_name(new) for new, one in said.items()]
            shape = pa.schema([tables[name].schema.field("subject_id"), *fields])
            frame = tables[name].frame.selectExpr("subject_id", *(f"`{one}` AS {new}" for new, one in said.items()))
            sources[name] = Frame(frame, shape)
    index = built.select(["encounter_id", "subject_id"]).append_column("as_of", built.column("prediction_time"))
    text = " UNION ALL ".join(_MARKS.format(name=name) for name in sources)
    found = engine.run(text, {"index_rows": index, **sources})
    return {name: _placed(built, found.filter(pc.field("source") == name)) for name in sources}


def _placed(built: pa.Table, found: pa.Table) -> Marks:
    """In the order of the rows."""
    at = pc.index_in(built.column("encounter_id"), found.column("encounter_id")).combine_chunks()
    return Marks(*(moments(ticks(found.column(one))).take(at) for one in _MOMENTS))
