"""The question behind each entry of the gate: what a principal may now, by the rights that are written down now."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import Connection

from carelake.access.consents import CONSENT, resolved
from carelake.access.narrowed import left_of
from carelake.access.policy import Decision, Policies, Request
from carelake.access.principals import Principal
from carelake.access.stamp import stamp_of
from carelake.access.standing import Register, Standing
from carelake.core.clock import Clock, iso
from carelake.vault.workspace import Vault

__all__ = ["Judge", "Verdict"]

_KEPT = 4096


@dataclass(frozen=True, slots=True)
class Verdict:
    """A decision, and what it was made of.

    Attributes:
        request: as it was put to the policies; its principal is the one of the register, not the caller's word.
        ends: when what it rests on ends: the caller's session, the grant, the emergency; None when it rests on roles.
        used: whether grants or a broken glass were needed for it.
        types: the FHIR types that it was asked for, and those of them that are denied.
    """

    decision: Decision
    request: Request
    ends: datetime | None
    used: bool = False
    types: tuple[str, ...] = ()
    denied: tuple[str, ...] = ()


class Judge:
    """Asks the policies about principals as they stand at this moment."""

    def __init__(self, vault: Vault, policies: Policies) -> None:
        self._clock: Clock = vault.clock
        self._register = Register(vault)
        self._vault = vault
        self._policies = policies
        self._known: dict[tuple[object, ...], tuple[str, Verdict]] = {}

    def judge(
        self, principal: Principal, action: str, account: str, purpose: str, types: Sequence[str] = ()
    ) -> Verdict:
        """The verdict for a caller, by one consistent reading of all rights.

        Args:
            types: FHIR types that the action is about: each is decided, and all must be allowed.
        """
        asked = (principal, action, account, purpose, tuple(types))
        with self._vault.database.ledger_reading() as connection:
            stamp = stamp_of(connection)
            known = self._known.get(asked)
            if known is not None and known[0] == stamp and not _over(principal, self._clock):
                return known[1]
            verdict = self.seen(connection, principal, action, account, purpose, types)
            standing = self._register.seen(connection, principal.name)
        # What was given for a time changes with the time alone, and a session ends.
        if standing is not None and not (standing.grants or standing.glasses) and not _over(principal, self._clock):
            if len(self._known) >= _KEPT:
                self._known.clear()
            self._known[asked] = (stamp, verdict)
        return verdict

    def seen(
        self,
        connection: Connection,
        principal: Principal,
        action: str,
        account: str,
        purpose: str,
        types: Sequence[str] = (),
    ) -> Verdict:
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
        asked = [Request(who, action, account, purpose, type=one) for one in types or ("",)]
        found = [self._consented(_narrowed(self._decide(standing, one, now))) for one in asked]
        return _together(found, tuple(types))

    def _consented(self, found: Verdict) -> Verdict:
        """With what is asked of consents: what holds without one, and who may be meant by it."""
        decision, asked = found.decision, found.request
        if CONSENT not in decision.scope:
            return found
        who = asked.principal
        names = {who.name, *(f"role:{role}" for role in who.roles), f"account:{asked.account}", "*"}
        scope = resolved(self._vault.settings.access.consent, decision.scope, asked.purpose, names)
        return replace(found, decision=replace(decision, scope=scope))

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
        request = replace(standing.request(who, bare.action, account, purpose, now), type=bare.type)
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


def _narrowed(found: Verdict) -> Verdict:
    """What the caller's credential leaves of a verdict; a grant or a broken glass widens policy, never a token."""
    asked = found.request
    left = left_of(found.decision, asked.principal.narrowed, asked.action, asked.type)
    return found if left is found.decision else replace(found, decision=left)


def _over(principal: Principal, clock: Clock) -> bool:
    return principal.until is not None and clock.now() >= principal.until


def _operates(speaker: Standing | None) -> bool:
    return speaker is not None and "operator" in speaker.principal.roles


def _known(principal: Principal, standing: Standing | None) -> Principal:
    if standing is None:
        return replace(principal, roles=(), groups=(), accounts=())
    return standing.as_known_by(principal)


def _together(found: Sequence[Verdict], types: tuple[str, ...]) -> Verdict:
    """One verdict of those over several types: all are allowed or none is, and every scope holds for all of them."""
    if len(found) == 1:
        denied = () if found[0].decision.allowed else types
        return replace(found[0], types=types, denied=denied)
    refused = [one for one in found if not one.decision.allowed]
    decided = [one.decision for one in refused or found]
    decision = Decision(
        not refused,
        _each(one.reasons for one in decided),
        tuple(sorted(_each(one.scope for one in decided))),
        _each(one.policies for one in decided),
        any(one.failed for one in decided),
    )
    ends = min((one.ends for one in found if one.ends is not None), default=None)
    denied = tuple(one.request.type for one in refused)
    used = any(one.used for one in found)
    return Verdict(decision, replace(found[0].request, type=""), ends, used, types, denied)


def _each(lists: Iterable[Sequence[str]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(one for found in lists for one in found))


def _given(request: Request) -> list[str]:
    said = [f"grant {name}{_until(request.ends)}" for name in request.grants]
    return said + ([f"break-glass {request.glass}{_until(request.glass_ends)}"] if request.glass else [])


def _until(end: datetime | None) -> str:
    return f" until {iso(end)}" if end else ""
