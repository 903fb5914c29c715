"""One inpatient stay: how sick, how long, what is measured, what is given, how it ends."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from carelake.synth import risk
from carelake.synth.calendar import DAY, HOUR
from carelake.synth.draw import Stream, expit
from carelake.synth.population import Person, World
from carelake.synth.tables import Cause

__all__ = ["Reading", "Stay", "admit", "discharge_facts"]

_WORSE = {"hr": 22.0, "rr": 8.0, "spo2": -6.0, "sbp": -22.0}


@dataclass(frozen=True, slots=True)
class Reading:
    """A value as it was measured, in the usual unit; it is known from ``issued`` on."""

    measure: str
    taken: int
    issued: int
    value: float


@dataclass(slots=True)
class Stay:
    """An inpatient stay. Times in minutes; ``worse`` is the transfer to intensive care, 0 for none."""

    id: str
    cause: Cause
    urgent: bool
    transferred: bool
    service: str
    admitted: int
    discharged: int
    disposition: str
    died: bool
    severity: float
    worse: int
    worse_risk: float
    readings: list[Reading]
    drugs: list[str]
    procedures: list[tuple[str, int]]
    conditions: frozenset[str]
    facts: risk.AtDischarge | None = None
    risk: float = math.nan
    risk_full: float = math.nan
    readmitted: bool = False
    returns: int = 0
    trigger: str = field(default="base")


def _first_vitals(draw: Stream, world: World, cause: Cause, severity: float, has: frozenset[str]) -> dict[str, float]:
    respiratory = cause.group == "respiratory"
    infected = respiratory or cause.group == "infection"
    copd = "copd" in has
    out = {
        "hr": draw.normal(82.0 + 9.0 * severity + 6.0 * ("afib" in has), 11.0),
        "rr": draw.normal(17.5 + 2.2 * severity + 2.0 * respiratory, 2.2),
        "spo2": draw.normal(97.2 - 1.1 * severity - 1.8 * copd - 2.2 * respiratory, 1.4) + world.shift.saturation,
        "sbp": draw.normal(134.0 + 6.0 * ("hypertension" in has) - 7.0 * severity - 6.0 * ("chf" in has), 17.0),
    }
    if infected:
        out["temp"] = draw.normal(37.6 + 0.3 * severity, 0.5)
    return out


def _last_vitals(draw: Stream, world: World, residue: float, has: frozenset[str]) -> dict[str, float]:
    return {
        "hr": draw.normal(78.0 + 7.0 * residue + 5.0 * ("afib" in has), 10.0),
        "spo2": draw.normal(96.8 - 0.8 * residue - 2.2 * ("copd" in has) - 0.7 * ("chf" in has), 1.5)
        + world.shift.saturation * 0.5,
        "sbp": draw.normal(128.0 + 6.0 * ("hypertension" in has) - 6.0 * residue - 8.0 * ("chf" in has), 15.0),
    }


def _bounded(name: str, value: float) -> float:
    """The value as a device reports it: whole, and within what a living body shows."""
    low, high = {"hr": (38, 190), "rr": (8, 48), "spo2": (66, 100), "sbp": (62, 228), "temp": (34.0, 41.2)}[name]
    value = min(max(value, low), high)
    return round(value, 1) if name == "temp" else float(round(value))


def _set_of(values: dict[str, float], taken: int) -> list[Reading]:
    return [Reading(name, taken, taken + 2, _bounded(name, value)) for name, value in values.items()]


def _laboratory(
    draw: Stream, person: Person, cause: Cause, has: frozenset[str], severity: float, effect: float
) -> dict[str, float]:
    """Haemoglobin, sodium and creatinine; ``effect`` is the share of the cause's effect that shows."""
    sodium = 139.6 + effect * cause.na - 1.3 * ("chf" in has) - 2.2 * ("liver" in has) - 0.6 * severity * effect
    return {
        "hb": max(draw.normal(person.hb + effect * cause.hb - 0.15 * severity, 0.7), 4.5),
        "na": min(max(draw.normal(sodium, 2.9), 112.0), 158.0),
        "cr": max(math.exp(draw.normal(person.cr + effect * cause.cr, 0.14)), 0.3),
    }


def _report(draw: Stream, world: World, values: dict[str, float], taken: int, latest: int) -> list[Reading]:
    """The values that came back, some 30 to 90 minutes after the draw, rounded as reported; some never did."""
    lost = 0.05 + world.shift.missing
    out = []
    for name, value in values.items():
        missing, wait = draw.chance(lost), draw.minutes(30, 90)
        if not missing:
            rounded = round(value, world.codes.measures[name].digits)
            out.append(Reading(name, taken, min(taken + wait, latest), rounded))
    return out


def _admission_readings(draw: Stream, world: World, person: Person, stay: Stay) -> list[Reading]:
    has, cause = stay.conditions, stay.cause
    out = _set_of(_first_vitals(draw, world, cause, stay.severity, has), stay.admitted + draw.minutes(5, 40))
    tests = _laboratory(draw, person, cause, has, stay.severity, 1.0)
    if cause.name == "sepsis" or stay.severity > 1.3:
        tests["lactate"] = math.exp(draw.normal(0.30 + 0.30 * stay.severity, 0.30))
        tests["ph"] = draw.normal(7.40 - 0.025 * stay.severity, 0.03)
    if "diabetes" in has:
        tests["glucose"] = max(draw.normal(172.0, 48.0), 45.0)
    return out + _report(draw, world, tests, stay.admitted + draw.minutes(20, 90), stay.discharged)


def _worsening(draw: Stream, stay: Stay) -> list[Reading]:
    """Vital signs before and after a transfer to intensive care: away from normal, then back."""
    out = []
    for hours, share in ((-9, 0.35), (-3, 0.75), (1, 1.0), (20, 0.4)):
        taken = stay.worse + hours * HOUR + draw.minutes(0, 40)
        if not stay.admitted + HOUR < taken < stay.discharged - 4 * HOUR:
            continue
        usual = {"hr": 88.0, "rr": 18.5, "spo2": 94.5, "sbp": 122.0}
        out += _set_of({k: draw.normal(v + share * _WORSE[k], 3.0) for k, v in usual.items()}, taken)
    return out


def _middle(draw: Stream, world: World, stay: Stay) -> list[Reading]:
    if stay.worse:
        return _worsening(draw, stay)
    if stay.discharged - stay.admitted < 6 * DAY:
        return []
    values = _last_vitals(draw, world, 0.6 * max(stay.severity, 0.0), stay.conditions)
    taken = (stay.admitted + stay.discharged) // 2 + draw.minutes(-200, 200)
    return _set_of({name: values[name] for name in ("hr", "spo2")}, taken)


def _last_readings(draw: Stream, world: World, person: Person, stay: Stay) -> list[Reading]:
    residue = max(stay.severity, -0.5) * (0.15 + 0.5 * draw.random()) + 0.5 * bool(stay.worse)
    out = _set_of(_last_vitals(draw, world, residue, stay.conditions), stay.discharged - draw.minutes(60, 240))
    tests = _laboratory(draw, person, stay.cause, stay.conditions, residue, 0.55)
    if draw.chance(0.5):
        frail = 0.3 * ("cancer" in stay.conditions) + 0.22 * max(stay.severity, 0.0)
        tests["alb"] = min(max(draw.normal(person.alb - frail, 0.3), 1.4), 5.2)
    return out + _report(draw, world, tests, stay.discharged - draw.minutes(300, 560), stay.discharged - 30)


def _service(draw: Stream, cause: Cause, has: frozenset[str]) -> str:
    on_oncology = "cancer" in has and cause.service in ("medicine", "respiratory")
    return "oncology" if on_oncology and draw.chance(0.65 if "metastatic" in has else 0.4) else cause.service


def _drugs(draw: Stream, world: World, stay: Stay) -> list[str]:
    """What goes home with the patient: most of the standing drugs, those for the cause, and a few others."""
    out = [name for name in stay.cause.drugs if draw.chance(0.9)]
    for chronic in world.codes.chronic:
        if chronic.name in stay.conditions:
            out += [name for name in chronic.drugs if draw.chance(0.6)]
    out += [name for name in ("acetaminophen", "omeprazole", "levothyroxine") if draw.chance(0.12)]
    return list(dict.fromkeys(out))


def _procedures(draw: Stream, stay: Stay, illnesses: frozenset[str]) -> list[tuple[str, int]]:
    first = stay.admitted + draw.minutes(2, 20) * HOUR
    out = [(name, first) for name, p in stay.cause.procedures if draw.chance(p)]
    if "N18.6" in illnesses and draw.chance(0.8):
        out.append(("dialysis", first + 6 * HOUR))
    if stay.worse and draw.chance(0.35):
        out.append(("ventilation", stay.worse + HOUR))
    low = min((r.value for r in stay.readings if r.measure == "hb"), default=12.0)
    if low < 7.5 and draw.chance(0.85):
        out.append(("transfusion", first + 3 * HOUR))
    return [(name, min(when, stay.discharged - 5 * HOUR)) for name, when in out]


def _disposition(draw: Stream, stay: Stay, age: float) -> str:
    has = stay.conditions
    if draw.chance(0.10 if "metastatic" in has and stay.urgent else 0.004 if age > 75 else 0.0):
        return "hospice"
    if draw.chance(0.05 if "alcohol" in has else 0.008):
        return "against_advice"
    days = (stay.discharged - stay.admitted) / DAY
    care = 0.5 * (age - 72.0) / 10.0 + 0.9 * ("dementia" in has) + 0.12 * days + 0.3 * max(stay.severity, 0)
    care += 1.4 * (stay.cause.name in ("hip fracture", "stroke")) + 0.6 * (stay.cause.group == "ortho")
    weights = (1.0, math.exp(care - 1.9), math.exp(care - 2.7), math.exp(care - 3.6))
    return ("home", "home_health", "snf", "rehab")[draw.weighted(weights)]


def _length(draw: Stream, cause: Cause, severity: float, age: float, has: frozenset[str]) -> float:
    """Days in hospital: log-normal, longer for the old, the sick and the many-illed."""
    mean = math.log(cause.los) + 0.10 * severity + 0.03 * (age - 65.0) / 10.0 + 0.03 * len(has)
    return min(math.exp(draw.normal(mean, 0.52)), 42.0)


def _leaves(draw: Stream, admitted: int, days: float) -> int:
    """The moment of discharge: in day time, 20 hours after admission at the earliest."""
    day = (admitted + int(days * DAY)) // DAY
    leaves = day * DAY + draw.minutes(10 * HOUR, 18 * HOUR)
    return leaves if leaves >= admitted + 20 * HOUR else leaves + DAY


def admit(draw: Stream, ids: Stream, world: World, person: Person, cause: Cause, at: int, *, urgent: bool) -> Stay:
    """Draw a whole stay, from admission to discharge or death."""
    has, age = person.has(at), person.age(at)
    if cause.marks:
        has |= {cause.marks}
    severity = draw.normal(cause.severity + 0.2 * max(person.frailty, -1.0), 0.8) + world.shift.severity * urgent
    leaves = _leaves(draw, at, _length(draw, cause, severity, age, has))
    stay = Stay(
        ids.uuid(), cause, urgent, urgent and draw.chance(0.08), _service(draw, cause, has), at, leaves,
        "home", False, severity, 0, 0.0, [], [], [], has,
    )  # fmt: skip
    stay.readings = _admission_readings(draw, world, person, stay)
    stay.worse_risk = risk.deterioration_risk(_known_early(stay, age), world.model.deterioration)
    if draw.chance(stay.worse_risk):
        stay.worse = at + draw.minutes(18 * HOUR, 60 * HOUR)
        stay.discharged = _leaves(draw, stay.worse, 2.0 + 4.0 * draw.random())
    _end(draw, world, person, stay, age)
    return stay


def _known_early(stay: Stay, age: float) -> risk.AtAdmission:
    first = {reading.measure: reading.value for reading in stay.readings}
    return risk.AtAdmission(
        age, first["rr"], first["hr"], first["spo2"], first["sbp"], first.get("lactate"), stay.conditions, stay.urgent
    )


def _end(draw: Stream, world: World, person: Person, stay: Stay, age: float) -> None:
    death = world.model.death
    odds = death.in_hospital + death.deteriorated * bool(stay.worse) + death.age_decade * max(age - 60.0, 0.0) / 10.0
    odds += death.metastatic * ("metastatic" in stay.conditions) + death.severity * max(stay.severity, 0.0)
    stay.died = draw.chance(expit(odds))
    stay.readings += _middle(draw, world, stay)
    if not stay.died:
        stay.readings += _last_readings(draw, world, person, stay)
        stay.drugs = _drugs(draw, world, stay)
    stay.disposition = "died" if stay.died else _disposition(draw, stay, age)
    stay.procedures = _procedures(draw, stay, frozenset(i.code[0] for i in person.illnesses))


def discharge_facts(stay: Stay, age: float, prior_admissions: int, prior_ed: int) -> risk.AtDischarge:
    """What the record says at discharge: of each measure the last value that had come back by then."""
    last: dict[str, Reading] = {}
    for reading in stay.readings:
        known = last.get(reading.measure)
        if reading.issued <= stay.discharged and (known is None or reading.taken >= known.taken):
            last[reading.measure] = reading
    values = {name: reading.value for name, reading in last.items()}
    return risk.AtDischarge(
        age, prior_admissions, prior_ed, (stay.discharged - stay.admitted) / DAY, stay.urgent,
        stay.service == "oncology", bool(stay.procedures), len(stay.drugs), stay.disposition, stay.conditions,
        values.get("hb"), values.get("na"), values.get("cr"), values.get("alb"),
        values.get("hr"), values.get("sbp"), values.get("spo2"),
    )  # fmt: skip
