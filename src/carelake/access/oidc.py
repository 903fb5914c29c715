"""Bearer tokens of identity providers: JWTs (RFC 7519) checked as RFC 8725 asks, and linked to our principals.

A token says who somebody is; what they may do is written here. Claims of roles narrow what the principal holds, and
give nothing that it does not hold.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
from sqlalchemy import Connection, delete, insert, select

from carelake.access.jwks import KeySource
from carelake.access.narrowed import granted
from carelake.access.once import first_time
from carelake.access.principals import Principal, Principals, within
from carelake.access.scopes import read_scopes
from carelake.access.stamp import changed
from carelake.access.tables import access_link
from carelake.access.tokens import not_valid
from carelake.core.clock import Clock
from carelake.core.errors import Conflict, Invalid, NotFound
from carelake.core.permit import Permit
from carelake.core.settings import OidcIssuer, OidcSettings
from carelake.vault.workspace import Vault

__all__ = ["Links", "Oidc", "Outside", "subject_ref"]

ALGORITHMS = frozenset({"RS256", "ES256", "PS256"})
_LONGEST = 256
_LATEST = 2**33
"""The year 2242."""


@dataclass(frozen=True, slots=True)
class Outside:
    """Who a token of an identity provider names, in our words.

    Attributes:
        roles: None when the issuer says nothing of roles; else only these of the principal's count.
        credential: for the trail.
        narrowed: what the token's scopes leave; None when it has none.
    """

    principal: str
    roles: frozenset[str] | None
    purpose: str
    account: str
    expires: datetime
    credential: str
    narrowed: tuple[str, ...] | None = None


class Links:
    """Which principal a subject of an issuer is; nobody is let in by having a principal's name elsewhere."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, issuer: str, subject: str, principal: str, *, by: Principal | None = None) -> None:
        """Link a subject.

        Raises:
            NotFound: ``access.no_such_principal``.
            Refused: ``access.not_your_account``.
            Conflict: ``access.linked``.
            Invalid: ``access.subject``.
        """
        if not 0 < len(subject) <= _LONGEST or not 0 < len(issuer) <= _LONGEST:
            raise Invalid("access.subject", f"Issuer and subject have 1 to {_LONGEST} characters.")
        within(Principals(self._connection).get(principal), by)
        if self.of(issuer, subject) is not None:
            raise Conflict("access.linked", "This subject is linked to a principal already; unlink it first.")
        self._connection.execute(insert(access_link).values(issuer=issuer, subject=subject, principal=principal))
        changed(self._connection)

    def remove(self, issuer: str, subject: str, principal: str, *, by: Principal | None = None) -> None:
        """Unlink a subject from its principal.

        Raises:
            NotFound: ``access.not_linked``, of this principal.
            Refused: ``access.not_your_account``.
        """
        if self.of(issuer, subject) != principal:
            raise NotFound("access.not_linked", "This subject is not linked to this principal.")
        within(Principals(self._connection).get(principal), by)
        at = (access_link.c.issuer == issuer) & (access_link.c.subject == subject)
        self._connection.execute(delete(access_link).where(at))
        changed(self._connection)

    def of(self, issuer: str, subject: str) -> str | None:
        """The principal of a subject."""
        query = select(access_link.c.principal).where(
            access_link.c.issuer == issuer, access_link.c.subject == subject
        )
        return self._connection.execute(query).scalar()

    def all(self) -> list[dict[str, str]]:
        """Every link."""
        rows = self._connection.execute(select(access_link).order_by(access_link.c.principal)).mappings()
        return [dict(row) for row in rows]


def subject_ref(vault: Vault, vouching: Permit, issuer: str, subject: str) -> str:
    """How acts call a subject, which names a person at their provider: an HMAC, the same in every account.

    Args:
        vouching: from ``gate.vouching()``.
    """
    return vault.keyring.reference(vouching, "subject", f"{issuer}\x1f{subject}".encode())


class Oidc:
    """Verifies tokens of the issuers in the settings."""

    def __init__(self, vault: Vault, settings: OidcSettings) -> None:
        self._vault = vault
        self._clock: Clock = vault.clock
        self._settings = settings
        self._issuers = {one.issuer: (one, KeySource(one.jwks, settings, vault.clock)) for one in settings.issuers}
        for one in settings.issuers:
            unknown = set(one.algorithms) - ALGORITHMS
            if unknown or not one.algorithms:
                raise Invalid(
                    "access.oidc", f"access.oidc.issuers.algorithms are some of {', '.join(sorted(ALGORITHMS))}."
                )

    def knows(self, issuer: object) -> bool:
        """Whether the settings name this issuer."""
        return isinstance(issuer, str) and issuer in self._issuers

    def linked(self, issuer: str, subject: str) -> str | None:
        """The principal that a subject of an issuer is."""
        with self._vault.database.ledger_reading() as connection:
            return Links(connection).of(issuer, subject)

    def verified(self, token: str, issuer: str) -> Outside:
        """Who the token names.

        Raises:
            Unauthenticated: ``access.token``, whatever is wrong with it.
            Unavailable: ``access.jwks``.
        """
        told, source = self._issuers[issuer]
        head = _head(token)
        algorithm = head.get("alg")
        if algorithm not in told.algorithms:
            raise not_valid()
        claims = self._claims(token, told, source.candidates(_kid(head), str(algorithm)), str(algorithm))
        expires = self._in_time(claims, told)
        if told.once and not first_time(self._vault, f"{issuer}\x1f{claims.get('jti')}", expires):
            raise not_valid()
        return self._outside(claims, told, expires)

    def _claims(self, token: str, told: OidcIssuer, keys: Iterable[jwt.PyJWK], algorithm: str) -> dict[str, Any]:
        required = ["exp", "iat", "iss", "aud", told.subject_claim, *(["jti"] if told.once else [])]
        for key in keys:
            try:
                return jwt.decode(
                    token,
                    key,
                    algorithms=[algorithm],
                    audience=told.audience,
                    issuer=told.issuer,
                    options={"require": required, "verify_exp": False, "verify_iat": False, "verify_nbf": False},
                )
            except jwt.InvalidSignatureError:
                continue
            except (jwt.PyJWTError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
                raise not_valid() from None
        raise not_valid()

    def _in_time(self, claims: dict[str, Any], told: OidcIssuer) -> datetime:
        """When the session ends; RFC 7519 section 4.1, by our clock."""
        now = self._clock.now()
        leeway = timedelta(seconds=self._settings.leeway_seconds)
        expires, issued = _moment(claims["exp"]), _moment(claims["iat"])
        begins = _moment(claims["nbf"]) if "nbf" in claims else issued
        if now >= expires + leeway or issued > now + leeway or begins > now + leeway:
            raise not_valid()
        return min(expires + leeway, issued + timedelta(seconds=told.max_seconds) + leeway)

    def _outside(self, claims: dict[str, Any], told: OidcIssuer, expires: datetime) -> Outside:
        subject = claims.get(told.subject_claim)
        if not isinstance(subject, str) or not 0 < len(subject) <= _LONGEST or self._clock.now() >= expires:
            raise not_valid()
        principal = self.linked(told.issuer, subject)
        if principal is None:
            raise not_valid()
        purpose = claims.get(told.purpose_claim) if told.purpose_claim else told.purpose
        roles = None
        if told.roles_claim:
            said = _texts(claims.get(told.roles_claim))
            roles = frozenset(told.roles[name] for name in said if name in told.roles)
        digest = hashlib.sha256(f"{told.issuer}\x1f{claims.get('jti') or subject}".encode()).hexdigest()
        return Outside(
            principal,
            roles,
            purpose if isinstance(purpose, str) else "",
            told.account,
            expires,
            f"oidc:{digest[:32]}",
            _narrowed(claims, told),
        )


def _narrowed(claims: dict[str, Any], told: OidcIssuer) -> tuple[str, ...] | None:
    """The grants of a token that has scopes: one whose scopes open no resource opens none."""
    said = claims.get(told.scope_claim) if told.scope_claim else None
    if said is None:
        return None
    # RFC 9068 has one text; some providers write a list.
    text = said if isinstance(said, str) else " ".join(_texts(said))
    patient = claims.get(told.patient_claim)
    try:
        return granted(read_scopes(text).resources, patient if isinstance(patient, str) else "")
    except Invalid:
        return ()


def _head(token: str) -> dict[str, Any]:
    try:
        head = jwt.get_unverified_header(token)
    except (jwt.PyJWTError, ValueError, RecursionError):
        raise not_valid() from None
    # Nothing that a head may name is followed (jku, x5u, jwk, x5c); what it calls critical is not known here.
    if "crit" in head or "b64" in head or "zip" in head or "enc" in head:
        raise not_valid()
    return head


def _kid(head: dict[str, Any]) -> str | None:
    kid = head.get("kid")
    if kid is not None and (not isinstance(kid, str) or not 0 < len(kid) <= _LONGEST):
        raise not_valid()
    return kid


def _moment(seconds: object) -> datetime:
    # Bounded, so that adding a leeway stays within what a datetime holds; false for NaN.
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= _LATEST:
        raise not_valid()
    return datetime.fromtimestamp(seconds, UTC)


def _texts(said: object) -> list[str]:
    if isinstance(said, str):
        return said.split()
    return [one for one in said if isinstance(one, str)] if isinstance(said, list) else []
