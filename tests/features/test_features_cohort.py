"""Each rule of the cohort and of the label, on a chart made for it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime
from typing import Any

import pytest

from carelake.core.errors import Invalid
from carelake.features import cohort as cohorts

END = 400.0
Day = Callable[[float], datetime]


def rows(chart: Any, at_day: Day, end: float = END) -> dict[str, dict[str, Any]]:
    made = cohorts.cohort(chart.tables(), data_end=at_day(end))
    return {row["encounter_id"]: row for row in made.table.to_pylist()}


def counts(chart: Any, at_day: Day, end: float = END) -> dict[str, int]:
    return dict(cohorts.cohort(chart.tables(), data_end=at_day(end)).attrition)


def test_a_plain_stay_is_an_index_admission_without_readmission(chart: Any, at_day: Day) -> None:
    chart.patient().stay("a", 10, 14)
    row = rows(chart, at_day)["a"]
    assert (row["label"], row["censored"], row["died_first"]) == (False, False, False)
    assert row["discharged"] == at_day(14)


@pytest.mark.parametrize(
    ("start", "more", "label"),
    [
        (43.9, {}, True),
        (44.0, {}, True),
        (44.1, {}, False),
        (30.0, {"admission_type": "EM"}, True),
        (30.0, {"admission_type": "UR"}, True),
        (30.0, {"admission_type": "EL"}, False),
        (30.0, {"admission_type": "R"}, False),
        (30.0, {"admission_type": "odd"}, True),
        (30.0, {"admission_type": "EL", "admit_source": "emd"}, False),
        (30.0, {"status": "cancelled"}, False),
        (30.0, {"status": "planned"}, False),
        (30.0, {"class": "EMER"}, False),
        (30.0, {"class": "AMB"}, False),
    ],
)
def test_what_counts_as_readmission(chart: Any, at_day: Day, start: float, more: dict[str, Any], label: bool) -> None:
    chart.patient().stay("a", 10, 14).stay("b", start, start + 2, **more)
    assert rows(chart, at_day)["a"]["label"] is label


def test_a_planned_stay_does_not_hide_the_unplanned_one_after_it(chart: Any, at_day: Day) -> None:
    chart.patient().stay("a", 10, 14).stay("b", 20, 22, admission_type="EL").stay("c", 30, 32, admission_type="EM")
    found = rows(chart, at_day)
    assert [found[name]["label"] for name in "abc"] == [True, True, False]
    assert found["a"]["readmitted"] == at_day(30)


def test_another_patients_stay_is_nobodys_readmission(chart: Any, at_day: Day) -> None:
    chart.patient().patient("q").stay("a", 10, 14).stay("b", 20, 22, "q")
    assert rows(chart, at_day)["a"]["label"] is False


def test_stays_less_than_a_day_apart_are_one(chart: Any, at_day: Day) -> None:
    chart.patient()
    chart.stay("a", 10, 14, admission_type="EM").stay("b", 14.5, 18, discharge_disposition="snf").stay("c", 18.99, 20)
    found = rows(chart, at_day)
    assert list(found) == ["c"]
    assert (found["c"]["admitted"], found["c"]["discharged"]) == (at_day(10), at_day(20))
    assert (found["c"]["encounters"], found["c"]["admission_type"]) == (3, "EM")
    assert found["c"]["discharge_disposition"] is None


def test_a_day_apart_is_a_readmission(chart: Any, at_day: Day) -> None:
    chart.patient().stay("a", 10, 14).stay("b", 15, 18)
    assert rows(chart, at_day)["a"]["label"] is True


def test_a_stay_inside_another_is_part_of_it(chart: Any, at_day: Day) -> None:
    chart.patient().stay("a", 10, 20).stay("b", 12, 13).stay("c", 20.5, 22)
    assert list(rows(chart, at_day)) == ["c"]


@pytest.mark.parametrize(
    ("reason", "person", "stay"),
    [
        ("no_discharge", {}, {"end": None}),
        ("no_discharge", {}, {"status": "in-progress"}),
        ("no_discharge", {}, {"end": END + 1}),
        ("age_unknown", {"born": None}, {}),
        ("under_age", {"born": date(2004, 1, 12)}, {}),
        ("died_in_stay", {}, {"discharge_disposition": "exp"}),
        ("died_in_stay", {}, {"discharge_disposition": "20"}),
        ("died_in_stay", {"deceased_time": 13.5}, {"discharge_disposition": "home"}),
        ("died_in_stay", {"deceased_time": 14.0, "deceased_day_only": True}, {}),
        ("transferred", {}, {"discharge_disposition": "other-hcf"}),
        ("transferred", {}, {"discharge_disposition": "02"}),
    ],
)
def test_each_exclusion_is_counted_under_its_reason(
    chart: Any, at_day: Day, reason: str, person: dict[str, Any], stay: dict[str, Any]
) -> None:
    if "deceased_time" in person:
        person = {**person, "deceased_time": at_day(person["deceased_time"])}
    chart.patient(**person).stay("a", 10, stay.get("end", 14), **{k: v for k, v in stay.items() if k != "end"})
    found = counts(chart, at_day)
    assert found == {**found, "stays": 1, reason: 1, "index": 0, "labelled": 0}
    assert sum(found[step["reason"]] for step in cohorts.rules()["attrition"]) == 1


@pytest.mark.parametrize(
    ("person", "stay"),
    [
        ({"born": date(2004, 1, 11)}, {}),
        ({}, {"discharge_disposition": "hosp"}),
        ({}, {"discharge_disposition": "aadvice"}),
        ({"deceased_time": 14.0, "deceased_day_only": True}, {"discharge_disposition": "home"}),
        ({"deceased_time": 14.2}, {}),
    ],
)
def test_who_stays_in(chart: Any, at_day: Day, person: dict[str, Any], stay: dict[str, Any]) -> None:
    if "deceased_time" in person:
        person = {**person, "deceased_time": at_day(person["deceased_time"])}
    chart.patient(**person).stay("a", 10, 14, **stay)
    assert "a" in rows(chart, at_day)


def test_an_excluded_stay_is_still_a_readmission(chart: Any, at_day: Day) -> None:
    chart.patient().stay("a", 10, 14).stay("b", 20, 22, discharge_disposition="exp")
    assert rows(chart, at_day)["a"]["label"] is True
    assert counts(chart, at_day)["index"] == 1


def test_death_without_readmission_competes_and_is_flagged(chart: Any, at_day: Day) -> None:
    chart.patient(deceased_time=at_day(30)).stay("a", 10, 14)
    chart.patient("q", deceased_time=at_day(30)).stay("b", 10, 14, "q").stay("c", 20, 25, "q")
    found = rows(chart, at_day)
    assert (found["a"]["label"], found["a"]["died_first"]) == (False, True)
    assert (found["b"]["label"], found["b"]["died_first"]) == (True, False)


def test_open_follow_up_has_no_label_even_after_a_readmission(chart: Any, at_day: Day) -> None:
    chart.patient().stay("a", 10, 14).stay("b", 20, 22)
    found = rows(chart, at_day, end=43.9)
    assert [found[name]["label"] for name in "ab"] == [None, None]
    assert [found[name]["censored"] for name in "ab"] == [True, True]
    assert counts(chart, at_day, end=43.9)["censored"] == 2
    assert rows(chart, at_day, end=44)["a"]["label"] is True


def test_the_way_in_decides_where_no_priority_is_recorded(chart: Any, at_day: Day) -> None:
    chart.patient().visit("ed", "EMER", 9.8, 9.95).stay("a", 10, 14)
    chart.stay("b", 100, 104, admit_source="emd").stay("c", 200, 204).stay("d", 300, 304, admission_type="EL")
    assert [rows(chart, at_day)[name]["unplanned"] for name in "abcd"] == [True, True, None, False]


def test_the_end_of_the_data_is_the_last_thing_that_happened(chart: Any, at_day: Day) -> None:
    chart.patient().stay("a", 10, 14).visit("plan", "AMB", 900, 901, status="planned").reading("718-7", 9.0, 50)
    assert cohorts.data_end_of(chart.tables()) == at_day(50)
    assert cohorts.cohort(chart.tables()).data_end == at_day(50)


def test_no_data_is_an_error_and_not_an_empty_answer(chart: Any) -> None:
    with pytest.raises(Invalid, match="no encounter"):
        cohorts.cohort(chart.tables())


def test_a_date_typed_wrong_does_not_move_the_end(chart: Any, at_day: Day) -> None:
    chart.patient().stay("a", 10, 14).stay("b", 40, 50)
    chart.patient().stay("typo", 70_000, 70_001)
    assert cohorts.data_end_of(chart.tables(), at_day(100)) == at_day(50)
    assert cohorts.data_end_of(chart.tables()) == at_day(70_001)


def test_one_in_a_thousand_does_not_move_the_end(chart: Any, at_day: Day) -> None:
    for number in range(1_200):
        chart.patient().stay(f"s{number}", number / 10, number / 10 + 1)
    chart.patient().stay("typo", 300, 301)
    assert at_day(118) <= cohorts.data_end_of(chart.tables(), at_day(400)) <= at_day(120)
