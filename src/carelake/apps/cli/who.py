"""``principal``, ``token``, ``access``: who may do what."""

from __future__ import annotations

from typing import Any

from carelake.access.principals import Principal, Principals
from carelake.apps.cli.session import Session, answer, note
from carelake.apps.cli.tables import show

__all__ = ["add", "disable", "explain", "principals", "token"]


def principals(session: Session, *, json_out: bool) -> None:
    """List principals."""
    workspace = session.workspace
    with (
        workspace.enter(session.caller(), "access:manage", "principals") as permit,
        workspace.vault.database.reading(permit) as connection,
    ):
        found = [_plain(who) for who in Principals(connection).all()]
    if json_out:
        answer(found)
    else:
        show(["name", "kind", "roles", "accounts", "disabled"], found)


def add(session: Session, *, json_out: bool, name: str, roles: list[str], accounts: list[str]) -> None:
    """Add a principal."""
    workspace, caller = session.workspace, session.caller()
    who = Principal(name, "person", tuple(roles), tuple(accounts))
    with (
        workspace.enter(caller, "access:manage", f"principal/{name}") as permit,
        workspace.vault.database.transaction(permit) as tx,
    ):
        Principals(tx).add(who, by=caller.principal)
    if json_out:
        answer(_plain(who))
    else:
        note(f"Added {name}.")


def disable(session: Session, *, json_out: bool, name: str) -> None:
    """Disable a principal."""
    workspace, caller = session.workspace, session.caller()
    with (
        workspace.enter(caller, "access:manage", f"principal/{name}") as permit,
        workspace.vault.database.transaction(permit) as tx,
    ):
        Principals(tx).disable(name, by=caller.principal)
    if json_out:
        answer({"name": name, "disabled": True})
    else:
        note(f"Disabled {name}.")


def token(session: Session, *, json_out: bool, role: str | None, seconds: int | None) -> None:
    """Issue a token for the principal of ``--as``; the one who types must be allowed to issue it."""
    workspace, caller = session.workspace, session.caller()
    speaker = workspace.identity.local_user()
    lifetime = seconds or workspace.settings.access.token_seconds
    with workspace.gate.enter(
        speaker, "token:issue", f"principal/{caller.principal.name}", caller.purpose, account=caller.account
    ):
        text = workspace.identity.issue(
            caller.principal, purpose=caller.purpose, account=caller.account, seconds=lifetime, role=role
        )
    if json_out:
        answer({"token": text, "principal": caller.principal.name, "purpose": caller.purpose, "seconds": lifetime})
    else:
        print(text)  # noqa: T201 - the answer itself, for $(carelake token ...)


def explain(session: Session, *, json_out: bool, name: str, action: str, target: str, purpose: str) -> None:
    """Say what the gate would decide."""
    workspace, caller = session.workspace, session.caller()
    with (
        workspace.enter(caller, "access:manage", f"principal/{name}") as permit,
        workspace.vault.database.reading(permit) as connection,
    ):
        who = Principals(connection).get(name)
    decision = workspace.gate.explain(who, action, caller.account, purpose)
    said = {
        "principal": name,
        "action": action,
        "target": target,
        "purpose": purpose,
        "account": caller.account,
        "allowed": decision.allowed,
        "reasons": list(decision.reasons),
        "scope": list(decision.scope),
    }
    if json_out:
        answer(said)
    else:
        note(f"{'allowed' if decision.allowed else 'refused'}: {'; '.join(decision.reasons)}")


def _plain(who: Principal) -> dict[str, Any]:
    return {
        "name": who.name,
        "kind": who.kind,
        "roles": list(who.roles),
        "accounts": list(who.accounts),
        "disabled": who.disabled,
    }
