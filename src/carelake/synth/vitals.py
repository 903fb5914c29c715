"""Vital signs every six hours of a stay, for who asks for them: what a ward charts for an early warning score.

Each measure wanders around what the stay's severity gives, which wears off in days. In the hours before a transfer to
intensive care or a death it moves away from normal, by a lead and a strength of its own: so that some are seen early,
some late, and some stays that end well look alike for a while. Oxygen is given where saturation falls, which hides
it. The draws are from a stream of their own: the rest of the record is the same with and without.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from carelake.synth.calendar import HOUR
from carelake.synth.draw import Stream
from carelake.synth.stay import Reading, Stay

__all__ = ["EVERY", "series"]

EVERY = 6 * HOUR
_JITTER = 25
_KEEPS = 0.6
"""How much of a measure's deviation is still there at the next round."""

_BOUNDS = {"hr": (30, 200), "rr": (6, 50), "spo2": (60, 100), "sbp": (55, 235), "temp": (33.5, 41.5)}
_SPREAD = {"hr": 7.0, "rr": 1.9, "spo2": 1.1, "sbp": 9.0, "temp": 0.25}
_EFFECT = {"hr": 24.0, "rr": 8.5, "spo2": -6.5, "sbp": -25.0, "temp": 0.6}
_FALSE_ALARM = 0.15
_OXYGEN_BELOW, _OXYGEN_GIVES = 92.5, 2.6


@dataclass(frozen=True, slots=True)
class _Spell:
    """A time of growing trouble: from ``begins`` to its height, then away within ``fades`` minutes."""

    begins: int
    height: int
    strength: float
    fades: int

    def at(self, minute: int) -> float:
        if minute <= self.begins:
            return 0.0
        if minute <= self.height:
            return float(self.strength * ((minute - self.begins) / (self.height - self.begins)) ** 1.3)
        return self.strength * math.exp(-(minute - self.height) / self.fades)


def series(draw: Stream, stay: Stay) -> list[Reading]:
    """The readings, in the order of time: heart and respiratory rate, saturation, oxygen flow, systolic pressure,
    temperature and Glasgow coma score."""
    spells = _spells(draw, stay)
    usual = _usual(stay)
    wander = dict.fromkeys(usual, 0.0)
    out: list[Reading] = []
    minute = stay.admitted + 2 * HOUR
    while minute < stay.discharged - 15:
        taken = min(minute + draw.minutes(-_JITTER, _JITTER), stay.discharged - 10)
        trouble = min(sum(one.at(taken) for one in spells), 1.6)
        sick = max(stay.severity, -0.5) * math.exp(-(taken - stay.admitted) / (72.0 * HOUR))
        values = {}
        for name, (middle, by_severity) in usual.items():
            deviation = _SPREAD[name] * math.sqrt(1.0 - _KEEPS**2)
            wander[name] = _KEEPS * wander[name] + draw.normal(0.0, deviation)
            values[name] = middle + by_severity * sick + _EFFECT[name] * trouble + wander[name]
        out += _round(draw, values, trouble, taken)
        minute += EVERY
    return out


def _usual(stay: Stay) -> dict[str, tuple[float, float]]:
    """By measure where it is at rest, and what a unit of severity adds."""
    has, group = stay.conditions, stay.cause.group
    infected = group in ("respiratory", "infection")
    return {
        "hr": (78.0 + 5.0 * ("afib" in has), 7.0),
        "rr": (16.3 + 1.4 * (group == "respiratory"), 1.8),
        "spo2": (96.9 - 1.9 * ("copd" in has) - 1.2 * (group == "respiratory"), -0.9),
        "sbp": (128.0 + 7.0 * ("hypertension" in has) - 7.0 * ("chf" in has), -6.0),
        "temp": (36.8, 0.35 if infected else 0.05),
    }


def _spells(draw: Stream, stay: Stay) -> list[_Spell]:
    # All draws are made for every stay, so that what is drawn after does not tell who got worse.
    lead = int(min(max(math.exp(draw.normal(math.log(20.0), 0.45)), 6.0), 48.0) * HOUR)
    strength, false = 0.7 + 0.8 * draw.random(), draw.chance(_FALSE_ALARM)
    span = stay.discharged - stay.admitted
    height, length = stay.admitted + int(span * (0.15 + 0.7 * draw.random())), draw.minutes(6 * HOUR, 16 * HOUR)
    hump = 0.35 + 0.5 * draw.random()
    out = []
    if stay.worse:
        out.append(_Spell(stay.worse - lead, stay.worse, strength, 30 * HOUR))
    if stay.died:
        out.append(_Spell(stay.discharged - lead, stay.discharged, strength + 0.3, HOUR))
    if false:
        out.append(_Spell(height - length, height, hump, 8 * HOUR))
    return out


def _round(draw: Stream, values: dict[str, float], trouble: float, taken: int) -> list[Reading]:
    oxygen = 0.0
    if values["spo2"] < _OXYGEN_BELOW:
        oxygen = float(2 + 2 * int(max(_OXYGEN_BELOW - 3.0 - values["spo2"], 0.0)))
        values["spo2"] += _OXYGEN_GIVES
    clouded = draw.random() < 0.45 * max(trouble - 0.45, 0.0)
    coma = float(15 - (1 + int(4 * draw.random() * min(trouble, 1.0)))) if clouded else 15.0
    found = {name: _bounded(name, value) for name, value in values.items()}
    found |= {"oxygen": min(oxygen, 15.0), "gcs": coma}
    return [Reading(name, taken, taken + 2, value) for name, value in found.items()]


def _bounded(name: str, value: float) -> float:
    low, high = _BOUNDS[name]
    value = min(max(value, low), high)
    return round(value, 1) if name == "temp" else float(round(value))
