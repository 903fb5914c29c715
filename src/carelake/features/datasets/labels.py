"""Labels of a study design: who is in, at which moments, and what came of it, with an attrition table.

Each prediction time is counted under the first reason that keeps it out, in the order of `REASONS` and then of the
design's exclusions. Nothing after the prediction time decides who is in. ``event`` and ``days_at_risk`` are what a
time-to-event model needs: the outcome, a competing event, the end of what was seen, or none of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib.resources import files

import pyarrow as pa
import pyarrow.compute as pc

from carelake.core.errors import Invalid
from carelake.core.settings import LakeSettings
from carelake.features.datasets.design import Design
from carelake.lake.engines.engine import run

__all__ = ["FACTS", "REASONS", "Labelled", "build"]

REASONS = (
    "no_prediction_time",
    "after_data_end",
    "not_first",
    "washout",
    "not_observed",
    "prior_outcome",
    "competing_before",
)
FACTS = ("label", "event", "outcome_time", "days_at_risk")
"""Columns of what came after the prediction time: never features."""

_TIME = pa.timestamp("us")
_EVENTS = pa.schema([("subject_id", pa.string()), ("time", _TIME)])
_PERIODS = pa.schema([("subject_id", pa.string()), ("start_time", _TIME), ("end_time", _TIME)])
_TARGET = pa.schema([("row", pa.int64()), *_PERIODS])
_STRUCK = pa.schema([("place", pa.int32()), *_EVENTS, ("days", pa.int32())])


@dataclass(frozen=True, slots=True)
class Labelled:
    """Labels and how they were come by.

    Attributes:
        table: by subject and time: ``subject_id``, ``prediction_time``, `FACTS`, then the target's further columns.
        attrition: in order: ``entries``, ``moments``, each reason, ``index``, ``censored`` (no label), ``labelled``,
            ``positive``, ``competing``.
    """

    table: pa.Table
    attrition: Mapping[str, int]


@cache
def _sql() -> str:
    return files("carelake.features.datasets").joinpath("labels.sql").read_text("utf-8")


def build(
    design: Design, events: Mapping[str, pa.Table], data_end: datetime, *, limits: LakeSettings | None = None
) -> Labelled:
    """The labels of a design.

    Args:
        events: what its SELECTs gave: ``target``, ``outcome``, ``competing``, ``observation`` where it has them, and
            ``exclusion.NAME``.
        data_end: the end of the data, UTC without a zone.

    Raises:
        Invalid: ``datasets.columns``, where a SELECT lacks a column or has it in another type.
    """
    target = events["target"]
    inputs = {
        "target": _typed("target", target.append_column("row", pa.array(range(len(target)), pa.int64())), _TARGET),
        "outcome": _known(_typed("outcome", events["outcome"], _EVENTS)),
        "competing": _known(_typed("competing", events.get("competing", _EVENTS.empty_table()), _EVENTS)),
        "observation": _typed("observation", events.get("observation", _PERIODS.empty_table()), _PERIODS),
        "exclusion": _struck(design, events),
    }
    made = run(_sql(), inputs, {**_numbers(design), "data_end": data_end}, limits=limits)
    index = made.filter(pc.is_null(made.column("reason")))
    kept = index.select(["subject_id", "prediction_time", *FACTS])
    for name in target.column_names:
        if name not in (*_PERIODS.names, *kept.column_names):
            kept = kept.append_column(name, target.column(name).take(index.column("row")))
    return Labelled(kept, _attrition(design, len(target), made, index))


def _numbers(design: Design) -> dict[str, int]:
    return {
        "every": design.every_hours,
        "offset": design.offset_hours,
        "risk_from": design.from_hours,
        "risk_to": design.to_hours,
        "at_end": design.predict == "end",
        "first": design.take == "first",
        "observed": bool(design.observation),
        "observed_days": design.observed_days,
        "keep_events": design.censoring == "events",
        "competing_known": design.competing_label == "negative",
        "washout": design.washout_days,
        "prior": design.prior_outcome_days,
    }


def _typed(place: str, table: pa.Table, schema: pa.Schema) -> pa.Table:
    missing = [name for name in schema.names if name not in table.column_names]
    if missing:
        raise Invalid("datasets.columns", f"The SELECT of {place} lacks the column {missing[0]}.")
    try:
        return pa.table([_utc(table.column(field.name)).cast(field.type) for field in schema], schema=schema)
    except pa.ArrowException:
        raise Invalid(
            "datasets.columns",
            f"A column of {place} has another type; expected "
            + ", ".join(f"{field.name} {field.type}" for field in schema)
            + ".",
        ) from None


def _utc(column: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = column.type
    return column.cast(pa.timestamp(kind.unit)) if pa.types.is_timestamp(kind) and kind.tz else column


def _known(table: pa.Table) -> pa.Table:
    return table.filter(pc.and_(pc.is_valid(table.column("subject_id")), pc.is_valid(table.column("time"))))


def _struck(design: Design, events: Mapping[str, pa.Table]) -> pa.Table:
    parts = [_STRUCK.empty_table()]
    for place, one in enumerate(design.exclusions):
        found = events[f"exclusion.{one.name}"]
        if "time" in found.column_names:
            found = _known(_typed(one.name, found, _EVENTS))
        else:
            found = _typed(one.name, found.append_column("time", pa.nulls(len(found), _TIME)), _EVENTS)
        count = len(found)
        columns = [pa.array([place] * count, pa.int32()), *found.columns, pa.array([one.days] * count, pa.int32())]
        parts.append(pa.table(columns, schema=_STRUCK))
    return pa.concat_tables(parts)


def _attrition(design: Design, entries: int, made: pa.Table, index: pa.Table) -> dict[str, int]:
    counted = {row["values"]: row["counts"] for row in made.column("reason").value_counts().to_pylist()}
    labels = index.column("label")
    events = index.column("event")
    return {
        "entries": entries,
        "moments": len(made),
        **{reason: counted.get(reason, 0) for reason in REASONS},
        **{one.name: counted.get(f"excluded:{place}", 0) for place, one in enumerate(design.exclusions)},
        "index": len(index),
        "censored": labels.null_count,
        "labelled": len(labels) - labels.null_count,
        "positive": int(pc.sum(labels).as_py() or 0),
        "competing": int(pc.sum(pc.equal(events, "competing")).as_py() or 0),
    }
