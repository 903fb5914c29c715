"""Columns and files of a MEDS 0.4 dataset."""

from __future__ import annotations

import pyarrow as pa

__all__ = ["BIRTH", "CODES", "DATA", "DATASET", "DEATH", "SPLITS", "UNIT", "VERSION", "WRITTEN"]

VERSION = "0.4.1"
BIRTH, DEATH = "MEDS_BIRTH", "MEDS_DEATH"
UNIT = "unit"
"""Our one extension column: the UCUM code of a number's unit, a code modifier."""

DATA = pa.schema(
    [
        pa.field("subject_id", pa.int64(), nullable=False),
        pa.field("time", pa.timestamp("us")),
        pa.field("code", pa.string(), nullable=False),
        pa.field("numeric_value", pa.float32()),
        pa.field("text_value", pa.large_string()),
    ]
)
"""``data/**/*.parquet``: open, a subject is in one file, its rows lie together and are sorted by time, null first."""

WRITTEN = DATA.append(pa.field(UNIT, pa.string()))
CODES = pa.schema(
    [
        pa.field("code", pa.string(), nullable=False),
        pa.field("description", pa.string()),
        pa.field("parent_codes", pa.list_(pa.string())),
    ]
)
"""``metadata/codes.parquet``: has every code of the data."""

SPLITS = pa.schema(
    [pa.field("subject_id", pa.int64(), nullable=False), pa.field("split", pa.string(), nullable=False)]
)
"""``metadata/subject_splits.parquet``: train, tuning, held_out."""

DATASET = "metadata/dataset.json"
