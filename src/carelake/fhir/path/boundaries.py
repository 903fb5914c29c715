"""lowBoundary and highBoundary: the least and the greatest that a value of limited precision may stand for."""

from __future__ import annotations

import calendar
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

from carelake.fhir.path.temporal import Temporal

__all__ = ["decimal_boundary", "digits_after_point", "temporal_boundary"]

MAX_DECIMALS = 28
_DECIMALS = 8
# Digits of precision() that a value of so many parts has; milliseconds are the last step.
_STEPS = {"Date": (4, 6, 8), "DateTime": (4, 6, 8, 10, 12, 14, 17), "Time": (2, 4, 6, 9)}
_EAST, _WEST = 14 * 60, -12 * 60


def digits_after_point(value: Decimal) -> int:
    """Decimals that the value is written with."""
    exponent = value.as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0


def decimal_boundary(value: Decimal, digits: int | None, high: bool) -> Decimal | None:
    """Half a unit of the last digit away, cut outward to ``digits`` decimals; None beyond what is supported.

    A value that is nothing at the precision asked for stays nothing (the official suite: 0.0034 at one decimal).
    """
    wanted = _DECIMALS if digits is None else digits
    if not 0 <= wanted <= MAX_DECIMALS or abs(value.adjusted()) > MAX_DECIMALS:
        return None
    half = Decimal(5).scaleb(-digits_after_point(value) - 1)
    edge = value + half if high else value - half
    step = Decimal(1).scaleb(-wanted)
    if value and abs(edge) < step / 2 and abs(value) < step / 2 and wanted:
        return Decimal(0).quantize(step).copy_sign(value)
    return edge.quantize(step, ROUND_CEILING if high else ROUND_FLOOR)


def temporal_boundary(value: Temporal, digits: int | None, high: bool) -> Temporal | None:
    """The first or last moment, to ``digits`` digits of precision (4 a year, 6 a month, ..., 17 a millisecond)."""
    steps = _STEPS[value.kind]
    wanted = steps[-1] if digits is None else digits
    if wanted not in steps:
        return None
    whole = _filled(value, high)
    count = steps.index(wanted) + 1
    clock = 3 if value.kind == "Time" else 6
    fraction = (value.fraction + ("999" if high else "000"))[:3] if value.fraction else ("999" if high else "000")
    zone = value.zone
    if value.kind == "DateTime" and count > 3 and zone is None:
        zone = _WEST if high else _EAST
    if count <= 3 and value.kind != "Time":
        zone = None
    return Temporal(value.kind, whole[: min(count, clock)], fraction if count > clock else "", zone)


def _filled(value: Temporal, high: bool) -> tuple[int, ...]:
    parts = value.parts
    if value.kind == "Time":
        return (*parts, *((23, 59, 59) if high else (0, 0, 0))[len(parts) :])
    year, month = parts[0], parts[1] if len(parts) > 1 else (12 if high else 1)
    last = calendar.monthrange(year, month)[1] if high else 1
    most = (year, month, last, 23, 59, 59) if high else (year, month, 1, 0, 0, 0)
    return (*parts, *most[len(parts) :])
