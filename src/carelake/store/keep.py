"""Keeping a page of resources: versions, bodies, pointers and index rows in the caller's one transaction."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, insert, select, update

from carelake.audit.patients import note
from carelake.core import canonical
from carelake.core.errors import CarelakeError
from carelake.core.permit import Permit
from carelake.core.records import Parsed
from carelake.fhir.compartment import tells_of_patients
from carelake.fhir.search import extract
from carelake.store import bodies
from carelake.store.indexing import IndexRows, clear
from carelake.store.rows import read_versions
from carelake.store.symbols import Symbols, kinds_of, origins_of, patients_of
from carelake.store.tables import counter, origin_run, resource, resource_version
from carelake.vault.database import bulk
from carelake.vault.workspace import Vault

__all__ = ["DIGEST_BYTES", "Kept", "Writer", "ref_of"]

DIGEST_BYTES = 24
_CHUNK = 500
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_Key = tuple[int, str]

_CURRENT = select(resource.c.id, resource.c.seq, resource.c.version, resource.c.deleted, resource.c.digest).where(
    resource.c.kind == bindparam("k"), resource.c.id.in_(bindparam("ids", expanding=True))
)

_V = resource_version.c
_CAME_FROM = select(_V.previous, _V.version, _V.origin, _V.offset, _V.digest).where(_V.seq == bindparam("of"))
_COUNTED = update(counter).where(counter.c.name == "seq").values(last=bindparam("to"))

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


def _named(page: Sequence[Parsed]) -> set[str]:
    """Patients that resources of no one patient point to."""
    shared = (one for one in page if not one.owner and tells_of_patients(one.type))
    return {key for one in shared for _, kind, key, _ in one.index.references if kind == "Patient"}


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
        self._vault, self._symbols, self._permit, self._tx, self._again = vault, symbols, permit, tx, again
        self._origin = symbols.space(tx, origins_of(permit.account))[origin]
        self._updated = (vault.clock.now() - _EPOCH) // datetime.resolution
        self._versions: list[tuple[object, ...]] = []
        self._refs: list[str] = []
        self._newest: dict[_Key, tuple[int, Parsed]] = {}
        self._replaced: list[int] = []

    def run(self, page: Sequence[Parsed]) -> Kept:
        permit, tx = self._permit, self._tx
        kinds = self._symbols.make(tx, kinds_of(permit.account), {one.type for one in page})
        names = {one.owner for one in page}
        owners = self._symbols.make(tx, patients_of(permit.account), names)
        note(permit, self._vault.keyring, names | _named(page))
        self._seal = self._vault.sealer.keys_for(permit, tx, names).seal
        current = self._current(kinds, page)
        before = seq = self._last()
        for one in page:
            key = (kinds[one.type], one.id)
            was = current.get(key)
            if was is not None and self._unchanged(one, was):
                continue
            seq += 1
            version = was.version + 1 if was is not None else 1
            digest = self._digest(one, version)
            current[key] = _Current(seq, version, not one.body, digest)
            self._add(one, key, owners[one.owner], current[key], was)
            if was is not None and was.seq <= before:
                self._replaced.append(was.seq)
        if seq > before:
            self._write(seq, current, owners)
        refs = tuple(self._refs)
        return Kept(seq - before, len(page) - (seq - before), before + 1 if refs else 0, seq if refs else 0, refs)

    def _add(self, one: Parsed, key: _Key, owner: int, now: _Current, was: _Current | None) -> None:
        body = self._seal(one.owner, bodies.context(one.type, one.id, now.version), one.body)
        previous = was.seq if was is not None else 0
        place = (self._origin, one.offset, one.length, one.line, self._permit.act)
        head = (now.seq, *key, now.version, previous, now.deleted, owner, self._updated)
        self._versions.append((*head, *place, now.digest, body))
        self._newest[key] = (now.seq, one)
        self._refs.append(ref_of(now.seq, now.digest))

    def _unchanged(self, one: Parsed, was: _Current) -> bool:
        if not was.deleted and one.body and self._digest(one, was.version) == was.digest:
            return True
        if was.deleted and not one.body:
            return True
        return self._again and self._came_before(one, was.seq)

    def _came_before(self, one: Parsed, seq: int) -> bool:
        """Whether some version of this id came from the same place of the same landing, with the same content."""
        while seq:
            seq, version, origin, offset, digest = self._tx.execute(_CAME_FROM, {"of": seq}).one()
            if (origin, offset) == (self._origin, one.offset) and digest == self._digest(one, version):
                return True
        return False

    def _digest(self, one: Parsed, version: int) -> bytes:
        said = bodies.context(one.type, one.id, version) + b"|" + one.digest
        ref = self._vault.keyring.reference(self._permit, "resource", said)
        return bytes.fromhex(ref[-64:])[:DIGEST_BYTES]

    def _current(self, kinds: dict[str, int], page: Sequence[Parsed]) -> dict[_Key, _Current]:
        wanted: defaultdict[int, dict[str, None]] = defaultdict(dict)
        for one in page:
            wanted[kinds[one.type]][one.id] = None
        found = {}
        for kind, names in wanted.items():
            ids = list(names)
            for start in range(0, len(ids), _CHUNK):
                for row in self._tx.execute(_CURRENT, {"k": kind, "ids": ids[start : start + _CHUNK]}):
                    found[(kind, row[0])] = _Current(*row[1:])
        return found

    def _last(self) -> int:
        self._tx.exec_driver_sql("INSERT INTO counter (name, last) VALUES ('seq', 0) ON CONFLICT DO NOTHING")
        return int(self._tx.exec_driver_sql("SELECT last FROM counter WHERE name = 'seq'").scalar_one())

    def _write(self, seq: int, current: dict[_Key, _Current], owners: dict[str, int]) -> None:
        tx = self._tx
        tx.execute(_COUNTED, {"to": seq})
        self._unindex()
        bulk(tx, _VERSION, self._versions)
        if self._origin:
            run = {"origin": self._origin, "first": seq - len(self._versions) + 1, "last": seq}
            tx.execute(insert(origin_run), run)
        pointers = sorted((*key, *current[key]) for key in self._newest)
        bulk(tx, _POINTER, pointers)
        rows = IndexRows(self._symbols, tx)
        for (kind, _), (number, one) in self._newest.items():
            if one.body:
                rows.add(kind, number, owners[one.owner], self._updated, one.index)
        rows.write()

    def _unindex(self) -> None:
        """Take out the index rows of versions that are no longer current, found again from their bodies."""
        rows = IndexRows(self._symbols, self._tx)
        for old in read_versions(self._permit, self._tx, self._vault, self._symbols, self._replaced):
            if old.deleted:
                continue
            try:
                values = extract(canonical.load(old.text))
            except CarelakeError:
                clear(self._tx, old.seq)
                continue
            rows.add(old.kind, old.seq, old.owner_key, old.updated, values)
        rows.remove()
