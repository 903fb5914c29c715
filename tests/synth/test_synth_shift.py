"""Each shifted population differs in what it says and in nothing it does not."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import numpy as np
import pytest

from carelake import synth

RESPIRATORY = {"J18.9", "J44.1", "I26.99", "J10.1", "J06.9", "J45.901"}


class View:
    """A few statistics of a generated population."""

    def __init__(self, hospital: Any) -> None:
        self.counts = hospital.summary.counts
        self.stays = [row for row in hospital.truth("admissions") if not row["died"]]
        self.values: dict[str, list[float]] = defaultdict(list)
        self.units: dict[str, Counter[str]] = defaultdict(Counter)
        self.classes: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        for r in hospital.resources():
            if r["resourceType"] == "Observation" and "valueQuantity" in r:
                loinc = r["code"]["coding"][0]["code"]
                self.values[loinc].append(float(r["valueQuantity"]["value"]))
                self.units[loinc][r["valueQuantity"]["code"]] += 1
            elif r["resourceType"] == "Encounter":
                self.classes[r["class"]["code"]] += 1
                self.reasons[r["reasonCode"][0]["coding"][0]["code"]] += 1

    def mean(self, loinc: str) -> float:
        return float(np.mean(self.values[loinc]))

    def median(self, loinc: str) -> float:
        return float(np.median(self.values[loinc]))

    def of_stays(self, column: str) -> float:
        return float(np.mean([row[column] for row in self.stays if row[column] is not None]))

    def per_stay(self, loinc: str) -> float:
        return len(self.values[loinc]) / self.classes["IMP"]

    def respiratory(self) -> float:
        return sum(self.reasons[code] for code in RESPIRATORY) / (self.classes["IMP"] + self.classes["EMER"])


@pytest.fixture(scope="module")
def views(generated):
    return {name: View(generated(patients=400, shift=name)) for name in ("none", "older", "labs", "surge")}


def test_no_shift_is_none(generated, hospital):
    for name in (None, "none"):
        few = generated(shift=name, patients=40).lines("0001")
        assert few == hospital.lines("0001")[: len(few)]


def test_every_shift_says_what_it_is_about():
    assert set(synth.shifts()) == {"none", "older", "labs", "surge"}
    assert all(shift.about for shift in synth.shifts().values())


def test_older_is_older_and_sicker(views):
    none, older = views["none"], views["older"]
    assert older.of_stays("age") > none.of_stays("age") + 4
    assert older.counts["Condition"] > 1.2 * none.counts["Condition"]
    assert older.of_stays("true_risk") > none.of_stays("true_risk") + 0.01
    assert older.mean("2951-2") == pytest.approx(none.mean("2951-2"), abs=0.8)


def test_labs_reports_other_units_a_drifted_assay_and_fewer_values(views):
    none, labs = views["none"], views["labs"]
    assert set(none.units["2160-0"]) == {"mg/dL"}
    assert set(labs.units["2160-0"]) == {"umol/L"}
    assert labs.median("2160-0") == pytest.approx(88.42 * none.median("2160-0"), rel=0.1)
    assert labs.mean("718-7") == pytest.approx(10 * none.mean("718-7"), rel=0.05)
    assert labs.mean("2951-2") == pytest.approx(none.mean("2951-2") + 3, abs=0.6)
    assert labs.per_stay("2951-2") < 0.85 * none.per_stay("2951-2")
    assert labs.of_stays("age") == pytest.approx(none.of_stays("age"), abs=2.5)
    assert labs.of_stays("cr") < 3  # truth stays in the usual unit


def test_surge_is_a_respiratory_wave(views):
    none, surge = views["none"], views["surge"]
    assert surge.classes["EMER"] > 1.7 * none.classes["EMER"]
    assert surge.respiratory() > 1.5 * none.respiratory()
    assert surge.mean("59408-5") < none.mean("59408-5") - 0.4


def test_ids_of_shifted_populations_do_not_meet(generated):
    ids = [
        {r["id"] for r in generated(patients=30, shift=name).resources("0001")} for name in ("none", "older", "labs")
    ]
    assert not ids[0] & ids[1]
    assert not ids[0] & ids[2]


def test_the_house_is_the_same_in_every_run(generated):
    houses = {tuple(generated(patients=5, seed=s, shift=n).lines("0000")) for s, n in ((1, "none"), (2, "surge"))}
    assert len(houses) == 1
