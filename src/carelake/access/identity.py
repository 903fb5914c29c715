"""Identity, resolved once at a door: the local operating-system user, a bearer token, or a signed request."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

import jwt
from sqlalchemy import Connection

from carelake.access import sigv4
from carelake.access.kept import Kept
from carelake.access.keys import AccessKey, AccessKeys, aged, stale_note
from carelake.access.lockout import UNKNOWN, Lockout
from carelake.access.narrowed import granted
from carelake.access.oidc import Oidc
from carelake.access.once import first_time
from carelake.access.principals import ANONYMOUS, DEFAULTS, Principal, Principals
from carelake.access.scopes import read_scopes
from carelake.access.sigv4 import SignedRequest, bad_signature
from carelake.access.smart import Assertions, bad_assertion
from carelake.access.smart_clients import Client
from carelake.access.stamp import stamp_of
from carelake.access.standing import Register
from carelake.access.tokens import Claims, Tokens, not_valid
from carelake.core.clock import iso
from carelake.core.errors import NotFound, Refused, Unauthenticated
from carelake.core.permit import Permit
from carelake.vault.places import ACCOUNTS
from carelake.vault.workspace import Vault

__all__ = ["Caller", "Identity"]

_LONGEST_TOKEN = 16_384
_COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
"""RFC 7515 section 7.1; a library may take more, and one token would then have many texts."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, for what purpose, in which account."""

    principal: Principal
    purpose: str
    account: str

    @property
    def everywhere(self) -> bool:
        """Whether the caller belongs to every account: what tells of all of them at once is for those alone."""
        return set(ACCOUNTS) <= set(self.principal.accounts)


class Recognised(NamedTuple):
    """Whom a token was found to name."""

    caller: Caller
    claimed: str
    until: datetime


class Held(NamedTuple):
    """An access key as it was read, its secret sealed still."""

    key: AccessKey
    sealed: bytes
    until: datetime = datetime.max.replace(tzinfo=UTC)


class Identity:
    """Resolves callers of one workspace."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._told = vault.settings.access
        self.register = Register(vault)
        self.tokens = Tokens(vault)
        self._oidc = Oidc(vault, self._told.oidc)
        self._assertions = Assertions(vault, self._told.oidc)
        self._lockout = Lockout(vault, self._told.lockout)
        self._kept: Kept[Recognised] = Kept()
        self._keys: Kept[Held] = Kept()
        self._signed: Kept[Held] = Kept()

    def bind_defaults(self, uid: int) -> None:
        """Make the principals of a new workspace and bind an operating-system user to ``operator``."""
        with self._vault.database.ledger() as connection:
            for who in DEFAULTS:
                bound = uid if who.name == "operator" else None
                Principals(connection).add(who, uid=bound, at=self._vault.clock.now())

    def named(self, name: str, speaker: Principal) -> Principal:
        """A principal that a door or a recipe acts as on behalf of ``speaker``.

        Raises:
            NotFound: ``access.no_such_principal``.
        """
        standing = self.register.standing(name)
        if standing is None:
            raise NotFound("access.no_such_principal", "No such principal; `carelake principal list` shows them.")
        return standing.principal.spoken_for_by(speaker)

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
            bound = Principals(connection).of_uid(uid)
            standing = self.register.seen(connection, bound.name) if bound else None
            other = self.register.seen(connection, name) if name is not None else None
        if standing is None:
            raise Unauthenticated(
                "access.unknown_user",
                "This operating-system user is bound to no principal of the workspace; ask its operator.",
            )
        own = standing.principal
        if name is None or name == own.name:
            return own
        if "operator" not in own.roles or own.disabled:
            raise Refused("access.may_not_speak_for", f"{own.name} may not speak for another principal.")
        if other is None:
            raise Unauthenticated(
                "access.unknown_principal", "There is no such principal; `carelake principal list` shows them."
            )
        return replace(other.principal.spoken_for_by(own), lent=True)

    def issue(
        self, principal: Principal, *, purpose: str, account: str, seconds: int, role: str | None = None, **more: Any
    ) -> str:
        """A signed access token; see `Tokens.issue`."""
        return self.tokens.issue(principal, purpose=purpose, account=account, seconds=seconds, role=role, **more)[0]

    def bearer(self, token: str, source: str = "") -> Caller:
        """The caller that a token names: one of this workspace, or of an identity provider in the settings.

        Args:
            source: where the request came from; failures are counted by it and the name that is claimed.

        Raises:
            Unauthenticated: ``access.token`` (expired, forged, for another workspace, or its principal is gone);
                ``access.locked``.
            Unavailable: ``access.jwks``.
        """
        with self._vault.database.ledger_reading() as connection:
            kept = self._kept.get(token, self._now(connection), self._vault.clock.now())
            if kept is not None and not self._lockout.stands(connection, source, kept.claimed):
                return kept.caller
        issuer, subject = _peeked(token)
        claimed = f"{issuer}\x1f{subject}" if isinstance(subject, str) else UNKNOWN
        with self._counted(source, claimed):
            if issuer is None:
                raise not_valid()
            if self._oidc.knows(issuer):
                return self._of_issuer(token, str(issuer))
            with self._vault.database.ledger_reading() as connection:
                # One snapshot for all of it: what is kept was true together with its stamp.
                now = self._now(connection)
                claims = self.tokens.verified(token)
                if self.tokens.revoked_seen(connection, claims):
                    raise not_valid()
                caller = self._of_claims(connection, claims)
            self._kept.put(token, now, Recognised(caller, claimed, claims.expires))
            return caller

    def asserted(self, assertion: str, audience: str, source: str = "") -> tuple[Caller, Client]:
        """The client that signed an assertion, and whom it calls as (SMART Backend Services).

        Args:
            audience: our token endpoint.

        Raises:
            Unauthenticated: ``access.client``, ``access.locked``.
            Unavailable: ``access.jwks``.
        """
        issuer, _ = _peeked(assertion)
        claimed = f"client\x1f{issuer}" if isinstance(issuer, str) else UNKNOWN
        with self._counted(source, claimed):
            if issuer is None:
                raise bad_assertion()
            client = self._assertions.verified(assertion, issuer, audience)
            standing = self.register.standing(client.principal)
            if standing is None:
                raise bad_assertion()
        who = replace(standing.principal, credential=f"client:{client.id}")
        return Caller(who, client.purpose, client.account), client

    def remembers(self, token: str) -> bool:
        """Whether the token was good not long ago; whether it is now, `bearer` tells."""
        return bool(token) and self._kept.has(token)

    def remembers_key(self, key_id: str, source: str = "") -> bool:
        """Whether the last request of an access key from there was signed by it, not long ago.

        Who cannot sign learns nothing by it: to them a key that is in use elsewhere is like one that nobody has.
        """
        return bool(key_id) and self._signed.has(_from(source, key_id))

    def signed(
        self, request: SignedRequest, vouching: Permit, source: str = "", *, once: bool | None = None
    ) -> Caller:
        """The caller whose access key signed a request (AWS Signature Version 4).

        Args:
            vouching: from ``gate.vouching()``; opens the secret.
            once: whether it is taken once; without a word, when its method may change something.

        Raises:
            Unauthenticated: ``access.signature``, ``access.key_expired``, ``access.locked``.
            Unavailable: ``access.no_aws``.
        """
        now = self._vault.clock.now()
        try:
            claim = sigv4.claim_of(request, self._told.sigv4, now)
        except Unauthenticated:
            with self._counted(source, UNKNOWN):
                raise
        key, secret = self._key(vouching, claim.key_id)
        with self._counted(source, claim.key_id):
            genuine = sigv4.same(sigv4.signature_of(request, claim, secret), claim.signature)
            if not genuine or key is None or key.disabled:
                self._signed.forget(_from(source, claim.key_id))
                raise bad_signature()
            if aged(key, self._told, now) == "expired":
                raise Unauthenticated(
                    "access.key_expired",
                    f"The access key is older than {self._told.key_max_days} days (access.key_max_days); "
                    "`carelake principal key rotate` replaces it.",
                )
        self._signed.put(_from(source, claim.key_id), None, Held(key, b""))
        # Whoever sends it again guesses nothing: that is no failed attempt.
        once = sigv4.changes(request) if once is None else once
        seen = f"sigv4\x1f{claim.key_id}\x1f{claim.signature}"
        if once and self._told.sigv4.refuse_replay and not first_time(self._vault, seen, claim.ends):
            raise bad_signature("replayed")
        if stale_note(key, now):
            with self._vault.database.ledger() as connection:
                AccessKeys(self._vault, connection).note_use(key)
            self._keys.forget(key.id)
        until = claim.ends if claim.link else None
        who = self._recognised(key.principal, key.role, f"key:{key.id}", until)
        return Caller(who, key.purpose, key.account)

    @staticmethod
    def nobody() -> Principal:
        """Whoever could not be identified; refusals are recorded under this name."""
        return ANONYMOUS

    @contextmanager
    def _counted(self, source: str, claimed: str) -> Iterator[None]:
        """Refuse while locked; count a failure; forget failures after a success."""
        failed = self._lockout.check(source, claimed)
        try:
            yield
        except Unauthenticated as error:
            until = self._lockout.failed(source, claimed)
            if until is not None:
                error.facts["locked_until"] = iso(until)
            raise
        if failed:
            self._lockout.succeeded(source, claimed)

    def _now(self, connection: Connection) -> tuple[str, int]:
        """What has to be the same for a token to be good as it was: all rights and revocations, and the key ring."""
        return stamp_of(connection), self._vault.keyring.current().file.generation

    def _of_claims(self, connection: Connection, claims: Claims) -> Caller:
        who = self._seen(connection, claims.principal, claims.role, f"token:{claims.id}", claims.expires)
        if claims.scope is not None:
            who = replace(who, narrowed=granted(read_scopes(claims.scope).resources, claims.patient))
        return Caller(who, claims.purpose, claims.account)

    def _of_issuer(self, token: str, issuer: str) -> Caller:
        outside = self._oidc.verified(token, issuer)
        who = self._recognised(outside.principal, "", outside.credential, outside.expires)
        who = replace(who, narrowed=outside.narrowed)
        if outside.roles is not None:
            who = replace(who, roles=tuple(role for role in who.roles if role in outside.roles))
        return Caller(who, outside.purpose, outside.account)

    def _recognised(self, name: str, role: str, credential: str, until: datetime | None) -> Principal:
        with self._vault.database.ledger_reading() as connection:
            return self._seen(connection, name, role, credential, until)

    def _seen(
        self, connection: Connection, name: str, role: str, credential: str, until: datetime | None
    ) -> Principal:
        standing = self.register.seen(connection, name)
        if standing is None:
            raise not_valid()
        who = replace(standing.principal, credential=credential, until=until)
        return replace(who, roles=tuple(held for held in who.roles if held == role)) if role else who

    def _key(self, vouching: Permit, key_id: str) -> tuple[AccessKey | None, str]:
        """The key and its secret; a drawn one where there is none, so that both take their time."""
        with self._vault.database.reading(vouching) as connection:
            keys, state = AccessKeys(self._vault, connection), self._now(connection)
            held = self._keys.get(key_id, state, self._vault.clock.now())
            try:
                if held is None:
                    held = Held(keys.get(key_id), keys.sealed(key_id))
                    self._keys.put(key_id, state, held)
                return held.key, keys.secret(vouching, key_id, held.sealed)
            except NotFound:
                keys.decoy(vouching)
                return None, secrets.token_urlsafe(30)


def _from(source: str, key_id: str) -> str:
    return f"{source}\x1f{key_id}"


def _peeked(token: str) -> tuple[object, object]:
    """What a token claims of its issuer and subject; nothing of it is believed yet.

    A text that is no token at all claims nothing, and fails where it is verified.
    """
    if len(token) > _LONGEST_TOKEN or not _COMPACT.fullmatch(token):
        return None, None
    try:
        said = jwt.decode(token, options={"verify_signature": False})
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError, OverflowError):
        return None, None
    return said.get("iss"), said.get("sub")
