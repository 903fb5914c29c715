"""``access``: decisions explained and tested; grants."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from carelake.access.actions import actions, resolved
from carelake.access.cases import read_cases, run_case
from carelake.access.explain import PURPOSES, explained
from carelake.access.glass import checked_reason
from carelake.access.grants import Grant, Grants
from carelake.access.standing import Register
from carelake.apps.cli.reasons import bound, show_reasoned
from carelake.apps.cli.session import Options, Session, answer, existing, note
from carelake.apps.cli.tables import show
from carelake.apps.cli.who import changing, sight
from carelake.core.clock import iso
from carelake.core.errors import Invalid
from carelake.fhir.definitions import is_resource

__all__ = ["approve", "ask", "explain", "grant", "grants", "known", "revoke", "test"]

_FAILED = 1


def explain(session: Session, *, json_out: bool, name: str, action: str, target: str, purpose: str) -> None:
    """Say what the gate would decide in ``--account``, why, and what would change it."""
    workspace = session.workspace
    account = session.options.account or "production"
    with sight(session, f"principal/{name}") as (connection, seen):
        seen.one(name)
        standing = Register(workspace.vault).seen(connection, name)
        assert standing is not None
        types = (target,) if is_resource(target) else ()
        verdict = workspace.gate.judge.seen(
            connection, standing.principal, resolved(action, target), account, purpose, types
        )
    said = explained(workspace.gate.policies, verdict, target)
    if json_out:
        answer(said)
        return
    note(f"{'allowed' if said['allowed'] else 'refused'}: {'; '.join(said['reasons'])}")
    for one in said["policies"]:
        note(f"  {one['effect']} by {one['file']}, line {one['line']}: {one['title']}")
    for one in said["changes"]:
        note(f"  would change it: {one['change']} {', '.join(one['to'])}".rstrip())


def known(options: Options, *, json_out: bool) -> None:
    """List actions."""
    found = [
        {"action": name, "title": one.title, "groups": list(one.groups), "identified": one.identified}
        for name, one in actions().items()
    ]
    if json_out:
        answer(found)
    else:
        show(["action", "groups", "identified", "title"], found)


def test(session: Session, *, json_out: bool, folder: Path | None) -> int:
    """Run policy tests; 1 when one fails."""
    workspace = session.workspace
    own = workspace.vault.root / "policies" / "tests"
    with workspace.enter(session.caller(), "access:read", "access"):
        cases = read_cases(None if folder is None else existing(folder))
        if folder is None and own.is_dir():
            cases += read_cases(own)
        results = [run_case(workspace.gate.policies, *case) for case in cases]
    failed = [one for one in results if not one.passed]
    found = [
        {"file": one.file, "case": one.number, "who": one.case.who, "expected": one.case.expect, "said": one.said}
        for one in failed
    ]
    if json_out:
        answer({"cases": len(results), "failed": len(failed), "failures": found})
    else:
        show(["file", "case", "who", "expected", "said"], found)
        note(f"{len(results)} cases, {len(failed)} failed.")
    return _FAILED if failed else 0


def ask(session: Session, *, json_out: bool, to: str, action: str, reason: str, days: int) -> None:
    """Ask for a grant in ``--account`` for ``--purpose``."""
    workspace, caller = session.workspace, session.caller()
    if session.options.purpose not in PURPOSES:
        raise Invalid("access.grant", f"Say what it is for: --purpose with one of {', '.join(PURPOSES)}.")
    told, vault = checked_reason(reason), workspace.vault
    made = Grant(
        vault.ids.new(), to, action, caller.account, caller.purpose, days, caller.principal.name, vault.clock.now()
    )
    with changing(session, caller, "access:request", f"grant/{made.id}") as (permit, tx):
        Grants(tx).ask(
            made,
            most_days=workspace.settings.access.grant_max_days,
            seal=lambda name: vault.sealer.seal(permit, tx, "", bound("grant", name), told.encode()),
        )
        permit.log.wrote(f"grant:{made.id}", vault.keyring.reference(permit, "reason", told.encode()))
        permit.log.note(change="request-grant", to=to, grant=action, days=str(days))
        workspace.outbox.publish(tx, made.account, "access.grant_requested", f"grant:{made.id}", {})
    _tell(session, json_out, made, "Requested; another principal approves it.")


def approve(session: Session, *, json_out: bool, grant: str) -> None:
    """Approve a grant."""
    workspace, caller = session.workspace, session.caller()
    with changing(session, caller, "access:approve", f"grant/{grant}") as (permit, tx):
        now = workspace.vault.clock.now()
        made = Grants(tx).approve(grant, caller.principal, account=permit.account, now=now)
        permit.log.wrote(f"grant:{made.id}")
        permit.log.note(change="approve-grant", expires=iso(made.expires) if made.expires else "")
        workspace.outbox.publish(tx, made.account, "access.grant_approved", f"grant:{made.id}", {})
    _tell(session, json_out, made, "Approved.")


def revoke(session: Session, *, json_out: bool, grant: str) -> None:
    """Revoke a grant."""
    workspace, caller = session.workspace, session.caller()
    with changing(session, caller, "access:approve", f"grant/{grant}") as (permit, tx):
        now = workspace.vault.clock.now()
        made = Grants(tx).revoke(grant, caller.principal, account=permit.account, now=now)
        permit.log.wrote(f"grant:{made.id}")
        permit.log.note(change="revoke-grant")
        workspace.outbox.publish(tx, made.account, "access.grant_revoked", f"grant:{made.id}", {})
    _tell(session, json_out, made, "Revoked.")


def grants(session: Session, *, json_out: bool) -> None:
    """List grants, without their reasons."""
    with sight(session, "grants") as (connection, seen):
        found = [_plain(session, one) for one in Grants(connection).all() if one.account in seen.accounts]
    if json_out:
        answer(found)
    else:
        show(["id", "principal", "action", "account", "purpose", "state", "expires"], found)


def grant(session: Session, *, json_out: bool, grant: str) -> None:
    """Show a grant and its reason."""
    show_reasoned(session, "grant", grant, action="access:approve", plain=_plain, json_out=json_out)


def _tell(session: Session, json_out: bool, made: Grant, words: str) -> None:
    if json_out:
        answer(_plain(session, made))
    else:
        note(f"{words} {made.id}")


def _plain(session: Session, one: Grant) -> dict[str, Any]:
    return {
        "id": one.id,
        "principal": one.principal,
        "action": one.action,
        "account": one.account,
        "purpose": one.purpose,
        "days": one.days,
        "state": one.state(session.workspace.vault.clock.now()),
        "requested_by": one.requested_by,
        "approved_by": one.approved_by,
        "expires": iso(one.expires) if one.expires else None,
        "revoked_by": one.revoked_by,
    }
