"""Things that have a name at these doors alone: models, endpoint configurations, job definitions."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Row, delete, func, insert, select, update

from carelake.apps.http.aws.tables import named as table
from carelake.core.clock import instant, iso
from carelake.core.errors import Conflict, NotFound
from carelake.core.permit import Permit
from carelake.vault.workspace import Vault

__all__ = ["Named", "Thing"]

_MOST = 10_000


class Thing(NamedTuple):
    """One of them.

    Attributes:
        said: the request that made it.
    """

    name: str
    said: Mapping[str, Any]
    created: datetime
    modified: datetime


class Named:
    """Those of one kind."""

    def __init__(self, vault: Vault, kind: str, word: str) -> None:
        """Make it.

        Args:
            word: what people call one.
        """
        self._vault, self._kind, self._word = vault, kind, word

    def create(self, permit: Permit, name: str, said: Mapping[str, Any]) -> None:
        """A new one. Needs ``rows:write``.

        Raises:
            Conflict: ``http.aws_exists``, ``http.aws_limit``.
        """
        now = iso(self._vault.clock.now())
        with self._vault.database.transaction(permit) as tx:
            if tx.execute(select(table.c.name).where(self._at(permit, name))).first() is not None:
                raise Conflict(
                    "http.aws_exists", f"There is a {self._word} of this name; delete it, or take another."
                )
            own = (table.c.account == permit.account) & (table.c.kind == self._kind)
            if tx.execute(select(func.count()).select_from(table).where(own)).scalar_one() >= _MOST:
                raise Conflict("http.aws_limit", f"There are {_MOST} already; delete some.")
            row = {"account": permit.account, "kind": self._kind, "name": name, "created": now, "modified": now}
            tx.execute(insert(table).values(**row, said=msgspec.json.encode(said).decode(), act=permit.act))

    def keep(self, permit: Permit, name: str, said: Mapping[str, Any]) -> None:
        """A new one, or another content of one that is there. Needs ``rows:write``."""
        now = iso(self._vault.clock.now())
        told = {"said": msgspec.json.encode(said).decode(), "modified": now, "act": permit.act}
        with self._vault.database.transaction(permit) as tx:
            if tx.execute(update(table).where(self._at(permit, name)).values(**told)).rowcount == 0:
                own = {"account": permit.account, "kind": self._kind, "name": name, "created": now}
                tx.execute(insert(table).values(**own, **told))

    def find(self, permit: Permit, name: str) -> Thing | None:
        """One, where there is one. Needs ``rows:read``."""
        with self._vault.database.reading(permit) as tx:
            row = tx.execute(select(table).where(self._at(permit, name))).first()
        return None if row is None else _thing(row)

    def get(self, permit: Permit, name: str) -> Thing:
        """One. Needs ``rows:read``.

        Raises:
            NotFound: ``http.aws_no_such``.
        """
        found = self.find(permit, name)
        if found is None:
            raise self._missing()
        return found

    def all(self, permit: Permit) -> list[Thing]:
        """All of the account, the oldest first. Needs ``rows:read``."""
        own = (table.c.account == permit.account) & (table.c.kind == self._kind)
        with self._vault.database.reading(permit) as tx:
            query = select(table).where(own).order_by(table.c.created, table.c.name).limit(_MOST)
            return [_thing(row) for row in tx.execute(query)]

    def delete(self, permit: Permit, name: str, *, there: bool = True) -> None:
        """End one. Needs ``rows:write``.

        Args:
            there: whether it is an error that there is none.

        Raises:
            NotFound: ``http.aws_no_such``.
        """
        with self._vault.database.transaction(permit) as tx:
            if tx.execute(delete(table).where(self._at(permit, name))).rowcount == 0 and there:
                raise self._missing()

    def _at(self, permit: Permit, name: str) -> Any:
        return (table.c.account == permit.account) & (table.c.kind == self._kind) & (table.c.name == name)

    def _missing(self) -> NotFound:
        return NotFound("http.aws_no_such", f"There is no {self._word} of this name in this account.")


def _thing(row: Row[Any]) -> Thing:
    return Thing(row.name, msgspec.json.decode(row.said), instant(row.created), instant(row.modified))
