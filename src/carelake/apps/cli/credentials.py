"""Access keys, revoked tokens and links to identity providers."""

from __future__ import annotations

import re
import sys
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection

from carelake.access.keys import AccessKey, AccessKeys, aged
from carelake.access.oidc import Links, subject_ref
from carelake.access.principals import Principal, Principals, within
from carelake.access.standing import Register
from carelake.apps.cli.session import Session, answer, note
from carelake.apps.cli.tables import show
from carelake.apps.cli.who import changing, sight
from carelake.core.clock import iso
from carelake.core.errors import Invalid, NotFound
from carelake.vault.places import ACCOUNTS

__all__ = ["key_add", "key_disable", "key_rotate", "link", "links", "report", "revoke"]

_LONGEST = 20_000
_STDIN = ("-",)
_is_id = re.compile(r"[0-9A-Za-z]{16,64}").fullmatch
"""What is told of on the trail: a name, typed by mistake, is none."""
_ANYBODY = Principal("", "person", (), ACCOUNTS)


def report(session: Session, *, json_out: bool) -> None:
    """List access keys, the oldest first."""
    with sight(session, "access") as (connection, seen):
        keys = AccessKeys(session.workspace.vault, connection).all()
        found = [_plain(session, key) for key in keys if key.account in seen.accounts]
    if json_out:
        answer(found)
    else:
        show(["id", "principal", "account", "age_days", "last_used", "state"], found)


def key_add(session: Session, *, json_out: bool, name: str, role: str) -> None:
    """Make a key; the secret is the answer, and nobody can read it again."""
    caller = session.caller()
    vouching = session.workspace.gate.vouching()
    with changing(session, caller, "credential:manage", f"principal/{name}") as (permit, tx):
        keys = AccessKeys(session.workspace.vault, tx)
        who = _whole(session, tx, name)
        place = {"account": caller.account, "purpose": caller.purpose, "role": role}
        key, secret = keys.add(vouching, who, by=caller.principal, **place)
        permit.log.count(keys=1)
        permit.log.note(change="add-key", key=key.id, role=role, created=iso(key.created))
    _tell(session, json_out, key, secret)


def key_rotate(session: Session, *, json_out: bool, name: str, key: str) -> None:
    """Make another key like it, and disable it, in one transaction."""
    caller = session.caller()
    vouching = session.workspace.gate.vouching()
    with changing(session, caller, "credential:manage", f"principal/{name}") as (permit, tx):
        keys = AccessKeys(session.workspace.vault, tx)
        old = keys.get(key)
        if old.principal != name:
            raise Invalid("access.key_of_another", "The access key belongs to another principal.")
        keys.disable(key, by=caller.principal)
        place = {"account": old.account, "purpose": old.purpose, "role": old.role}
        made, secret = keys.add(vouching, _whole(session, tx, name), by=caller.principal, **place)
        permit.log.count(keys=1)
        said = {"key": made.id, "disabled": old.id, "role": old.role, "created": iso(made.created)}
        permit.log.note(change="rotate-key", **said)
    _tell(session, json_out, made, secret)


def key_disable(session: Session, *, json_out: bool, key: str) -> None:
    """End a key."""
    caller = session.caller()
    with changing(session, caller, "credential:manage", f"access-key/{key}") as (permit, tx):
        found = AccessKeys(session.workspace.vault, tx).disable(key, by=caller.principal)
        permit.log.note(change="disable-key", key=found.id, of=found.principal)
    if json_out:
        answer(_plain(session, found))
    else:
        note(f"Disabled {found.id}.")


def revoke(session: Session, *, json_out: bool, token: str) -> None:
    """Revoke a token by its id, or the token that stands on standard input."""
    tokens = session.workspace.identity.tokens
    now = session.workspace.vault.clock.now()
    if token in _STDIN:
        claims = tokens.verified(sys.stdin.read(_LONGEST).strip(), past=True)
        name, principal, expires = claims.id, claims.principal, claims.expires
    elif _is_id(token):
        most = timedelta(seconds=session.workspace.settings.access.token_max_seconds)
        name, principal, expires = token, "", now + most
    else:
        raise Invalid("access.token_id", "Give the token's id, or - and the token itself on standard input.")
    caller = session.caller()
    with changing(session, caller, "credential:manage", f"token/{name}") as (permit, tx):
        # An id alone does not tell whose the token is.
        within(Principals(tx).get(principal) if principal else _ANYBODY, caller.principal)
        swept = tokens.revoke(tx, name, principal, expires)
        permit.log.note(change="revoke-token", token=name, expires=iso(expires), swept=iso(swept))
    if json_out:
        answer({"id": name, "revoked": True})
    else:
        note("Revoked.")


def link(session: Session, *, json_out: bool, name: str, issuer: str, subject: str, remove: bool) -> None:
    """Begin or end a link."""
    caller = session.caller()
    with changing(session, caller, "credential:manage", f"principal/{name}") as (permit, tx):
        Principals(tx).get(name)
        if remove:
            Links(tx).remove(issuer, subject, name, by=caller.principal)
        else:
            Links(tx).add(issuer, subject, name, by=caller.principal)
        ref = subject_ref(session.workspace.vault, session.workspace.gate.vouching(), issuer, subject)
        permit.log.note(change="unlink" if remove else "link", subject=ref)
    if json_out:
        answer({"principal": name, "issuer": issuer, "subject": subject, "linked": not remove})
    else:
        note("Unlinked." if remove else "Linked.")


def links(session: Session, *, json_out: bool) -> None:
    """List links."""
    with sight(session, "access") as (connection, seen):
        names = {who.name for who in seen.principals()}
        found = [one for one in Links(connection).all() if one["principal"] in names]
    if json_out:
        answer(found)
    else:
        show(["principal", "issuer", "subject"], found)


def _whole(session: Session, connection: Connection, name: str) -> Principal:
    """A principal with the roles of its groups."""
    standing = Register(session.workspace.vault).seen(connection, name)
    if standing is None:
        raise NotFound("access.no_such_principal", "No such principal; `carelake principal list` shows them.")
    return standing.principal


def _tell(session: Session, json_out: bool, key: AccessKey, secret: str) -> None:
    if json_out:
        answer({**_plain(session, key), "secret": secret})
        return
    show(["id", "secret"], [{"id": key.id, "secret": secret}])
    note("The secret is shown this once; keep it where secrets are kept.")


def _plain(session: Session, key: AccessKey) -> dict[str, Any]:
    now = session.workspace.vault.clock.now()
    return {
        "id": key.id,
        "principal": key.principal,
        "account": key.account,
        "purpose": key.purpose,
        "role": key.role or None,
        "created": iso(key.created),
        "age_days": (now - key.created).days,
        "last_used": iso(key.last_used) if key.last_used else None,
        "state": aged(key, session.workspace.settings.access, now),
    }
