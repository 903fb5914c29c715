"""The change feed: every version in the order of its ``seq``. The lake and every other follower read this."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, bindparam, select

from carelake.core.clock import iso
from carelake.core.permit import Permit
from carelake.store import bodies
from carelake.store.columns import Page, opened
from carelake.store.keep import ref_of
from carelake.store.rows import COLUMNS, open_rows
from carelake.store.scopes import version_scope
from carelake.store.symbols import Symbols, kinds_of
from carelake.store.tables import resource_version
from carelake.vault.workspace import Vault

__all__ = ["Change", "Feed", "Page", "page_ref"]

_CHUNK = 500
_V = resource_version.c
_TOLD = (*COLUMNS, _V.previous)
# Not by the index of kinds and times, which would read and sort all that comes for each page.
_KIND = _V.kind + 0
_PAGE = (
    select(*_TOLD)
    .where(_V.seq > bindparam("after"), _KIND.in_(bindparam("kinds", expanding=True)))
    .order_by(_V.seq)
    .limit(bindparam("at_most"))
)


class Change(NamedTuple):
    """One version as the feed tells it.

    Attributes:
        last_updated: FHIR instant.
        body: canonical JSON as it came, without this version's ``meta``; b"" when deleted or erased.
        owner: id of the one patient of its compartment, or "".
        previous: seq of the version before, 0 for none.
    """

    seq: int
    type: str
    id: str
    version: int
    deleted: bool
    owner: str
    last_updated: str
    body: bytes
    ref: str
    previous: int = 0


class Feed:
    """Reads the feed of an account."""

    def __init__(self, vault: Vault, symbols: Symbols) -> None:
        self._vault = vault
        self._symbols = symbols

    def changes(self, permit: Permit, tx: Connection, after: int, limit: int) -> list[Change]:
        """Versions with a ``seq`` beyond ``after``, in order, at most ``limit``; an erased one counts as deleted."""
        kinds = list(self._symbols.everything(tx, kinds_of(permit.account)).values())
        query = _PAGE.where(version_scope(permit, tx, self._symbols))
        rows = tx.execute(query, {"after": after, "kinds": kinds, "at_most": limit}).all()
        return self._told(permit, tx, rows)

    def page(self, permit: Permit, tx: Connection, after: int, limit: int) -> Page:
        """As `changes`, by types and columns."""
        kinds = list(self._symbols.everything(tx, kinds_of(permit.account)).values())
        query = _PAGE.where(version_scope(permit, tx, self._symbols))
        said = {"after": after, "kinds": kinds, "at_most": limit}
        made = opened(permit, tx, self._vault, self._symbols, query, said)
        if made.refs:
            permit.log.read(page_ref(made.refs))
            permit.log.count(read=len(made.refs))
        return made

    def of(self, permit: Permit, tx: Connection, seqs: Sequence[int]) -> list[Change]:
        """These versions, in the order of their seqs, as far as they are there."""
        kinds = list(self._symbols.everything(tx, kinds_of(permit.account)).values())
        scope = version_scope(permit, tx, self._symbols)
        found: list[Change] = []
        for start in range(0, len(seqs), _CHUNK):
            page = _V.seq.in_(list(seqs[start : start + _CHUNK]))
            query = select(*_TOLD).where(page, _V.kind.in_(kinds), scope).order_by(_V.seq)
            found += self._told(permit, tx, tx.execute(query).all())
        return found

    def _told(self, permit: Permit, tx: Connection, rows: Sequence[Any]) -> list[Change]:
        times: dict[int, str] = {}
        changes = []
        opened = open_rows(permit, tx, self._vault, self._symbols, [row[:-1] for row in rows])
        for one, row in zip(opened, rows, strict=True):
            when = times.get(one.updated)
            if when is None:
                when = times[one.updated] = iso(bodies.moment(one.updated))
            gone = one.deleted or one.erased
            ref = ref_of(one.seq, one.digest)
            told = (one.seq, one.type, one.id, one.version, gone, one.owner, when, one.text, ref, row[-1])
            changes.append(Change(*told))
        if changes:
            permit.log.read(page_ref(change.ref for change in changes))
            permit.log.count(read=len(changes))
        return changes

    def lag(self, tx: Connection, account: str, after: int) -> tuple[int, int | None]:
        """The newest ``seq`` of an account, and when the oldest one beyond ``after`` was written (microseconds)."""
        kinds = list(self._symbols.everything(tx, kinds_of(account)).values())
        mine = _KIND.in_(kinds)
        newest = tx.execute(select(_V.seq).where(mine).order_by(_V.seq.desc()).limit(1)).scalar()
        oldest = tx.execute(select(_V.updated).where(mine, _V.seq > after).order_by(_V.seq).limit(1)).scalar()
        return int(newest or 0), oldest

    def last(self, permit: Permit, tx: Connection) -> int:
        """The newest ``seq`` of the account, 0 for none."""
        kinds = list(self._symbols.everything(tx, kinds_of(permit.account)).values())
        query = select(_V.seq).where(_KIND.in_(kinds)).order_by(_V.seq.desc()).limit(1)
        return int(tx.execute(query).scalar() or 0)


def page_ref(refs: Iterable[str]) -> str:
    """One name for many refs, for an act that tells of a whole page."""
    digest = hashlib.sha256()
    for ref in refs:
        digest.update(ref.encode() + b"\n")
    return f"page:{digest.hexdigest()}"
