"""NEWS2 at every edge of the chart, and on charts that were scored by hand."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from carelake.features.news2 import MEASURES, column, news2

WELL: dict[str, Any] = {
    "respiratory_rate": 16, "oxygen_saturation": 97, "oxygen": False, "systolic_pressure": 125, "heart_rate": 72,
    "alert": True, "temperature": 36.8,
}  # fmt: skip


def points(name: str, value: Any, **more: Any) -> int:
    return news2(**{**WELL, name: value, **more}).points[name]


@pytest.mark.parametrize(
    ("name", "chart"),
    [
        ("respiratory_rate", {4: 3, 8: 3, 9: 1, 11: 1, 12: 0, 20: 0, 21: 2, 24: 2, 25: 3, 40: 3}),
        ("oxygen_saturation", {80: 3, 91: 3, 92: 2, 93: 2, 94: 1, 95: 1, 96: 0, 100: 0}),
        ("systolic_pressure", {70: 3, 90: 3, 91: 2, 100: 2, 101: 1, 110: 1, 111: 0, 219: 0, 220: 3}),
        ("heart_rate", {30: 3, 40: 3, 41: 1, 50: 1, 51: 0, 90: 0, 91: 1, 110: 1, 111: 2, 130: 2, 131: 3}),
        ("temperature", {34.0: 3, 35.0: 3, 35.1: 1, 36.0: 1, 36.1: 0, 38.0: 0, 38.1: 1, 39.0: 1, 39.1: 2, 41.0: 2}),
        ("oxygen", {False: 0, True: 2}),
        ("alert", {True: 0, False: 3}),
    ],
)
def test_each_measure_at_the_edges_of_its_bands(name: str, chart: dict[Any, int]) -> None:
    assert {value: points(name, value) for value in chart} == chart


def test_the_second_scale_of_saturation() -> None:
    both = {80: 3, 83: 3, 84: 2, 85: 2, 86: 1, 87: 1, 88: 0, 92: 0}
    air = {**both, 93: 0, 97: 0, 100: 0}
    oxygen = {**both, 93: 1, 94: 1, 95: 2, 96: 2, 97: 3, 100: 3}
    for chart, on in ((air, False), (oxygen, True)):
        found = {v: points("oxygen_saturation", v, oxygen=on, hypercapnic=True) for v in chart}
        assert found == chart
    unknown = news2(**{**WELL, "oxygen": None, "oxygen_saturation": 95}, hypercapnic=True)
    assert "oxygen_saturation" not in unknown.points


@pytest.mark.parametrize(("value", "wanted"), [(20.4, 0), (20.5, 2), (8.5, 1), (8.49, 3)])
def test_halves_are_rounded_up(value: float, wanted: int) -> None:
    assert points("respiratory_rate", value) == wanted


def test_the_score_and_what_it_asks_for() -> None:
    assert (news2(**WELL).total, news2(**WELL).response) == (0, "low")
    assert news2(**{**WELL, "alert": False}).response == "low-medium"
    sick = {**WELL, "respiratory_rate": 22, "heart_rate": 112, "systolic_pressure": 105}
    assert (news2(**sick).total, news2(**sick).response) == (5, "medium")
    worst = {
        "respiratory_rate": 30, "oxygen_saturation": 85, "oxygen": True, "systolic_pressure": 80, "heart_rate": 140,
        "alert": False, "temperature": 34.5,
    }  # fmt: skip
    assert (news2(**worst).total, news2(**worst).response) == (20, "high")


def test_what_is_not_known_gives_no_total() -> None:
    part = news2(**{**WELL, "temperature": None, "heart_rate": 120})
    assert (part.total, part.response, part.at_least) == (None, None, 2)
    assert news2(**{**WELL, "temperature": float("nan")}).total is None


def test_columns_are_scored_row_by_row() -> None:
    rows = [{**WELL, "oxygen": 1.0, "alert": 1.0}, dict.fromkeys(MEASURES), {**WELL, "alert": 0.0, "oxygen": None}]
    table = pa.Table.from_pylist([{k: None if v is None else float(v) for k, v in row.items()} for row in rows])
    assert column([table.column(name) for name in MEASURES]).to_pylist() == [2.0, None, 3.0]


def test_measures_that_are_no_numbers_of_the_chart() -> None:
    assert news2(**{**WELL, "heart_rate": float("inf")}).total is None
    assert points("heart_rate", 1e300) == 3
