"""A prediction: the answer, and the FHIR RiskAssessment that is written back for it.

https://hl7.org/fhir/R4/riskassessment.html
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from carelake.core.clock import iso
from carelake.core.ids import derived_uuid
from carelake.serving.words import Reason, sentence

__all__ = ["STILL_IN", "Prediction", "band", "risk_assessment"]

_RISK = "http://terminology.hl7.org/CodeSystem/risk-probability"
_BANDS = {"high": "High likelihood", "moderate": "Moderate likelihood", "low": "Low likelihood"}

_READMISSION = "Unplanned readmission within 30 days of discharge"
_RISK_OF_READMISSION = "Risk of unplanned readmission within 30 days"

STILL_IN = "no_discharge"
"""The reason of a stay that is not over: scored as if discharged at the prediction time."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """One patient's risk, as answered and captured.

    Attributes:
        ref: ``prediction:HMAC`` of what went in and came out.
        subject, encounter: ids of the Patient and of the Encounter it is about.
        at: the prediction time: nothing known later went in.
        probability: of what the model predicts, for example an unplanned readmission within 30 days.
        flagged: whether it reaches the alert threshold.
        scores: clinical scores by name: ``score`` (points, None when not known) and ``risk``.
        resource: ``RiskAssessment/ID`` in the record.
        outside: `STILL_IN` for a stay that is not over, "" for what the model was made for.
    """

    ref: str
    endpoint: str
    model: str
    subject: str
    encounter: str
    at: datetime
    probability: float
    threshold: float
    flagged: bool
    reasons: tuple[Reason, ...]
    scores: Mapping[str, Mapping[str, float | None]]
    resource: str
    outside: str = ""

    def as_json(self) -> dict[str, Any]:
        """The answer of an endpoint."""
        return {
            "ref": self.ref,
            "endpoint": self.endpoint,
            "model": self.model,
            "patient": self.subject,
            "encounter": self.encounter,
            "prediction_time": iso(self.at),
            "probability": round(self.probability, 4),
            "threshold": self.threshold,
            "flagged": self.flagged,
            "band": band(self.probability, self.threshold),
            "reasons": [reason.as_json() for reason in self.reasons],
            "scores": {name: dict(score) for name, score in self.scores.items()},
            "resource": self.resource,
            "outside": self.outside or None,
        }


def band(probability: float, threshold: float) -> str:
    """``high`` from the alert threshold on, ``moderate`` from half of it, else ``low``."""
    return "high" if probability >= threshold else "moderate" if probability >= threshold / 2 else "low"


def resource_id(endpoint: str, encounter: str, at: datetime) -> str:
    """The RiskAssessment's id: predicted again for the same moment, it is the same resource."""
    return derived_uuid("risk-assessment", endpoint, encounter, iso(at))


def risk_assessment(prediction: Prediction, model_name: str, basis: Sequence[str] = ()) -> dict[str, Any]:
    """The resource, with exact decimals.

    Args:
        model_name: of the model and its version, ``NAME vN``; what it is a risk of follows from it.
        basis: relative references of what informed it, beside the encounter.
    """
    name = model_name.rpartition(" v")[0]
    outcome = _READMISSION if name == "readmission" else f"The outcome that the model {name} predicts; see its card"
    level = band(prediction.probability, prediction.threshold)
    references = dict.fromkeys([f"Encounter/{prediction.encounter}", *basis])
    return {
        "resourceType": "RiskAssessment",
        "id": prediction.resource.partition("/")[2],
        "identifier": [{"system": "urn:carelake:prediction", "value": prediction.ref}],
        "status": "preliminary" if prediction.outside else "final",
        "method": {"text": f"{model_name} ({prediction.model})"},
        "code": {"text": f"Risk by the model {name}" if outcome != _READMISSION else _RISK_OF_READMISSION},
        "subject": {"reference": f"Patient/{prediction.subject}"},
        "encounter": {"reference": f"Encounter/{prediction.encounter}"},
        "occurrenceDateTime": iso(prediction.at),
        "basis": [{"reference": reference} for reference in references],
        "prediction": [
            {
                "outcome": {"text": outcome},
                "probabilityDecimal": Decimal(f"{prediction.probability:.4f}"),
                "qualitativeRisk": {"coding": [{"system": _RISK, "code": level, "display": _BANDS[level]}]},
                "rationale": sentence(prediction.reasons),
            }
        ],
    }
