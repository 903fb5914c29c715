"""Rows of the flat views as what declared features rest on: when each counts, from when on, and its value.

Moments are whole milliseconds, rounded up: that is how event times are written, and nothing counts before it was
known. A row counts from the later one of when it happened and when it was known, until it leaves the window.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from carelake.features.groups.declaration import Declared, Item, readings

__all__ = ["Facts", "facts_of"]

_MS = 1_000
_NEVER = np.iinfo(np.int64).max


class Facts(NamedTuple):
    """What one feature of one patient rests on, in the order of time; microseconds since 1970 UTC.

    Attributes:
        start, end: a row counts in ``[start, end)``; ``end`` is the largest number where it counts for ever.
        time: when it happened.
        values: of a count anything.
    """

    start: np.ndarray
    end: np.ndarray
    time: np.ndarray
    values: list[Any]


def facts_of(
    declared: Declared, views: Mapping[str, pa.Table], subjects: Collection[str] | None = None
) -> list[dict[str, Facts]]:
    """For each feature, in order, the facts of each patient that has some.

    Args:
        views: the flat views that `Declared.views` names.
        subjects: only these patients.
    """
    return [_by_subject(one, _rows(declared, one, views[one.view], subjects)) for one in declared.feature]


def _rows(declared: Declared, one: Item, view: pa.Table, subjects: Collection[str] | None) -> pa.Table:
    """subject, time, known, key, value of the rows that count."""
    time, known, key = one.columns
    keep = pc.and_(pc.is_valid(view.column("subject_id")), pc.is_valid(view.column(time)))
    if subjects is not None:
        keep = pc.and_(keep, pc.is_in(view.column("subject_id"), pa.array(sorted(subjects), pa.string())))
    column, void = one.void
    if column in view.column_names:
        keep = pc.and_(keep, pc.invert(pc.is_in(view.column(column), pa.array(void, pa.string()))))
    for name, values in one.where.items():
        keep = pc.and_(keep, _matches(view.column(name), declared.listed(values)))
    value: Any = view.column(one.column)
    if one.reading:
        told = readings()[one.reading]
        keep = pc.and_(keep, pc.is_in(view.column("code"), pa.array(told["loinc"], pa.string())))
        keep = pc.and_(keep, pc.is_null(view.column("comparator")))
        value = _converted(value, view.column("unit"), told["units"])
    keep = pc.and_(keep, pc.is_valid(value))
    keys = view.column(key)
    if "component" in view.column_names:
        keys = pc.binary_join_element_wise(keys, pc.cast(view.column("component"), pa.string()), "/")
    made = {
        "subject": view.column("subject_id"),
        "time": view.column(time),
        "known": pc.coalesce(view.column(known), view.column(time)),
        "key": keys,
        "value": value,
    }
    return (
        pa.table(made).filter(keep).sort_by([("subject", "ascending"), ("time", "ascending"), ("key", "ascending")])
    )


def _matches(column: pa.ChunkedArray, codes: list[str]) -> Any:
    plain = pa.array([one for one in codes if not one.endswith("*")], pa.string())
    found = pc.is_in(column, plain)
    for one in codes:
        if one.endswith("*"):
            found = pc.or_(found, pc.fill_null(pc.starts_with(column, one[:-1]), False))
    return found


def _converted(value: pa.ChunkedArray, unit: pa.ChunkedArray, units: list[list[Any]]) -> Any:
    """In the reading's unit; null for a unit that it does not know."""
    made: Any = pa.nulls(len(value), pa.float64())
    for name, factor, shift in units:
        scaled = value if (factor, shift) == (1.0, 0.0) else pc.add(pc.multiply(value, factor), shift)
        made = pc.if_else(pc.fill_null(pc.equal(unit, name), False), scaled, made)
    return made


def _by_subject(one: Item, rows: pa.Table) -> dict[str, Facts]:
    if not len(rows):
        return {}
    time, known = (_micros(rows.column(name)) for name in ("time", "known"))
    start = _up(np.maximum(time, known))
    end = np.full(len(rows), _NEVER) if one.micros is None else _up(time + one.micros)
    values = rows.column("value").to_pylist()
    subjects = rows.column("subject").to_numpy(zero_copy_only=False)
    cuts = np.flatnonzero(subjects[1:] != subjects[:-1]) + 1
    bounds = [0, *cuts.tolist(), len(rows)]
    made: dict[str, Facts] = {}
    for first, last in pairwise(bounds):
        counts = start[first:last] < end[first:last]  # what was known too late for its window never counts
        chosen = np.flatnonzero(counts) + first
        if len(chosen):
            own = [values[at] for at in chosen]
            made[str(subjects[first])] = Facts(start[chosen], end[chosen], time[chosen], own)
    return made


def _micros(column: pa.ChunkedArray) -> np.ndarray:
    return np.asarray(column.cast(pa.timestamp("us")).cast(pa.int64()).to_numpy(), dtype=np.int64)


def _up(moments: np.ndarray) -> np.ndarray:
    return -(-moments // _MS) * _MS
