"""``key ...``: work on the keys. Each names its key as the target, and the key's account as where it happens."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from typing import Any

import msgspec
from sqlalchemy import func, select

from carelake.access.actions import actions as known_actions
from carelake.access.principals import Principal, within
from carelake.apps.cli.session import Session, answer, note
from carelake.apps.cli.tables import show
from carelake.audit.key_use import KeyUse, stale, use_report
from carelake.core.errors import Invalid
from carelake.core.permit import Permit
from carelake.store.symbols import kinds_of
from carelake.store.tables import resource_version, symbol
from carelake.vault import destruction, rotation
from carelake.vault.key_listing import Impact, KeyInfo, impact, listing
from carelake.vault.key_names import account_of_key, split, versions_of
from carelake.vault.places import ACCOUNTS
from carelake.vault.ring import ROOT, KeyPolicy

__all__ = [
    "accept",
    "cancel",
    "changed",
    "confirm",
    "destroy",
    "disable",
    "enable",
    "listing_of",
    "policy",
    "rewrap",
    "rotate",
]


def listing_of(session: Session, *, json_out: bool, stale_only: bool) -> None:
    """List keys."""
    workspace, vault = session.workspace, session.workspace.vault
    settings = workspace.settings.keys
    with workspace.enter(session.caller(), "key:list", "keys") as permit:
        found = listing(permit, vault.keyring, vault.clock, settings)
        with vault.database.reading(permit) as connection:
            uses = use_report(connection)
    rows = []
    for key in found:
        use = uses.get(key.label)
        why = stale(key, use, vault.clock, unused_days=settings.unused)
        if why or not stale_only:
            rows.append(_row(key, use, why))
    if json_out:
        answer(rows)
    else:
        show(["key", "state", "age_days", "rotates_at", "last_used", "uses", "stale"], rows)


def _row(key: KeyInfo, use: KeyUse | None, why: list[str]) -> dict[str, Any]:
    told = asdict(key)
    used = use or KeyUse()
    return {
        "key": key.label,
        **told,
        "policy": msgspec.to_builtins(key.policy) if key.policy else None,
        "first_used": used.first or None,
        "last_used": used.last or None,
        "uses": used.uses,
        "by_action": used.by_action,
        "stale": why,
    }


def rotate(session: Session, *, json_out: bool, name: str | None, all_: bool, due: bool) -> None:
    """Rotate one key, those that are due, or all."""
    vault = session.workspace.vault
    if sum((name is not None, due, all_ and name is None)) != 1:
        raise Invalid("apps.key_rotate", "Name one key, or --due, or --all for everything; nothing was rotated.")
    if due:
        names, below = rotation.due(vault.keyring, vault.clock, session.workspace.settings.keys), False
    else:
        names, below = ([name] if name is not None else list(ACCOUNTS)), all_
    done: list[dict[str, Any]] = []
    for one in names:
        with _managing(session, one) as permit:
            done += map(asdict, rotation.rotate(permit, vault.keyring, vault.clock, one, below=below))
    _answer(json_out, done, [f"{one['key']} is at version {one['version']}." for one in done] or ["Nothing is due."])


def disable(session: Session, *, json_out: bool, name: str) -> None:
    """Disable a key."""
    vault = session.workspace.vault
    with _managing(session, name) as permit:
        destruction.disable(permit, vault.keyring, vault.clock, name)
    _answer(json_out, {"key": name, "state": "disabled"}, [f"{name} is disabled, in every process."])


def enable(session: Session, *, json_out: bool, name: str) -> None:
    """Enable a key."""
    vault = session.workspace.vault
    with _managing(session, name) as permit:
        destruction.enable(permit, vault.keyring, vault.clock, name)
    _answer(json_out, {"key": name, "state": "enabled"}, [f"{name} is enabled."])


def destroy(
    session: Session, *, json_out: bool, name: str | None, days: int | None, dry_run: bool, due: bool
) -> None:
    """Count, ask for, or carry out destructions."""
    if (name is None) != due or (due and dry_run):
        raise Invalid("apps.key_destroy", "Name one key, or --due for those whose time has come.")
    if name is None:
        _destroy_due(session, json_out=json_out)
        return
    vault = session.workspace.vault
    with _managing(session, name, "key:destroy", job=not dry_run) as permit:
        lost = _impact(session, permit, name)
        if dry_run:
            _answer(json_out, {"key": name, "impact": lost}, [_words(name, lost)])
            return
        wanted = session.workspace.settings.keys.waiting if days is None else days
        asked = destruction.ask(permit, vault.keyring, vault.clock, name, days=wanted)
    said = {**asdict(asked), "state": "asked", "impact": lost}
    _answer(
        json_out,
        said,
        [_words(name, lost), f"Asked for. Another principal confirms it: carelake key confirm {name}"],
    )


def _destroy_due(session: Session, *, json_out: bool) -> None:
    vault, caller = session.workspace.vault, session.caller()
    with session.workspace.enter(caller, "key:destroy", "keys", job=True) as permit:
        within(Principal("", "service", (), ACCOUNTS), caller.principal)  # keys of any account may be due
        gone = destruction.destroy_due(vault.keyring, vault.clock)
        for label in gone:
            permit.log.key(label)
        permit.log.count(keys_destroyed=len(gone))
    _answer(json_out, {"destroyed": list(gone)}, [f"{len(gone)} versions of keys were destroyed."])


def confirm(session: Session, *, json_out: bool, name: str) -> None:
    """Confirm a destruction."""
    vault = session.workspace.vault
    with _managing(session, name, "key:destroy") as permit:
        found = destruction.confirm(permit, vault.keyring, vault.clock, name)
    said = {**asdict(found), "state": "pending"}
    _answer(json_out, said, [f"{name} will be destroyed on {found.due}; until then nobody uses it."])


def cancel(session: Session, *, json_out: bool, name: str) -> None:
    """Call a destruction off."""
    vault = session.workspace.vault
    with _managing(session, name, "key:destroy") as permit:
        destruction.cancel(permit, vault.keyring, vault.clock, name)
    _answer(json_out, {"key": name, "state": "kept"}, [f"{name} is kept."])


def policy(
    session: Session,
    *,
    json_out: bool,
    name: str,
    actions: Sequence[str],
    purposes: Sequence[str],
    principals: Sequence[str],
    clear: bool,
) -> None:
    """Show or set a key's policy."""
    vault = session.workspace.vault
    wanted = KeyPolicy(tuple(actions), tuple(purposes), tuple(principals))
    unknown = [one for one in actions if one not in known_actions()]
    if unknown or (clear and wanted != KeyPolicy()):
        raise Invalid("apps.key_policy", "Name actions that the gate knows, or --clear alone; nothing was changed.")
    if not clear and wanted == KeyPolicy():
        with session.workspace.enter(_caller(session, name), "key:list", _target(name)):
            file = vault.keyring.current().file
            if name != ROOT:
                versions_of(file, name, None)
            wanted = file.policies.get(name, wanted)
    else:
        with _managing(session, name) as permit:
            destruction.set_policy(permit, vault.keyring, vault.clock, name, wanted)
    told: dict[str, list[str]] = msgspec.to_builtins(wanted) if wanted != KeyPolicy() else {}
    said = {"key": name, "policy": told or None}
    bounds = [f"{what}: {', '.join(values)}" for what, values in told.items() if values]
    _answer(json_out, said, bounds or [f"{name} is bounded by permits only."])


def rewrap(session: Session, *, json_out: bool) -> None:
    """Wrap patients' keys anew."""
    vault = session.workspace.vault
    account = session.caller().account
    with _managing(session, f"{account}/patient") as permit:
        done = rotation.rewrap(permit, vault.keyring, vault.database, vault.clock)
    _answer(json_out, {"account": account, "rewrapped": done}, [f"{done} patients' keys were wrapped anew."])


def changed(session: Session, *, json_out: bool) -> None:
    """Show which plain files differ from what was accepted."""
    workspace = session.workspace
    with workspace.enter(session.caller(), "status:read", "workspace"):
        found = [{**asdict(one), "reason": one.reason} for one in workspace.changed]
    _answer(json_out, found, [one["reason"] + "." for one in found] or ["As accepted."])


def accept(session: Session, *, json_out: bool) -> None:
    """Accept the plain files as they are."""
    workspace = session.workspace
    caller = replace(session.caller(), account="security")
    with workspace.enter(caller, "settings:accept", "workspace") as permit:
        found = [asdict(one) for one in workspace.accept(permit)]
    _answer(json_out, found, [f"{one['name']} ({one['how']}) is accepted." for one in found] or ["As accepted."])


def _caller(session: Session, name: str) -> Any:
    """Who types, in the key's account."""
    return replace(session.caller(), account=account_of_key(name if name == ROOT else split(name)[0]))


def _target(name: str) -> str:
    return "keys" if name == ROOT else f"key/{split(name)[0]}"


def _managing(
    session: Session, name: str, action: str = "key:manage", *, job: bool = True
) -> AbstractContextManager[Permit]:
    # A job: its start is on the trail before anything changes, so that a kill leaves no change untold.
    return session.workspace.enter(_caller(session, name), action, _target(name), job=job)


def _impact(session: Session, permit: Permit, name: str) -> dict[str, Any]:
    vault = session.workspace.vault
    lost = impact(permit, vault.keyring, vault.database, vault.clock, name)
    with vault.database.reading(permit) as connection:
        rows = {account: connection.execute(_rows_of(account, lost)).scalar_one() for account in _sealed_by(lost)}
    return {**asdict(lost), "keys": list(lost.keys), "rows": rows, "total": lost.total + sum(rows.values())}


def _sealed_by(lost: Impact) -> list[str]:
    """Accounts some of whose rows are sealed by what would go."""
    return [a for a in ACCOUNTS if lost.patients.get(a) or any(k.startswith(f"{a}/clinical/") for k in lost.keys)]


def _rows_of(account: str, lost: Impact) -> Any:
    """Versions of resources: those of patients, of no patient (sealed by the clinical zone's key), or both."""
    query = select(func.count()).select_from(resource_version.join(symbol, symbol.c.key == resource_version.c.kind))
    query = query.where(symbol.c.space == kinds_of(account))
    if not any(key.startswith(f"{account}/clinical/") for key in lost.keys):
        return query.where(resource_version.c.owner != 0)
    return query if lost.patients.get(account) else query.where(resource_version.c.owner == 0)


def _words(name: str, lost: dict[str, Any]) -> str:
    parts = [f"{count:,} {what}" for what, count in (("objects", sum(lost["objects"].values())),) if count]
    parts += [f"{sum(lost[what].values()):,} {what}" for what in ("patients", "rows") if sum(lost[what].values())]
    return f"Without {name} nobody can read {', '.join(parts) or 'anything less'}."


def _answer(json_out: bool, said: Any, lines: Sequence[str]) -> None:
    if json_out:
        answer(said)
    else:
        for line in lines:
            note(line)
