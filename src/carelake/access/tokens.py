"""The workspace's own access tokens: short, signed by a key of the vault, revocable by their id."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1
from jwt.algorithms import ECAlgorithm
from sqlalchemy import Connection, delete, insert, select

from carelake.access.principals import Principal
from carelake.access.stamp import changed
from carelake.access.tables import access_revoked
from carelake.core.clock import iso
from carelake.core.errors import Invalid, Refused, Unauthenticated
from carelake.vault.keyring import Keyring
from carelake.vault.workspace import Vault

__all__ = ["Claims", "Tokens", "not_valid"]


@dataclass(frozen=True, slots=True)
class Claims:
    """What a verified token says.

    Attributes:
        scope: SMART scopes that narrow it; None for a token that is not narrowed.
        patient: the patient in context, "" for none.
    """

    id: str
    principal: str
    role: str
    purpose: str
    account: str
    expires: datetime
    scope: str | None = None
    patient: str = ""


class _SignedByVault(ECAlgorithm):
    """ES256 (RFC 7518 section 3.4) whose private key never leaves the vault."""

    def __init__(self, keyring: Keyring) -> None:
        super().__init__(ECAlgorithm.SHA256, SECP256R1)
        self._keyring = keyring

    def prepare_key(self, key: object) -> Any:
        """There is none to prepare."""
        return key

    def check_key_length(self, key: object) -> None:
        """P-256, by the key ring."""

    def sign(self, msg: bytes, key: object) -> bytes:
        """The raw signature, r then s, 32 bytes each."""
        return self._keyring.sign_token(msg)


class Tokens:
    """Issues, verifies and revokes tokens of one workspace."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._jws = jwt.PyJWS(algorithms=[])
        self._jws.register_algorithm("ES256", _SignedByVault(vault.keyring))

    @property
    def issuer(self) -> str:
        """Who issues them, and for whom they are."""
        return f"urn:carelake:{self._vault.settings.workspace}"

    def issue(
        self,
        principal: Principal,
        *,
        purpose: str,
        account: str,
        seconds: int,
        role: str | None = None,
        scope: str | None = None,
        patient: str = "",
    ) -> tuple[str, Claims]:
        """A signed token (JWT, ES256) that says who, for what purpose and in which account.

        Args:
            role: the one role of the principal's that it carries; all of them without.
            scope: SMART scopes that narrow it, as the caller has read them; not narrowed without.
            patient: id of the patient that ``patient/`` scopes are about.

        Raises:
            Refused: ``access.role_not_held``, when the principal does not hold the role asked for (decision D13).
            Invalid: ``access.token_seconds``.
        """
        if role is not None and role not in principal.roles:
            raise Refused("access.role_not_held", f"{principal.name} does not hold the role {role}.")
        most = self._vault.settings.access.token_max_seconds
        if not 0 < seconds <= most:
            raise Invalid("access.token_seconds", f"A token lasts 1 to {most} seconds (access.token_max_seconds).")
        now = int(self._vault.clock.now().timestamp())
        claims = {
            "iss": self.issuer,
            "aud": self.issuer,
            "sub": principal.name,
            "role": role,
            "purpose": purpose,
            "account": account,
            "iat": now,
            "exp": now + seconds,
            "jti": self._vault.ids.new(),
            **({} if scope is None else {"scope": scope}),
            **({"patient": patient} if patient else {}),
        }
        return self._jws.encode(json.dumps(claims).encode(), key="", algorithm="ES256"), _claims(claims)

    def verified(self, token: str, *, past: bool = False) -> Claims:
        """What a token says, when it is ours, whole and in its time.

        Args:
            past: take one whose time is over too, to revoke it for example.

        Raises:
            Unauthenticated: ``access.token``.
        """
        now = self._vault.clock.now()
        try:
            claims = _claims(self._decoded(token))
        except (jwt.InvalidTokenError, KeyError, TypeError, ValueError, OverflowError):
            raise not_valid() from None
        if not past and now >= claims.expires:
            raise not_valid()
        return claims

    def _decoded(self, token: str) -> dict[str, Any]:
        """What it says, when it is signed by a version of the key that may be used: that key can be rotated."""
        for public in self._vault.keyring.token_public_keys():
            try:
                return jwt.decode(
                    token,
                    public,
                    algorithms=["ES256"],
                    audience=self.issuer,
                    issuer=self.issuer,
                    # The time is told by our clock, not by the library's.
                    options={"require": ["exp", "sub", "iat", "jti"], "verify_exp": False, "verify_iat": False},
                )
            except jwt.InvalidSignatureError:
                continue
        raise jwt.InvalidSignatureError

    def revoked(self, claims: Claims) -> bool:
        """Whether it was revoked before its time."""
        with self._vault.database.ledger_reading() as connection:
            return self.revoked_seen(connection, claims)

    @staticmethod
    def revoked_seen(connection: Connection, claims: Claims) -> bool:
        """As `revoked`, as a transaction that is open sees it."""
        query = select(access_revoked.c.id).where(access_revoked.c.id == claims.id)
        return connection.execute(query).first() is not None

    def revoke(self, connection: Any, token_id: str, principal: str, expires: datetime) -> datetime:
        """Revoke a token for what is left of its time; again is no error, and does not change that time.

        Returns:
            The moment before which tokens have ended, whose rows went.
        """
        now = self._vault.clock.now()
        connection.execute(delete(access_revoked).where(access_revoked.c.expires < iso(now)))
        if connection.execute(select(access_revoked.c.id).where(access_revoked.c.id == token_id)).first() is None:
            row = {"id": token_id, "principal": principal, "expires": iso(expires), "at": iso(now)}
            connection.execute(insert(access_revoked).values(**row))
            changed(connection)  # what any process has kept of the token is void from this commit on
        return now


def not_valid() -> Unauthenticated:
    """One and the same answer for whatever is wrong with a token, so that nothing is learned from it."""
    return Unauthenticated(
        "access.token", "The access token is not valid here or has expired; `carelake token` issues one."
    )


def _claims(said: dict[str, Any]) -> Claims:
    scope = said.get("scope")
    return Claims(
        str(said["jti"]),
        str(said["sub"]),
        str(said.get("role") or ""),
        str(said.get("purpose", "")),
        str(said.get("account", "")),
        datetime.fromtimestamp(float(said["exp"]), UTC),
        None if scope is None else str(scope),
        str(said.get("patient") or ""),
    )
