"""Identity, resolved once at a door: the local operating-system user, or a bearer token."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1
from jwt.algorithms import ECAlgorithm

from carelake.access.principals import ANONYMOUS, DEFAULTS, Principal, Principals
from carelake.core.errors import NotFound, Refused, Unauthenticated
from carelake.vault.keyring import Keyring
from carelake.vault.workspace import Vault

__all__ = ["Caller", "Identity"]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, for what purpose, in which account."""

    principal: Principal
    purpose: str
    account: str


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


class Identity:
    """Resolves callers of one workspace."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._jws = jwt.PyJWS(algorithms=[])
        self._jws.register_algorithm("ES256", _SignedByVault(vault.keyring))

    def bind_defaults(self, uid: int) -> None:
        """Make the principals of a new workspace and bind an operating-system user to ``operator``."""
        with self._vault.database.ledger() as connection:
            for who in DEFAULTS:
                Principals(connection).add(who, uid=uid if who.name == "operator" else None)

    def named(self, name: str, speaker: Principal) -> Principal:
        """A principal that a door or a recipe acts as on behalf of ``speaker``.

        Raises:
            NotFound: ``access.no_such_principal``.
        """
        with self._vault.database.ledger_reading() as connection:
            return Principals(connection).get(name).spoken_for_by(speaker)

    def local_user(self) -> Principal:
        """The principal that the operating-system user of this process is bound to."""
        return self.local(os.getuid(), None)

    def local(self, uid: int, name: str | None) -> Principal:
        """The principal of an operating-system user, or another one it may speak for.

        The operator of a local workspace may speak as any of its principals; the act tells both names.

        Raises:
            Unauthenticated: ``access.unknown_user``, ``access.unknown_principal``.
            Refused: ``access.may_not_speak_for``.
        """
        with self._vault.database.ledger_reading() as connection:
            principals = Principals(connection)
            own = principals.of_uid(uid)
            if own is None:
                raise Unauthenticated(
                    "access.unknown_user",
                    "This operating-system user is bound to no principal of the workspace; ask its operator.",
                )
            if name is None or name == own.name:
                return own
            try:
                other = principals.get(name)
            except NotFound:
                raise Unauthenticated(
                    "access.unknown_principal", "There is no such principal; `carelake principal list` shows them."
                ) from None
        if "operator" not in own.roles:
            raise Refused("access.may_not_speak_for", f"{own.name} may not speak for another principal.")
        return other.spoken_for_by(own)

    def issue(
        self, principal: Principal, *, purpose: str, account: str, seconds: int, role: str | None = None
    ) -> str:
        """A signed access token (JWT, ES256) that says who, for what purpose and in which account.

        Raises:
            Refused: ``access.role_not_held``, when the principal does not hold the role asked for (decision D13).
        """
        if role is not None and role not in principal.roles:
            raise Refused("access.role_not_held", f"{principal.name} does not hold the role {role}.")
        now = self._vault.clock.now()
        claims = {
            "iss": self._issuer,
            "aud": self._issuer,
            "sub": principal.name,
            "role": role,
            "purpose": purpose,
            "account": account,
            "iat": int(now.timestamp()),
            "exp": int(now.timestamp()) + seconds,
            "jti": self._vault.ids.new(),
        }
        return self._jws.encode(json.dumps(claims).encode(), key="", algorithm="ES256")

    def bearer(self, token: str) -> Caller:
        """The caller that a token names.

        Raises:
            Unauthenticated: ``access.token`` (expired, forged, for another workspace, or its principal is gone).
        """
        try:
            claims = jwt.decode(
                token,
                self._vault.keyring.token_public_key(),
                algorithms=["ES256"],
                audience=self._issuer,
                issuer=self._issuer,
                # The time is told by our clock, not by the library's.
                options={"require": ["exp", "sub", "iat"], "verify_exp": False, "verify_iat": False},
            )
            ended = float(claims["exp"]) <= self._vault.clock.now().timestamp()
        except (jwt.InvalidTokenError, TypeError, ValueError):
            ended, claims = True, {}
        if ended:
            raise Unauthenticated(
                "access.token", "The access token is not valid here or has expired; `carelake token` issues one."
            )
        with self._vault.database.ledger_reading() as connection:
            try:
                who = Principals(connection).get(str(claims["sub"]))
            except NotFound:
                raise Unauthenticated("access.token", "The token's principal is no longer known.") from None
        role = claims.get("role")
        if role:
            who = replace(who, roles=tuple(r for r in who.roles if r == role))
        return Caller(who, str(claims.get("purpose", "")), str(claims.get("account", "")))

    @staticmethod
    def nobody() -> Principal:
        """Whoever could not be identified; refusals are recorded under this name."""
        return ANONYMOUS

    @property
    def _issuer(self) -> str:
        return f"urn:carelake:{self._vault.settings.workspace}"
