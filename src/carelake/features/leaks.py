"""A report of leaks: what in a data set may tell the outcome by another way than knowledge of the past.

``leak`` is certain (a value from after the prediction time, the label under another name, a patient on both sides of
the split); ``suspect`` is for a person to look at. Findings name features, sources and counts, never a patient.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from carelake.features.proof import EVENT, WRITE
from carelake.features.ticks import NEVER, ticks

__all__ = ["ALONE", "auroc", "report"]

ALONE = 0.95
"""An AUROC that no single feature of a clinical outcome has honestly."""
_MISSING = 0.85
"""The same of whether a value is there at all."""
_AT_ONCE = 0.5
"""Share of rows whose latest event is the prediction time itself."""
_SAME = 0.999
_FEWEST = 20

Finding = dict[str, Any]
_Floats = npt.NDArray[np.float64]
_Flags = npt.NDArray[np.bool_]


def report(
    rows: pa.Table,
    proved: pa.Table,
    features: Sequence[str],
    *,
    outcomes: Sequence[str] = (),
    subject: str = "subject_id",
    at: str = "prediction_time",
    label: str = "label",
) -> list[Finding]:
    """What was found: ``check``, ``severity``, ``where``, and ``rows`` or ``figure``; none is an empty list.

    Args:
        rows: labelled rows, with ``set`` where they were shared out.
        proved: their `proof.proof`, in the same order.
        outcomes: columns of what came after the prediction time.
    """
    return [
        *_after(rows, proved, at),
        *_named(features, {label, *outcomes}),
        *_alone(rows, features, label),
        *_across(rows, subject),
        *_gaps(rows, proved, at),
        *_twice(rows, subject, at),
    ]


def _finding(check: str, severity: str, where: str, **more: Any) -> Finding:
    return {"check": check, "severity": severity, "where": where, **more}


def _after(rows: pa.Table, proved: pa.Table, at: str) -> Iterator[Finding]:
    """Anything that happened or became known after the prediction time."""
    when = ticks(rows.column(at))
    for name in proved.column_names:
        if name.endswith((f"__{EVENT}", f"__{WRITE}")) and (count := int((ticks(proved.column(name)) > when).sum())):
            yield _finding("after_prediction", "leak", name, rows=count)


def _named(features: Sequence[str], outcomes: set[str]) -> Iterator[Finding]:
    """A column of the outcome among the features, by its name."""
    for name in features:
        if name in outcomes or name.rpartition("__")[2] in outcomes:
            yield _finding("outcome_as_feature", "leak", name)


def _alone(rows: pa.Table, features: Sequence[str], label: str) -> Iterator[Finding]:
    """Features that tell the label by themselves, by their value or by being there."""
    column = rows.column(label)
    if not pa.types.is_boolean(column.type):
        return
    y = pc.fill_null(column, False).to_numpy()
    if min(int(y.sum()), int((~y).sum())) < _FEWEST:
        return
    for name in features:
        x = _numbers(rows.column(name))
        if x is None:
            continue
        there = ~np.isnan(x)
        value, known = _either(auroc(y[there], x[there])), _either(auroc(y, there.astype(float)))
        if value >= _SAME and there.all():
            yield _finding("outcome_as_feature", "leak", name, figure=round(value, 4))
        elif value >= ALONE:
            yield _finding("predicts_alone", "suspect", name, figure=round(value, 4))
        if known >= _MISSING:
            yield _finding("presence_predicts", "suspect", name, figure=round(known, 4))


def _numbers(column: pa.ChunkedArray) -> _Floats | None:
    if not (
        pa.types.is_floating(column.type) or pa.types.is_integer(column.type) or pa.types.is_boolean(column.type)
    ):
        return None
    found: _Floats = pc.fill_null(column.cast(pa.float64()), float("nan")).to_numpy()
    return found


def _either(figure: float) -> float:
    return max(figure, 1 - figure)


def auroc(y: _Flags, x: _Floats) -> float:
    """The chance that a row with the outcome has the greater value, ties half; 0.5 where one class is missing."""
    events = int(y.sum())
    others = len(y) - events
    if min(events, others) < _FEWEST:
        return 0.5
    _, place, counts = np.unique(x, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2
    return float((ranks[place][y].sum() - events * (events + 1) / 2) / (events * others))


def _across(rows: pa.Table, subject: str) -> Iterator[Finding]:
    """Patients in more than one set."""
    if "set" not in rows.column_names:
        return
    pairs = rows.select([subject, "set"]).filter(pc.is_valid(rows.column("set"))).group_by([subject, "set"])
    counted = pairs.aggregate([]).column(subject).value_counts()
    across = sum(1 for one in counted.field("counts").to_pylist() if one > 1)
    if across:
        yield _finding("subject_across_sets", "leak", "set", subjects=across)


def _gaps(rows: pa.Table, proved: pa.Table, at: str) -> Iterator[Finding]:
    """Sources that mostly end at the prediction time itself: they may be written because of what is predicted."""
    when = ticks(rows.column(at))
    marks: Mapping[str, npt.NDArray[np.int64]] = {
        name: ticks(proved.column(name))
        for name in proved.column_names
        if name.endswith((f"__{EVENT}", f"__{WRITE}"))
    }
    for name, found in marks.items():
        known = found != NEVER
        if name.endswith(f"__{EVENT}") and known.sum() >= _FEWEST:
            share = float((found[known] == when[known]).mean())
            if share > _AT_ONCE:
                yield _finding("ends_at_prediction", "suspect", name, figure=round(share, 4))
        if name.endswith(f"__{WRITE}") and known.sum() >= _FEWEST:
            source = name.removesuffix(f"__{WRITE}")
            if (found[known] == marks[f"{source}__{EVENT}"][known]).all():
                yield _finding("write_time_is_event_time", "suspect", source, rows=int(known.sum()))


def _twice(rows: pa.Table, subject: str, at: str) -> Iterator[Finding]:
    """Rows of the same subject and time: they count more than once."""
    distinct = len(rows.group_by([subject, at]).aggregate([]))
    if distinct < len(rows):
        yield _finding("same_row_twice", "suspect", at, rows=len(rows) - distinct)
