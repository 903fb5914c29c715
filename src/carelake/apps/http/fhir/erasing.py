"""``$erase`` and ``$purge`` of a patient: everything of theirs, everywhere, for good, with a proof.

``$purge`` is what AWS HealthLake calls it
(https://docs.aws.amazon.com/healthlake/latest/devguide/reference-fhir-operations-purge.html). Here it is done when it
is answered; its job can be asked for afterwards, by the same addresses. The trail is never deleted.
"""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from carelake.apps.http import answers
from carelake.apps.http.answers import FHIR_JSON
from carelake.apps.http.calls import Call
from carelake.apps.http.fhir.asking import is_id, json_only, pretty
from carelake.apps.http.fhir.parameters import PARAMETERS, asked_with
from carelake.apps.http.fhir.record import absent
from carelake.apps.http.routes import Operation
from carelake.core.errors import NotFound, Unsupported

__all__ = ["operations"]

_ACTION = "record:erase"
_TAKES = {"reason": "string", "deleteAuditEvent": "boolean"}
_REASON = "asked for over HTTP"
_ANSWERS = {
    "200": "Parameters: jobId, jobStatus, proof, complete, and what was done",
    "403": "Not allowed, or a legal hold forbids it",
    "404": "There is no such patient",
    "409": "Another erasure is under way",
}


def operations() -> list[Operation]:
    """Both names, and where a job stands."""
    one = {"id": "id of the patient"}
    query = "reason: why, kept sealed; deleteAuditEvent: only false"
    found = []
    for name in ("erase", "purge"):
        found += [
            Operation(
                "POST",
                f"/fhir/Patient/{{id}}/${name}",
                name,
                "Erase a patient everywhere, for good, and answer the proof",
                erase,
                "fhir",
                body=PARAMETERS,
                parameters=one,
                query=query,
                media_type=FHIR_JSON,
                answers=_ANSWERS,
            ),
            Operation(
                "GET",
                f"/fhir/${name}/{{job}}",
                f"{name}Job",
                "Where an erasure stands, with its proof",
                job,
                "fhir",
                parameters={"job": "jobId of the erasure"},
                media_type=FHIR_JSON,
                answers={"404": "There is no such erasure"},
            ),
        ]
    return found


def erase(call: Call) -> Response:
    """Erase one patient. What was broken off before is brought to its end first."""
    json_only(call)
    key = call.path["id"]
    if not is_id(key):
        raise absent()
    with call.enter(_ACTION, "Patient") as permit:
        given = asked_with(call, _TAKES)
        if given.flag("deleteAuditEvent"):
            raise Unsupported("http.erase_trail", "The trail is not deleted; it names patients by an HMAC alone.")
        reason = given.text("reason") or _REASON
        proof = call.door.erasures.erase(permit, [key], reason)
    return answers.fhir(_told(proof["erasure"], "COMPLETED", proof["ref"], proof), pretty=pretty(call))


def job(call: Call) -> Response:
    """Where an erasure stands."""
    json_only(call)
    call.only("_format", "_pretty")
    name = call.path["job"]
    if not is_id(name):
        raise NotFound("http.no_such_job", "There is no such job.")
    with call.enter(_ACTION, "record") as permit:
        found = call.door.erasures.get(permit, name)
    proof = found["proof"]
    status = "COMPLETED" if proof else "IN_PROGRESS"
    return answers.fhir(_told(name, status, found["ref"], proof["report"] if proof else None), pretty=pretty(call))


def _told(name: str, status: str, ref: str, report: dict[str, Any] | None) -> dict[str, Any]:
    said: list[dict[str, Any]] = [
        {"name": "jobId", "valueString": name},
        {"name": "jobStatus", "valueString": status},
    ]
    if report is not None:
        said += [
            {"name": "totalResourcesDeleted", "valueInteger": report["counts"].get("resources", 0)},
            {"name": "proof", "valueString": ref},
            {"name": "complete", "valueBoolean": report["complete"]},
        ]
        for part in ("counts", "residue"):
            counted = [{"name": key, "valueInteger": number} for key, number in report[part].items()]
            said.append({"name": part, "part": counted})
    return {"resourceType": "Parameters", "parameter": said}
