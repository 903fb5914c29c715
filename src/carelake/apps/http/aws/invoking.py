"""``sagemaker-runtime``: InvokeEndpoint, whose every request is captured before it is answered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from carelake.apps.http.aws.models import RUNTIME
from carelake.apps.http.aws.served import Asked, Served
from carelake.core.errors import CarelakeError, Invalid, NotFound, Unsupported

__all__ = ["operations"]

_UNHEARD = (
    "EnableExplanations",
    "InferenceComponentName",
    "PrefixAwareId",
    "SessionId",
    "TargetContainerHostname",
    "TargetModel",
)


def operations() -> list[Served]:
    """What is served of it. A request may be sent again: it is another prediction, and changes nothing else."""
    return [Served(RUNTIME, "InvokeEndpoint", "endpoint:invoke", "endpoints", invoke)]


def invoke(asked: Asked) -> Mapping[str, Any]:
    """InvokeEndpoint."""
    said, name = asked.said, asked.said["EndpointName"]
    if unheard := [member for member in _UNHEARD if member in said]:
        raise Unsupported("http.aws_member", f"{unheard[0]} is not followed here; leave it out.")
    endpoints = asked.door.platform.endpoints
    kinds = (said.get("ContentType", ""), said.get("Accept", ""))
    target, inference = said.get("TargetVariant"), said.get("InferenceId", "")
    try:
        body, kind, variant = endpoints.invoke(
            asked.permit, name, said.get("Body", b""), *kinds, target, inference_id=inference
        )
    except NotFound:
        raise
    except CarelakeError as error:  # counted for the alarms of a rollout: as the caller's, or as ours
        endpoints.failed(asked.permit, name, 400 if isinstance(error, Invalid) else 500)
        endpoints.status(asked.permit, name, alarms=False)  # whatever the rows are: first of all there is an endpoint
        raise
    except Exception:
        endpoints.failed(asked.permit, name, 500)
        raise
    return {"Body": body, "ContentType": kind, "InvokedProductionVariant": variant}
