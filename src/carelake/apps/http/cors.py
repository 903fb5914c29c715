"""Browsers of other origins, where settings name them (https://fetch.spec.whatwg.org/#http-cors-protocol).

A SMART application that runs in a browser needs this. It sets its token itself; what a browser would add of its own
(cookies, client certificates) is never allowed to be sent.
"""

from __future__ import annotations

from collections.abc import Sequence

from starlette.types import Scope

__all__ = ["Cors"]

Headers = list[tuple[bytes, bytes]]

_METHODS = b"GET, HEAD, POST, PUT, PATCH, DELETE"
_TAKEN = (
    b"Accept, Authorization, Content-Type, If-Match, If-Modified-Since, If-None-Exist, If-None-Match, Prefer, "
    b"X-Security-Context"
)
_SHOWN = b"Content-Location, ETag, Expires, Last-Modified, Location, Retry-After, X-Progress, X-Request-Id"
_MAX_AGE = b"600"
_VARY = (b"vary", b"Origin")


class Cors:
    """What is said to which origin."""

    def __init__(self, origins: Sequence[str]) -> None:
        """Args: origins: as browsers send them, ``https://app.example``; none: nothing is ever said."""
        self._origins = frozenset(one.encode() for one in origins)

    def headers(self, scope: Scope) -> Headers:
        """What every answer to this request says, an error as well."""
        if not self._origins:
            return []
        origin = _header(scope, b"origin")
        if origin not in self._origins:
            return [_VARY]
        said = [_VARY, (b"access-control-allow-origin", origin), (b"access-control-expose-headers", _SHOWN)]
        if not self.asks_before(scope):
            return said
        allowed = (b"access-control-allow-methods", _METHODS), (b"access-control-allow-headers", _TAKEN)
        return [*said, *allowed, (b"access-control-max-age", _MAX_AGE)]

    def asks_before(self, scope: Scope) -> bool:
        """Whether a browser asks, for an origin that is named, if it may send a request."""
        if not self._origins or scope["method"] != "OPTIONS" or not _header(scope, b"access-control-request-method"):
            return False
        return _header(scope, b"origin") in self._origins


def _header(scope: Scope, name: bytes) -> bytes:
    """The value of a header that comes once; b"" where it does not."""
    found = [value for key, value in scope["headers"] if key == name]
    return bytes(found[0]) if len(found) == 1 else b""
