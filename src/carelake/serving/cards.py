"""A prediction as a card of CDS Hooks (https://cds-hooks.hl7.org/2.0/#card-attributes). Pure functions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from carelake.core.clock import iso
from carelake.core.ids import derived_uuid
from carelake.serving.predictions import STILL_IN, Prediction, band
from carelake.serving.words import Reason

__all__ = ["OVERRIDES", "OVERRIDE_SYSTEM", "card", "note_on_calibration"]

OVERRIDE_SYSTEM = "urn:carelake:override-reason"
OVERRIDES: Mapping[str, str] = {
    "already-planned": "What the card suggests is planned already",
    "not-relevant": "Not relevant for this patient",
    "declined": "The patient declined",
    "wrong-data": "The reasons rest on wrong or missing data",
    "disagree": "I judge the risk otherwise",
    "other": "Another reason",
}
"""Codes of `OVERRIDE_SYSTEM`."""

_TOPIC = {"system": "urn:carelake:card-topic", "code": "readmission", "display": "Readmission within 30 days"}
_FOLLOW_UP = "Plan a follow-up visit within 7 days of discharge"
_MOST_REASONS = 5


def card(prediction: Prediction, uuid: str, model: str, calibration: str, link: str = "") -> dict[str, Any]:
    """The card: a ``warning`` from the alert threshold on, else ``info``.

    Args:
        model: name and version, for people.
        calibration: `note_on_calibration` of its metrics.
        link: address of the RiskAssessment, "" where the caller's own is not known.
    """
    said: dict[str, Any] = {
        "uuid": uuid,
        "summary": _summary(prediction),
        "indicator": "warning" if prediction.flagged else "info",
        "detail": "\n".join(_detail(prediction, model, calibration)),
        "source": {"label": f"carelake, model {model}"[:140], "topic": _TOPIC},
    }
    if prediction.flagged:
        said |= {"suggestions": [_follow_up(prediction, uuid)], "selectionBehavior": "any"}
    said["overrideReasons"] = [
        {"code": code, "system": OVERRIDE_SYSTEM, "display": text} for code, text in OVERRIDES.items()
    ]
    if link:
        said["links"] = [{"label": "The prediction in the record", "url": link, "type": "absolute"}]
    return said | {"extension": {"org.carelake.prediction": _facts(prediction)}}


def _summary(prediction: Prediction) -> str:
    level = band(prediction.probability, prediction.threshold)
    when = "if discharged now, " if prediction.outside == STILL_IN else ""
    return f"{_percent(prediction.probability)} risk of unplanned readmission within 30 days ({when}{level})"


def _percent(risk: float) -> str:
    return f"{100 * risk:.0f} %" if 0.005 <= risk < 0.995 else "under 1 %" if risk < 0.5 else "over 99 %"


def _detail(prediction: Prediction, model: str, calibration: str) -> Iterator[str]:
    yield f"Alert from {_percent(prediction.threshold)} on; as of {iso(prediction.at)}."
    if prediction.outside == STILL_IN:
        yield "The patient is still in: this is the risk if they were discharged now, and is preliminary."
    yield from ("", "**What moves it most**", "")
    yield from (f"- {_reason(one)}" for one in prediction.reasons[:_MOST_REASONS])
    yield from _scores(prediction)
    yield from ("", f"Model {model}. {calibration}", "", "A prediction supports a decision, and makes none.")


def _reason(one: Reason) -> str:
    return f"{_escaped(one.words)}: {_escaped(one.value)} {one.direction} the risk"


def _escaped(text: str) -> str:
    """As Markdown text, not as its marks."""
    return "".join(f"\\{letter}" if letter in "\\`*_{}[]<>()#+!|" else letter for letter in text)


def _scores(prediction: Prediction) -> Iterator[str]:
    listed = [
        f"{name.upper()} {score['score']:g}"
        for name, score in prediction.scores.items()
        if score.get("score") is not None
    ]
    if listed:
        yield from ("", f"For comparison: {', '.join(listed)}.")


def _facts(prediction: Prediction) -> dict[str, Any]:
    return {
        "prediction": prediction.ref,
        "model": prediction.model,
        "endpoint": prediction.endpoint,
        "probability": round(prediction.probability, 4),
        "threshold": prediction.threshold,
        "resource": prediction.resource,
    }


def _follow_up(prediction: Prediction, uuid: str) -> dict[str, Any]:
    request = {
        "resourceType": "ServiceRequest",
        "status": "draft",
        "intent": "proposal",
        "code": {"text": "Follow-up visit within 7 days of discharge"},
        "subject": {"reference": f"Patient/{prediction.subject}"},
        "encounter": {"reference": f"Encounter/{prediction.encounter}"},
    }
    return {
        "label": _FOLLOW_UP,
        "uuid": derived_uuid("suggestion", uuid, "follow-up"),
        "actions": [{"type": "create", "description": _FOLLOW_UP, "resource": request}],
    }


def note_on_calibration(metrics: Mapping[str, Any]) -> str:
    """How far its risks can be taken at their word, as measured when it was trained."""
    slope, ici, count = (metrics.get(name) for name in ("calibration_slope", "ici", "n"))
    if not isinstance(slope, (int, float)) or not isinstance(ici, (int, float)) or not isinstance(count, int):
        return "Its calibration was not measured."
    return (
        f"On {count} stays that it was not trained on, its risks were off by {100 * ici:.1f} points on average "
        f"(calibration slope {slope:.2f}; 1 is right)."
    )
