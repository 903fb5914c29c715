"""Moments as whole numbers that compare: microseconds since 1970 UTC, or nanoseconds where a column has them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from carelake.core.errors import Invalid

__all__ = ["LAST", "NEVER", "moments", "ticks", "unit_of"]

NEVER = np.iinfo(np.int64).min
"""No moment: before all of them."""
LAST = np.iinfo(np.int64).max
"""The last moment there is."""
_NANOS = 1000


def unit_of(*columns: pa.ChunkedArray) -> int:
    """Ticks of a microsecond, so that none of these columns loses digits."""
    return _NANOS if any(pa.types.is_timestamp(one.type) and one.type.unit == "ns" for one in columns) else 1


def ticks(column: pa.ChunkedArray, unit: int = 1) -> npt.NDArray[np.int64]:
    """Each moment of a column of timestamps or dates, `NEVER` for null.

    Times without a zone are UTC. What does not fit into 64 bits is the last or the first moment that does.

    Args:
        unit: ticks of a microsecond, 1 or 1000.

    Raises:
        Invalid: ``features.asof_time``.
    """
    kind = column.type
    if pa.types.is_null(kind):
        return np.full(len(column), NEVER, dtype=np.int64)
    if not (pa.types.is_timestamp(kind) or pa.types.is_date(kind)):
        raise Invalid("features.asof_time", f"A column of times is {kind}; expected timestamps or dates.")
    nanos = pa.types.is_timestamp(kind) and kind.unit == "ns"
    try:
        whole = column if pa.types.is_timestamp(kind) else column.cast(pa.timestamp("us"))
        wanted = pa.timestamp("ns" if nanos else "us", whole.type.tz)
        numbers = whole.cast(wanted).cast(pa.int64())
    except pa.ArrowInvalid:
        raise Invalid("features.asof_time", "A time is too far away to be told in microseconds.") from None
    found: npt.NDArray[np.int64] = (pc.fill_null(numbers, NEVER) if numbers.null_count else numbers).to_numpy()
    if nanos and unit == 1:
        return np.where(found == NEVER, NEVER, found // _NANOS)
    if nanos or unit == 1:
        return found
    held = np.clip(found, (NEVER + 1) // unit, LAST // unit) * unit
    return np.where(found == NEVER, NEVER, held)


def moments(numbers: npt.NDArray[np.int64]) -> pa.Array:
    """Microseconds as timestamps in UTC, null for `NEVER`."""
    return pa.array(numbers, mask=numbers == NEVER).cast(pa.timestamp("us", "UTC"))
