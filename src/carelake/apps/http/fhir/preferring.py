"""What a client wants back from a write: ``Prefer: return=...`` (https://hl7.org/fhir/R4/http.html#ops)."""

from __future__ import annotations

from starlette.responses import Response

from carelake.apps.http import answers
from carelake.apps.http.calls import Call
from carelake.apps.http.fhir.asking import pretty
from carelake.apps.http.fhir.conditional_tags import validators
from carelake.fhir.issues import Issue
from carelake.fhir.outcome import operation_outcome
from carelake.store import Written

__all__ = ["answer", "nothing", "returning"]

_RETURNS = {"minimal": "minimal", "representation": "representation", "operationoutcome": "OperationOutcome"}


def returning(call: Call) -> str:
    """``minimal``, ``representation`` or ``OperationOutcome``; "" where it is not asked, or for what is not known.

    The first of several counts (RFC 7240 section 2).
    """
    headers = [value for name, value in call.raw_headers if name == "prefer"]
    for one in ",".join(headers).replace(";", ",").split(","):
        name, _, value = one.partition("=")
        if name.strip().lower() == "return":
            return _RETURNS.get(value.strip().strip('"').lower(), "")
    return ""


def answer(call: Call, made: Written, *, said: str = "") -> Response:
    """The answer to a write: 201 with its address where it made one, 200, or 204 for a deletion.

    Args:
        made: its resource is None of a deletion, and where the caller may not see it.
        said: what an OperationOutcome says, where one is preferred.
    """
    preferred = returning(call)
    call.updated = made.updated
    headers = validators(made.version, made.updated)
    if made.created or call.method == "POST":  # of a create that found one: where that is
        headers["Location"] = f"{call.base}/fhir/{made.type}/{made.id}/_history/{made.version}"
    if preferred:
        headers["Preference-Applied"] = f"return={preferred}"
    status = 201 if made.created else 200
    if preferred == "OperationOutcome":
        return answers.fhir(_outcome(said), status, headers, pretty=pretty(call))
    if made.resource is None or preferred == "minimal":
        return Response(status_code=204 if call.method == "DELETE" else status, headers=headers)
    return answers.fhir(made.resource, status, headers, pretty=pretty(call))


def nothing(call: Call, said: str) -> Response:
    """The answer to a deletion of what is not there."""
    if returning(call) == "OperationOutcome":
        applied = {"Preference-Applied": "return=OperationOutcome"}
        return answers.fhir(_outcome(said), 200, applied, pretty=pretty(call))
    return Response(status_code=204)


def _outcome(said: str) -> dict[str, object]:
    return operation_outcome([Issue("information", "informational", "", said)])
