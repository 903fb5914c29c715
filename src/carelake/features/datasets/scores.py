"""Clinical scores of a data set's rows: baselines that a model has to beat, of the same values at the same time."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from carelake.core.errors import Invalid
from carelake.features import news2

__all__ = ["added"]

_NEWS2 = {
    "respiratory_rate": "respiratory_rate__last",
    "oxygen_saturation": "oxygen_saturation__last",
    "oxygen": "oxygen_flow__last",
    "systolic_pressure": "systolic_pressure__last",
    "heart_rate": "heart_rate__last",
    "alert": "coma_score__last",
    "temperature": "temperature__last",
}
_AWAKE = 15
"""Glasgow coma score of somebody who is alert."""


def added(names: Sequence[str], table: pa.Table) -> pa.Table:
    """The table with a column for each score, doubles; null where nothing of it is known.

    Raises:
        Invalid: ``datasets.columns``.
    """
    for name in names:
        table = table.append_column(name, _news2(table))
    return table


def _news2(table: pa.Table) -> pa.Array:
    """NEWS2 of the last values: oxygen is a flow of more than none, alert a coma score of 15.

    What is not known counts as normal, as charts in use do; `news2.news2` says when it is no full score.
    """
    missing = sorted(column for column in _NEWS2.values() if column not in table.column_names)
    if missing:
        raise Invalid("datasets.columns", f"The score NEWS2 needs the column {missing[0]}; name the groups so.")
    columns = {name: table.column(column) for name, column in _NEWS2.items()}
    columns["oxygen"] = pc.greater(columns["oxygen"], 0)
    columns["alert"] = pc.greater_equal(columns["alert"], _AWAKE)
    return news2.column([columns[name] for name in news2.MEASURES])
