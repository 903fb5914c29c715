"""Daily counts: visits on their day, beds at each day's end, units by service, nothing of a day that is not over."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from carelake.features.utilisation import FEATURES, HORIZON, daily, design

START = datetime(2024, 1, 1)  # noqa: DTZ001 - UTC without a zone, as the views' times are


def encounters(rows: list[dict[str, Any]]) -> dict[str, pa.Table]:
    schema = pa.schema(
        [
            *(
                (name, pa.string())
                for name in ("encounter_id", "subject_id", "class", "status", "service_text", "service")
            ),
            ("start_time", pa.timestamp("us")),
            ("end_time", pa.timestamp("us")),
        ]
    )
    base = {"subject_id": "p", "status": "finished", "service": None, "service_text": None, "end_time": None}
    said = [{"encounter_id": str(at), **base, **row} for at, row in enumerate(rows)]
    return {"encounters": pa.Table.from_pylist(said, schema=schema)}


def at(day: float) -> datetime:
    return START + timedelta(days=day)


def steady(days: int = 200) -> list[dict[str, Any]]:
    """Each day two visits, one medical stay of three and a half days, and on Mondays a cancelled one."""
    rows: list[dict[str, Any]] = []
    for day in range(days):
        rows += [{"class": "EMER", "start_time": at(day + 0.4), "end_time": at(day + 0.5)}] * 2
        stay = {"class": "IMP", "service_text": "Medicine", "start_time": at(day + 0.5), "end_time": at(day + 4.0)}
        rows.append(stay)
        rows.append({**stay, "status": "cancelled"})
        rows.append({**stay, "class": "AMB"})
    rows.append({"class": "ACUTE", "service_text": "Rare", "start_time": at(100), "end_time": at(101.5)})
    return rows


def test_counts_are_those_of_the_days() -> None:
    found = daily(encounters(steady()), now=at(200))
    by_name = {one.name: one.counts for one in found.series}
    assert set(by_name) == {
        "emergency: ed_visits", "inpatient: admissions", "inpatient: occupied_beds", "medicine: admissions",
        "medicine: occupied_beds",
    }  # fmt: skip
    assert found.too_small == ["rare: admissions", "rare: occupied_beds"]
    assert found.first == at(30).date()
    whole = (at(100).date() - found.first).days
    assert set(by_name["emergency: ed_visits"]) == {2.0}
    assert set(by_name["medicine: admissions"]) == {1.0}
    assert set(by_name["medicine: occupied_beds"]) == {4.0}  # the stay of the day and those of the three before
    assert by_name["inpatient: admissions"][whole] == 2.0
    assert by_name["inpatient: occupied_beds"][whole : whole + 2].tolist() == [5.0, 4.0]


def test_a_day_that_is_not_over_is_not_counted() -> None:
    found = daily(encounters(steady()), now=at(150.45))
    assert found.last == at(149).date()
    beds = next(one.counts for one in found.series if one.name == "medicine: occupied_beds")
    assert beds[-1] == 4.0


@pytest.mark.parametrize("rows", [[], steady(40)])
def test_a_short_record_gives_no_series(rows: list[dict[str, Any]]) -> None:
    told = rows or [{"class": "AMB", "start_time": at(1)}]
    assert daily(encounters(told)).series == []


def test_every_origin_looks_back_only() -> None:
    found = design(daily(encounters(steady())).series)
    assert found.x.shape[1] == len(FEATURES)
    assert set(found.target - found.origin) == set(range(1, HORIZON + 1))
    assert np.isfinite(found.x).all()
    assert np.array_equal(found.x, found.x.astype(np.float32))
