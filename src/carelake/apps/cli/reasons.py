"""Sealed reasons of grants and emergency accesses: bound to what they are of, and shown to who may decide on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from sqlalchemy import Connection

from carelake.access.glass import BrokenGlass, Glasses
from carelake.access.grants import Grant, Grants
from carelake.apps.cli.session import Session, answer
from carelake.apps.cli.tables import show
from carelake.core.errors import NotFound

__all__ = ["Kind", "bound", "show_reasoned"]

Kind = Literal["glass", "grant"]

_TABLES: dict[Kind, Callable[[Connection], Grants | Glasses]] = {"glass": Glasses, "grant": Grants}


def bound(kind: Kind, name: str) -> bytes:
    """What a reason is sealed with: the thing that it is of, so that it cannot be put beside another."""
    return f"{kind}-reason\x1f{name}".encode()


def show_reasoned(
    session: Session,
    kind: Kind,
    name: str,
    *,
    action: str,
    plain: Callable[[Session, Any], dict[str, Any]],
    json_out: bool,
) -> None:
    """Show one thing with its reason, under a permit for ``action`` in its own account.

    Args:
        plain: the thing as JSON, without its reason.

    Raises:
        NotFound: ``access.in_another_account``.
    """
    vault = session.workspace.vault
    with (
        session.workspace.enter(session.caller(), action, f"{kind}/{name}") as permit,
        vault.database.reading(permit) as connection,
    ):
        table = _TABLES[kind](connection)
        found: Grant | BrokenGlass = table.get(name)
        if found.account != permit.account:
            raise NotFound(
                "access.in_another_account", f"It belongs to account {found.account}; look at it in that account."
            )
        sealed = table.sealed_reason(name)
        reason = vault.sealer.open(permit, connection, "", bound(kind, name), sealed).decode()
    said = {**plain(session, found), "reason": reason}
    if json_out:
        answer(said)
    else:
        show(["what", "value"], [{"what": key, "value": value} for key, value in said.items()])
