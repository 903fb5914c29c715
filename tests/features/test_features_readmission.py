"""Features hold what they say, and nothing that was not known yet."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pyarrow as pa
import pytest

from carelake.core.errors import Invalid, NotFound
from carelake.features import readmission

Day = Callable[[float], datetime]


def row(chart: Any, at_day: Day, name: str = "a") -> dict[str, Any]:
    table = readmission.build(chart.tables(), data_end=at_day(400))
    return next(r for r in table.to_pylist() if r["encounter_id"] == name)


def test_columns_come_in_the_declared_order(chart: Any, at_day: Day) -> None:
    chart.patient().stay("a", 10, 14)
    table = readmission.build(chart.tables(), data_end=at_day(400))
    names = [feature.name for feature in readmission.features()]
    assert table.column_names == [
        *("encounter_id", "subject_id", "prediction_time", "label"),
        *readmission.FACTS,
        *names,
        *readmission.SCORES,
        *readmission.GROUPS,
    ]
    assert {str(table.schema.field(name).type) for name in names} == {"double"}
    assert len(names) == len(set(names)) > 60


def test_a_value_issued_after_discharge_does_not_exist_yet(chart: Any, at_day: Day) -> None:
    chart.patient().stay("a", 10, 14)
    chart.reading("718-7", 12.0, 11, unit="g/dL").reading("718-7", 8.0, 13.5, 14.01, unit="g/dL")
    chart.reading("718-7", 7.0, 14.5, unit="g/dL").reading("2951-2", 130.0, 13, 15, unit="mmol/L")
    found = row(chart, at_day)
    assert found["hemoglobin_last"] == 12.0
    assert found["sodium_last"] is None


def test_a_diagnosis_recorded_after_discharge_does_not_exist_yet(chart: Any, at_day: Day) -> None:
    chart.patient().stay("a", 10, 14)
    chart.condition("I50.9", 11, 16).condition("E11.9", 5, 6).condition("J44.9", 20)
    found = row(chart, at_day)
    assert (found["conditions"], found["has_heart_failure"], found["has_diabetes"]) == (1, 0, 1)
    assert found["has_chronic_pulmonary"] == 0


def test_nothing_of_the_future_moves_a_feature(chart: Any, at_day: Day) -> None:
    chart.patient().stay("a", 10, 14).condition("I50.9", 1).reading("718-7", 11.0, 12, unit="g/dL")
    before = row(chart, at_day)
    chart.stay("b", 30, 35).visit("e", "EMER", 16, 17).visit("v", "AMB", 18, 18.1).condition("C78.0", 15)
    chart.reading("718-7", 5.0, 31, unit="g/dL").patient("q").stay("z", 11, 12, "q")
    chart.other("medications", medication_id="m", code="1", time=at_day(15))
    chart.other("procedures", procedure_id="x", code="1", time=at_day(15), status="completed")
    after = row(chart, at_day)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"label", "readmitted"}


def test_visits_and_stays_before_admission_are_counted_by_their_windows(chart: Any, at_day: Day) -> None:
    chart.patient()
    for number, start in enumerate((-400, -300, -100, -20)):
        chart.stay(f"s{number}", start, start + 3, admission_type="EL" if number == 1 else "EM")
    for number, start in enumerate((-390, -200, -170, -3, 9.5)):
        chart.visit(f"e{number}", "EMER", start, start + 0.2)
    chart.visit("v", "AMB", -30, -29.9).visit("gone", "AMB", -10, -9.9, status="cancelled")
    chart.stay("a", 10, 14.5)
    found = row(chart, at_day)
    assert (found["admissions_12m"], found["unplanned_admissions_12m"]) == (3, 2)
    assert found["inpatient_days_12m"] == 9
    assert found["days_since_discharge"] == 27
    # 9.5 is the visit that led to this admission
    assert (found["ed_visits_6m"], found["ed_visits_12m"], found["ambulatory_visits_12m"]) == (2, 3, 1)
    assert found["los_days"] == 4.5
    assert found["emergent_admission"] == 1


def test_values_come_in_one_unit_and_unknown_units_not_at_all(chart: Any, at_day: Day) -> None:
    chart.patient().stay("a", 10, 14)
    chart.reading("718-7", 110.0, 11, unit="g/L").reading("2160-0", 88.4, 11, unit="umol/L")
    chart.reading("8310-5", 100.4, 11, unit="[degF]").reading("2951-2", 140.0, 11, unit="furlong")
    chart.reading("8867-4", 80.0, 11, unit="/min").reading("8867-4", 95.0, 13, unit="/min")
    chart.reading("1751-7", 3.0, 12, unit="g/dL", comparator="<").reading(
        "9279-1", 9, 12, unit="/min", status="cancelled"
    )
    found = row(chart, at_day)
    assert found["hemoglobin_last"] == pytest.approx(11.0)
    assert found["creatinine_last"] == pytest.approx(1.0, abs=0.001)
    assert found["temperature_last"] == pytest.approx(38.0)
    assert (found["sodium_last"], found["albumin_last"], found["respiratory_rate_last"]) == (None, None, None)
    assert (found["heart_rate_last"], found["heart_rate_change"], found["hemoglobin_change"]) == (95, 15, None)


def test_the_graver_of_a_pair_counts(chart: Any, at_day: Day) -> None:
    chart.patient().stay("a", 10, 14)
    for code in ("E11.9", "E11.22", "C50.911", "C78.00", "K70.30", "I85.00", "I10"):
        chart.condition(code, 2)
    found = row(chart, at_day)
    assert found["charlson"] == 2 + 6 + 3
    assert found["charlson_lace"] == 2 + 6 + 4
    assert found["conditions"] == 7


def test_comorbidity_is_unknown_and_not_absent_without_icd_codes(chart: Any, at_day: Day) -> None:
    chart.patient().stay("a", 10, 14).condition("84114007", 2, system="http://snomed.info/sct")
    found = row(chart, at_day)
    assert (found["conditions"], found["charlson"], found["has_heart_failure"]) == (1, None, None)
    assert found["lace"] == 4


def test_scores_of_a_worked_case(chart: Any, at_day: Day) -> None:
    # LACE: 6 days 4, emergent 3, heart failure 2, one emergency visit 1. HOSPITAL: Hb 1, Na 1, procedure 1,
    # urgent 1, one admission (2016: 0, 2013: 2), 6 days 2.
    chart.patient().visit("e", "EMER", -50, -49.9).stay("s", -40, -38).stay("a", 10, 16, admission_type="EM")
    chart.condition("I50.9", 1).reading("718-7", 10.0, 15, unit="g/dL").reading("2951-2", 131.0, 15, unit="mmol/L")
    chart.other("procedures", procedure_id="x", code="1", time=at_day(12), status="completed")
    found = row(chart, at_day)
    assert (found["lace"], found["hospital"], found["hospital_2013"]) == (10, 6, 8)


def test_groups_for_reports(chart: Any, at_day: Day) -> None:
    chart.patient(race="Asian").stay("a", 10, 14)
    found = row(chart, at_day)
    assert (found["sex"], found["race"], found["age_group"]) == ("female", "Asian", "65-79")


def test_latest_equals_the_built_row_after_discharge(chart: Any, at_day: Day) -> None:
    chart.patient().stay("s", -40, -38).stay("a", 10, 14).condition("I50.9", 1).reading("718-7", 9.0, 13, unit="g/dL")
    online = readmission.latest(chart.tables(), "p", at_day(400)).to_pylist()[0]
    assert online == row(chart, at_day)
    at_the_door = readmission.latest(chart.tables(), "p", at_day(14)).to_pylist()[0]
    assert {k: v for k, v in at_the_door.items() if k != "label"} == {k: v for k, v in online.items() if k != "label"}


def test_latest_of_a_patient_still_in_is_as_of_now(chart: Any, at_day: Day) -> None:
    chart.patient().stay("a", 10, None).reading("718-7", 9.0, 11, unit="g/dL").reading("718-7", 8.0, 13, unit="g/dL")
    found = readmission.latest(chart.tables(), "p", at_day(12)).to_pylist()[0]
    assert (found["prediction_time"], found["los_days"], found["hemoglobin_last"]) == (at_day(12), 2, 9)
    assert (found["reason"], found["label"], found["disposition_home"]) == ("no_discharge", None, None)


def test_latest_does_not_see_a_discharge_that_is_still_to_come(chart: Any, at_day: Day) -> None:
    chart.patient().stay("a", 10, 14, discharge_disposition="home")
    found = readmission.latest(chart.tables(), "p", at_day(12)).to_pylist()[0]
    assert (found["prediction_time"], found["discharge_disposition"]) == (at_day(12), None)


def test_latest_without_a_stay_says_so(chart: Any, at_day: Day) -> None:
    chart.patient().stay("a", 10, 14, "someone else")
    with pytest.raises(NotFound, match="no inpatient stay"):
        readmission.latest(chart.tables(), "p", at_day(12))


def test_a_missing_view_is_named(chart: Any) -> None:
    tables = chart.tables()
    del tables["procedures"]
    with pytest.raises(Invalid, match="procedures"):
        readmission.build(tables)


def test_the_same_tables_give_the_same_rows_whatever_their_order(chart: Any, at_day: Day) -> None:
    for number in range(20):
        chart.patient(f"p{number}").stay(f"a{number}", 10 + number, 14 + number, f"p{number}")
        chart.reading("718-7", 9.0 + number, 12, unit="g/dL", subject_id=f"p{number % 7}")
    tables = chart.tables()
    turned = {name: table.take(pa.array(range(len(table))[::-1], pa.int64())) for name, table in tables.items()}
    first, second = (readmission.build(t, data_end=at_day(400)) for t in (tables, turned))
    assert first.equals(second)
