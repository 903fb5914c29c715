"""POST of a Bundle: a transaction, or a batch whose entries are interactions of their own.

https://hl7.org/fhir/R4/http.html#transaction
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from starlette.responses import Response

from carelake.apps.errors import Rejected
from carelake.apps.http import answers
from carelake.apps.http.answers import FHIR_JSON
from carelake.apps.http.calls import Call
from carelake.apps.http.fhir.asking import json_only, pretty
from carelake.apps.http.fhir.batching import Routes
from carelake.apps.http.fhir.conditional_tags import etag
from carelake.apps.http.fhir.preferring import returning
from carelake.apps.http.fhir.transacting import Outcome, transact
from carelake.apps.http.fhir.writing_checks import sent
from carelake.apps.http.routes import Operation
from carelake.core.clock import iso
from carelake.core.errors import Invalid
from carelake.fhir.issues import Issue
from carelake.fhir.outcome import operation_outcome
from carelake.fhir.transactions import Step, each_step, steps
from carelake.fhir.validate import in_text

__all__ = ["operations", "process"]

_BODY = {"type": "object", "description": "a Bundle of type transaction or batch, as application/fhir+json"}
_ANSWERS = {
    "400": "No Bundle of type batch or transaction; or a transaction with an entry that asks for nothing known",
    "409": "The state of things forbids an entry of a transaction",
    "412": "A precondition of an entry of a transaction failed",
    "422": "An entry of a transaction breaks a rule or a profile",
}


def operations(others: Sequence[Operation]) -> list[Operation]:
    """Its address.

    Args:
        others: what an entry of a batch may ask for.
    """
    routes = Routes(others)
    # Clients join their base with a slash or without one.
    return [
        Operation(
            "POST",
            path,
            name,
            "Process a batch, or a transaction: all of it or nothing",
            partial(process, routes=routes),
            "fhir",
            body=_BODY,
            media_type=FHIR_JSON,
            answers=_ANSWERS,
        )
        for path, name in (("/fhir", "bundle"), ("/fhir/", "bundleAtSlash"))
    ]


def process(call: Call, *, routes: Routes) -> Response:
    """``POST /fhir``"""
    json_only(call)
    call.only("_format", "_pretty")
    call.caller("record:write", "record")  # of somebody unknown nothing is read
    bundle = sent(call.body)
    kind = bundle.get("type") if isinstance(bundle, dict) and bundle.get("resourceType") == "Bundle" else None
    if kind not in ("batch", "transaction"):
        raise Invalid("fhir.bundle", "What is sent to this address is a Bundle of type batch or transaction.")
    if repeated := in_text(call.body, bundle, []):
        raise Rejected("http.not_fhir", "The body gives keys twice; which one counts cannot be told.", repeated)
    bases = (f"{call.base}/fhir", "/fhir")
    most = call.door.settings.serve.max_bundle_entries
    if kind == "batch":
        found = routes.run(call, list(each_step(bundle, most, bases=bases)))
    else:
        listed = steps(bundle, most, bases=bases)
        done = transact(call, listed) if listed else {}
        found = [_entry(call, step, done[step.position]) for step in listed]
    preferred = returning(call)
    headers = {"Preference-Applied": f"return={preferred}"} if preferred else {}
    made: dict[str, Any] = {"resourceType": "Bundle", "type": f"{kind}-response"}
    if found:
        made["entry"] = found
    return answers.fhir(made, headers=headers, pretty=pretty(call))


def _entry(call: Call, step: Step, done: Outcome) -> dict[str, Any]:
    """What an entry of a transaction is answered."""
    if isinstance(done, dict):
        return done
    preferred = returning(call)
    if done is None:
        told: dict[str, Any] = {"status": "204 No Content"}
    else:
        told = {
            "status": "201 Created" if done.created else "204 No Content" if step.method == "DELETE" else "200 OK",
            **({} if step.method == "DELETE" else {"location": f"{done.type}/{done.id}/_history/{done.version}"}),
            "etag": etag(done.version),
            "lastModified": iso(done.updated),
        }
    if preferred == "OperationOutcome":
        said = "Nothing was changed." if done is None or not done.changed else "Done."
        told["outcome"] = operation_outcome([Issue("information", "informational", "", said)])
    shown = done is not None and done.resource is not None and preferred == "representation"
    whole = {"resource": done.resource} if done is not None and shown else {}
    named = {"fullUrl": f"{call.base}/fhir/{done.type}/{done.id}"} if done is not None and shown else {}
    return {**named, **whole, "response": told}
