"""The written truth is true: risks are calibrated, outcomes are in the record, rates are those of a hospital."""

from __future__ import annotations

import math
from collections import defaultdict
from datetime import datetime, timedelta
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from carelake.synth import risk, tables
from carelake.synth.draw import Stream, stream

POINTS = {c.name: c.points for c in tables.codes().chronic}


@pytest.fixture(scope="module")
def eligible(hospital):
    return [row for row in hospital.truth("admissions") if row["eligible"]]


def charlson(conditions: str) -> int:
    names = {name for name in conditions.split(",") if name}
    names -= {"diabetes"} if "diabetes_complicated" in names else set()
    names -= {"cancer"} if "metastatic" in names else set()
    return sum(POINTS[name] for name in names)


def lace(row) -> int:
    days = math.floor(row["los_days"] + 0.5)
    length = days if days <= 3 else 4 if days <= 6 else 5 if days <= 13 else 7
    points = charlson(row["conditions"])
    return length + 3 * row["urgent"] + (points if points < 4 else 5) + min(row["prior_ed"], 4)


def hospital_score(row) -> int:
    before = row["prior_admissions"]
    return (
        (row["hb"] is not None and row["hb"] < 12) + 2 * row["oncology"]
        + (row["na"] is not None and row["na"] < 135) + row["procedure"] + row["urgent"]
        + (0 if before == 0 else 2 if before <= 5 else 5) + 2 * (row["los_days"] >= 5)
    )  # fmt: skip


def as_z(observed, expected) -> float:
    expected = np.asarray(expected)
    return float((np.sum(observed) - expected.sum()) / math.sqrt((expected * (1 - expected)).sum()))


def test_rates_are_those_of_a_hospital(hospital, eligible):
    patients, stays = hospital.summary.patients, hospital.truth("admissions")
    in_window = sum(row["in_window"] for row in stays) / patients
    assert 1.1 < in_window < 1.5
    assert 0.12 < np.mean([row["readmitted_30d"] for row in eligible]) < 0.18
    assert 0.008 < np.mean([row["died"] for row in stays]) < 0.03
    assert 0.02 < np.mean([row["deteriorated"] for row in stays]) < 0.05
    assert 40 < hospital.summary.resources / patients < 60
    per_patient = [row["admissions"] for row in hospital.truth("patients")]
    assert 0.25 < np.mean([n == 0 for n in per_patient]) < 0.45
    assert max(per_patient) >= 8


def test_readmission_risk_is_calibrated_overall_and_in_tenths(eligible):
    outcome = np.array([row["readmitted_30d"] for row in eligible], dtype=float)
    for column in ("true_risk", "true_risk_full"):
        risks = np.array([row[column] for row in eligible])
        assert abs(as_z(outcome, risks)) < 3
        tenth = np.digitize(risks, np.quantile(risks, np.arange(0.1, 1, 0.1)))
        assert all(abs(as_z(outcome[tenth == k], risks[tenth == k])) < 3.5 for k in range(10))


def test_readmission_risk_separates_and_simple_scores_do_less_well(eligible):
    outcome = [row["readmitted_30d"] for row in eligible]
    truth = roc_auc_score(outcome, [row["true_risk"] for row in eligible])
    assert 0.75 < truth < 0.81
    for score in (lace, hospital_score):
        assert 0.65 < roc_auc_score(outcome, [score(row) for row in eligible]) < truth - 0.03


def test_true_risk_follows_from_the_columns_beside_it(hospital):
    model = tables.model().readmission
    for row in hospital.truth("admissions")[:500]:
        if row["true_risk"] is None:
            continue
        names = ("age", "prior_admissions", "prior_ed", "urgent", "oncology", "procedure", "meds", "disposition")
        values = ("hb", "na", "cr", "alb", "hr", "sbp", "spo2")
        facts = risk.AtDischarge(
            los=row["los_days"],
            conditions=frozenset(row["conditions"].split(",")),
            **{name: row[name] for name in (*names, *values)},
        )
        again = risk.over_latent(risk.readmission_logit(facts, model), model.latent)
        assert row["true_risk"] == pytest.approx(again, abs=1e-12)


def test_deterioration_risk_is_calibrated(hospital):
    stays = hospital.truth("admissions")
    happened, risks = [row["deteriorated"] for row in stays], [row["deterioration_risk"] for row in stays]
    assert abs(as_z(happened, risks)) < 3
    assert roc_auc_score(happened, risks) > 0.65


def test_emergency_visits_are_as_many_as_foretold(hospital):
    rows = [row for row in hospital.truth("patients") if row["ed_expected_180d"] is not None]
    expected = sum(row["ed_expected_180d"] for row in rows)
    seen = sum(row["ed_visits_180d"] for row in rows)
    assert abs(seen - expected) < 4 * math.sqrt(expected) + 0.03 * expected  # some fall into stays or after death


@pytest.fixture(scope="module")
def encounters(hospital):
    """{patient: [(start, end, planned, id)]} of the inpatient encounters, and (patient, start) of emergencies."""
    stays, emergencies = defaultdict(list), defaultdict(list)
    for r in hospital.resources(kind="Encounter"):
        owner = r["subject"]["reference"].removeprefix("Patient/")
        start = datetime.fromisoformat(r["period"]["start"])
        if r["class"]["code"] == "EMER":
            emergencies[owner].append(start)
        elif r["class"]["code"] == "IMP":
            end = datetime.fromisoformat(r["period"]["end"]) if "end" in r["period"] else None
            stays[owner].append((start, end, r["priority"]["coding"][0]["code"] == "EL", r["id"]))
    return stays, emergencies


def test_labels_and_histories_can_be_found_in_the_record(hospital, encounters):
    truth = {row["encounter_id"]: row for row in hospital.truth("admissions")}
    stays, emergencies = encounters
    checked = 0
    for owner, own in stays.items():
        for start, end, _, id in own:
            row = truth.get(id)
            if end is None:
                assert row is None
                continue
            assert row["discharged"] == end
            if not row["eligible"]:
                continue
            follow = end + timedelta(days=30)
            again = any(end < s <= follow and not planned for s, _, planned, _ in own)
            assert again == row["readmitted_30d"]
            year, half = start - timedelta(days=365), start - timedelta(days=180)
            assert row["prior_admissions"] == sum(year <= s < start for s, *_ in own)
            assert row["prior_ed"] == sum(half <= s < start for s in emergencies[owner])
            checked += 1
    assert checked > 2000


def test_planned_readmissions_exist_and_do_not_count(encounters):
    stays, _ = encounters
    planned_soon = 0
    for own in stays.values():
        ordered = sorted(own, key=lambda stay: stay[0])
        for before, after in pairwise(ordered):
            assert before[1] is not None
            assert before[1] < after[0]
            planned_soon += after[2] and after[0] - before[1] < timedelta(days=30)
    assert planned_soon > 10


def test_the_dead_do_not_come_back(hospital):
    for row in hospital.truth("admissions"):
        if row["died"]:
            assert row["readmitted_30d"] is None
            assert row["true_risk"] is None
    gone = {row["patient_id"]: row["died_at"] for row in hospital.truth("patients") if row["died_at"]}
    assert gone
    for row in hospital.truth("admissions"):
        if row["patient_id"] in gone:
            assert row["discharged"] <= gone[row["patient_id"]]


def test_late_results_would_leak(hospital):
    """The trap: samples of the last hours whose results come after discharge tell of the outcome."""
    truth = {row["encounter_id"]: row for row in hospital.truth("admissions") if row["eligible"]}
    values = {True: [], False: []}
    for r in hospital.resources(kind="Observation"):
        if r["code"]["coding"][0]["code"] == "2951-2":
            row = truth.get(r["encounter"]["reference"].removeprefix("Encounter/"))
            if row and datetime.fromisoformat(r["issued"]) > row["discharged"]:
                values[row["readmitted_30d"]].append(float(r["valueQuantity"]["value"]))
    assert len(values[True]) > 20
    assert np.mean(values[False]) - np.mean(values[True]) > 3


def test_sex_and_race_have_no_part_in_the_equation():
    fields = set(risk.AtDischarge.__slots__)
    assert fields.isdisjoint({"sex", "gender", "male", "race", "ethnicity", "insurer"})


@given(st.integers(0, 10**6), st.floats(0.5, 60), st.floats(0, 20), st.floats(0.01, 30))
def test_exponential_delays_stay_within_bounds(seed, mean, low, width):
    value = Stream(seed).exponential_between(mean, low, low + width)
    assert low - 1e-9 <= value <= low + width + 1e-9


@given(st.floats(-8, 4), st.floats(0.0, 1.5))
def test_the_mean_over_the_latent_part_is_a_mean(log_odds, deviation):
    nodes = np.linspace(-9, 9, 4001)
    weights = np.exp(-nodes * nodes / 2)
    exact = float((weights / weights.sum()) @ (1 / (1 + np.exp(-(log_odds + deviation * nodes)))))
    assert risk.over_latent(log_odds, deviation) == pytest.approx(exact, abs=2e-3)


def test_streams_differ_by_each_part():
    firsts = {stream("synth", seed, shift, index).random() for seed in (1, 2) for shift in "ab" for index in (1, 2)}
    assert len(firsts) == 8
