"""Predictions over HTTP: one patient with reasons, or the morning list."""

from __future__ import annotations

import re

import msgspec
from starlette.responses import Response

from carelake.apps.http import answers
from carelake.apps.http.calls import Call
from carelake.core.errors import Invalid, NotFound

__all__ = ["BODY", "Ask", "predict"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,95}")
_MOST_DAYS = 366.0

BODY = {
    "oneOf": [
        {
            "type": "object",
            "required": ["patient"],
            "additionalProperties": False,
            "properties": {"patient": {"type": "string", "description": "id of a Patient"}},
        },
        {
            "type": "object",
            "required": ["list"],
            "additionalProperties": False,
            "properties": {
                "list": {"const": True},
                "days": {"type": "number", "default": 7, "exclusiveMinimum": 0, "maximum": _MOST_DAYS},
            },
        },
    ]
}


class Ask(msgspec.Struct, forbid_unknown_fields=True):
    """What is asked: ``{"patient": ID}`` or ``{"list": true, "days": N}``."""

    patient: str | None = None
    list: bool = False
    days: float | None = None


def predict(call: Call) -> Response:
    """One prediction, or ``{"predictions": [...]}``, the highest risk first; each is captured before it leaves."""
    call.only()
    endpoint = call.path["endpoint"]
    # The name goes on the trail: whatever cannot be one is not looked up, nor written down.
    if not _NAME.fullmatch(endpoint):
        raise NotFound("serving.no_such_endpoint", "No endpoint of that name or ref is in this account.")
    if not call.named:
        call.caller("endpoint:invoke", endpoint)  # refuses, on the trail
    ask = _checked(call.json(Ask))
    with call.enter("endpoint:invoke", endpoint) as permit:
        found = call.door.predict(permit, endpoint, patient=ask.patient, days=ask.days)
    said = [prediction.as_json() for prediction in found]
    if ask.patient is None:
        return answers.json({"predictions": said})
    return answers.json(said[0])


def _checked(ask: Ask) -> Ask:
    if ask.list == (ask.patient is not None) or (ask.patient is not None and ask.days is not None):
        raise Invalid("http.predict_body", 'Send {"patient": ID} for one, or {"list": true, "days": N} for the list.')
    if ask.patient is not None:
        return ask
    days = 7.0 if ask.days is None else ask.days
    if not 0 < days <= _MOST_DAYS:
        raise Invalid("http.predict_days", f"days must be more than 0 and at most {_MOST_DAYS:g}.")
    return Ask(list=True, days=days)
