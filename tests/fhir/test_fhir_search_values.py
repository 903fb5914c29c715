"""Dates, numbers and texts as an index compares them."""

from __future__ import annotations

import itertools
import math
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carelake.core.canonical import load
from carelake.fhir.search.values import NUMBER_MAX, OPEN_HIGH, OPEN_LOW, date_range, normalise, number_range


def micros(*parts: int) -> int:
    return int(datetime(*parts, tzinfo=UTC).timestamp()) * 1_000_000  # type: ignore[misc, arg-type]


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("2020", micros(2020, 1, 1), micros(2021, 1, 1)),
        ("2020-02", micros(2020, 2, 1), micros(2020, 3, 1)),
        ("2020-12", micros(2020, 12, 1), micros(2021, 1, 1)),
        ("2020-02-29", micros(2020, 2, 29), micros(2020, 3, 1)),
        ("2020-02-29T10:20", micros(2020, 2, 29, 10, 20), micros(2020, 2, 29, 10, 21)),
        ("2020-02-29T10:20:30", micros(2020, 2, 29, 10, 20, 30), micros(2020, 2, 29, 10, 20, 31)),
        ("2020-02-29T10:20:30Z", micros(2020, 2, 29, 10, 20, 30), micros(2020, 2, 29, 10, 20, 31)),
        ("2020-02-29T10:20:30+05:30", micros(2020, 2, 29, 4, 50, 30), micros(2020, 2, 29, 4, 50, 31)),
        ("1969-12-31T23:59:59.5Z", -500_000, -400_000),
        ("2016-12-31T23:59:60Z", micros(2017, 1, 1), micros(2017, 1, 1, 0, 0, 1)),
        ("0001", OPEN_LOW, micros(2, 1, 1)),
        ("9999", micros(9999, 1, 1), OPEN_HIGH),
        ("9999-12-31", micros(9999, 12, 31), OPEN_HIGH),
        ("0001-01-01T00:00:00+14:00", OPEN_LOW - 14 * 3_600_000_000, OPEN_LOW - 14 * 3_600_000_000 + 1_000_000),
    ],
)
def test_ranges_of_dates(text: str, low: int, high: int) -> None:
    assert date_range(text) == (low, high)


@pytest.mark.parametrize("text", ["", "20", "2020-13", "2021-02-29", "2020-01-01T25:00:00Z", "2020-01-01x", "٢٠٢٠"])
def test_what_is_no_date(text: str) -> None:
    with pytest.raises(ValueError):
        date_range(text)


YEARS = (datetime.fromisoformat("1800-01-01"), datetime.fromisoformat("2200-01-01"))
zones = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@given(st.datetimes(min_value=YEARS[0], max_value=YEARS[1], timezones=zones))
def test_a_shorter_text_holds_the_longer_one(moment: datetime) -> None:
    text = moment.isoformat(timespec="microseconds")
    zone = text[26:]
    ranges = [date_range(f"{text[:n]}{zone}") for n in (26, 23, 19, 16)]
    assert ranges[0] == (ranges[0][0], ranges[0][0] + 1)
    assert ranges[0][0] == round((moment - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(microseconds=1))
    ranges += [date_range(moment.astimezone(UTC).isoformat()[:n]) for n in (10, 7, 4)]
    for inner, outer in itertools.pairwise(ranges):
        assert outer[0] <= inner[0] < inner[1] <= outer[1]


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("5.4", 5.35, 5.45),
        ("5.40", 5.395, 5.405),
        ("100", 99.5, 100.5),
        ("-3", -3.5, -2.5),
        ("1e2", 95, 105),
        ("1e-3", 0.0005, 0.0015),
        ("0", -0.5, 0.5),
    ],
)
def test_ranges_of_numbers(text: str, low: float, high: float) -> None:
    assert number_range(text) == (low, high)
    assert number_range(load(text)) == (low, high)


def test_numbers_beyond_a_float_are_held_at_its_edge() -> None:
    assert number_range(Decimal("1e400"))[1] == NUMBER_MAX
    assert number_range(Decimal("-1e400"))[0] == -NUMBER_MAX
    assert number_range(Decimal("1e999999"))[1] == NUMBER_MAX
    low, high = number_range(Decimal("0.1234567890123456789012345678901234567890"))
    assert low < high
    for bad in ("nan", "inf", "x", ""):
        with pytest.raises(ValueError):
            number_range(bad)


@given(st.decimals(allow_nan=False, allow_infinity=False, places=4) | st.decimals(-1000, 1000))
def test_a_number_is_in_its_range(value: Decimal) -> None:
    low, high = number_range(value)
    assert low <= float(value) <= high
    assert low < high or abs(low) == NUMBER_MAX
    assert math.isfinite(low)
    assert math.isfinite(high)


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("Smith", "smith"),
        ("O'Brien-Núñez", "obrien nunez"),
        ("  Van   der\tBerg, Jr. ", "van der berg jr"),
        ("Straße", "strasse"),
        ("Łódź Ærø", "lodz aero"),
        ("ﬁne Å", "fine a"),
        ("李 明", "李 明"),
        ("...", ""),
    ],
)
def test_folding(text: str, folded: str) -> None:
    assert normalise(text) == folded


@given(st.text(max_size=30))
def test_folding_twice_changes_nothing(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once
    assert normalise(text.upper()) == normalise(text.upper().lower())
