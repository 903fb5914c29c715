"""The tables that decide what the synthetic hospital holds, read from ``data/*.toml`` into frozen structs."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import TypeVar

import msgspec

from carelake.core.errors import Invalid
from carelake.core.shapes import decodable

__all__ = [
    "Arrivals",
    "Cause",
    "Chronic",
    "Codes",
    "Death",
    "Deterioration",
    "Measure",
    "Model",
    "People",
    "Phrases",
    "Population",
    "Readmission",
    "Shift",
    "codes",
    "model",
    "people",
    "phrases",
    "shift",
    "shifts",
]

Table = TypeVar("Table")


class Struct(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A row of a table; a misspelt column is an error."""


class Chronic(Struct, frozen=True):
    """A long-lasting condition; the legend is in ``codes.toml``."""

    name: str
    codes: list[tuple[str, str, str]]
    points: int
    at60: float
    per_decade: float
    frailty: float
    admission: float
    ed: float
    drugs: list[str]


class Cause(Struct, frozen=True):
    """Why somebody comes: an urgent or elective admission, or an emergency visit."""

    name: str
    code: str
    display: str
    word: str
    weight: float
    group: str
    symptom: str
    drugs: list[str]
    boosts: dict[str, float] = {}
    service: str = ""
    los: float = 0.0
    severity: float = 0.0
    marks: str = ""
    hb: float = 0.0
    na: float = 0.0
    cr: float = 0.0
    procedures: list[tuple[str, float]] = []


class Measure(Struct, frozen=True):
    """A laboratory test or vital sign: LOINC code, UCUM unit, digits that are reported."""

    loinc: str
    display: str
    unit: str
    digits: int
    vital: bool = False
    also: str = ""


class Codes(Struct, frozen=True):
    """``codes.toml``."""

    chronic: list[Chronic]
    acute: list[Cause]
    planned: list[Cause]
    emergency: list[Cause]
    drugs: dict[str, tuple[str, str]]
    procedures: dict[str, tuple[str, str]]
    services: dict[str, tuple[str, str]]
    symptoms: dict[str, str]
    measures: dict[str, Measure]


class Population(Struct, frozen=True):
    """Who lives around the hospital."""

    under_50: float
    male: float
    onset_per_year: float


class Arrivals(Struct, frozen=True):
    """How often people come; rates per year."""

    urgent: float
    urgent_per_decade: float
    urgent_shape: float
    urgent_frailty: float
    elective: float
    ambulatory: float
    chemotherapy: float
    emergency: float
    emergency_shape: float
    emergency_per_decade: float
    planned_return_days: float


class Readmission(Struct, frozen=True):
    """Coefficients of the 30-day unplanned readmission; `carelake.synth.risk` has the equation."""

    intercept: float
    most: float
    latent: float
    age_decade: float
    prior_admissions: float
    prior_ed: float
    los: float
    urgent: float
    oncology: float
    procedure: float
    meds: float
    hb: float
    na_low: float
    na_very_low: float
    cr: float
    alb: float
    hr: float
    sbp_low: float
    spo2_low: float
    chf_and_cr: float
    copd_and_spo2: float
    frequent_old_home: float
    short_urgent_sick: float
    hazard_days: float
    disposition: dict[str, float]
    conditions: dict[str, float]


class Deterioration(Struct, frozen=True):
    """Coefficients of worsening during a stay."""

    intercept: float
    age_decade: float
    rr: float
    hr: float
    spo2: float
    sbp: float
    lactate: float
    chf: float
    copd: float
    liver: float
    elective: float


class Death(Struct, frozen=True):
    """Coefficients of death."""

    in_hospital: float
    deteriorated: float
    age_decade: float
    metastatic: float
    severity: float
    after_discharge: float
    background: float


class Model(Struct, frozen=True):
    """``model.toml``: every coefficient."""

    population: Population
    arrivals: Arrivals
    readmission: Readmission
    deterioration: Deterioration
    death: Death


class Shift(Struct, frozen=True):
    """A shifted population; the defaults are no shift."""

    about: str
    age: float = 0.0
    sicker: float = 0.0
    emergency: float = 1.0
    urgent: float = 1.0
    respiratory: float = 1.0
    saturation: float = 0.0
    severity: float = 0.0
    missing: float = 0.0
    readmission: float = 0.0
    units: dict[str, tuple[str, float, int]] = {}
    bias: dict[str, float] = {}


class People(Struct, frozen=True):
    """``people.toml``: names and places for made-up people."""

    female: list[str]
    male: list[str]
    family: list[str]
    streets: list[str]
    towns: list[tuple[str, str]]
    area_codes: list[str]
    insurers: list[str]
    races: list[tuple[str, str, str, str]]
    practitioners: list[tuple[str, str]]


class Lists(Struct, frozen=True):
    """Findings that a note may deny or rule out: word and ICD-10-CM code."""

    findings: list[tuple[str, str]]
    unlikely: list[tuple[str, str]]
    kin_illness: list[tuple[str, str]]


class Phrases(Struct, frozen=True):
    """``notes.toml``: the sentences of each kind of note, and its lists."""

    discharge: dict[str, list[str]]
    emergency: dict[str, list[str]]
    lists: Lists


def _read(name: str, kind: type[Table]) -> Table:
    text = (files("carelake.synth") / "data" / name).read_bytes()
    return msgspec.toml.decode(text, type=decodable(kind))


@cache
def codes() -> Codes:
    """What happens in the hospital and how it is coded."""
    return _read("codes.toml", Codes)


@cache
def model() -> Model:
    """The causal model's coefficients."""
    return _read("model.toml", Model)


@cache
def people() -> People:
    """Names and places."""
    return _read("people.toml", People)


@cache
def phrases() -> Phrases:
    """The words of the notes."""
    return _read("notes.toml", Phrases)


@cache
def shifts() -> dict[str, Shift]:
    """Every shifted population, by name."""
    return _read("shifts.toml", dict[str, Shift])


def shift(name: str | None) -> Shift:
    """The shift of that name; None is ``none``.

    Raises:
        Invalid: ``synth.shift``, for a name that is not in ``shifts.toml``.
    """
    known = shifts()
    if (name or "none") not in known:
        raise Invalid("synth.shift", f"There is no such shift; expected one of {', '.join(sorted(known))}.")
    return known[name or "none"]
