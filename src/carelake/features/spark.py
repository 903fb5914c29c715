"""The point-in-time join of `asof` on Spark: the same rows, one sort of each subject's facts and labels.

Facts and labels of a subject are put in the order of when they were known; along it, the greatest (event, write,
position) so far is carried, which is the best row known then. Nothing is multiplied: one row for each label and fact.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from carelake.core.errors import Invalid
from carelake.core.settings import LakeSettings
from carelake.features.asof import CALLED, KEYS, Staleness, limit_of
from carelake.features.ticks import unit_of
from carelake.lake.engines.spark import in_bounds, session

__all__ = ["join", "join_frames"]

_ROW = "_position"
_JOIN = """
WITH facts AS (
    SELECT {subject} AS subject, unix_micros(CAST(event_time AS TIMESTAMP)) AS event,
        unix_micros(CAST(coalesce(write_time, event_time) AS TIMESTAMP)) AS write,
        coalesce(is_deleted, false) AS deleted, {position} AS position
    FROM {facts} WHERE {subject} IS NOT NULL AND event_time IS NOT NULL
),
wanted AS (
    SELECT {label} AS label, {subject} AS subject, unix_micros(CAST({at} AS TIMESTAMP)) AS at
    FROM {labels} WHERE {subject} IS NOT NULL AND {at} IS NOT NULL
),
moments AS (
    SELECT subject, greatest(event, write) AS known, 0 AS late, struct(event, write, position, deleted) AS fact,
        CAST(NULL AS BIGINT) AS label
    FROM facts
    UNION ALL SELECT subject, at, 1, NULL, label FROM wanted
),
best AS (
    SELECT label, known AS at, max(fact) OVER (
        PARTITION BY subject ORDER BY known, late ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
    ) AS fact
    FROM moments
),
found AS (
    SELECT label, fact.position AS position FROM best
    WHERE label IS NOT NULL AND fact IS NOT NULL AND NOT fact.deleted {fresh}
)
SELECT l.*{features} FROM {labels} AS l
LEFT JOIN found ON l.{label} = found.label
LEFT JOIN {facts} AS f ON found.position = f.{position}
"""


def join(
    labels: pa.Table,
    groups: Mapping[str, pa.Table],
    *,
    subject: str = "subject_id",
    at: str = "prediction_time",
    staleness: Staleness = None,
    limits: LakeSettings | None = None,
) -> pa.Table:
    """As `asof.join`, on Spark.

    Raises:
        Invalid: ``features.asof_time`` for times in nanoseconds, which Spark has not. As `asof.join` and
            `lake.engines.spark.in_bounds`.
    """
    _check_times(labels, groups, at)
    spark = session(limits.spark if limits else None)
    frames = {name: spark.createDataFrame(_numbered(table)) for name, table in groups.items()}
    told = spark.createDataFrame(_numbered(labels))
    made = join_frames(spark, told, frames, position=_ROW, subject=subject, at=at, staleness=staleness)
    found = in_bounds(spark, limits or LakeSettings(), lambda: made).sort_by(_ROW).drop_columns([_ROW])
    types = {field.name: field.type for field in labels.schema} | {
        f"{name}__{field.name}": field.type for name, table in groups.items() for field in table.schema
    }
    return found.cast(pa.schema([pa.field(name, types[name]) for name in found.column_names]))


def _check_times(labels: pa.Table, groups: Mapping[str, pa.Table], at: str) -> None:
    times = [labels.column(at)] if at in labels.column_names else []
    times += [one.column(name) for one in groups.values() for name in KEYS[:2] if name in one.column_names]
    if unit_of(*times) != 1:
        raise Invalid("features.asof_time", "Spark's times are of microseconds; round them, or join on one machine.")


def _numbered(table: pa.Table) -> pa.Table:
    return table.append_column(_ROW, pa.array(range(len(table)), pa.int64()))


def join_frames(
    spark: Any,
    labels: Any,
    groups: Mapping[str, Any],
    *,
    position: str,
    subject: str = "subject_id",
    at: str = "prediction_time",
    staleness: Staleness = None,
) -> Any:
    """The same of DataFrames, as a DataFrame.

    Args:
        position: a whole number of each row of labels and groups, of its own: among facts of the same times the
            greatest is the best.

    Raises:
        Invalid: ``features.asof_column``, ``features.asof_staleness``.
    """
    made = labels
    for name, group in groups.items():
        _need(made.columns, (subject, at, position), "labels")
        _need(group.columns, (subject, *KEYS, position), name)
        features = [one for one in group.columns if one not in (subject, *KEYS, CALLED, position)]
        if hidden := {f"{name}__{one}" for one in features} & set(made.columns):
            raise Invalid(
                "features.asof_column",
                f"A joined column would hide another ({len(hidden)} of them); rename the group or the feature.",
            )
        limit = limit_of(staleness, name)
        text = _JOIN.format(
            subject=_quoted(subject),
            at=_quoted(at),
            label=_quoted(position),
            position=_quoted(position),
            labels="{labels}",
            facts="{facts}",
            fresh="" if limit is None else f"AND at - fact.event <= {limit:d}",
            features="".join(f", f.{_quoted(one)} AS {_quoted(f'{name}__{one}')}" for one in features),
        )
        made = spark.sql(text, labels=made, facts=group)
    return made


def _need(there: list[str], names: tuple[str, ...], place: str) -> None:
    if missing := sorted(set(names) - set(there)):
        raise Invalid(
            "features.asof_column",
            f"{place} lacks the columns {', '.join(missing)}; a group has a subject, {', '.join(KEYS)}.",
        )


def _quoted(name: str) -> str:
    if "{" in name or "}" in name:
        raise Invalid("features.asof_column", "A name of a column has a brace in it; rename it.")
    return "`" + name.replace("`", "``") + "`"
