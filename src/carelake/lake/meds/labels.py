"""MEDS 0.4 labels: reading anybody's, writing ours.

https://github.com/Medical-Event-Data-Standard/meds (LabelSchema): closed; the prediction time is the inclusive end of
what may be used; of the value columns one is filled, and those that are not are left out.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from carelake.core.errors import Invalid

__all__ = ["VALUES", "read", "written"]

_MOST = 1 << 30
VALUES = {
    "boolean_value": pa.bool_(),
    "integer_value": pa.int64(),
    "float_value": pa.float32(),
    "categorical_value": pa.string(),
}


def read(source: pa.NativeFile | str) -> pa.Table:
    """``subject_id``, ``prediction_time`` and ``label``, the one column of values that is filled.

    Raises:
        Invalid: ``meds.unreadable``, ``meds.columns``, ``meds.labels``.
    """
    try:
        file = pq.ParquetFile(source)
        if file.metadata.num_rows * 32 > _MOST:
            raise Invalid("meds.labels", "There are more labels than fit into 1 GB; give them in parts.")
        table = file.read()
    except (OSError, pa.ArrowException):
        raise Invalid("meds.unreadable", "The labels cannot be read; expected a Parquet file.") from None
    try:
        who = table.column("subject_id").cast(pa.int64())
        when = table.column("prediction_time")
        when = when.cast(pa.timestamp(when.type.unit)).cast(pa.timestamp("us"))
    except (KeyError, AttributeError, pa.ArrowException):
        raise Invalid("meds.columns", "Labels have subject_id (int64) and prediction_time (timestamp).") from None
    filled = [name for name in VALUES if name in table.column_names and table.column(name).null_count < len(table)]
    if len(filled) > 1 or (len(table) and not filled) or who.null_count or when.null_count:
        raise Invalid(
            "meds.labels", "Labels have one value column that is filled, and no row without subject or time."
        )
    name = filled[0] if filled else "boolean_value"
    values = table.column(name) if name in table.column_names else pa.nulls(len(table), VALUES[name])
    return pa.table({"subject_id": who, "prediction_time": when, "label": values.cast(VALUES[name])})


def written(subjects: pa.ChunkedArray, times: pa.ChunkedArray, labels: pa.ChunkedArray) -> pa.Table:
    """The same as a table of the standard, sorted by subject and time; rows without a label are left out.

    Raises:
        Invalid: ``meds.labels``, for a label of another type.
    """
    kind = labels.type
    if pa.types.is_boolean(kind):
        name = "boolean_value"
    elif pa.types.is_integer(kind):
        name = "integer_value"
    elif pa.types.is_floating(kind):
        name = "float_value"
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        name = "categorical_value"
    else:
        raise Invalid("meds.labels", f"A label cannot be {kind}; expected a truth value, a number or a text.")
    times = times.cast(pa.timestamp(times.type.unit)).cast(pa.timestamp("us"))
    table = pa.table(
        {"subject_id": subjects.cast(pa.int64()), "prediction_time": times, name: labels.cast(VALUES[name])}
    )
    known = table.filter(pc.is_valid(table.column(name)))
    return known.sort_by([("subject_id", "ascending"), ("prediction_time", "ascending")])
