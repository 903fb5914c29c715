"""Measures: patients at each boundary, and a second, plain calculation over a synthetic hospital."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from carelake.core.errors import Invalid, NotFound, Refused
from carelake.fhir.validate import validate
from carelake.lake.measures import catalogue, run, summary, tell
from carelake.lake.measures.report import measure_report

sys.path.append(str(Path(__file__).parent))

import ready_data

Resource = dict[str, Any]
YEAR = catalogue.period_of("2022")
ICD = "http://hl7.org/fhir/sid/icd-10-cm"


# -- patients by hand: the name says what is expected of them --------------------------------------------------------


def patient(name: str, born: str = "1960-06-15", **more: Any) -> Resource:
    return {"resourceType": "Patient", "id": name, "gender": "female", "birthDate": born, **more}


def encounter(name: str, of: str, kind: str, start: str, end: str = "", **more: Any) -> Resource:
    period = {"start": start, **({"end": end} if end else {})}
    told = {"resourceType": "Encounter", "id": name, "status": "finished", "class": {"code": kind}, "period": period}
    return {**told, "subject": {"reference": f"Patient/{of}"}, **more}


def condition(of: str, code: str, onset: str, **more: Any) -> Resource:
    told = {"resourceType": "Condition", "id": f"c-{of}-{code}", "code": {"coding": [{"system": ICD, "code": code}]}}
    return {**told, "subject": {"reference": f"Patient/{of}"}, "onsetDateTime": onset, **more}


def hba1c(of: str, at: str, value: float | None, unit: str = "%", n: int = 0) -> Resource:
    told: Resource = {
        "resourceType": "Observation",
        "id": f"h-{of}-{n}",
        "status": "final",
        "category": [{"coding": [{"system": f"{_HL7}/observation-category", "code": "laboratory"}]}],
        "code": {"coding": [{"system": "http://loinc.org", "code": "4548-4"}]},
        "subject": {"reference": f"Patient/{of}"},
        "effectiveDateTime": at,
    }
    return told if value is None else {**told, "valueQuantity": {"value": value, "code": unit}}


_HL7 = "http://terminology.hl7.org/CodeSystem"


def pressure(of: str, at: str, high: float, low: float, n: int = 0, within: str = "") -> Resource:
    parts = [
        {"code": {"coding": [{"system": "http://loinc.org", "code": code}]}, "valueQuantity": {"value": value}}
        for code, value in (("8480-6", high), ("8462-4", low))
    ]
    told = {
        "resourceType": "Observation",
        "id": f"b-{of}-{n}",
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "85354-9"}]},
        "subject": {"reference": f"Patient/{of}"},
        "effectiveDateTime": at,
        "component": parts,
    }
    return {**told, "encounter": {"reference": f"Encounter/{within}"}} if within else told


def asian(display: str) -> Resource:
    coding = {"system": "urn:oid:2.16.840.1.113883.6.238", "code": "2028-9", "display": display}
    url = "http://hl7.org/fhir/us/core/StructureDefinition/us-core-race"
    return {"url": url, "extension": [{"url": "ombCategory", "valueCoding": coding}]}


def leaving(code: str) -> Resource:
    return {"hospitalization": {"dischargeDisposition": {"coding": [{"system": f"{_HL7}/x", "code": code}]}}}


def urgency(code: str) -> Resource:
    return {"priority": {"coding": [{"system": f"{_HL7}/v3-ActPriority", "code": code}]}}


def stays() -> Iterator[Resource]:
    """Each has a first stay that ends on 10 March at noon; its name says what it comes to."""
    end = "2022-03-10T12:00:00-05:00"

    def first(of: str, **more: Any) -> Resource:
        return encounter(f"{of}-1", of, "IMP", "2022-03-05T08:00:00-05:00", end, **more)

    def second(of: str, start: str, **more: Any) -> Resource:
        return encounter(f"{of}-2", of, "IMP", start, "2022-12-20T10:00:00-05:00", **more)

    for name in ("alone", "day30-yes", "day30-no", "planned-no", "transfer", "at24h-yes", "void-no", "open-yes"):
        yield patient(name)
        yield first(name)
    yield patient("year-no", deceasedDateTime="2022", extension=[asian("Asian")])
    yield first("year-no")
    yield second("day30-yes", "2022-04-09T12:00:00-05:00")
    yield second("day30-no", "2022-04-09T12:00:01-05:00")
    yield second("planned-no", "2022-03-20T12:00:00-05:00", **urgency("EL"))
    yield second("transfer", "2022-03-11T11:59:59-05:00")
    yield second("at24h-yes", "2022-03-11T12:00:00-05:00")
    yield second("void-no", "2022-03-20T12:00:00-05:00", status="cancelled")
    yield {
        **second("open-yes", "2022-03-20T12:00:00-05:00"),
        "status": "in-progress",
        "period": {"start": "2022-03-20"},
    }
    yield patient("no-end", extension=[asian("as Ann said, Asian")])
    yield encounter("no-end-1", "no-end", "IMP", "2022-03-05T08:00:00-05:00")
    for code in ("exp", "hosp", "aadvice", "other-hcf"):
        yield patient(f"out-{code}")
        yield first(f"out-{code}", **leaving(code))
    yield patient("out-died", deceasedDateTime="2022-03-09T00:00:00-05:00")
    yield first("out-died")
    yield patient("minor", "2004-03-06")
    yield first("minor")
    yield patient("of-age", "2004-03-05")
    yield first("of-age")
    yield patient("late")
    yield encounter("late-1", "late", "IMP", "2022-11-20T08:00:00-05:00", "2022-12-02T00:00:00-05:00")
    yield patient("in-time")
    yield encounter("in-time-1", "in-time", "IMP", "2022-11-20T08:00:00-05:00", "2022-12-01T23:59:59-05:00")


def sugar() -> Iterator[Resource]:
    """HbA1c of people with diabetes: (who, poor, controlled)."""
    for name in SUGAR:
        born = {"dm-age-75": "1947-01-01", "dm-age-76": "1946-12-31", "dm-age-18": "2004-12-31"}.get(
            name, "1960-01-01"
        )
        yield patient(name, {"dm-age-17": "2005-01-01"}.get(name, born))
        if name != "dm-unseen":
            yield encounter(f"v-{name}", name, "AMB", "2022-05-01T09:00:00Z", "2022-05-01T09:30:00Z")
        ended = {"abatementDateTime": "2021-12-31"} if name == "dm-ended" else {}
        if name == "dm-inactive":
            ended = {"clinicalStatus": {"coding": [{"system": f"{_HL7}/condition-clinical", "code": "inactive"}]}}
        if name == "dm-refuted":
            ended = {"verificationStatus": {"coding": [{"system": "x", "code": "refuted"}]}}
        yield condition(name, "E11.9", "2023-01-01" if name == "dm-later" else "2015-01-01", **ended)
    values = {"dm-9.0": 9.0, "dm-9.1": 9.1, "dm-8.0": 8.0, "dm-7.9": 7.9, "dm-age-75": 7.0, "dm-age-18": 7.0}
    for name, value in values.items():
        yield hba1c(name, "2022-06-01T08:00:00Z", value)
    yield hba1c("dm-last", "2022-06-01T08:00:00Z", 7.0)
    yield hba1c("dm-last", "2022-11-01T08:00:00Z", 9.5, n=1)
    yield hba1c("dm-last-empty", "2022-06-01T08:00:00Z", 7.0)
    yield hba1c("dm-last-empty", "2022-11-01T08:00:00Z", None, n=1)
    yield hba1c("dm-before", "2021-12-31T23:59:59Z", 7.0)
    yield hba1c("dm-after", "2023-01-01T00:00:00Z", 7.0)
    yield hba1c("dm-mmol", "2022-06-01T08:00:00Z", 60, "mmol/mol")  # 7.64 %
    yield hba1c("dm-unit", "2022-06-01T08:00:00Z", 7.0, "kg")
    worded = hba1c("dm-words", "2022-06-01T08:00:00Z", 60)
    yield {**worded, "valueQuantity": {"value": 60, "unit": "mmol/mol"}}
    yield hba1c("dm-same-time", "2022-06-01T08:00:00Z", 7.0)
    yield hba1c("dm-same-time", "2022-06-01T08:00:00Z", 9.5, n=1)
    yield encounter("h-dm-hospice", "dm-hospice", "IMP", "2022-07-01", "2022-07-05", **leaving("hosp"))


SUGAR: dict[str, tuple[bool, bool] | None] = {
    "dm-9.0": (False, False), "dm-9.1": (True, False), "dm-8.0": (False, False), "dm-7.9": (False, True),
    "dm-none": (True, False), "dm-last": (True, False), "dm-last-empty": (True, False), "dm-before": (True, False),
    "dm-after": (True, False), "dm-mmol": (False, True), "dm-unit": (True, False), "dm-age-75": (False, True),
    "dm-age-18": (False, True), "dm-age-76": None, "dm-age-17": None, "dm-unseen": None, "dm-ended": None,
    "dm-inactive": None, "dm-refuted": None, "dm-later": None, "dm-hospice": (True, False),
    "dm-words": (False, True), "dm-same-time": (False, True),
}  # fmt: skip
PRESSURE: dict[str, bool | None] = {
    "bp-139-89": True, "bp-140-89": False, "bp-139-90": False, "bp-none": False, "bp-lowest": True,
    "bp-last-day": False, "bp-stay": False, "bp-young": None, "bp-85": True, "bp-86": None, "bp-june": True,
    "bp-july": None, "bp-dialysis": True, "bp-pregnant": True, "bp-mother": True,
}  # fmt: skip


def pressures() -> Iterator[Resource]:
    born = {"bp-young": "2005-01-01", "bp-85": "1937-01-01", "bp-86": "1936-12-31"}
    onset = {"bp-june": "2022-06-30", "bp-july": "2022-07-01"}
    for name in PRESSURE:
        yield patient(name, born.get(name, "1960-01-01"))
        yield encounter(f"v-{name}", name, "AMB", "2022-05-01T09:00:00Z", "2022-05-01T09:30:00Z")
        yield condition(name, "I10", onset.get(name, "2010-01-01"))
    others = ("bp-85", "bp-june", "bp-july", "bp-young", "bp-86", "bp-dialysis", "bp-pregnant", "bp-mother")
    for name in ("bp-139-89", *others):
        yield pressure(name, "2022-05-01T09:00:00Z", 139, 89)
    yield pressure("bp-140-89", "2022-05-01T09:00:00Z", 140, 89)
    yield pressure("bp-139-90", "2022-05-01T09:00:00Z", 139, 90)
    yield pressure("bp-lowest", "2022-05-01T09:00:00Z", 150, 80)
    yield pressure("bp-lowest", "2022-05-01T15:00:00Z", 130, 95, n=1)
    yield pressure("bp-last-day", "2022-05-01T09:00:00Z", 120, 80)
    yield pressure("bp-last-day", "2022-08-01T09:00:00Z", 160, 80, n=1)
    yield encounter("bp-stay-s", "bp-stay", "IMP", "2022-09-01T09:00:00Z", "2022-09-02T09:00:00Z")
    yield pressure("bp-stay", "2022-05-01T09:00:00Z", 150, 95)
    yield pressure("bp-stay", "2022-09-01T10:00:00Z", 120, 70, n=1, within="bp-stay-s")
    yield condition("bp-dialysis", "Z99.2", "2020-01-01")
    resolved = {"clinicalStatus": {"coding": [{"code": "resolved"}]}}
    yield condition("bp-pregnant", "O13.1", "2022-02-01", **resolved)
    yield condition("bp-mother", "O13.1", "2015-02-01")  # nobody said when it ended


def emergencies() -> Iterator[Resource]:
    for name in ("ed-two", "ed-admitted", "ed-none", "ed-gone", "ed-died", "ed-within", "ed-dead"):
        died: Resource = {"deceasedBoolean": True} if name == "ed-dead" else {}
        if name == "ed-died":
            died = {"deceasedDateTime": "2022-07-02T00:00:00Z"}
        yield patient(name, **died)
        yield encounter(
            f"v-{name}", name, "AMB", "2020-05-01T09:00:00Z" if name == "ed-gone" else "2021-05-01T09:00:00Z"
        )
    for n, start in enumerate(("2022-01-01T00:00:00Z", "2022-12-31T23:59:59Z", "2023-01-01T00:00:00Z")):
        yield encounter(f"ed-two-{n}", "ed-two", "EMER", start, start)
    yield encounter("ed-two-again", "ed-two", "EMER", "2022-01-01T20:00:00Z", "2022-01-01T21:00:00Z")
    yield encounter("ed-within-1", "ed-within", "IMP", "2022-02-01T10:00:00Z", "2022-02-05T12:00:00Z")
    yield encounter("ed-within-2", "ed-within", "EMER", "2022-02-03T10:00:00Z", "2022-02-03T12:00:00Z")
    yield encounter("ed-dead-1", "ed-dead", "EMER", "2022-03-03T10:00:00Z", "2022-03-03T12:00:00Z")
    yield encounter("ed-adm-1", "ed-admitted", "EMER", "2022-02-01T10:00:00Z", "2022-02-01T12:00:00Z")
    yield encounter("ed-adm-2", "ed-admitted", "IMP", "2022-02-02T12:00:00Z", "2022-02-03T12:00:00Z")


def payers() -> Iterator[Resource]:
    told = {"alone": ("Patient/alone", "Ann Nobody"), "minor": ("Organization/mutual", "Mutual")}
    for of, (payor, display) in told.items():
        yield {
            "resourceType": "Coverage",
            "id": f"p-{of}",
            "status": "active",
            "type": {"coding": [{"system": "x", "code": "pay", "display": "self pay"}]},
            "beneficiary": {"reference": f"Patient/{of}"},
            "payor": [{"reference": payor, "display": display}],
        }


@pytest.fixture(scope="module")
def by_hand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ready_data.Place]:
    everything = [*stays(), *sugar(), *pressures(), *emergencies(), *payers()]
    with ready_data.place_of(tmp_path_factory.mktemp("measures"), everything) as made:
        yield made


def told(place: ready_data.Place, name: str, sets: pa.Table | None = None) -> dict[str, dict[str, Any]]:
    asked = catalogue.measure(name)
    rows = run.units(place.permit(), place.vault, place.snapshot, asked, YEAR, sets or catalogue.value_sets())
    return {one["id"]: one for one in rows.to_pylist()}


def test_readmission_at_its_boundaries(by_hand: ready_data.Place) -> None:
    found = told(by_hand, "readmission")
    firsts = {name.removesuffix("-1"): one for name, one in found.items() if name.endswith("-1")}
    counted = {name for name, one in firsts.items() if not one["excluded"]}
    expected = {
        "alone",
        "day30-yes",
        "day30-no",
        "planned-no",
        "at24h-yes",
        "void-no",
        "open-yes",
        "of-age",
        "in-time",
        "year-no",  # died some time in the year, or so it is told
    }
    assert counted - {"ed-adm", "ed-within"} == expected
    assert {name for name, one in firsts.items() if one["excluded"]} == {
        "out-exp", "out-hosp", "out-aadvice", "out-other-hcf", "out-died"
    }  # fmt: skip
    assert {name for name, one in firsts.items() if one["numerator"]} == {"day30-yes", "at24h-yes", "open-yes"}
    # The transfer's two encounters are one stay, which ends too late in the year; the minor's is none of an adult.
    assert not {"transfer-1", "transfer-2", "minor-1", "late-1", "no-end-1"} & set(found)
    assert found["of-age-1"]["age"] == 18


def test_hba1c_at_its_boundaries(by_hand: ready_data.Place) -> None:
    poor, good = told(by_hand, "diabetes-poor-control"), told(by_hand, "diabetes-control")
    assert set(poor) == set(good) == {name for name, expected in SUGAR.items() if expected is not None}
    found = {name: (poor[name]["numerator"], good[name]["numerator"]) for name in poor}
    assert found == {name: expected for name, expected in SUGAR.items() if expected is not None}
    assert {name for name, one in poor.items() if one["excluded"]} == {"dm-hospice"}


def test_blood_pressure_at_its_boundaries(by_hand: ready_data.Place) -> None:
    found = told(by_hand, "blood-pressure-control")
    assert {name: one["numerator"] for name, one in found.items()} == {
        k: v for k, v in PRESSURE.items() if v is not None
    }
    assert {name for name, one in found.items() if one["excluded"]} == {"bp-dialysis", "bp-pregnant"}


def test_ed_use_at_its_boundaries(by_hand: ready_data.Place) -> None:
    found = told(by_hand, "ed-use")
    assert "ed-gone" not in found
    assert (found["ed-two"]["events"], found["ed-two"]["numerator"]) == (2, True)
    assert (found["ed-admitted"]["events"], found["ed-admitted"]["numerator"]) == (0, False)
    assert (found["ed-within"]["events"], found["ed-within"]["numerator"]) == (0, False)
    assert (found["ed-dead"]["events"], found["ed-dead"]["numerator"]) == (1, True)  # was alive when seen
    assert found["ed-none"]["months"] == pytest.approx(365 / 30.4375)
    assert found["ed-died"]["months"] == pytest.approx(182 / 30.4375)


def test_a_permits_scope_holds_in_measures(by_hand: ready_data.Place) -> None:
    asked, sets = catalogue.measure("diabetes-control"), catalogue.value_sets()
    one = by_hand.permit("patient:dm-7.9")
    rows = run.units(one, by_hand.vault, by_hand.snapshot, asked, YEAR, sets)
    assert rows.column("id").to_pylist() == ["dm-7.9"]
    hidden = run.units(by_hand.permit("deidentified"), by_hand.vault, by_hand.snapshot, asked, YEAR, sets)
    assert not set(SUGAR) & set(hidden.column("id").to_pylist())
    with pytest.raises(Refused, match="counts over enough patients"):
        run.units(by_hand.permit("cells"), by_hand.vault, by_hand.snapshot, asked, YEAR, sets)
    with pytest.raises(Refused):
        run.units(by_hand.permit("unheard-of"), by_hand.vault, by_hand.snapshot, asked, YEAR, sets)


def test_own_value_sets_take_the_place_of_ours(by_hand: ready_data.Place) -> None:
    own = f'[hypertension]\nsystem = "{ICD}"\ncodes = ["Z99.2"]\nsource = "test"\n'
    assert set(told(by_hand, "blood-pressure-control", catalogue.value_sets(own))) == {"bp-dialysis"}
    for wrong in (
        "[x",
        "[unheard]\nsystem = ''\ncodes = []",
        "[hba1c]\ncodes = ['1']",
        "[hba1c]\nsystem=''\ncodes=[1]",
    ):
        with pytest.raises(Invalid, match="value sets is wrong"):
            catalogue.value_sets(wrong)


# -- a second calculation -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ready_data.Place, list[Resource]]]:
    folder = tmp_path_factory.mktemp("hospital")
    resources = ready_data.synthetic(folder / "synth", 150, seed=3)
    with ready_data.place_of(folder, resources) as made:
        yield made, resources


def _of(resources: list[Resource], kind: str) -> dict[str, list[Resource]]:
    found: dict[str, list[Resource]] = {}
    for one in resources:
        if one["resourceType"] == kind:
            key = one["id"] if kind == "Patient" else one["subject"]["reference"].partition("/")[2]
            found.setdefault(key, []).append(one)
    return found


def _at(text: str) -> datetime:
    return datetime.fromisoformat(text[:19])


def _age(born: str, day: date) -> int:
    year, month, at = map(int, born.split("-"))
    return day.year - year - ((day.month, day.day) < (month, at))


def _codes(one: Resource) -> list[str]:
    return [coding["code"] for coding in one["code"]["coding"]]


BEGIN, END = datetime(2022, 1, 1), datetime(2023, 1, 1)  # noqa: DTZ001
LAST = date(2022, 12, 31)


def _visits(encounters: list[Resource]) -> list[tuple[datetime, datetime | None, Resource]]:
    told = [(_at(e["period"]["start"]), e["period"].get("end"), e) for e in encounters]
    return sorted(((a, _at(b) if b else None, e) for a, b, e in told), key=lambda one: (one[0], one[2]["id"]))


def _disposition(one: Resource) -> str:
    codings = one.get("hospitalization", {}).get("dischargeDisposition", {}).get("coding", [{}])
    return str(codings[0].get("code", ""))


def _readmissions(resources: list[Resource]) -> dict[str, tuple[bool, bool]]:
    patients, found = _of(resources, "Patient"), {}
    for name, encounters in _of(resources, "Encounter").items():
        merged: list[list[tuple[datetime, datetime | None, Resource]]] = []
        for visit in _visits([e for e in encounters if e["class"]["code"] == "IMP"]):
            ends = [b or a for stay in merged for a, b, _ in stay]
            if merged and visit[0] < max(ends) + timedelta(hours=24):
                merged[-1].append(visit)
            else:
                merged.append([visit])
        for stay in merged:
            if any(end is None for _, end, _ in stay):
                continue
            done = max(end for _, end, _ in stay if end)
            last = max(stay, key=lambda v: (v[1] or v[0], v[0], v[2]["id"]))[2]
            [who] = patients[name]
            if not BEGIN <= done < END - timedelta(days=30) or _age(who["birthDate"], stay[0][0].date()) < 18:
                continue
            died = who.get("deceasedDateTime")
            out = _disposition(last) in {"exp", "hosp", "aadvice", "other-hcf"} or (died and _at(died) <= done)
            again = [
                other for other in merged
                if done < other[0][0] <= done + timedelta(days=30)
                and other[0][2]["priority"]["coding"][0]["code"] not in {"EL", "R"}
            ]  # fmt: skip
            found[last["id"]] = (bool(out), bool(again))
    return found


def test_readmission_by_a_second_calculation(hospital: tuple[ready_data.Place, list[Resource]]) -> None:
    place, resources = hospital
    found = {name: (one["excluded"], one["numerator"]) for name, one in told(place, "readmission").items()}
    assert found == _readmissions(resources)
    assert sum(again for _, again in found.values()) > 5


def _hospice(encounters: list[Resource]) -> bool:
    ends = [(_at(e["period"]["end"]), e) for e in encounters if "end" in e["period"]]
    return any(BEGIN <= end < END and _disposition(e) == "hosp" for end, e in ends)


def _seen(encounters: list[Resource]) -> bool:
    return any(BEGIN <= _at(e["period"]["start"]) < END for e in encounters)


def _ill(conditions: list[Resource], *starts: str, before: datetime) -> bool:
    return any(
        code.startswith(starts) and _at(f"{c['onsetDateTime']}T00:00:00") < before
        for c in conditions for code in _codes(c) if c["clinicalStatus"]["coding"][0]["code"] == "active"
    )  # fmt: skip


def test_diabetes_and_pressure_by_a_second_calculation(hospital: tuple[ready_data.Place, list[Resource]]) -> None:
    place, resources = hospital
    encounters, conditions = _of(resources, "Encounter"), _of(resources, "Condition")
    observations = _of(resources, "Observation")
    kinds = {e["id"]: e["class"]["code"] for of in encounters.values() for e in of}
    sugar_of: dict[str, tuple[bool, bool, bool]] = {}
    pressure_of: dict[str, tuple[bool, bool]] = {}
    for name, [who] in _of(resources, "Patient").items():
        mine, age = encounters.get(name, []), _age(who["birthDate"], LAST)
        taken = [(o["effectiveDateTime"], o) for o in observations.get(name, [])]
        taken = [(_at(at), o) for at, o in taken if BEGIN <= _at(at) < END]
        if 18 <= age <= 75 and _seen(mine) and _ill(conditions.get(name, []), "E10", "E11", "E13", before=END):
            tests = sorted(((at, o["id"], o) for at, o in taken if "4548-4" in _codes(o)), key=lambda one: one[:2])
            value = float(tests[-1][2]["valueQuantity"]["value"]) if tests else None
            sugar_of[name] = (_hospice(mine), value is None or value > 9, value is not None and value < 8)
        if 18 <= age <= 85 and _seen(mine) and _ill(conditions.get(name, []), "I10", before=datetime(2022, 7, 1)):  # noqa: DTZ001
            read = [
                (at.date(), *(float(part["valueQuantity"]["value"]) for part in o["component"]))
                for at, o in taken
                if "85354-9" in _codes(o) and kinds[o["encounter"]["reference"].partition("/")[2]] == "AMB"
            ]
            day = max((one[0] for one in read), default=None)
            of_day = [one for one in read if one[0] == day]
            good = bool(of_day) and min(o[1] for o in of_day) < 140 and min(o[2] for o in of_day) < 90
            out = _ill(conditions[name], "N18.5", "N18.6", "Z99.2", "Z94.0", "O", "Z33", "Z34", before=END)
            pressure_of[name] = (out or _hospice(mine), good)
    poor, control = told(place, "diabetes-poor-control"), told(place, "diabetes-control")
    found = {k: (poor[k]["excluded"], poor[k]["numerator"], control[k]["numerator"]) for k in poor}
    assert found == sugar_of
    assert len(found) > 5
    bp = told(place, "blood-pressure-control")
    assert {k: (one["excluded"], one["numerator"]) for k, one in bp.items()} == pressure_of
    assert sum(good for _, good in pressure_of.values()) > 2


def test_summaries_by_a_second_calculation(hospital: tuple[ready_data.Place, list[Resource]]) -> None:
    place, resources = hospital
    sets = catalogue.value_sets()
    patients, encounters = _of(resources, "Patient"), _of(resources, "Encounter")
    members = {
        name for name, [who] in patients.items()
        if any(_at(e["period"]["start"]) < END for e in encounters.get(name, []))
        and not ("deceasedDateTime" in who and _at(who["deceasedDateTime"]) <= BEGIN)
    }  # fmt: skip
    people = tell.population(run.figures(place.permit(), place.vault, place.snapshot, "population", YEAR, sets), 0)
    assert people["people"] == len(members)
    assert sum(people["age_and_sex"].values()) == sum(people["payer"].values()) == len(members)
    male = sum(patients[name][0]["gender"] == "male" for name in members)
    assert sum(n for name, n in people["age_and_sex"].items() if name.endswith(" male")) == male
    use = tell.utilisation(run.figures(place.permit(), place.vault, place.snapshot, "utilisation", YEAR, sets), 0)
    of_year = [e for name in members for e in encounters[name] if BEGIN <= _at(e["period"]["start"]) < END]
    for kind in ("AMB", "EMER", "IMP"):
        assert use["encounters"][kind]["encounters"] == sum(e["class"]["code"] == kind for e in of_year)
    days = sorted(
        (_at(e["period"]["end"]).date() - _at(e["period"]["start"]).date()).days
        for e in of_year if e["class"]["code"] == "IMP" and "end" in e["period"]
    )  # fmt: skip
    assert use["stays"]["mean_days"] == pytest.approx(sum(days) / len(days), abs=0.006)
    assert use["stays"]["median_days"] == (days[(len(days) - 1) // 2] + days[len(days) // 2]) / 2
    months = 0.0
    for name in members:
        died = patients[name][0].get("deceasedDateTime")
        months += (min(END, _at(died) if died else END) - BEGIN).total_seconds() / 86400 / 30.4375
    assert use["months"] == pytest.approx(months, abs=0.06)


# -- counts to what is shown ---------------------------------------------------------------------------------------


def units(*cells: tuple[str, int, int, int]) -> pa.Table:
    """Rows of (race, in the denominator, of these excluded, of the others in the numerator)."""
    rows = []
    for race, size, excluded, met in cells:
        for n in range(size):
            out = n < excluded
            told = {"denominator": True, "excluded": out, "numerator": not out and n < excluded + met}
            rows.append({"band": "18-44", "sex": "female", "race": race, **told})
    return pa.Table.from_pylist(rows)


def test_small_cells_are_left_out_and_cannot_be_told_from_the_total() -> None:
    found = summary.summarised(units(("a", 100, 0, 40), ("b", 60, 0, 30), ("c", 8, 0, 4)), 11)
    race = found.strata["race"]
    assert found.whole.denominator == 168
    assert race["c"].hidden
    assert race["b"].hidden  # the smallest other one
    assert race["a"].numerator == 40
    # Two cells of one each: with 2 left out of the total each would be told.
    ones = summary.summarised(units(("a", 100, 0, 40), ("b", 60, 0, 30), ("c", 1, 0, 1), ("d", 1, 0, 1)), 11)
    assert [name for name, cell in ones.strata["race"].items() if cell.hidden] == ["b", "c", "d"]
    # 23 are excluded in all: who sees the 20 of a would know the 3 of b.
    out = summary.summarised(units(("a", 100, 20, 40), ("b", 60, 3, 30), ("c", 60, 30, 15)), 11)
    assert out.whole.excluded == 53
    assert {name: cell.excluded for name, cell in out.strata["race"].items()} == {"a": None, "b": None, "c": 30}
    assert not any(cell.hidden for cell in out.strata["race"].values())
    few = summary.summarised(units(("a", 100, 3, 40)), 11)
    assert (few.whole.initial, few.whole.excluded, few.whole.denominator) == (None, None, 97)
    assert summary.summarised(units(("a", 100, 0, 95)), 11).whole.hidden  # 5 are left
    assert summary.summarised(units(("a", 100, 0, 100)), 11).whole.rate == 1
    assert not summary.summarised(units(("a", 3, 0, 1)), 0).whole.hidden


def test_summaries_do_not_tell_of_few_people() -> None:
    def figures(*told: tuple[str, str, float]) -> pa.Table:
        rows = [{"section": s, "a": a, "b": "3" if s == "days" else "", "n": n} for s, a, n in told]
        return pa.Table.from_pylist(rows)

    use = tell.utilisation(figures(("people", "", 3.0), ("months", "", 36.0)), 11)
    assert (use["people"], use["months"]) == (None, None)
    of_one = figures(("people", "", 90.0), ("months", "", 900.0), ("days", "", 40.0), ("stayed", "", 1.0))
    assert tell.utilisation(of_one, 11)["stays"] is None
    payers = figures(("people", "", 90.0), ("payer", "A", 60.0), ("payer", "B", 29.0), ("payer", "Ann", 1.0))
    assert tell.population(payers, 11)["payer"] == {"A": 60, "others": None}


def test_a_payer_that_is_a_person_is_not_named(by_hand: ready_data.Place) -> None:
    told = run.figures(by_hand.permit(), by_hand.vault, by_hand.snapshot, "population", YEAR, catalogue.value_sets())
    race = {one["a"]: one["n"] for one in told.to_pylist() if one["section"] == "race"}
    assert race["Asian"] == 2  # whatever the record calls it
    names = {one["a"] for one in told.to_pylist() if one["section"] == "payer"}
    assert names == {"unknown", "Mutual", "self pay"}


def test_wilson_is_the_score_interval() -> None:
    # Newcombe 1998, table I: 81 of 263, 15 of 148, 0 of 20
    for numerator, denominator, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
    ):
        assert summary.wilson(numerator, denominator) == pytest.approx((low, high), abs=5e-5)
    assert summary.wilson(0, 0) == (0, 1)


def test_the_report_is_valid_fhir() -> None:
    asked = catalogue.measure("readmission")
    for rows in (units(("a", 100, 20, 40), ("b", 5, 0, 1)), units(("a", 100, 2, 40)), units(("a", 3, 0, 1))):
        made = measure_report(asked, YEAR, summary.summarised(rows), ready_data.NOW)
        assert [one for one in validate(made) if one.severity == "error"] == []
        [group] = made["group"]
        assert [one["code"]["coding"][0]["code"] for one in group["population"]] == [
            "initial-population", "denominator", "denominator-exclusion", "numerator"
        ]  # fmt: skip
    whole = measure_report(asked, YEAR, summary.summarised(units(("a", 100, 20, 40))), ready_data.NOW)["group"][0]
    assert [one["count"] for one in whole["population"]] == [100, 100, 20, 40]
    assert float(whole["measureScore"]["value"]) == 0.5


def test_periods() -> None:
    told = {
        "2024": ("2024-01-01", "2024-12-31"),
        "2024-Q4": ("2024-10-01", "2024-12-31"),
        "2024-02": ("2024-02-01", "2024-02-29"),
        "2024-03-05/2024-04-01": ("2024-03-05", "2024-04-01"),
    }
    for said, (first, last) in told.items():
        made = catalogue.period_of(said)
        assert (made.first.isoformat(), made.last.isoformat()) == (first, last)
    for wrong in (
        "24",
        "2024-13",
        "2024-Q5",
        "2024-02-30/2024-03-01",
        "2024-03-02/2024-03-01",
        "2024-1",
        "0000",
        "x",
    ):
        with pytest.raises(Invalid, match="Not a period"):
            catalogue.period_of(wrong)
    with pytest.raises(NotFound, match="no such measure"):
        catalogue.measure("x")
