"""Public keys of an identity provider (RFC 7517): from the address in the settings, never from one in a token."""

from __future__ import annotations

import ipaddress
import ssl
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as WaitedTooLong
from datetime import datetime, timedelta
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

import jwt
import msgspec

from carelake.core.clock import Clock
from carelake.core.errors import Invalid, Unavailable
from carelake.core.settings import OidcSettings

__all__ = ["KeySet", "KeySource", "is_web", "matching", "read_keys"]

_MAX_KEYS = 100
_LEAST_RSA_BITS = 2048
_FAMILY = {"RS256": "RSA", "PS256": "RSA", "ES256": "EC", "RS384": "RSA", "ES384": "EC"}
_CURVE = {"ES256": "P-256", "ES384": "P-384"}


class KeySource:
    """The key set of one issuer: kept for a while, fetched again for an unknown key id, but not at each."""

    def __init__(self, where: str, settings: OidcSettings, clock: Clock) -> None:
        """Make the source.

        Args:
            where: a file, or an https address (http on loopback).

        Raises:
            Invalid: ``access.jwks``, for another kind of address.
        """
        self._where = where
        self._web = is_web(where)
        self._settings = settings
        self._clock = clock
        self._keys: list[dict[str, Any]] = []
        self._fetched: datetime | None = None
        self._tried: datetime | None = None
        self._lock = Lock()

    def candidates(self, kid: str | None, algorithm: str) -> list[jwt.PyJWK]:
        """The keys that a token with this key id and algorithm may be signed by; few, mostly one.

        Raises:
            Unavailable: ``access.jwks``: the set cannot be had, so nothing can be verified.
        """
        found = self._matching(kid, algorithm) if self._fresh() else []
        if not found:
            self._renew()
            found = self._matching(kid, algorithm)
        return found

    def _fresh(self) -> bool:
        kept = timedelta(seconds=self._settings.cache_seconds)
        return self._fetched is not None and self._clock.now() - self._fetched < kept

    def _renew(self) -> None:
        with self._lock:
            now = self._clock.now()
            pause = timedelta(seconds=self._settings.refetch_seconds)
            if self._tried is not None and now - self._tried < pause:
                if self._fresh():
                    return  # a storm of unknown key ids costs one request in a while
                raise self._not_there()
            self._tried = now
            text = self._web_text() if self._web else self._file_text()
            self._keys = self._parsed(text)
            self._fetched = now

    def _matching(self, kid: str | None, algorithm: str) -> list[jwt.PyJWK]:
        return matching(self._keys, kid, algorithm)

    def _parsed(self, text: bytes) -> list[dict[str, Any]]:
        try:
            return read_keys(text)
        except Invalid:
            raise self._not_there() from None

    def _file_text(self) -> bytes:
        try:
            with Path(self._where).open("rb") as file:
                text = file.read(self._settings.max_bytes + 1)
        except OSError:
            raise self._not_there() from None
        return self._bounded(text)

    def _web_text(self) -> bytes:
        import httpx

        # No proxy and no netrc of the environment: the keys are those of the address in the settings.
        trust = ssl.create_default_context()
        seconds = self._settings.timeout_seconds
        client = httpx.Client(timeout=seconds, follow_redirects=False, trust_env=False, verify=trust)
        # The client's own limit is for each read: who answers byte by byte would keep us, and our lock, for ever.
        caller = ThreadPoolExecutor(1, "jwks")
        try:
            return caller.submit(self._fetch, client).result(2 * seconds)
        except (httpx.HTTPError, WaitedTooLong):
            raise self._not_there() from None
        finally:
            client.close()
            caller.shutdown(wait=False, cancel_futures=True)

    def _fetch(self, client: Any) -> bytes:
        text = bytearray()
        # Not packed: a few bytes of that may be any number of them.
        asked = {"Accept": "application/json", "Accept-Encoding": "identity"}
        with client.stream("GET", self._where, headers=asked) as answer:
            if answer.status_code != 200:
                raise self._not_there()
            for piece in answer.iter_raw():
                text += piece
                self._bounded(text)
        return bytes(text)

    def _bounded(self, text: bytes | bytearray) -> bytes:
        if len(text) > self._settings.max_bytes:
            raise self._not_there()
        return bytes(text)

    def _not_there(self) -> Unavailable:
        return Unavailable(
            "access.jwks",
            "The identity provider's key set cannot be read, so its tokens cannot be verified; "
            "check access.oidc.issuers.jwks and that it answers with a JSON Web Key Set in time.",
        )


class KeySet:
    """A key set that is at hand, and does not change."""

    def __init__(self, text: bytes | str) -> None:
        """Make it of the text of a JSON Web Key Set.

        Raises:
            Invalid: ``access.jwks``.
        """
        self._keys = read_keys(text)

    def candidates(self, kid: str | None, algorithm: str) -> list[jwt.PyJWK]:
        """As `KeySource.candidates`."""
        return matching(self._keys, kid, algorithm)


def read_keys(text: bytes | str) -> list[dict[str, Any]]:
    """The members of a JSON Web Key Set.

    Raises:
        Invalid: ``access.jwks``.
    """
    try:
        keys = msgspec.json.decode(text)["keys"]
    except (msgspec.DecodeError, KeyError, TypeError, RecursionError, UnicodeError):
        keys = None
    if not isinstance(keys, list) or len(keys) > _MAX_KEYS:
        raise Invalid("access.jwks", f"This is no JSON Web Key Set (RFC 7517) of at most {_MAX_KEYS} keys.")
    return [key for key in keys if isinstance(key, dict)]


def matching(keys: list[dict[str, Any]], kid: str | None, algorithm: str) -> list[jwt.PyJWK]:
    """The keys that may have signed by an algorithm under a key id; few, mostly one."""
    fitting = [key for key in keys if _fits(key, algorithm)]
    if kid is None:
        # RFC 7515 section 4.1.4 leaves it out; only a set of one key is then clear.
        named = fitting if len(fitting) == 1 else []
    else:
        named = [key for key in fitting if key.get("kid") == kid]
    return [made for key in named[:4] if (made := _made(key, algorithm)) is not None]


def is_web(where: str) -> bool:
    """Whether an address is fetched, and not a file: https (http on loopback); `Invalid` for other schemes."""
    return _is_web(where)


def _is_web(where: str) -> bool:
    parts = urlsplit(where)
    if parts.scheme == "https" and parts.hostname:
        return True
    if parts.scheme == "http" and _loopback(parts.hostname or ""):
        return True
    if parts.scheme in ("", "file") or len(parts.scheme) == 1:
        return False
    raise Invalid("access.jwks", "access.oidc.issuers.jwks is a file or an https address (http on loopback only).")


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _fits(key: dict[str, Any], algorithm: str) -> bool:
    family = _FAMILY.get(algorithm)
    if family is None or key.get("kty") != family or key.get("use", "sig") != "sig":
        return False
    return key.get("alg", algorithm) == algorithm and (family != "EC" or key.get("crv") == _CURVE[algorithm])


def _made(key: dict[str, Any], algorithm: str) -> jwt.PyJWK | None:
    try:
        made = jwt.PyJWK({name: value for name, value in key.items() if name in _PUBLIC}, algorithm=algorithm)
    except (jwt.PyJWTError, ValueError, TypeError, KeyError):
        return None  # not a key: a point off the curve, a number that is none
    size = getattr(made.key, "key_size", 0)
    return None if _FAMILY[algorithm] == "RSA" and size < _LEAST_RSA_BITS else made


_PUBLIC = frozenset({"kty", "n", "e", "crv", "x", "y"})
