"""Reasons in words: what moved a patient's risk, for people who read it beside the patient.

Values appear in the answer and in the patient's own RiskAssessment only, never in a log or an act.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from carelake.models.matrix import Floats

__all__ = ["Reason", "label", "reasons", "sentence"]

_SPELLED = {
    "n": "number of",
    "ed": "ED",
    "los": "length of stay",
    "pct": "%",
    "d": "days",
    "h": "hours",
    "avg": "mean",
}
_WINDOW = re.compile(r"(\d+)(d|h|m|y)$")
_UNITS = {"d": "days", "h": "hours", "m": "months", "y": "years"}


@dataclass(frozen=True, slots=True)
class Reason:
    """One feature's part in a risk.

    Attributes:
        feature: its name in the model.
        words: its name for people.
        value: its value as text, ``not known`` where missing.
        effect: what it adds to the log odds, against the average patient.
    """

    feature: str
    words: str
    value: str
    effect: float

    @property
    def direction(self) -> str:
        """``raises`` or ``lowers``."""
        return "raises" if self.effect > 0 else "lowers"

    def as_json(self) -> dict[str, str | float]:
        """For the answer of an endpoint; ``odds_factor`` is how many times the odds."""
        return {
            "feature": self.feature,
            "words": self.words,
            "value": self.value,
            "direction": self.direction,
            "odds_factor": round(math.exp(self.effect), 3),
        }


def label(name: str, words: Mapping[str, str]) -> str:
    """A readable name: the given one, or the feature's own name with its abbreviations spelled out."""
    if name in words:
        return words[name]
    parts = name.split("_")
    tail = ""
    if len(parts) > 1 and (window := _WINDOW.match(parts[-1])):
        parts, tail = parts[:-1], f" in the last {window[1]} {_UNITS[window[2]]}"
    return " ".join(_SPELLED.get(part, part) for part in parts) + tail


def _value(number: float) -> str:
    if math.isnan(number):
        return "not known"
    return f"{number:.0f}" if number == round(number) else f"{number:.4g}"


def reasons(
    names: Sequence[str], row: Floats, parts: Floats, words: Mapping[str, str], most: int = 5
) -> tuple[Reason, ...]:
    """The ``most`` features that moved one patient's risk furthest, the furthest first.

    Args:
        row: (p,) values, NaN for missing.
        parts: (p,) what each adds to the log odds.
    """
    order = sorted(range(len(names)), key=lambda at: -abs(float(parts[at])))[:most]
    return tuple(
        Reason(names[at], label(names[at], words), _value(float(row[at])), float(parts[at]))
        for at in order
        if parts[at]
    )


def sentence(found: Sequence[Reason]) -> str:
    """The reasons as one line of text."""
    return "; ".join(f"{r.words}: {r.value} {r.direction} the risk" for r in found) + "."
