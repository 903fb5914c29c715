"""A workspace that was restored on another machine: its operating-system users are others."""

from __future__ import annotations

from sqlalchemy import update

from carelake.access.principals import Principals
from carelake.access.stamp import changed
from carelake.access.tables import principal
from carelake.vault.workspace import Vault

__all__ = ["bind_operator"]


def bind_operator(vault: Vault, uid: int) -> bool:
    """Bind an operating-system user whom nobody is bound to yet to ``operator``; answers whether that was needed.

    Only for a restore, before the workspace is one: whoever restores holds the root key, so this gives no right that
    was not had. The user of the lost machine is bound no longer.
    """
    with vault.database.ledger() as connection:
        if Principals(connection).of_uid(uid) is not None:
            return False
        connection.execute(update(principal).where(principal.c.name == "operator").values(uid=uid))
        changed(connection)
    return True
