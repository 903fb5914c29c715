"""CDS Hooks 2.0: discovery, the readmission card, and feedback on it (https://cds-hooks.hl7.org/2.0/).

The caller is who a bearer token names. Nothing is fetched from the client's FHIR server: what is known of a patient
is in the record here, or comes as prefetch. Cross-origin requests are not answered: the server is on loopback.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import Connection
from starlette.responses import Response

from carelake.apps.http import answers
from carelake.apps.http.calls import Call
from carelake.apps.http.cds.asking import Hook, hook, outcomes, resources
from carelake.apps.http.routes import Operation
from carelake.core.errors import Conflict, Invalid, NotFound
from carelake.core.permit import Permit

if TYPE_CHECKING:
    from carelake.serving.endpoint import Endpoint
    from carelake.serving.predictions import Prediction

__all__ = ["operations"]

_ENDPOINT = "readmission"
_SERVICES = {f"{_ENDPOINT}-{hook}": hook for hook in ("patient-view", "encounter-discharge")}
_PREFETCH = {
    "patient": "Patient/{{context.patientId}}",
    **{
        name: f"{kind}?patient={{{{context.patientId}}}}&_count=1000"
        for name, kind in (
            ("encounters", "Encounter"),
            ("conditions", "Condition"),
            ("observations", "Observation"),
            ("procedures", "Procedure"),
            ("medications", "MedicationRequest"),
        )
    },
}
_NO_CARD = frozenset({"features.no_stay", "pipelines.another_stay", "pipelines.outside_cohort"})
"""Of a patient who is known there is nothing to say."""
_LACKING = frozenset({"pipelines.no_such_encounter", "pipelines.no_such_patient"})
_SERVICE = {"service": f"one of {', '.join(_SERVICES)}"}


def operations() -> list[Operation]:
    """The addresses."""
    body = {"type": "object", "description": "as https://cds-hooks.hl7.org/2.0/ has it"}

    def of(method: str, path: str, name: str, summary: str, handler: Any, **more: Any) -> Operation:
        return Operation(method, path, name, summary, handler, "cds-hooks", **more)

    absent = {"404": "No such service"}
    return [
        of("GET", "/cds-services", "cdsServices", "The CDS services that are here", _discovery, open=True),
        of("POST", "/cds-services/{service}", "cdsService", "Cards for a patient", _call, body=body,
           parameters=_SERVICE, answers={**absent, "412": "What is needed is neither in the record nor prefetched"}),
        of("POST", "/cds-services/{service}/feedback", "cdsFeedback", "What was done about cards", _feedback,
           body=body, parameters=_SERVICE, answers={"404": "No such service or card"}),
    ]  # fmt: skip


def _discovery(call: Call) -> Response:
    """https://cds-hooks.hl7.org/2.0/#discovery"""
    call.only()
    listed = [
        {
            "hook": told,
            "id": name,
            "title": "Risk of readmission",
            "description": "The risk of an unplanned readmission within 30 days of the last inpatient stay, with "
            "reasons, by the model that is in service.",
            "prefetch": _PREFETCH,
            "usageRequirements": "A bearer token of this server. Of a patient who is in its record, prefetch is not "
            "looked at and can be left out.",
        }
        for name, told in _SERVICES.items()
    ]
    return answers.json({"services": listed})


def _named(call: Call, action: str) -> str:
    call.only()
    service = call.path["service"]
    if service not in _SERVICES:
        raise NotFound("http.no_such_service", "There is no such CDS service here; GET /cds-services lists them.")
    if not call.named:
        call.caller(action, _ENDPOINT)  # refuses, on the trail
    return service


def _call(call: Call) -> Response:
    """https://cds-hooks.hl7.org/2.0/#calling-a-cds-service"""
    service = _named(call, "endpoint:invoke")
    try:
        with call.enter("endpoint:invoke", _ENDPOINT) as permit:
            cards = _cards(call, permit, service, _asked(call, service))
    except NotFound as error:
        if error.code not in _LACKING:
            raise
        raise Invalid(
            "http.cds_data",
            "The patient, or the encounter, is not in the record that the caller may see, nor in a prefetch that is "
            "whole and valid FHIR R4; send prefetch as GET /cds-services describes it.",
        ) from None
    return answers.json({"cards": cards})


def _asked(call: Call, service: str) -> Hook:
    told = hook(call.body)
    if told.name != _SERVICES[service]:
        raise Invalid("http.cds_request", f"The service {service} is for the hook {_SERVICES[service]}.")
    if told.name == "encounter-discharge" and not told.encounter:
        raise Invalid("http.cds_request", "The context of encounter-discharge has an encounterId.")
    return told


def _cards(call: Call, permit: Permit, service: str, told: Hook) -> list[dict[str, Any]]:
    # Learning is heavy: it is imported when the first card is asked for.
    from carelake.pipelines.predictions import advise
    from carelake.serving import cards, feedback

    platform, vault = call.door.platform, call.door.vault
    uuid = str(UUID(vault.ids.new()))

    def keep(tx: Connection, prediction: Prediction, endpoint: Endpoint) -> None:
        version = str(endpoint.noun.body["model_version"])
        feedback.shown(permit, tx, vault, prediction, uuid, service, (endpoint.name, version))

    # Whoever opens a chart sees the risk of the last stay, whichever encounter is at hand.
    encounter = told.encounter if told.name == "encounter-discharge" else ""
    try:
        sent = partial(resources, told.prefetch)
        advice = advise(platform, permit, _ENDPOINT, told.patient, encounter=encounter, sent=sent, along=keep)
    except (Conflict, NotFound) as error:
        if error.code not in _NO_CARD:
            raise
        permit.log.count(cards=0)
        return []
    prediction, endpoint = advice.prediction, advice.endpoint
    said = cards.card(
        prediction,
        uuid,
        f"{endpoint.noun.body['model_name']} v{endpoint.noun.body['model_version']}",
        cards.note_on_calibration(endpoint.files.metrics),
        f"{call.base}/fhir/{prediction.resource}" if call.base else "",
    )
    return [said]


def _feedback(call: Call) -> Response:
    """https://cds-hooks.hl7.org/2.0/#feedback"""
    from carelake.serving import feedback

    service = _named(call, "endpoint:feedback")
    with call.enter("endpoint:feedback", _ENDPOINT) as permit:
        vault = call.door.vault
        told = outcomes(call.body, vault.clock.now())
        with vault.database.transaction(permit) as tx:
            kept = feedback.tell(permit, tx, vault, service, told)
    return answers.json({"feedback": kept})
