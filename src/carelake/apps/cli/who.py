"""``principal``, ``token``, ``account``: who there is."""

from __future__ import annotations

import unicodedata
from collections.abc import Container, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection

from carelake.access.groups import Group, Groups
from carelake.access.narrowed import checked_scopes
from carelake.access.principals import Principal, Principals
from carelake.access.standing import Register
from carelake.apps.cli.session import Session, answer, note
from carelake.apps.cli.tables import show
from carelake.core.clock import iso
from carelake.core.errors import Invalid, NotFound
from carelake.core.permit import Permit
from carelake.vault.places import ACCOUNTS, ZONES, account_of

__all__ = [
    "account",
    "accounts",
    "add",
    "change",
    "changing",
    "group",
    "groups",
    "looking",
    "member",
    "principals",
    "show_one",
    "sight",
    "token",
]


@contextmanager
def looking(session: Session, target: str) -> Iterator[Connection]:
    """A reading of who there is and what they hold."""
    workspace = session.workspace
    with (
        workspace.enter(session.caller(), "access:read", target) as permit,
        workspace.vault.database.reading(permit) as connection,
    ):
        yield connection


class Sight:
    """What a caller sees of rights: those in the accounts where they may read them."""

    def __init__(self, session: Session, connection: Connection) -> None:
        judge, who = session.workspace.gate.judge, session.caller()
        self._connection = connection
        self.accounts = frozenset(
            name
            for name in ACCOUNTS
            if judge.seen(connection, who.principal, "access:read", name, who.purpose).decision.allowed
        )

    def of(self, who: Principal) -> bool:
        """Whether a principal belongs to an account that is seen, or to none."""
        return not who.accounts or not self.accounts.isdisjoint(who.accounts)

    def principals(self) -> list[Principal]:
        """Those that are seen, by name."""
        return [who for who in Principals(self._connection).all() if self.of(who)]

    def one(self, name: str) -> Principal:
        """One that is seen; `NotFound` ``access.no_such_principal``."""
        found = Principals(self._connection).get(name)
        if not self.of(found):
            raise NotFound("access.no_such_principal", "No such principal; `carelake principal list` shows them.")
        return found


@contextmanager
def sight(session: Session, target: str) -> Iterator[tuple[Connection, Sight]]:
    """As `looking`, with what the caller sees."""
    with looking(session, target) as connection:
        yield connection, Sight(session, connection)


@contextmanager
def changing(session: Session, caller: Any, action: str, target: str) -> Iterator[tuple[Permit, Connection]]:
    """A change of who there is and what they hold."""
    workspace = session.workspace
    with (
        workspace.enter(caller, action, target) as permit,
        workspace.vault.database.transaction(permit) as tx,
    ):
        yield permit, tx


def principals(session: Session, *, json_out: bool) -> None:
    """List principals."""
    with sight(session, "principals") as (connection, seen):
        found = [_plain(connection, who) for who in seen.principals()]
    if json_out:
        answer(found)
    else:
        show(["name", "kind", "roles", "groups", "accounts", "disabled"], found)


def show_one(session: Session, *, json_out: bool, name: str) -> None:
    """Show a principal and what it was given for a time."""
    now = session.workspace.vault.clock.now()
    with sight(session, f"principal/{name}") as (connection, seen):
        own = seen.one(name)
        standing = Register(session.workspace.vault).seen(connection, name)
        assert standing is not None
        said = {
            **_plain(connection, own),
            "effective_roles": list(standing.principal.roles),
            "grants": [
                {"id": one.id, "action": one.action, "state": one.state(now)}
                for one in standing.grants
                if one.account in seen.accounts
            ],
            "break_glass": [
                {"id": one.id, "state": one.state(now)} for one in standing.glasses if one.account in seen.accounts
            ],
        }
    if json_out:
        answer(said)
    else:
        show(["what", "value"], [{"what": key, "value": _words(value)} for key, value in said.items()])


def add(
    session: Session,
    *,
    json_out: bool,
    name: str,
    roles: list[str],
    accounts: list[str],
    kind: str,
    groups: list[str],
) -> None:
    """Add a principal. Who adds it acts in the account that it will belong to."""
    caller, name = session.caller(), unicodedata.normalize("NFC", name)
    who = Principal(name, kind, tuple(dict.fromkeys(roles)), tuple(dict.fromkeys(accounts or [caller.account])))
    if not roles and not groups:
        raise Invalid("access.no_role", "A principal needs a role or a group; give --role or --group.")
    at = session.workspace.vault.clock.now()
    with changing(session, caller, "access:manage", f"principal/{name}") as (permit, tx):
        Principals(tx).add(who, by=caller.principal, at=at)
        for group in groups:
            Groups(tx).join(group, name, by=caller.principal)
        told = {"roles": list(who.roles), "accounts": list(who.accounts), "groups": groups}
        permit.log.note(change="add", kind=kind, **told)
        said = _plain(tx, who)
    _said(said, json_out, f"Added {name}.")


def change(session: Session, *, json_out: bool, name: str, change: str, role: str | None = None) -> None:
    """Disable or enable a principal, give or take a role."""
    caller = session.caller()
    with changing(session, caller, "access:manage", f"principal/{name}") as (permit, tx):
        work = getattr(Principals(tx), change)
        work(name, *([role] if role is not None else []), by=caller.principal)
        permit.log.note(change=change.replace("_", "-"), **({"role": role} if role is not None else {}))
        said = _plain(tx, Principals(tx).get(name))
    _said(said, json_out, f"{name}: {change.replace('_', ' ')} {role or ''}".strip())


def groups(session: Session, *, json_out: bool) -> None:
    """List groups."""
    with sight(session, "principals") as (connection, seen):
        names = {who.name for who in seen.principals()}
        found = [_group(one, names) for one in Groups(connection).all()]
    if json_out:
        answer(found)
    else:
        show(["name", "roles", "members"], found)


def group(session: Session, *, json_out: bool, name: str, roles: list[str]) -> None:
    """Make or change a group."""
    caller = session.caller()
    with changing(session, caller, "access:manage", f"group/{name}") as (permit, tx):
        Groups(tx).add(name, roles, at=session.workspace.vault.clock.now(), by=caller.principal)
        permit.log.note(change="group", roles=roles)
        said = next(_group(one) for one in Groups(tx).all() if one.name == name)
    _said(said, json_out, f"The group {name} gives {', '.join(roles) or 'no role'}.")


def member(session: Session, *, json_out: bool, name: str, group: str, joins: bool) -> None:
    """Begin or end a membership."""
    caller = session.caller()
    with changing(session, caller, "access:manage", f"principal/{name}") as (permit, tx):
        work = Groups(tx).join if joins else Groups(tx).leave
        work(group, name, by=caller.principal)
        permit.log.note(change="join" if joins else "leave", group=group)
        said = _plain(tx, Principals(tx).get(name))
    _said(said, json_out, f"{name} {'joined' if joins else 'left'} {group}.")


def token(
    session: Session,
    *,
    json_out: bool,
    role: str | None,
    seconds: int | None,
    scope: str | None = None,
    patient: str | None = None,
) -> None:
    """Issue a token for the principal of ``--as``; the one who types must be allowed to issue it."""
    if scope is not None or patient is not None:
        scope = checked_scopes(scope or "", patient or "")
    workspace, caller = session.workspace, session.caller()
    speaker = workspace.identity.local_user()
    lifetime = seconds or workspace.settings.access.token_seconds
    with workspace.gate.enter(
        speaker, "token:issue", f"principal/{caller.principal.name}", caller.purpose, account=caller.account
    ) as permit:
        text, claims = workspace.identity.tokens.issue(
            caller.principal,
            purpose=caller.purpose,
            account=caller.account,
            seconds=lifetime,
            role=role,
            scope=scope,
            patient=patient or "",
        )
        permit.log.wrote(f"token:{claims.id}")
    if not json_out:
        print(text)  # noqa: T201 - the answer itself, for $(carelake token ...)
        return
    answer(
        {
            "token": text,
            "id": claims.id,
            "principal": caller.principal.name,
            "roles": [role] if role else list(caller.principal.roles),
            "purpose": caller.purpose,
            "account": caller.account,
            "seconds": lifetime,
            "expires": iso(claims.expires),
            **({} if scope is None else {"scope": scope}),
        }
    )


def accounts(session: Session, *, json_out: bool) -> None:
    """List accounts."""
    with sight(session, "principals") as (_, seen):
        everyone = seen.principals()
    found = [_account(session, name, everyone) for name in ACCOUNTS]
    if json_out:
        answer(found)
    else:
        show(["name", "jurisdiction", "principals"], found)


def account(session: Session, *, json_out: bool, name: str) -> None:
    """Show an account."""
    account_of(name)
    with sight(session, "principals") as (_, seen):
        everyone = seen.principals()
    said = {**_account(session, name, everyone), "zones": list(ZONES)}
    if json_out:
        answer(said)
    else:
        show(["what", "value"], [{"what": key, "value": _words(value)} for key, value in said.items()])


def _account(session: Session, name: str, everyone: list[Principal]) -> dict[str, Any]:
    told = session.workspace.settings.accounts.get(name)
    return {
        "name": name,
        "jurisdiction": told.jurisdiction if told else "",
        "principals": [who.name for who in everyone if name in who.accounts],
    }


def _said(said: dict[str, Any], json_out: bool, words: str) -> None:
    if json_out:
        answer(said)
    else:
        note(words)


def _plain(connection: Connection, who: Principal) -> dict[str, Any]:
    return {
        "name": who.name,
        "kind": who.kind,
        "roles": list(who.roles),
        "groups": [group.name for group in Groups(connection).of(who.name)],
        "accounts": list(who.accounts),
        "disabled": who.disabled,
    }


def _group(one: Group, seen: Container[str] | None = None) -> dict[str, Any]:
    members = [name for name in one.members if seen is None or name in seen]
    return {"name": one.name, "roles": list(one.roles), "members": members}


def _words(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
