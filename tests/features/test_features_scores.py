"""LACE and HOSPITAL on the published tables of points."""

from __future__ import annotations

from typing import Any

import pytest

from carelake.features.scores import HOSPITAL_2013, HOSPITAL_2016, hospital, lace, lace_length_points


@pytest.mark.parametrize(
    ("days", "points"),
    [(0.0, 0), (0.9, 0), (1, 1), (2, 2), (3.99, 3), (4, 4), (6.9, 4), (7, 5), (13.9, 5), (14, 7), (60, 7)],
)
def test_points_for_length_of_stay(days: float, points: int) -> None:
    assert lace_length_points(days) == points


@pytest.mark.parametrize(
    ("items", "score"),
    [
        ({"days": 0, "acute": False, "charlson": 0, "ed_visits": 0}, 0),
        ({"days": 14, "acute": True, "charlson": 4, "ed_visits": 4}, 19),
        ({"days": 20, "acute": True, "charlson": 9, "ed_visits": 11}, 19),
        ({"days": 5, "acute": True, "charlson": 3, "ed_visits": 1}, 11),
        ({"days": None, "acute": None, "charlson": None, "ed_visits": None}, 0),
    ],
)
def test_lace(items: dict[str, Any], score: int) -> None:
    assert lace(**items) == score


NOTHING: dict[str, Any] = {
    "hemoglobin": 12.0,
    "oncology": False,
    "sodium": 135.0,
    "procedure": False,
    "urgent": False,
    "admissions": 0,
    "days": 4.9,
}


@pytest.mark.parametrize(
    ("item", "points"),
    [
        ({}, 0),
        ({"hemoglobin": 11.9}, 1),
        ({"oncology": True}, 2),
        ({"sodium": 134.9}, 1),
        ({"procedure": True}, 1),
        ({"urgent": True}, 1),
        ({"days": 5}, 2),
        (dict.fromkeys(NOTHING), 0),
    ],
)
def test_each_item_of_hospital(item: dict[str, Any], points: int) -> None:
    assert hospital(**{**NOTHING, **item}) == points


@pytest.mark.parametrize(
    ("admissions", "points_2016", "points_2013"), [(0, 0, 0), (1, 0, 2), (2, 2, 2), (5, 2, 2), (6, 5, 5), (20, 5, 5)]
)
def test_both_published_cut_offs_for_admissions(admissions: int, points_2016: int, points_2013: int) -> None:
    assert hospital(**{**NOTHING, "admissions": admissions}, cutoffs=HOSPITAL_2016) == points_2016
    assert hospital(**{**NOTHING, "admissions": admissions}, cutoffs=HOSPITAL_2013) == points_2013


def test_the_most_that_hospital_gives() -> None:
    worst = {
        "hemoglobin": 7,
        "oncology": True,
        "sodium": 120,
        "procedure": True,
        "urgent": True,
        "admissions": 9,
        "days": 9,
    }
    assert hospital(**worst) == 13
