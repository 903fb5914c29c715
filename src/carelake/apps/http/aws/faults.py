"""Errors as the services' own protocols say them: a name of the model where there is one, AWS's common names else.

https://docs.aws.amazon.com/sagemaker/latest/APIReference/CommonErrors.html
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec
from starlette.responses import Response

from carelake.access.sigv4 import BadSignature
from carelake.apps.errors import message_of, status_of
from carelake.apps.http.aws.answering import JSON_1_1, REST_JSON
from carelake.apps.http.aws.models import RECORDS, RUNTIME, SAGEMAKER, errors_of
from carelake.core import errors

__all__ = ["UNSERVED", "failure"]

UNSERVED = "http.aws_unserved"
_REPLAYED_MS = 1000


class _Fault(NamedTuple):
    name: str
    status: int


_SIGNED = {
    "clock": _Fault("RequestTimeTooSkewed", 403),
    "incomplete": _Fault("IncompleteSignatureException", 400),
    "replayed": _Fault("ThrottlingException", 429),
    "scope": _Fault("InvalidSignatureException", 403),
    "session": _Fault("UnrecognizedClientException", 403),
    "signature": _Fault("InvalidSignatureException", 403),
}
_SAID = {
    "clock": "The request's time is too far from the server's clock.",
    "incomplete": "The request is not signed as AWS Signature Version 4 asks for: host, x-amz-date and every x-amz-* "
    "header signed, in a header and not in the query.",
    "replayed": "The same signed request has been taken already; a change is taken once. Sign it again in a second.",
    "scope": "The credential's scope names another region or service than this server answers for: expected service "
    "sagemaker and a region of access.sigv4.regions.",
    "session": "The security token included in the request is invalid: keys of this workspace have none.",
}
_NAMED = {
    "access.key_expired": _Fault("ExpiredTokenException", 403),
    "access.locked": _Fault("ThrottlingException", 429),
    "http.body_too_large": _Fault("RequestEntityTooLargeException", 413),
    "http.no_token": _Fault("MissingAuthenticationTokenException", 403),
    "http.too_many": _Fault("ThrottlingException", 429),
    UNSERVED: _Fault("UnknownOperationException", 404),
}
_LIMITS = ("_limit", ".too_many")
"""Ends of the codes of errors that say that there are as many as there may be."""
_OF_MODELS = ("models.", "serving.accept", "serving.content_type", "serving.rows")
"""Begins of the codes of what a model says of its rows; SageMaker tells of that as an error of the model."""
_OF_CONTAINERS = {"serving.accept": 406, "serving.content_type": 415}
"""What a container of SageMaker's answers itself, beside 400."""
_INVALID = {SAGEMAKER: "ValidationException", RECORDS: "ValidationError", RUNTIME: "ValidationError"}
_REFUSED = {SAGEMAKER: "AccessDeniedException", RECORDS: "AccessForbidden", RUNTIME: "AccessDeniedException"}


def failure(error: BaseException, service: str, operation: str = "") -> Response:
    """The answer that an error is."""
    fault, message = _fault(error, service, operation), _message(error)
    said = {"__type": fault.name, "message": message, "Message": message, **_model_error(fault, error)}
    kind = JSON_1_1 if service == SAGEMAKER else REST_JSON
    answer = Response(msgspec.json.encode(said), fault.status, media_type=kind)
    answer.headers["x-amzn-ErrorType"] = fault.name
    if seconds := _wait(error):
        answer.headers["x-amz-retry-after"] = str(int(seconds * 1000))
        answer.headers["Retry-After"] = str(int(seconds))
    return answer


def _fault(error: BaseException, service: str, operation: str) -> _Fault:
    if isinstance(error, BadSignature):
        return _SIGNED[error.fault]
    code = error.code if isinstance(error, errors.CarelakeError) else ""
    if code in _NAMED:
        return _NAMED[code]
    if service == RUNTIME and isinstance(error, errors.Invalid) and code.startswith(_OF_MODELS):
        return _Fault("ModelError", 424)
    return _of_class(error, service, errors_of(service, operation))


def _of_class(error: BaseException, service: str, modelled: Mapping[str, int]) -> _Fault:
    """By the class of the error: the first name that the operation's model has, else that of a wrong request."""
    invalid = _Fault(_INVALID[service], 400)
    if isinstance(error, errors.Unauthenticated) and error.code.startswith("access."):
        return _Fault("UnrecognizedClientException", 403)
    if isinstance(error, errors.Refused):
        return _Fault(_REFUSED[service], 403)
    wanted: tuple[str, ...] = ()
    if isinstance(error, errors.NotFound):
        wanted = ("ResourceNotFound",)
    elif isinstance(error, errors.Conflict):
        limit = ("ResourceLimitExceeded",) if error.code.endswith(_LIMITS) else ()
        wanted = (*limit, "ConflictException", "ResourceInUse", "ModelNotReadyException")
    elif isinstance(error, errors.Unavailable):
        return _Fault("ServiceUnavailable", 503)
    elif not isinstance(error, errors.Invalid):
        return _Fault("InternalFailure", status_of(error))
    return next((_Fault(name, modelled[name]) for name in wanted if name in modelled), invalid)


def _message(error: BaseException) -> str:
    if isinstance(error, BadSignature) and error.fault in _SAID:
        return _SAID[error.fault]
    return message_of(error)


def _model_error(fault: _Fault, error: BaseException) -> dict[str, object]:
    if fault.name != "ModelError":
        return {}
    status = _OF_CONTAINERS.get(error.code, 400) if isinstance(error, errors.CarelakeError) else 400
    return {"OriginalStatusCode": status, "OriginalMessage": _message(error)}


def _wait(error: BaseException) -> float:
    if isinstance(error, BadSignature):
        return _REPLAYED_MS / 1000 if error.fault == "replayed" else 0
    told = error.facts.get("retry_after") if isinstance(error, errors.CarelakeError) else None
    return float(told) if isinstance(told, int | float) else 0
