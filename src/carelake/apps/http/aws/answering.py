"""What is answered, written by the shape that the model has for it; what does not fit it is a fault of ours."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any

import msgspec
from starlette.responses import Response

from carelake.apps.http.aws.models import SAGEMAKER, operation_of, shape_of
from carelake.core.clock import instant

__all__ = ["JSON_1_1", "REST_JSON", "answer"]

JSON_1_1, REST_JSON = "application/x-amz-json-1.1", "application/json"
_Writer = Callable[[Any, str], Any]
_encode = msgspec.json.Encoder().encode


def answer(service: str, name: str, said: Mapping[str, Any]) -> Response:
    """The answer of an operation.

    Raises:
        TypeError: it is not what the model has.
    """
    shape, status = (
        operation_of(service, name).output_shape,
        operation_of(service, name).http.get("responseCode", 200),
    )
    if service == SAGEMAKER:
        body = b"" if shape is None else _encode(_writer_of(service, shape.name)(said, name))
        return Response(body, status, media_type=JSON_1_1)
    if shape is None:
        return Response(b"", status)
    return _of_rest(service, name, shape, said, status)


def _of_rest(service: str, name: str, shape: Any, said: Mapping[str, Any], status: int) -> Response:
    payload = shape.serialization.get("payload")
    headers = {
        member.serialization["name"]: str(said[one])
        for one, member in shape.members.items()
        if member.serialization.get("location") == "header" and said.get(one) is not None
    }
    left = {one: value for one, value in said.items() if shape.members[one].serialization.get("location") != "header"}
    if payload is not None:
        kind = next((headers.pop(one) for one in list(headers) if one.lower() == "content-type"), None)
        return Response(bytes(left.get(payload, b"")), status, headers, media_type=kind)
    return Response(_encode(_writer_of(service, shape.name)(left, name)), status, headers, media_type=REST_JSON)


@cache
def _writer_of(service: str, name: str) -> _Writer:
    shape = shape_of(service, name)
    made = {"structure": _structure, "list": _list, "map": _map}.get(shape.type_name)
    return made(service, shape) if made else _PLAIN[shape.type_name]


def _structure(service: str, shape: Any) -> _Writer:
    members = {name: member.name for name, member in shape.members.items()}
    required = frozenset(shape.required_members)

    def write(value: Any, at: str) -> Any:
        if not isinstance(value, Mapping) or not value.keys() <= members.keys():
            raise TypeError(f"{at} is no {shape.name}")
        found = {
            name: _writer_of(service, members[name])(said, f"{at}.{name}")
            for name, said in value.items()
            if said is not None
        }
        if not required <= found.keys():
            raise TypeError(f"{at} lacks {sorted(required - found.keys())}")
        return found

    return write


def _list(service: str, shape: Any) -> _Writer:
    each = shape.member.name

    def write(value: Any, at: str) -> Any:
        if not isinstance(value, list | tuple):
            raise TypeError(f"{at} is no list")
        one = _writer_of(service, each)
        return [one(said, at) for said in value]

    return write


def _map(service: str, shape: Any) -> _Writer:
    each = shape.value.name

    def write(value: Any, at: str) -> Any:
        if not isinstance(value, Mapping):
            raise TypeError(f"{at} is no map")
        one = _writer_of(service, each)
        return {str(name): one(said, at) for name, said in value.items()}

    return write


def _of(*kinds: type) -> _Writer:
    def write(value: Any, at: str) -> Any:
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise TypeError(f"{at} is of a wrong type")
        return value

    return write


def _blob(value: Any, _at: str) -> str:
    return base64.b64encode(value).decode()


def _timestamp(value: Any, at: str) -> float:
    """Seconds since 1970, as both protocols write it in a body."""
    moment = instant(value) if isinstance(value, str) else value
    if not isinstance(moment, datetime):
        raise TypeError(f"{at} is no moment")
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp(), 3)


_PLAIN: Mapping[str, _Writer] = {
    "blob": _blob,
    "boolean": _of(bool),
    "double": _of(int, float),
    "float": _of(int, float),
    "integer": _of(int),
    "long": _of(int),
    "string": _of(str),
    "timestamp": _timestamp,
}
