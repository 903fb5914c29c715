"""Proof that it is still they: who asks for something grave shows a credential that was given a moment ago."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt

from carelake.access.identity import Identity
from carelake.access.principals import Principal
from carelake.access.tokens import not_valid
from carelake.core.permit import Permit

__all__ = ["Proof", "caller_of", "prove"]

_AHEAD = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Proof:
    """Who showed themselves, by what, and when that was given to them.

    Attributes:
        credential: ``token:ID``, ``oidc:DIGEST``.
        at: when they signed in, as far as the token tells it (``auth_time``), or when it was issued.
    """

    principal: str
    credential: str
    at: datetime

    def fresh(self, now: datetime, seconds: int) -> bool:
        """Whether it was given not longer ago than that, nor in a time to come."""
        return now - timedelta(seconds=seconds) <= self.at <= now + _AHEAD


def prove(identity: Identity, token: str) -> Proof:
    """The proof that an access token is: one of this workspace, or of an identity provider in the settings.

    Raises:
        Unauthenticated: as `Identity.bearer`; ``access.token`` when it does not tell when it was issued.
    """
    caller = identity.bearer(token)
    said: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})  # `bearer` has verified it
    when = said.get("auth_time", said.get("iat"))
    if not isinstance(when, int | float) or isinstance(when, bool):
        raise not_valid()
    try:
        at = datetime.fromtimestamp(when, UTC)
    except (OverflowError, ValueError, OSError):
        raise not_valid() from None
    return Proof(caller.principal.name, caller.principal.credential, at)


def caller_of(permit: Permit) -> Principal | None:
    """The principal that a permit was given to, with who speaks for it and its credential; None for one of no gate.

    The log is bound to the permit by its seal, so that nobody can lend it another's.
    """
    verdict = getattr(permit.log, "verdict", None)
    request = getattr(verdict, "request", None)
    found = getattr(request, "principal", None)
    return found if isinstance(found, Principal) else None
