"""``upgrade`` and ``doctor``."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection

from carelake.access.identity import Caller
from carelake.apps.cli.session import Options, Session, answer, note
from carelake.apps.cli.tables import show
from carelake.apps.wiring import CONFIG, Workspace
from carelake.audit.acts import ActHeader, write
from carelake.core.errors import Refused
from carelake.vault.formats import FORMAT
from carelake.vault.upgrading import Plan, plan, upgraded

__all__ = ["doctor", "upgrade"]

_ACTION = "workspace:upgrade"


def upgrade(options: Options, *, json_out: bool, dry_run: bool) -> None:
    """Bring a workspace up to this version."""
    root = Session.root(options)
    workspace = Workspace.open(root, os.environ, upgrading=True)
    try:
        found = plan(workspace.vault)
        if not dry_run and not found.nothing:
            _upgrade(workspace, options, found)
    finally:
        workspace.vault.close()
    # Also where the schema is right: an upgrade that was killed here has left an index that is built in part.
    built = 0 if dry_run else _finish(options)
    _tell(found, built, json_out=json_out, dry_run=dry_run)


def _finish(options: Options) -> int:
    """Open it as everybody does, build the index that migrations dropped, and seal the acts.

    Answers how many resources were walked.
    """
    from carelake.apps.cli.consents import project_all
    from carelake.apps.cli.indexing import build

    session = Session(options)
    built = 0
    try:
        for account in session.caller().principal.accounts:
            caller = replace(session.caller(), account=account)
            if _may(session.workspace, caller, "record:reindex"):
                built += build(session, caller).resources
                project_all(session, caller, unless_done=True)
    finally:
        session.close()
    return built


def _may(workspace: Workspace, caller: Caller, action: str) -> bool:
    return workspace.gate.explain(caller.principal, action, caller.account, caller.purpose).allowed


def _upgrade(workspace: Workspace, options: Options, found: Plan) -> None:
    vault = workspace.vault
    with upgraded(vault, workspace.gate.upgrading(), vault.root / CONFIG) as tx:
        _allowed(workspace, options, tx, found)


def _allowed(workspace: Workspace, options: Options, tx: Connection, found: Plan) -> None:
    """Who types, whether they may, and the act: now that there is a schema to ask and to write it in."""
    purpose = options.purpose if options.purpose is not None else os.environ.get("CARELAKE_PURPOSE")
    caller = workspace.local(options.as_, purpose, options.account)
    decision = workspace.gate.explain(caller.principal, _ACTION, caller.account, caller.purpose)
    if not decision.allowed:
        raise Refused(
            "access.denied",
            f"{caller.principal.name} may not upgrade the workspace: {'; '.join(decision.reasons)}. It is as it was.",
            reasons=list(decision.reasons),
        )
    facts = {
        "reasons": list(decision.reasons),
        "from_format": found.rows,
        "to_format": FORMAT,
        "migrations": [number for number, _ in found.migrations],
    }
    clock, ids = workspace.vault.clock, workspace.vault.ids
    told = (caller.account, caller.purpose, _ACTION, "workspace")
    write(tx, ActHeader(ids.new(), caller.principal.name, *told), "done", clock, facts)


def _tell(found: Plan, built: int, *, json_out: bool, dry_run: bool) -> None:
    said: dict[str, Any] = {
        "from": min(found.settings, found.rows),
        "to": FORMAT,
        "done": not dry_run and not found.nothing,
        "migrations": [{"number": number, "title": title} for number, title in found.migrations],
    }
    if json_out:
        answer(said)
    elif found.nothing and built:
        note(f"The index was not whole: {built} resources are indexed now. The workspace has format {FORMAT}.")
    elif found.nothing:
        note(f"Nothing to do: the workspace has format {FORMAT}, and every migration.")
    else:
        note(f"{'Would go' if dry_run else 'Went'} from format {said['from']} to {FORMAT}.")
        show(["number", "title"], said["migrations"])


def doctor(options: Options, *, json_out: bool) -> int:
    """Check everything that a workspace leans on."""
    from carelake.apps.cli.checkup import examine

    found = examine(Session.root(options), os.environ, options)
    failed = any(one.state == "fail" for one in found)
    if json_out:
        answer({"healthy": not failed, "checks": [one.as_json() for one in found]})
    else:
        show(["state", "check", "found", "do"], [one.as_json() for one in found])
    return int(failed)
