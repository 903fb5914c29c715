"""Consents projected anew, and compared: for what was kept before there was a projection, and to prove it true.

Pages are transactions of their own, each of which puts the rows of its Consents in the place of those that are there,
so that at no moment less is withheld than the consents say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import msgspec
from sqlalchemy import Connection, bindparam, false, select

from carelake.access import projection
from carelake.access.projection import Told
from carelake.core import canonical
from carelake.core.permit import Permit
from carelake.store.consents import CONSENT
from carelake.store.rows import read_versions
from carelake.store.symbols import Symbols, kinds_of
from carelake.store.tables import resource
from carelake.vault.workspace import Vault

__all__ = ["Compared", "Consents"]

_PAGE = 500
_R = resource.c
_NEXT = (
    select(_R.id, _R.seq)
    .where(_R.kind == bindparam("k"), _R.deleted == false(), _R.id > bindparam("after"))
    .order_by(_R.id)
    .limit(_PAGE)
)
_THERE = select(_R.id).where(
    _R.kind == bindparam("k"), _R.deleted == false(), _R.id.in_(bindparam("ids", expanding=True))
)

Progress = Callable[[int], None]


class Compared(msgspec.Struct):
    """What a walk over the consents found.

    Attributes:
        missing, extra: rows that are not there and should be, and the other way round.
    """

    consents: int = 0
    missing: int = 0
    extra: int = 0

    @property
    def same(self) -> bool:
        """Whether the projection is what it should be."""
        return not (self.missing or self.extra)


class Consents:
    """Walks over the Consents of a permit's account."""

    def __init__(self, vault: Vault) -> None:
        self._vault, self._symbols = vault, Symbols()

    def rebuild(self, permit: Permit, progress: Progress = lambda done: None) -> Compared:
        """Project all of them anew; tells how many rows were wrong."""
        found, database = Compared(), self._vault.database
        after, ended = "", False
        while not ended:
            with database.transaction(permit) as tx:
                page, after, ended = self._page(permit, tx, after)
                self._compare(tx, permit.account, page, found)
                projection.project(tx, permit.account, page)
                permit.log.count(projected=len(page))
            progress(found.consents)
        for strays in self._strays(permit):
            found.extra += len(strays)
            with database.transaction(permit) as tx:
                gone = set(strays) - self._there(tx, permit.account, strays)  # it may have come back meanwhile
                projection.drop(tx, permit.account, sorted(gone))
        with database.transaction(permit) as tx:
            projection.complete(tx, permit.account)
        return found

    def verify(self, permit: Permit, progress: Progress = lambda done: None) -> Compared:
        """Compare them with their rows, and change nothing."""
        found = Compared()
        after, ended = "", False
        while not ended:
            with self._vault.database.reading(permit) as tx:
                page, after, ended = self._page(permit, tx, after)
                self._compare(tx, permit.account, page, found)
            progress(found.consents)
        found.extra += sum(len(page) for page in self._strays(permit))
        return found

    def _page(self, permit: Permit, tx: Connection, after: str) -> tuple[list[Told], str, bool]:
        """The next Consents by id, the last id of them, and whether these were all."""
        rows = tx.execute(_NEXT, {"k": self._kind(tx, permit.account), "after": after}).all()
        opened = read_versions(permit, tx, self._vault, self._symbols, [row.seq for row in rows])
        page = [
            Told(one.id, one.owner_key, one.owner, canonical.load(one.text))
            for one in opened
            if not (one.deleted or one.erased)
        ]
        return page, rows[-1].id if rows else after, len(rows) < _PAGE

    def _compare(self, tx: Connection, account: str, page: Sequence[Told], found: Compared) -> None:
        wanted = projection.rows_for(account, page)
        there = projection.projected(tx, account, [one.consent for one in page])
        for rows, others in zip(wanted, there, strict=True):
            found.missing += len(set(rows) - set(others))
            found.extra += len(set(others) - set(rows))
        found.consents += len(page)

    def _strays(self, permit: Permit) -> Iterator[list[str]]:
        """Ids that have rows and no Consent any more, some at a time."""
        after = ""
        while True:
            with self._vault.database.reading(permit) as tx:
                ids = projection.known(tx, permit.account, after, _PAGE)
                there = self._there(tx, permit.account, ids)
            if not ids:
                return
            after = ids[-1]
            if gone := [one for one in ids if one not in there]:
                yield gone

    def _there(self, tx: Connection, account: str, ids: Sequence[str]) -> set[str]:
        return set(tx.execute(_THERE, {"k": self._kind(tx, account), "ids": list(ids)}).scalars()) if ids else set()

    def _kind(self, tx: Connection, account: str) -> int:
        return self._symbols.key(tx, kinds_of(account), CONSENT)
