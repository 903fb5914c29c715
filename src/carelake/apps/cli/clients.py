"""Clients of SMART Backend Services."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from carelake.access.explain import PURPOSES
from carelake.access.smart_clients import Client, Clients
from carelake.apps.cli.session import Session, answer, existing, note
from carelake.apps.cli.tables import show
from carelake.apps.cli.who import changing, sight
from carelake.core.clock import iso
from carelake.core.errors import Invalid

__all__ = ["add", "disable", "listed"]

_LONGEST = 65_537


def add(session: Session, *, json_out: bool, name: str, jwks: str, scope: str, client: str | None) -> None:
    """Register a client."""
    vault, caller = session.workspace.vault, session.caller()
    if caller.purpose not in PURPOSES:
        raise Invalid("access.client", f"Say what it is for: --purpose with one of {', '.join(PURPOSES)}.")
    url, keys = _keys(jwks)
    said = (client or vault.ids.new(), name, caller.account, caller.purpose, scope, url, keys, vault.clock.now())
    with changing(session, caller, "credential:manage", f"principal/{name}") as (permit, tx):
        made = Clients(tx).add(Client(*said), by=caller.principal)
        permit.log.note(change="add-client", client=made.id, digest=made.digest, created=iso(made.created))
    if json_out:
        answer(_plain(made))
    else:
        note(f"Registered {made.id} as a client of {name}.")


def listed(session: Session, *, json_out: bool) -> None:
    """List clients, without their keys."""
    with sight(session, "access") as (connection, seen):
        found = [_plain(one) for one in Clients(connection).all() if one.account in seen.accounts]
    if json_out:
        answer(found)
    else:
        show(["id", "principal", "account", "purpose", "scope", "keys", "disabled"], found)


def disable(session: Session, *, json_out: bool, client: str) -> None:
    """End a client."""
    caller = session.caller()
    with changing(session, caller, "credential:manage", f"client/{client}") as (permit, tx):
        found = Clients(tx).disable(client, by=caller.principal)
        permit.log.note(change="disable-client", client=found.id, of=found.principal)
    if json_out:
        answer(_plain(found))
    else:
        note(f"Disabled {found.id}.")


def _keys(said: str) -> tuple[str, str]:
    """Address and text of a key set; one of them is ""."""
    if "://" in said:
        return said, ""
    if said == "-":
        return "", sys.stdin.read(_LONGEST)
    try:
        with existing(Path(said)).open(encoding="utf-8") as file:
            return "", file.read(_LONGEST)
    except (OSError, UnicodeDecodeError):
        raise Invalid("access.client_keys", "The key set cannot be read; a JSON Web Key Set is UTF-8 text.") from None


def _plain(one: Client) -> dict[str, Any]:
    return {
        "id": one.id,
        "principal": one.principal,
        "account": one.account,
        "purpose": one.purpose,
        "scope": one.scopes,
        "keys": one.keys_url or "registered",
        "created": iso(one.created),
        "disabled": one.disabled,
    }
