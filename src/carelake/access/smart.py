"""SMART Backend Services: a client's signed assertion, checked (RFC 7523, RFC 8725).

https://hl7.org/fhir/smart-app-launch/STU2.2/client-confidential-asymmetric.html
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import jwt

from carelake.access.jwks import KeySet, KeySource
from carelake.access.once import first_time
from carelake.access.smart_clients import ALGORITHMS, Client, Clients
from carelake.core.errors import Unauthenticated
from carelake.core.settings import OidcSettings
from carelake.vault.workspace import Vault

__all__ = ["Assertions", "bad_assertion"]

MOST_SECONDS = 300
_DRIFT = 5
"""Seconds that a client's clock may be ahead of ours."""
_LONGEST = 256
_LATEST = 2**33
_NOT_FOLLOWED = frozenset({"b64", "crit", "enc", "jwk", "x5c", "x5u", "zip"})
_KEPT = 1000


class Assertions:
    """Checks assertions of the clients of one workspace."""

    def __init__(self, vault: Vault, settings: OidcSettings) -> None:
        self._vault = vault
        self._settings = settings
        self._sources: dict[tuple[str, str], KeySource] = {}

    def verified(self, assertion: str, claimed: object, audience: str) -> Client:
        """The client that signed an assertion, which is good once.

        Args:
            claimed: the issuer that it claims, not believed yet.
            audience: our token endpoint, as the settings and not the request have it.

        Raises:
            Unauthenticated: ``access.client``, whatever is wrong with it.
            Unavailable: ``access.jwks``: the client's key set cannot be had.
        """
        algorithm, kid, url = _head(assertion)
        client = self._client(claimed)
        keys = self._keys(client, kid, algorithm) if client is not None else _decoys()
        claims = _claims(assertion, keys, algorithm, audience, str(claimed))
        if client is None or client.disabled or (url is not None and url != client.keys_url):
            raise bad_assertion()
        expires = self._in_time(claims)
        # Last, so that nobody but the client can use one of its ids up.
        if not first_time(self._vault, f"assertion\x1f{client.id}\x1f{claims['jti']}", expires):
            raise bad_assertion()
        return client

    def _client(self, claimed: object) -> Client | None:
        if not isinstance(claimed, str):
            return None
        with self._vault.database.ledger_reading() as connection:
            return Clients(connection).find(claimed)

    def _keys(self, client: Client, kid: str, algorithm: str) -> Iterable[jwt.PyJWK]:
        if client.keys:
            return KeySet(client.keys).candidates(kid, algorithm)
        source = self._sources.get((client.id, client.keys_url))
        if source is None:
            if len(self._sources) >= _KEPT:
                self._sources.clear()
            source = KeySource(client.keys_url, self._settings, self._vault.clock)
            source = self._sources.setdefault((client.id, client.keys_url), source)
        return source.candidates(kid, algorithm)

    def _in_time(self, claims: dict[str, Any]) -> datetime:
        now = self._vault.clock.now()
        drift = timedelta(seconds=_DRIFT)
        expires = _moment(claims["exp"])
        begins = [_moment(claims[name]) for name in ("iat", "nbf") if name in claims]
        if now >= expires or expires > now + timedelta(seconds=MOST_SECONDS) + drift:
            raise bad_assertion()
        if any(one > now + drift for one in begins):
            raise bad_assertion()
        return expires


def bad_assertion() -> Unauthenticated:
    """One and the same answer for whatever is wrong with an assertion."""
    return Unauthenticated(
        "access.client",
        "The client is not known here, or its assertion is not valid: signed by a registered key (RS384, ES384), "
        "for this token endpoint, for at most five minutes, and used once.",
    )


def _head(assertion: str) -> tuple[str, str, str | None]:
    """Algorithm, key id, and the address of keys that it names, which is compared and never followed."""
    try:
        head = jwt.get_unverified_header(assertion)
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
        raise bad_assertion() from None
    algorithm, kid, url = head.get("alg"), head.get("kid"), head.get("jku")
    good = isinstance(kid, str) and 0 < len(kid) <= _LONGEST and (url is None or isinstance(url, str))
    if algorithm not in ALGORITHMS or not good or not _NOT_FOLLOWED.isdisjoint(head):
        raise bad_assertion()
    return str(algorithm), str(kid), url


def _claims(assertion: str, keys: Iterable[jwt.PyJWK], algorithm: str, audience: str, client: str) -> dict[str, Any]:
    # Times are told by our clock, not by the library's.
    options: Any = {
        "require": ["iss", "sub", "aud", "exp", "jti"],
        "verify_exp": False,
        "verify_iat": False,
        "verify_nbf": False,
    }
    said: dict[str, Any] | None = None
    for key in keys:
        try:
            said = jwt.decode(
                assertion, key, algorithms=[algorithm], audience=audience, issuer=client, options=options
            )
            break
        except jwt.InvalidSignatureError:
            continue
        except (jwt.PyJWTError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
            raise bad_assertion() from None
    jti = said.get("jti") if said is not None else None
    if said is None or said.get("sub") != client or not isinstance(jti, str) or not 0 < len(jti) <= _LONGEST:
        raise bad_assertion()
    return said


def _moment(seconds: object) -> datetime:
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= _LATEST:
        raise bad_assertion()
    return datetime.fromtimestamp(seconds, UTC)


@cache
def _decoys() -> tuple[jwt.PyJWK, ...]:
    """A key to check by where there is no client: that takes its time too, and is refused whatever it verifies."""
    return (jwt.PyJWK({"kty": "EC", "crv": "P-384", "x": _X, "y": _Y}, algorithm="ES384"),)


_X = "qofKIr6LBTeOscce8yCtdG4dO2KLp5uYWfdB4IJUKjhVAvJdv1UpbDpUXjhydgq3"
_Y = "NhfeSpYmLG9dnpi_kpLcKfj0Hb0omhR86doxE7XwuMAKYLHOHX6BnXpDHXyQ6g5f"
"""The base point of P-384 (FIPS 186-4, D.1.2.4)."""
