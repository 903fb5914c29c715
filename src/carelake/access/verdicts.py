"""The question behind each entry of the gate: what a principal may now, by the rights that are written down now."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import Connection

from carelake.access.policy import Decision, Policies, Request
from carelake.access.principals import Principal
from carelake.access.standing import Register, Standing
from carelake.core.clock import Clock, iso
from carelake.vault.workspace import Vault

__all__ = ["Judge", "Verdict"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """A decision, and what it was made of.

    Attributes:
        request: as it was put to the policies; its principal is the one of the register, not the caller's word.
        ends: when what it rests on ends: the caller's session, the grant, the emergency; None when it rests on roles.
        used: whether grants or a broken glass were needed for it.
    """

    decision: Decision
    request: Request
    ends: datetime | None
    used: bool = False


class Judge:
    """Asks the policies about principals as they stand at this moment."""

    def __init__(self, vault: Vault, policies: Policies) -> None:
        self._clock: Clock = vault.clock
        self._register = Register(vault)
        self._vault = vault
        self._policies = policies

    def judge(self, principal: Principal, action: str, account: str, purpose: str) -> Verdict:
        """The verdict for a caller, by one consistent reading of all rights."""
        with self._vault.database.ledger_reading() as connection:
            return self.seen(connection, principal, action, account, purpose)

    def seen(self, connection: Connection, principal: Principal, action: str, account: str, purpose: str) -> Verdict:
        """As `judge`, as an open transaction sees rights."""
        now = self._clock.now()
        standing = self._register.seen(connection, principal.name)
        who = _known(principal, standing)
        if principal.via:
            speaker = self._register.seen(connection, principal.via)
            # Nobody is lent a voice by one who may not speak any more.
            if (speaker is not None and speaker.principal.disabled) or (principal.lent and not _operates(speaker)):
                who = replace(who, disabled=True)
        if principal.until is not None and now >= principal.until:
            return Verdict(Decision(False, ("the session has ended",)), Request(who, action, account, purpose), None)
        return self._decide(standing, Request(who, action, account, purpose), now)

    def _decide(self, standing: Standing | None, bare: Request, now: datetime) -> Verdict:
        # First without what was given for a time, so that an act names a grant only when it was needed.
        plain = self._policies.decide(bare)
        ends = bare.principal.until
        if standing is None or not (standing.grants or standing.glasses):
            return Verdict(plain, bare, ends)
        request = self._given(standing, bare, now)
        if plain.allowed or not (request.grants or request.glass):
            return Verdict(plain, request, ends)
        decision = self._policies.decide(request)
        if not decision.allowed:
            return Verdict(decision, request, ends)
        ends = min((end for end in (ends, *self._bounds(request)) if end is not None), default=None)
        named = replace(decision, reasons=(*decision.reasons, *_given(request)))
        return Verdict(named, request, ends, used=True)

    def _given(self, standing: Standing, bare: Request, now: datetime) -> Request:
        """With what was given for a time; an emergency access counts while its owner still may begin one."""
        who, account, purpose = bare.principal, bare.account, bare.purpose
        request = standing.request(who, bare.action, account, purpose, now)
        if not request.glass:
            return request
        begin = replace(standing.request(who, "access:break-glass", account, purpose, now), glass="")
        if self._policies.decide(begin).allowed:
            return request
        return replace(request, glass="", glass_ends=None)

    def _bounds(self, request: Request) -> tuple[datetime | None, ...]:
        """The ends of what an allowed request rests on: of its grants alone, or of the emergency too."""
        if request.glass and not self._policies.decide(replace(request, glass="")).allowed:
            return request.ends, request.glass_ends
        return (request.ends,)


def _operates(speaker: Standing | None) -> bool:
    return speaker is not None and "operator" in speaker.principal.roles


def _known(principal: Principal, standing: Standing | None) -> Principal:
    if standing is None:
        return replace(principal, roles=(), groups=(), accounts=())
    return standing.as_known_by(principal)


def _given(request: Request) -> list[str]:
    said = [f"grant {name}{_until(request.ends)}" for name in request.grants]
    return said + ([f"break-glass {request.glass}{_until(request.glass_ends)}"] if request.glass else [])


def _until(end: datetime | None) -> str:
    return f" until {iso(end)}" if end else ""
