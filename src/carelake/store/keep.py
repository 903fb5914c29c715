"""Keeping a page of resources: versions, bodies, pointers and index rows in the caller's one transaction."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, select

from carelake.core import canonical
from carelake.core.errors import CarelakeError
from carelake.core.permit import Permit
from carelake.core.records import Parsed
from carelake.fhir.search import extract
from carelake.store import bodies
from carelake.store.indexing import IndexRows, clear
from carelake.store.symbols import Symbols, kinds_of, origins_of, patients_of
from carelake.store.tables import resource, resource_version
from carelake.vault.database import bulk
from carelake.vault.workspace import Vault

__all__ = ["DIGEST_BYTES", "Kept", "Writer", "ref_of"]

DIGEST_BYTES = 24
_CHUNK = 500
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_CURRENT = select(
    resource.c.kind, resource.c.id, resource.c.seq, resource.c.version, resource.c.deleted, resource.c.digest
).where(resource.c.kind == bindparam("k"), resource.c.id.in_(bindparam("ids", expanding=True)))

_VERSION = (
    "INSERT INTO resource_version (seq, kind, id, version, previous, deleted, owner, updated, origin, "
    '"offset", length, line, act, digest, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)'
)
_POINTER = (
    "INSERT INTO resource (kind, id, seq, version, deleted, digest) VALUES (?, ?, ?, ?, ?, ?) "
    "ON CONFLICT (kind, id) DO UPDATE SET seq = excluded.seq, version = excluded.version, "
    "deleted = excluded.deleted, digest = excluded.digest"
)


class Kept(NamedTuple):
    """What became of a page.

    Attributes:
        first, last: seqs of the new versions, 0 and 0 where there are none.
        refs: of the new versions, in order.
    """

    stored: int
    unchanged: int
    first: int = 0
    last: int = 0
    refs: tuple[str, ...] = ()


class _Current(NamedTuple):
    seq: int
    version: int
    deleted: bool
    digest: bytes


def ref_of(seq: int, digest: bytes) -> str:
    """The ref of a version: its ``seq`` (16 hex digits), then 192 bits of HMAC under the account's reference key.

    The number finds the row without an index of its own, and the HMAC proves that it is the one meant. An index over
    random refs would be one more B-tree page to write for each resource that is ever stored, for the few that anyone
    asks for by ref. The number tells the order of arrival, nothing of a patient.
    """
    return f"resource:{seq:016x}{digest.hex()}"


class Writer:
    """Writes pages."""

    def __init__(self, vault: Vault, symbols: Symbols) -> None:
        self._vault = vault
        self._symbols = symbols

    def keep(
        self, permit: Permit, tx: Connection, origin: str, page: Sequence[Parsed], *, again: bool = False
    ) -> Kept:
        """Keep the page's resources in order; one that equals the current version of its id changes nothing.

        Args:
            origin: ref of the landing they came from, "" for none.
            again: the landing is read another time; what a version came from before is unchanged even when it
                is not the current one (decision D6).
        """
        if not page:
            return Kept(0, 0)
        work = _Work(self._vault, self._symbols, permit, tx, origin, again=again)
        return work.run(page)


class _Work:
    """One page on its way into the tables."""

    def __init__(
        self, vault: Vault, symbols: Symbols, permit: Permit, tx: Connection, origin: str, *, again: bool
    ) -> None:
        self.vault, self.symbols, self.permit, self.tx, self.again = vault, symbols, permit, tx, again
        self.origin = symbols.space(tx, origins_of(permit.account))[origin]
        self.updated = (vault.clock.now() - _EPOCH) // _MICROSECOND
        self.versions: list[tuple[object, ...]] = []
        self.pointers: dict[tuple[int, str], tuple[object, ...]] = {}
        self.indexed: dict[tuple[int, str], tuple[int, int, Parsed]] = {}
        self.stale: list[int] = []

    def run(self, page: Sequence[Parsed]) -> Kept:
        account, tx = self.permit.account, self.tx
        kinds = self.symbols.make(tx, kinds_of(account), {one.type for one in page})
        current = self._current(kinds, page)
        changed = self._changed(page, kinds, current)
        if not changed:
            return Kept(0, len(page))
        owners = self.symbols.make(tx, patients_of(account), {one.owner for one, _ in changed})
        seal = self.vault.sealer.keys_for(self.permit, tx, owners).seal
        first = seq = self._take(len(changed))
        refs = []
        for one, was in changed:
            kind, owner, deleted = kinds[one.type], owners[one.owner], not one.body
            version = was.version + 1 if was else 1
            previous = self.seqs.get((kind, one.id), was.seq if was else 0)
            digest = self._digest(one, version)
            body = seal(one.owner, bodies.context(one.type, one.id, version), one.body)
            place = (self.origin, one.offset, one.length, one.line, self.permit.act)
            self.versions.append(
                (seq, kind, one.id, version, previous, deleted, owner, self.updated, *place, digest, body)
            )
            refs.append(self._point(one, kind, owner, seq, version, digest))
            seq += 1
        self._write()
        return Kept(len(changed), len(page) - len(changed), first, seq - 1, tuple(refs))

    def _changed(
        self, page: Sequence[Parsed], kinds: dict[str, int], current: dict[tuple[int, str], _Current]
    ) -> list[tuple[Parsed, _Current | None]]:
        """The page's entries that make a version, each with the version before it."""
        changed: list[tuple[Parsed, _Current | None]] = []
        for one in page:
            key = (kinds[one.type], one.id)
            was = current.get(key)
            if was is not None and (self._equals(one, was) or (self.again and self._came_before(one, was.seq))):
                continue
            changed.append((one, was))
            version = was.version + 1 if was else 1
            # seq 0: made in this page, so nothing of it is in the tables yet.
            current[key] = _Current(0, version, not one.body, self._digest(one, version))
            if was is not None and was.seq:
                self.stale.append(was.seq)
        return changed
