"""What is asked: the members of an operation's input, out of the address, the query, the headers and the body."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import msgspec

from carelake.apps.http.aws.models import RUNTIME, SAGEMAKER, operation_of, shape_of
from carelake.apps.http.aws.routing import Route
from carelake.apps.http.aws.taking import reader_of, wrong
from carelake.core.errors import Invalid

__all__ = ["asked"]

_OURS = "x-amzn-sagemaker-"
"""Headers that begin so are members, or are not known."""


class _Plan(NamedTuple):
    """Where the members of one input stand: by how they are called there, their names and shapes."""

    shape: str
    labels: Mapping[str, tuple[str, str]]
    query: Mapping[str, tuple[str, str]]
    headers: Mapping[str, tuple[str, str]]
    payload: str
    body: bool


def asked(route: Route, pairs: Sequence[tuple[str, str]], headers: Mapping[str, str], body: bytes) -> dict[str, Any]:
    """The input of an operation, checked.

    Args:
        pairs: the query.
        headers: by name in lower case.

    Raises:
        Invalid: ``http.aws_input``.
    """
    plan = _plan(route.service, route.operation)
    if plan is None:
        if body not in (b"", b"{}") or pairs:
            raise wrong("", "no members")
        return {}
    found: dict[str, Any] = {plan.labels[name][0]: said for name, said in route.labels.items()}
    found.update(_of_query(route.service, plan, pairs))
    found.update(_of_headers(route.service, plan, headers))
    if plan.payload:
        found[plan.payload] = body
    elif plan.body:
        found.update(_of_body(plan, headers, body))
    elif body:
        raise wrong("The body", "none")
    try:
        checked: dict[str, Any] = reader_of(route.service, plan.shape)(found, "")
    except RecursionError:
        raise wrong("The request", "fewer levels") from None
    return checked


@cache
def _plan(service: str, name: str) -> _Plan | None:
    shape = operation_of(service, name).input_shape
    if shape is None:
        return None
    at: dict[str, dict[str, tuple[str, str]]] = {"uri": {}, "querystring": {}, "header": {}}
    payload, left = shape.serialization.get("payload", ""), 0
    for one, member in shape.members.items():
        place = member.serialization.get("location", "")
        if place in at:
            called = member.serialization.get("name", one)
            at[place][called.lower() if place == "header" else called] = (one, member.name)
        elif one != payload:
            left += 1
    body = service == SAGEMAKER or left > 0
    return _Plan(shape.name, at["uri"], at["querystring"], at["header"], payload, body)


def _of_query(service: str, plan: _Plan, pairs: Sequence[tuple[str, str]]) -> Iterator[tuple[str, Any]]:
    said: dict[str, list[str]] = {}
    for name, value in pairs:
        if name not in plan.query:
            raise wrong("The query", f"no members but {', '.join(sorted(plan.query)) or 'none'}")
        said.setdefault(name, []).append(value)
    for name, values in said.items():
        member, named = plan.query[name]
        shape = shape_of(service, named)
        if shape.type_name == "list":
            yield member, [_plain(value, shape.member.type_name) for value in values]
        elif len(values) > 1:
            raise wrong(member, "one value")
        else:
            yield member, _plain(values[0], shape.type_name)


def _of_headers(service: str, plan: _Plan, headers: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
    if service == RUNTIME and any(name.startswith(_OURS) and name not in plan.headers for name in headers):
        raise wrong("The headers", "no members but those of the operation")
    for name, (member, shape) in plan.headers.items():
        if name in headers:
            yield member, _plain(headers[name], shape_of(service, shape).type_name)


def _of_body(plan: _Plan, headers: Mapping[str, str], body: bytes) -> Mapping[str, Any]:
    if not body:
        return {}
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in ("application/json", "application/x-amz-json-1.1"):
        raise wrong("Content-Type", "application/x-amz-json-1.1 or application/json")
    try:
        said = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise wrong("The body", "JSON") from None  # msgspec's own text can quote it
    if not isinstance(said, dict):
        raise wrong("The body", "a JSON object")
    elsewhere = {member for place in (plan.labels, plan.query, plan.headers) for member, _ in place.values()}
    if not elsewhere.isdisjoint(said):
        raise Invalid("http.aws_input", "The body has a member that stands in the address, the query or a header.")
    return said


def _plain(text: str, kind: str) -> Any:
    """A text of an address or a header, as the JSON of a body would have it."""
    if kind == "boolean" and text in ("true", "false"):
        return text == "true"
    if kind in ("integer", "long"):
        return int(text) if text.removeprefix("-").isdecimal() and len(text) <= 20 and text.isascii() else text
    return text
