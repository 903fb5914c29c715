"""Which operation a request is: by the addresses of the models, or the header that names it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import NamedTuple
from urllib.parse import unquote

from carelake.apps.http.aws.models import RECORDS, RUNTIME, SAGEMAKER, operation_of, operations_of
from carelake.core.errors import Invalid

__all__ = ["PREFIX", "Route", "is_aws", "route_of", "service_at"]

PREFIX = "/aws"
_RUNTIME_PATH = "endpoints"


class Route(NamedTuple):
    """One operation of a service, "" where the request names none.

    Attributes:
        labels: members that stand in the address, decoded.
    """

    service: str
    operation: str
    labels: Mapping[str, str] = {}


def is_aws(path: str) -> bool:
    """Whether an address speaks AWS's protocols."""
    return path == PREFIX or path.startswith(f"{PREFIX}/")


def service_at(path: str) -> str:
    """The service that an address is one of; they have no addresses in common."""
    head = path.removeprefix(PREFIX).strip("/").partition("/")[0]
    return SAGEMAKER if not head else RUNTIME if head == _RUNTIME_PATH else RECORDS


def route_of(method: str, raw_path: str, target: str) -> Route:
    """The operation of a request.

    Args:
        raw_path: still percent-encoded, so that a name may hold a slash.
        target: what ``X-Amz-Target`` says.

    Raises:
        Invalid: ``http.aws_input``: an address that is not percent-encoded UTF-8.
    """
    service = service_at(raw_path)
    if service == SAGEMAKER:
        name = target.rpartition(".")[2] if method == "POST" else ""
        named = name in operations_of(SAGEMAKER) and target == f"SageMaker.{name}"
        return Route(service, name if named else "")
    parts = raw_path.removeprefix(PREFIX).strip("/").split("/")
    for name, template in _templates(service).get((method, len(parts)), ()):
        labels = {t[1:-1]: part for t, part in zip(template, parts, strict=True) if t.startswith("{")}
        if all(t.startswith("{") or t == part for t, part in zip(template, parts, strict=True)):
            return Route(service, name, {label: _decoded(part) for label, part in labels.items()})
    return Route(service, "")


@cache
def _templates(service: str) -> Mapping[tuple[str, int], list[tuple[str, tuple[str, ...]]]]:
    """By method and length of the address: operations, each with the parts of its address."""
    found: dict[tuple[str, int], list[tuple[str, tuple[str, ...]]]] = {}
    for name in sorted(operations_of(service)):
        http = operation_of(service, name).http
        parts = tuple(http["requestUri"].partition("?")[0].strip("/").split("/"))
        found.setdefault((http["method"], len(parts)), []).append((name, parts))
    return found


def _decoded(part: str) -> str:
    try:
        return unquote(part, errors="strict")
    except UnicodeDecodeError:
        raise Invalid("http.aws_input", "The address: expected UTF-8, percent-encoded.") from None
