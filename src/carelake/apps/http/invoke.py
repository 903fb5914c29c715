"""InvokeEndpoint over HTTP: rows in, risks out, each request numbered and captured before it is answered.

https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_runtime_InvokeEndpoint.html
"""

from __future__ import annotations

import re
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from carelake.apps.http.calls import Call
from carelake.apps.http.routes import ANY_TYPE, Operation
from carelake.apps.http.writers import Steps, alone
from carelake.core.errors import CarelakeError, Invalid, NotFound
from carelake.core.permit import Permit

if TYPE_CHECKING:
    from carelake.serving.endpoint import Endpoints

__all__ = ["invoke", "invoking", "operation"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,62}")
_ID = re.compile(r"[!-~]{1,64}")
_SMALL = 16 * 1024


def operation() -> Operation:
    """Its address."""
    said: dict[str, Any] = {"description": "rows as docs/endpoints.md describes them"}
    return Operation(
        "POST",
        "/endpoints/{endpoint}/invocations",
        "invokeEndpoint",
        "Score rows, as SageMaker's InvokeEndpoint",
        invoke,
        "predictions",
        steps=invoking,
        small=lambda call: len(call.body) <= _SMALL,
        body=said,
        body_type=ANY_TYPE,
        parameters={"endpoint": "name of an endpoint"},
        media_type=ANY_TYPE,
        answers={
            "400": "The rows cannot be scored",
            "404": "No such endpoint",
            "409": "The endpoint is out of service",
        },
    )


def invoke(call: Call) -> Response:
    """By itself."""
    return alone(invoking(call), call.door.vault.database.grouped_all)


def invoking(call: Call) -> Steps:
    """Scored first, then written with others that wait, then answered."""
    call.only()
    name = call.path["endpoint"]
    if not _NAME.fullmatch(name):
        raise NotFound("serving.no_such_endpoint", "No endpoint of that name or ref is in this account.")
    endpoints = call.door.endpoints
    with ExitStack() as stack:
        with call.door.vault.database.together():
            if not call.named:
                call.caller("endpoint:invoke", name)  # refuses, on the trail
            permit = stack.enter_context(call.enter("endpoint:invoke", name))
            prepared = _counted(endpoints, permit, name, lambda: _prepared(endpoints, permit, name, call))
        try:
            yield call.door.vault.database.work(permit, endpoints.keeping(permit, prepared))
        except CarelakeError as error:
            if not endpoints.again(permit.account, name, error):
                endpoints.failed(permit, name, 500)
                raise
            prepared = _prepared(endpoints, permit, name, call)
            call.door.vault.database.grouped(permit, endpoints.keeping(permit, prepared))
        account = permit.account
    endpoints.answered(account, prepared)
    body, kind = endpoints.body(prepared, call.headers.get("accept", ""))
    return Response(
        body, media_type=kind, headers={"x-amzn-Invoked-Production-Variant": endpoints.variant_name(prepared)}
    )


def _prepared(endpoints: Endpoints, permit: Permit, name: str, call: Call) -> Any:
    endpoints.body(None, call.headers.get("accept", ""))  # refused before anything is scored
    sent = call.headers.get("content-type", "")
    target = call.headers.get("x-amzn-sagemaker-target-variant")
    inference = call.headers.get("x-amzn-sagemaker-inference-id", "")
    if inference and not _ID.fullmatch(inference):
        raise Invalid("http.inference_id", "X-Amzn-SageMaker-Inference-Id is 1 to 64 printable ASCII characters.")
    return endpoints.prepared(permit, name, call.body, sent, target, inference)


def _counted(endpoints: Endpoints, permit: Permit, name: str, work: Any) -> Any:
    """Failures are counted for the alarm: as the caller's, or as ours."""
    try:
        return work()
    except NotFound:
        raise
    except CarelakeError as error:
        endpoints.failed(permit, name, 400 if isinstance(error, Invalid) else 500)
        raise
    except Exception:
        endpoints.failed(permit, name, 500)
        raise
