"""Routes as data: the application and its OpenAPI document are both made from one table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.responses import Response

from carelake.apps.http.calls import Call
from carelake.apps.http.writers import Steps

__all__ = ["ANY_TYPE", "Handler", "Operation"]

ANY_TYPE = "*/*"
"""Media type of a body or an answer that may be of any."""

Handler = Callable[[Call], Response]


@dataclass(frozen=True)
class Operation:
    """One thing that can be asked for.

    Attributes:
        path: with ``{name}`` for what varies.
        summary: one line for people.
        handler: plain synchronous code; it runs in a thread.
        quick: it reads a little and waits for nothing; many are answered by one snapshot and one commit of acts.
            Where one address is many operations, the call tells.
        steps: the same handler in steps, whose write is done together with those of others; where ``small`` allows.
        open: whether it is answered without a token.
        first: done before the body is read, in a thread; what it answers is the answer, and nothing is read then. For
            what is open, but for those alone whose credential stands elsewhere than in its header.
        body: JSON Schema of the request's body, None where it takes none.
        body_type: media type of the body.
        most: bytes that the body may have; 0 for as many as ``serve.max_body_bytes``.
        parameters: descriptions of the parameters in the path.
        query: description of the query, "" where it takes none.
        answers: status -> what it means; media type of the good answer in ``media_type``.
    """

    method: str
    path: str
    name: str
    summary: str
    handler: Handler
    tag: str
    quick: bool | Callable[[Call], bool] = False
    steps: Callable[[Call], Steps] | None = None
    small: Callable[[Call], bool] = lambda _call: False
    open: bool = False
    first: Callable[[Call], Response | None] | None = None
    body: Mapping[str, Any] | None = None
    body_type: str = "application/json"
    most: int = 0
    parameters: Mapping[str, str] = field(default_factory=dict)
    query: str = ""
    media_type: str = "application/json"
    answers: Mapping[str, str] = field(default_factory=dict)
