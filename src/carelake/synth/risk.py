"""The equations of the causal model: from what is recorded to a probability. Pure; coefficients in ``model.toml``."""

from __future__ import annotations

import math
from dataclasses import dataclass

from carelake.synth.draw import expit
from carelake.synth.tables import Deterioration, Readmission

__all__ = [
    "AtAdmission",
    "AtDischarge",
    "deterioration_risk",
    "emergency_rate",
    "over_latent",
    "readmission_logit",
]

# Gauss-Hermite nodes and weights for the expectation over a standard normal, 7 points.
_NODES = (
    (0.0, 16 / 35),
    (1.1544053947399682, 0.24012317860501272),
    (-1.1544053947399682, 0.24012317860501272),
    (2.3667594107345415, 0.030757123967586498),
    (-2.3667594107345415, 0.030757123967586498),
    (3.7504397177257425, 0.0005482688559722184),
    (-3.7504397177257425, 0.0005482688559722184),
)


@dataclass(slots=True)
class AtDischarge:
    """What the record says about a stay when it ends; a value that was not measured is None and counts as normal.

    Units: age in years, los in days, hb and alb in g/dL, na in mmol/L, cr in mg/dL, hr per minute, sbp in mmHg,
    spo2 in percent. ``prior_admissions`` are stays begun in the 365 days before this one began, ``prior_ed``
    emergency visits begun in the 180 days before. ``conditions`` are recorded by discharge.
    """

    age: float
    prior_admissions: int
    prior_ed: int
    los: float
    urgent: bool
    oncology: bool
    procedure: bool
    meds: int
    disposition: str
    conditions: frozenset[str]
    hb: float | None
    na: float | None
    cr: float | None
    alb: float | None
    hr: float | None
    sbp: float | None
    spo2: float | None


@dataclass(slots=True)
class AtAdmission:
    """What is known in the first hours of a stay; units as in `AtDischarge`, lactate in mmol/L."""

    age: float
    rr: float
    hr: float
    spo2: float
    sbp: float
    lactate: float | None
    conditions: frozenset[str]
    urgent: bool


def _above(value: float, bound: float, most: float) -> float:
    return min(max(value - bound, 0.0), most)


def _measured(x: AtDischarge, c: Readmission) -> float:
    hb, na, cr, alb = x.hb, x.na, x.cr, x.alb
    total = 0.0
    if hb is not None:
        total += c.hb * _above(12.0, hb, 5.0)
    if na is not None:
        total += c.na_low * (na < 135) + c.na_very_low * (na < 130)
    if cr is not None:
        total += c.cr * min(math.log(max(cr, 1.1) / 1.1), 1.5)
    if alb is not None:
        total += c.alb * _above(3.5, alb, 1.5)
    if x.hr is not None:
        total += c.hr * _above(x.hr, 90.0, 40.0)
    if x.sbp is not None:
        total += c.sbp_low * (x.sbp < 105)
    if x.spo2 is not None:
        total += c.spo2_low * (x.spo2 < 92)
    return total


def _together(x: AtDischarge, c: Readmission) -> float:
    """The interactions, which a logistic model of the single features cannot hold."""
    total = 0.0
    if "chf" in x.conditions and x.cr is not None and x.cr > 1.5:
        total += c.chf_and_cr
    if "copd" in x.conditions and x.spo2 is not None and x.spo2 < 94:
        total += c.copd_and_spo2
    if x.prior_admissions >= 2 and x.age >= 75 and x.disposition == "home":
        total += c.frequent_old_home
    sick = (x.hb is not None and x.hb < 10) or (x.na is not None and x.na < 132)
    if x.urgent and x.los < 2 and sick:
        total += c.short_urgent_sick
    return total


def readmission_logit(x: AtDischarge, c: Readmission) -> float:
    """Log odds of an unplanned readmission within 30 days, but for the latent part."""
    total = c.intercept + c.age_decade * max(x.age - 50.0, 0.0) / 10.0
    total += c.prior_admissions * math.log1p(min(x.prior_admissions, 5)) + c.prior_ed * min(x.prior_ed, 4)
    total += c.los * math.log1p(x.los) + c.meds * min(max(x.meds - 4, 0), 8)
    total += c.urgent * x.urgent + c.oncology * x.oncology + c.procedure * x.procedure
    total += c.disposition[x.disposition]
    total += sum(effect for name, effect in c.conditions.items() if name in x.conditions)
    return min(total + _measured(x, c) + _together(x, c), c.most)


def over_latent(log_odds: float, deviation: float) -> float:
    """The probability when the latent part is unknown: its mean over a normal of that deviation."""
    return sum(weight * expit(log_odds + deviation * node) for node, weight in _NODES)


def deterioration_risk(x: AtAdmission, c: Deterioration) -> float:
    """Probability of a transfer to intensive care during the stay."""
    total = c.intercept + c.age_decade * max(x.age - 60.0, 0.0) / 10.0
    total += c.rr * max(x.rr - 20.0, 0.0) + c.hr * max(x.hr - 100.0, 0.0)
    total += c.spo2 * max(94.0 - x.spo2, 0.0) + c.sbp * max(100.0 - x.sbp, 0.0)
    total += c.lactate * max((x.lactate or 0.0) - 2.0, 0.0)
    total += c.chf * ("chf" in x.conditions) + c.copd * ("copd" in x.conditions) + c.liver * ("liver" in x.conditions)
    return expit(total + c.elective * (not x.urgent))


def emergency_rate(prior_mean: float, shape: float, visits: int, expected: float) -> float:
    """Yearly rate of emergency visits given those already seen: the posterior mean of a Gamma-Poisson model.

    Args:
        prior_mean: rate that age and conditions predict, per year.
        shape: of the Gamma multiplier with mean 1.
        visits: number seen so far.
        expected: number that ``prior_mean`` predicted for the time seen.
    """
    return prior_mean * (shape + visits) / (shape + expected)
