"""What may be used once, within the time that it is good for."""

from __future__ import annotations

import hashlib
from datetime import datetime

from sqlalchemy import delete, insert, select
from sqlalchemy.exc import IntegrityError

from carelake.access.tables import access_seen as table
from carelake.core.clock import iso
from carelake.vault.workspace import Vault

__all__ = ["first_time"]


def first_time(vault: Vault, what: str, until: datetime) -> bool:
    """Whether ``what`` was not seen before; it is from now on, until ``until``."""
    name = hashlib.sha256(what.encode()).hexdigest()
    now = iso(vault.clock.now())
    try:
        with vault.database.ledger() as connection:
            connection.execute(delete(table).where(table.c.expires < now))
            if connection.execute(select(table.c.id).where(table.c.id == name)).first() is not None:
                return False
            connection.execute(insert(table).values(id=name, expires=iso(until)))
    except IntegrityError:
        return False  # another process took it between our look and our note
    return True
