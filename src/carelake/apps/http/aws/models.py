"""The service models inside botocore: what may be asked for, and how it is written. They are the contract.

https://smithy.io/2.0/aws/protocols/aws-json-1_1-protocol.html
https://smithy.io/2.0/aws/protocols/aws-restjson1-protocol.html
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from carelake.core.errors import Unavailable

__all__ = [
    "RECORDS",
    "RUNTIME",
    "SAGEMAKER",
    "SERVICES",
    "errors_of",
    "model_of",
    "operation_of",
    "operations_of",
    "shape_of",
]

SAGEMAKER = "sagemaker"
RECORDS = "sagemaker-featurestore-runtime"
RUNTIME = "sagemaker-runtime"
SERVICES = (SAGEMAKER, RECORDS, RUNTIME)
"""All of them are signed for ``sagemaker``."""


@cache
def model_of(service: str) -> Any:
    """The model of a service, as botocore has it.

    Raises:
        Unavailable: ``access.no_aws``, without the extra ``aws``.
    """
    try:
        from botocore.loaders import Loader
        from botocore.model import ServiceModel
    except ImportError:
        raise Unavailable(
            "access.no_aws", "Signed requests need botocore; install carelake[aws], or use an access token."
        ) from None
    return ServiceModel(Loader().load_service_model(service, "service-2"), service)


@cache
def operations_of(service: str) -> frozenset[str]:
    """The names of a service's operations."""
    return frozenset(model_of(service).operation_names)


@cache
def operation_of(service: str, name: str) -> Any:
    """The model of one operation."""
    return model_of(service).operation_model(name)


@cache
def shape_of(service: str, name: str) -> Any:
    """The model of one shape."""
    return model_of(service).shape_for(name)


@cache
def errors_of(service: str, name: str) -> Mapping[str, int]:
    """The errors that an operation may end with, by name, each with its HTTP status."""
    shapes = operation_of(service, name).error_shapes if name else ()
    return {shape.name: int(shape.metadata.get("error", {}).get("httpStatusCode", 400)) for shape in shapes}
