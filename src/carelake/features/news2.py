"""NEWS2, the National Early Warning Score of the Royal College of Physicians (2017), as pure functions.

https://www.rcp.ac.uk/improving-care/resources/national-early-warning-score-news-2/: chart 1. Six measures
and whether the patient breathes oxygen give 0 to 3 points each (oxygen 2); 5 or more, or 3 in one measure, ask for
urgent review, 7 or more for an emergency. SpO2 scale 2 is for patients whose target is 88-92 %, confirmed hypercapnic
respiratory failure; who is on it is a clinician's decision and not in the vital signs.

Values are taken as the chart has them: whole numbers, temperature to a tenth of a degree, halves rounded up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal

import pyarrow as pa

__all__ = ["MEASURES", "News2", "column", "news2"]

MEASURES = (
    "respiratory_rate",
    "oxygen_saturation",
    "oxygen",
    "systolic_pressure",
    "heart_rate",
    "alert",
    "temperature",
)

Bands = tuple[tuple[float, int], ...]
"""Upper bounds, inclusive, and their points; the last has none above it."""

_END = float("inf")
_RESPIRATION: Bands = ((8, 3), (11, 1), (20, 0), (24, 2), (_END, 3))
_SATURATION_1: Bands = ((91, 3), (93, 2), (95, 1), (_END, 0))
_SATURATION_2_AIR: Bands = ((83, 3), (85, 2), (87, 1), (_END, 0))
_SATURATION_2_OXYGEN: Bands = ((83, 3), (85, 2), (87, 1), (92, 0), (94, 1), (96, 2), (_END, 3))
_SYSTOLIC: Bands = ((90, 3), (100, 2), (110, 1), (219, 0), (_END, 3))
_PULSE: Bands = ((40, 3), (50, 1), (90, 0), (110, 1), (130, 2), (_END, 3))
_TEMPERATURE: Bands = ((35.0, 3), (36.0, 1), (38.0, 0), (39.0, 1), (_END, 2))
_FAR = 1e6
"""Beyond all bands."""
_OXYGEN, _NOT_ALERT = 2, 3
_URGENT, _EMERGENCY, _ONE = 5, 7, 3


@dataclass(frozen=True, slots=True)
class News2:
    """A score.

    Attributes:
        points: by measure, those that are known.
    """

    points: dict[str, int]

    @property
    def total(self) -> int | None:
        """0 to 20; None where a measure is not known, as the chart has no such score."""
        return sum(self.points.values()) if len(self.points) == len(MEASURES) else None

    @property
    def at_least(self) -> int:
        """The points of what is known: the score is this or more."""
        return sum(self.points.values())

    @property
    def response(self) -> str | None:
        """``low``, ``low-medium`` (3 in one measure), ``medium`` or ``high``, the chart's clinical risk."""
        total = self.total
        if total is None:
            return None
        if total >= _EMERGENCY:
            return "high"
        if total >= _URGENT:
            return "medium"
        return "low-medium" if _ONE in self.points.values() else "low"


def news2(
    *,
    respiratory_rate: float | None,
    oxygen_saturation: float | None,
    oxygen: bool | None,
    systolic_pressure: float | None,
    heart_rate: float | None,
    alert: bool | None,
    temperature: float | None,
    hypercapnic: bool = False,
) -> News2:
    """Points of one set of vital signs.

    Args:
        respiratory_rate: breaths a minute. oxygen_saturation: SpO2 in percent. oxygen: breathes more than air.
        systolic_pressure: mmHg. heart_rate: beats a minute. temperature: degrees Celsius.
        alert: false for new confusion or a response to voice or pain only, or none (C, V, P, U).
        hypercapnic: on SpO2 scale 2; what it gives for 93 % and more depends on ``oxygen``.
    """
    saturation = _SATURATION_1
    if hypercapnic:
        saturation = _SATURATION_2_OXYGEN if oxygen else _SATURATION_2_AIR
        if oxygen is None:
            oxygen_saturation = None  # which of the two holds is not known
    found = {
        "respiratory_rate": _points(respiratory_rate, _RESPIRATION),
        "oxygen_saturation": _points(oxygen_saturation, saturation),
        "oxygen": None if oxygen is None else _OXYGEN * oxygen,
        "systolic_pressure": _points(systolic_pressure, _SYSTOLIC),
        "heart_rate": _points(heart_rate, _PULSE),
        "alert": None if alert is None else _NOT_ALERT * (not alert),
        "temperature": _points(temperature, _TEMPERATURE, "0.1"),
    }
    return News2({name: points for name, points in found.items() if points is not None})


def _points(value: float | None, bands: Bands, step: str = "1") -> int | None:
    if value is None or not math.isfinite(value):
        return None
    told = float(Decimal(repr(max(-_FAR, min(float(value), _FAR)))).quantize(Decimal(step), ROUND_HALF_UP))
    return next(points for upper, points in bands if told <= upper)


def column(measures: Sequence[pa.Array | pa.ChunkedArray]) -> pa.Array:
    """`News2.at_least` of each row as doubles, on SpO2 scale 1; null where nothing at all is known.

    Args:
        measures: in the order of `MEASURES`; oxygen and alert as truth values or numbers (0 is false).
    """
    rows = zip(*(one.to_pylist() for one in measures), strict=True)
    return pa.array([_row(dict(zip(MEASURES, row, strict=True))) for row in rows], pa.float64())


def _row(said: dict[str, float | None]) -> float | None:
    oxygen, alert = said["oxygen"], said["alert"]
    made = news2(
        respiratory_rate=said["respiratory_rate"],
        oxygen_saturation=said["oxygen_saturation"],
        oxygen=None if oxygen is None else bool(oxygen),
        systolic_pressure=said["systolic_pressure"],
        heart_rate=said["heart_rate"],
        alert=None if alert is None else bool(alert),
        temperature=said["temperature"],
    )
    return float(made.at_least) if made.points else None
