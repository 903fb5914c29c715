"""One request, as the handlers see it: plain values, the caller, and the way through the gate."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

import msgspec

from carelake.access.identity import Caller
from carelake.access.sigv4 import SignedRequest, is_signed, key_named
from carelake.apps.http.ports import Door
from carelake.core.errors import Invalid, Refused, Unauthenticated
from carelake.core.permit import Permit
from carelake.core.shapes import decodable

__all__ = ["Call", "has_credential"]

Shape = TypeVar("Shape")

_HOST = re.compile(r"[A-Za-z0-9.-]{1,253}(:\d{1,5})?|\[[0-9a-fA-F:]{2,39}\](:\d{1,5})?")
_LOCKED = "access.locked"
_UNNAMED = (
    "This needs an access token; make one with `carelake token --as NAME --purpose TREAT` and send it as "
    "`Authorization: Bearer TOKEN`."
)


def has_credential(headers: Mapping[str, str], query: bytes) -> bool:
    """Whether a request says who sent it; whether that is so is for the gate."""
    return bool(headers.get("authorization", "").strip()) or b"X-Amz-Signature=" in query


@dataclass
class Call:
    """One request.

    Attributes:
        path: the parameters that the route took out of the path.
        pairs: the query, and a form's fields after it, in the order given.
        raw_path, raw_query, raw_headers: as they were received, names of headers in lower case.
        sent: the body as it was received, where ``body`` is what it unpacks to.
        scheme: ``http`` or ``https``.
        count: counts a request of a principal; raises ``http.too_many`` over the rate.
        once: whether a signature of it is taken once; without a word, where its method may change something.
        act: id of the act under which the answer is accounted; "" until the gate was entered.
        updated: when the version that is answered was made: ``Last-Modified`` has its seconds alone.
    """

    door: Door
    method: str
    route: str
    url: str
    path: Mapping[str, str]
    pairs: Sequence[tuple[str, str]]
    headers: Mapping[str, str]
    body: bytes = b""
    client: str = ""
    raw_path: str = ""
    raw_query: str = ""
    raw_headers: Sequence[tuple[str, str]] = ()
    sent: bytes | None = None
    scheme: str = "http"
    count: Callable[[str], None] = lambda _name: None
    once: bool | None = None
    act: str = field(default="")
    updated: datetime | None = None
    _caller: Caller | None = field(default=None, repr=False)
    _token: str | None = field(default=None, repr=False)

    @property
    def named(self) -> bool:
        """Whether there is a credential at all; without one the body was not read."""
        return has_credential(self.headers, self.raw_query.encode("latin-1"))

    def caller(self, action: str, target: str) -> Caller:
        """Who calls, by the bearer token or by the signature of the request: looked at once, as some are good once.

        Raises:
            Unauthenticated: ``http.no_token``, ``access.token``, ``access.signature``, ``access.locked``; the refusal
                is in the trail, but for those of a lock that the trail tells of already.
            Unavailable: ``access.jwks``, ``access.no_aws``.
        """
        try:
            return self._recognised()
        except Unauthenticated as error:
            if error.code != _LOCKED:
                nobody = self.door.identity.nobody()
                locked = {"locked_until": error.facts["locked_until"]} if "locked_until" in error.facts else {}
                self.act = self.door.gate.refuse(nobody, action, target, "production", error, **locked)
            raise

    def _recognised(self) -> Caller:
        if self._caller is None:
            caller = self._found()
            self.count(caller.principal.name)
            self._caller = caller
        return self._caller

    def recognise(self, caller: Caller) -> None:
        """Who calls was found out elsewhere, and was counted there."""
        self._caller = caller

    def present(self, token: str) -> None:
        """The bearer token came otherwise than in its header: in a form, or in a browser's cookie."""
        self._token = token

    @property
    def token(self) -> str:
        """The bearer token, "" where there is none, or more than one credential."""
        if self._token is None:
            told = [value for name, value in self.raw_headers if name == "authorization"]
            scheme, _, token = told[0].partition(" ") if len(told) == 1 else ("", "", "")
            bearer = scheme.lower() == "bearer" and "X-Amz-Signature=" not in self.raw_query
            self._token = token.strip() if bearer else ""
        return self._token

    @property
    def known(self) -> bool:
        """Whether its credential was good not long ago: one that is new here, or from there, may be wrong."""
        if self.token:
            return self.door.identity.remembers(self.token)
        return self.door.identity.remembers_key(key_named(self.headers.get("authorization", "")), self.client)

    def _found(self) -> Caller:
        if self.token:
            return self.door.identity.bearer(self.token, self.client)
        if is_signed(self.request):
            vouching = self.door.gate.vouching()
            return self.door.identity.signed(self.request, vouching, self.client, once=self.once)
        raise Unauthenticated("http.no_token", _UNNAMED)

    @property
    def request(self) -> SignedRequest:
        """The request as it was received, for those who signed it."""
        body = self.body if self.sent is None else self.sent
        return SignedRequest(self.method, self.raw_path, self.raw_query, self.raw_headers, body)

    @contextmanager
    def enter(self, action: str, target: str) -> Iterator[Permit]:
        """Pass the gate as the caller. The act is committed when the block ends, so answer after it."""
        caller = self.caller(action, target)
        try:
            with self.door.enter(caller, action, target) as permit:
                self.act = permit.act
                yield permit
        except Refused as error:
            # A refusal's act is made by the gate, before there is a permit that could name it.
            self.act = self.act or str(error.facts.get("act", ""))
            raise

    @property
    def base(self) -> str:
        """The server's address as the caller wrote it, without a slash; "" when that is none."""
        host = self.headers.get("host", "")
        return f"{self.scheme}://{host}" if _HOST.fullmatch(host) else ""

    def json(self, shape: type[Shape]) -> Shape:
        """The body as JSON of this shape.

        Raises:
            Invalid: ``http.body``.
        """
        try:
            return msgspec.json.decode(self.body, type=decodable(shape))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            # msgspec's own text can quote the body.
            raise Invalid(
                "http.body", f"The body is not what {self.method} {self.route} takes; see /openapi.json."
            ) from None

    def only(self, *known: str) -> None:
        """Refuse query parameters that would have no effect.

        Raises:
            Invalid: ``http.unknown_parameter``.
        """
        if any(name not in known for name, _ in self.pairs):
            said = f"takes {', '.join(known)}" if known else "takes no query parameters"
            raise Invalid("http.unknown_parameter", f"An unknown query parameter; {self.method} {self.route} {said}.")

    def one(self, name: str) -> str | None:
        """The one value of a query parameter.

        Raises:
            Invalid: ``http.repeated_parameter``.
        """
        values: list[Any] = [value for key, value in self.pairs if key == name]
        if len(values) > 1:
            raise Invalid("http.repeated_parameter", f"The parameter {name} is given more than once.")
        return values[0] if values else None
