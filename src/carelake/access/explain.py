"""Why, and what would have to be different: a verdict told in full, with the changes that turn a no into a yes.

The changes are found by asking the policies again with one thing different at a time; nothing is guessed.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from carelake.access.actions import actions
from carelake.access.glass import EMERGENCY
from carelake.access.policy import Policies, Request
from carelake.access.principals import ROLES
from carelake.access.purposes import PURPOSES
from carelake.access.verdicts import Verdict
from carelake.vault.places import ACCOUNTS

__all__ = ["PURPOSES", "explained"]


def explained(policies: Policies, verdict: Verdict, target: str) -> dict[str, Any]:
    """A verdict as a JSON object; ``changes`` is empty when it is a yes."""
    request, decision = verdict.request, verdict.decision
    return {
        "principal": request.principal.name,
        "roles": list(request.principal.roles),
        "action": request.action,
        "target": target,
        "purpose": request.purpose,
        "account": request.account,
        "allowed": decision.allowed,
        "reasons": list(decision.reasons),
        "policies": [_policy(policies, name) for name in decision.policies],
        "scope": list(decision.scope),
        "grants": list(request.grants),
        "break_glass": request.glass or None,
        "changes": [] if decision.allowed else _changes(policies, request),
    }


def _policy(policies: Policies, name: str) -> dict[str, Any]:
    one = policies.statements[name]
    effect = "permit" if one.permits else "forbid"
    return {"id": one.id, "title": one.title, "file": one.file, "line": one.line, "effect": effect}


def _changes(policies: Policies, request: Request) -> list[dict[str, Any]]:
    """Each kind of change that alone would do, the smallest first."""
    if request.action not in actions():
        return [{"change": "action", "to": _alike(request.action)}]
    who = request.principal
    found: list[dict[str, Any]] = []
    if who.disabled and _would(policies, replace(request, principal=replace(who, disabled=False))):
        found.append({"change": "enable the principal", "to": []})
    purposes = [one for one in PURPOSES if _would(policies, replace(request, purpose=one))]
    roles = [one for one in sorted(ROLES) if _would(policies, replace(request, principal=_holding(request, one)))]
    accounts = [one for one in ACCOUNTS if _would(policies, replace(request, account=one))]
    joined = replace(who, accounts=tuple(dict.fromkeys((*who.accounts, request.account))))
    found += [{"change": "purpose", "to": purposes}] if purposes else []
    found += [{"change": "role", "to": roles}] if roles else []
    found += [{"change": "account", "to": accounts}] if accounts else []
    if request.account not in who.accounts and _would(policies, replace(request, principal=joined)):
        found.append({"change": "membership", "to": [request.account]})
    if _would(policies, replace(request, grants=("new",))):
        found.append({"change": "grant", "to": [request.action]})
    if _would(policies, replace(request, glass="new", purpose=EMERGENCY)):
        found.append({"change": "break-glass", "to": [EMERGENCY]})
    return found or [{"change": "nothing alone", "to": []}]


def _would(policies: Policies, request: Request) -> bool:
    return policies.decide(request).allowed


def _holding(request: Request, role: str) -> Any:
    """The principal with that role alone: other roles may be what a guardrail forbids by."""
    return replace(request.principal, roles=(role,))


def _alike(action: str) -> list[str]:
    room = action.partition(":")[0]
    return [name for name in actions() if name.partition(":")[0] == room]
