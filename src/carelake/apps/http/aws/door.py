"""The door: who signed, what is asked, the gate, the work, the answer.

Nothing of a body is parsed before the signature over it is found good. Every signed request is an act.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.responses import Response

from carelake.access.identity import Caller
from carelake.access.sigv4 import ALGORITHM
from carelake.apps.http.aws.answering import answer
from carelake.apps.http.aws.asking import asked
from carelake.apps.http.aws.faults import UNSERVED, failure
from carelake.apps.http.aws.routing import PREFIX, Route, route_of, service_at
from carelake.apps.http.aws.served import Asked, Served
from carelake.apps.http.aws.table import served_as
from carelake.apps.http.calls import Call
from carelake.apps.http.routes import ANY_TYPE, Operation
from carelake.core.errors import CarelakeError, Unauthenticated, Unsupported

__all__ = ["handle", "operations", "quick"]

_METHODS = ("DELETE", "GET", "POST", "PUT")
_UNKNOWN = "aws:unserved"
_TARGET = "aws"


def operations() -> Sequence[Operation]:
    """Their addresses; the models describe them, not the OpenAPI document."""
    paths = {"root": PREFIX, "below": PREFIX + "/{rest:path}"}
    summary = "As AWS's service models have it"
    return [
        Operation(
            method, path, f"aws-{where}-{method}", summary, handle, "aws", quick=quick, body={}, body_type=ANY_TYPE
        )
        for where, path in paths.items()
        for method in _METHODS
    ]


def quick(call: Call) -> bool:
    """Whether an operation reads a little, and waits for nothing."""
    try:
        found = _served(_route(call))
    except CarelakeError:
        return False
    return found is not None and found.quick


def handle(call: Call) -> Response:
    """The answer of one operation, errors in the words of its protocol."""
    service, operation = service_at(call.raw_path), ""
    try:
        route = _route(call)
        operation = route.operation
        return _answered(call, route)
    except CarelakeError as error:
        return failure(error, service, operation)


def _answered(call: Call, route: Route) -> Response:
    served = _served(route)
    caller = _caller(call, served)
    if served is None:
        raise _refused(call, caller, _UNKNOWN, _TARGET, _unserved(route))
    call.route = f"{PREFIX} {served.name}"
    try:
        said = asked(route, call.pairs, call.headers, call.body)
        action, target = served.action_of(said), served.target_of(said)
    except CarelakeError as error:
        raise _refused(call, caller, *_told(served), error) from None
    with call.enter(action, target) as permit:
        permit.log.note(operation=served.name)
        one = Asked(call.door, permit, said)
        again = served.again is not None and served.again(one)
        found = served.run(one)
        if served.tagged and not again:
            _tag(one, found)
    return answer(route.service, served.name, found)


def _route(call: Call) -> Route:
    return route_of(call.method, call.raw_path, call.headers.get("x-amz-target", ""))


def _served(route: Route) -> Served | None:
    return served_as(route.service, route.operation)


def _caller(call: Call, served: Served | None) -> Caller:
    action, target = _told(served)
    call.once = served is not None and served.changes
    if not call.headers.get("authorization", "").startswith(ALGORITHM):
        error = Unauthenticated(
            "http.no_token",
            "The request is not signed: expected AWS Signature Version 4 in the Authorization header, by a key of "
            "`carelake principal key add`.",
        )
        call.act = call.door.gate.refuse(call.door.identity.nobody(), action, target, "production", error)
        raise error
    return call.caller(action, target)


def _told(served: Served | None) -> tuple[str, str]:
    """What an act says of a request that nothing is known of but its operation."""
    if served is None:
        return _UNKNOWN, _TARGET
    action = served.action if isinstance(served.action, str) else _UNKNOWN
    return action, served.target if isinstance(served.target, str) else _TARGET


def _refused(call: Call, caller: Caller, action: str, target: str, error: CarelakeError) -> CarelakeError:
    call.act = call.door.gate.refuse(caller.principal, action, target, caller.account, error)
    return error


def _tag(one: Asked, found: Mapping[str, Any]) -> None:
    from carelake.apps.http.aws.tagging import tag_new  # which knows of all rooms, as `table` does

    tag_new(one, found)


def _unserved(route: Route) -> Unsupported:
    named = f"{route.operation} of {route.service}" if route.operation else f"This operation of {route.service}"
    return Unsupported(UNSERVED, f"{named} is not served here; docs/aws.md lists what is.")
