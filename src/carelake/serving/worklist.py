"""The morning list: which of many rows to score. Pure functions over the feature table."""

from __future__ import annotations

from datetime import datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["latest", "morning_list", "of_patient"]


def latest(rows: pa.Table) -> pa.Table:
    """The newest row of each patient, by ``prediction_time``, then ``encounter_id``."""
    if rows.num_rows == 0:
        return rows
    keyed = rows.select(["subject_id", "prediction_time", "encounter_id"]).append_column(
        "row", pa.array(range(rows.num_rows), pa.int64())
    )
    ordered = keyed.sort_by([("prediction_time", "descending"), ("encounter_id", "ascending")])
    firsts = ordered.group_by("subject_id", use_threads=False).aggregate([("row", "first")])
    return rows.take(firsts.column("row_first").sort())


def of_patient(rows: pa.Table, subject: str) -> pa.Table:
    """The newest row of one patient; no rows when there is none."""
    return latest(rows.filter(pc.equal(rows.column("subject_id"), subject)))


def morning_list(rows: pa.Table, now: datetime, days: float = 7) -> pa.Table:
    """The newest row of each patient whose prediction time lies in the ``days`` before ``now``."""
    column = rows.column("prediction_time")
    end = pa.scalar(now, pa.timestamp("us", "UTC")).cast(column.type)
    start = pa.scalar(now - timedelta(days=days), pa.timestamp("us", "UTC")).cast(column.type)
    return latest(rows.filter(pc.and_(pc.greater_equal(column, start), pc.less_equal(column, end))))
