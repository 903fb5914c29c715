"""Keeping a page of resources: versions, bodies, pointers and index rows in the caller's one transaction."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, insert, select

from carelake.audit.patients import note
from carelake.core import canonical
from carelake.core.permit import Permit
from carelake.core.records import Parsed
from carelake.fhir.compartment import tells_of_patients
from carelake.fhir.search import BASE, Registry, extract
from carelake.store import bodies
from carelake.store.consents import CONSENT, project_kept
from carelake.store.indexed import Indexed
from carelake.store.indexing import Displays, IndexRows, remove
from carelake.store.symbols import Symbols, kinds_of, origins_of, patients_of
from carelake.store.tables import origin_run, resource, resource_version
from carelake.vault.database import bulk, rows_of
from carelake.vault.workspace import Vault

__all__ = ["DIGEST_BYTES", "Current", "Kept", "Key", "Writer", "digest_of", "ref_of"]

DIGEST_BYTES = 24
_CHUNK = 500
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Key = tuple[int, str]
"""Symbol of the type, and id."""

_CURRENT = select(resource.c.id, resource.c.seq, resource.c.version, resource.c.deleted, resource.c.digest).where(
    resource.c.kind == bindparam("k"), resource.c.id.in_(bindparam("ids", expanding=True))
)

_CURRENT_ONE = "SELECT seq, version, deleted, digest FROM resource WHERE kind = ? AND id = ?"

_V = resource_version.c
_CAME_FROM = select(_V.previous, _V.version, _V.origin, _V.offset, _V.digest).where(_V.seq == bindparam("of"))

_STORED = 5
"""Fields of `Current` that a row of ``resource`` has."""

_VERSION = (
    "INSERT INTO resource_version (seq, kind, id, version, previous, deleted, owner, updated, origin, "
    '"offset", length, line, act, digest, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)'
)
_POINTER = "INSERT INTO resource (kind, id, seq, version, deleted, digest, updated) VALUES (?, ?, ?, ?, ?, ?, ?)"
_MOVED = "UPDATE resource SET seq = ?, version = ?, deleted = ?, digest = ?, updated = ? WHERE kind = ? AND id = ?"


class Kept(NamedTuple):
    """What became of a page.

    Attributes:
        first, last: seqs of the new versions, 0 and 0 where there are none.
        refs: of the new versions, in order.
        updated: when they were made, microseconds since 1970 UTC.
    """

    stored: int
    unchanged: int
    first: int = 0
    last: int = 0
    refs: tuple[str, ...] = ()
    updated: int = 0


class Current(NamedTuple):
    """The current version.

    Attributes:
        updated: when it was made, microseconds since 1970 UTC; 0 where nobody asked.
        owner: symbol of a patient, likewise.
    """

    seq: int
    version: int
    deleted: bool
    digest: bytes
    updated: int = 0
    owner: int = 0


def ref_of(seq: int, digest: bytes) -> str:
    """The ref of a version: its ``seq`` (16 hex digits), then 192 bits of HMAC under the account's reference key.

    The number finds the row without an index of its own, and the HMAC proves that it is the one meant. An index over
    random refs would be one more B-tree page to write for each resource that is ever stored, for the few that anyone
    asks for by ref. The number tells the order of arrival, nothing of a patient.
    """
    return f"resource:{seq:016x}{digest.hex()}"


def digest_of(ref: str) -> bytes:
    """The HMAC in a version's ref."""
    return bytes.fromhex(ref[-2 * DIGEST_BYTES :])


def _named(page: Sequence[Parsed]) -> set[str]:
    """Patients that resources of no one patient point to."""
    shared = (one for one in page if not one.owner and tells_of_patients(one.type))
    return {key for one in shared for _, kind, key, _ in one.index.references if kind == "Patient"}


def _extract(page: Sequence[Parsed], registry: Registry) -> None:
    for one in page:
        if one.body:
            one.index = extract(canonical.load(bodies.unpack(one.body)), registry, loose=True)


class Writer:
    """Writes pages."""

    def __init__(self, vault: Vault, symbols: Symbols, indexed: Indexed) -> None:
        self._vault = vault
        self._symbols = symbols
        self._indexed = indexed
        self._displays = Displays()

    def keep(
        self,
        permit: Permit,
        tx: Connection,
        origin: str,
        page: Sequence[Parsed],
        *,
        again: bool = False,
        registry: Registry = BASE,
        current: bool = False,
    ) -> Kept:
        """Keep the page's resources in order; one that equals the current version of its id changes nothing.

        Args:
            origin: ref of the landing they came from, "" for none.
            again: the landing is read another time; what a version came from before is unchanged even when it
                is not the current one (decision D6).
            registry: what the index values were extracted by; where the account has others, they are made anew.
            current: that is known to be the account's in this transaction.
        """
        if not page:
            return Kept(0, 0)
        self._begin(tx, permit.account, page, registry, current=current)
        work = _Work(self._vault, self._symbols, self._displays, permit, tx, origin, again=again)
        return work.run(page)

    def keep_each(
        self,
        tx: Connection,
        permits: Sequence[Permit],
        page: Sequence[Parsed],
        known: Mapping[Key, Current],
        registry: Registry,
    ) -> list[Current]:
        """Keep resources that several callers wrote, each under its own permit of the same account; no id twice.

        Args:
            known: the current versions of those that are there, looked up in this transaction.
            registry: what the index values were extracted by.

        Returns:
            The current version of each, afterwards; those of ``known`` themselves where nothing changed.
        """
        self._begin(tx, permits[0].account, page, registry)
        return _Each(self._vault, self._symbols, self._displays, permits, tx, known).each(page)

    def _begin(
        self, tx: Connection, account: str, page: Sequence[Parsed], registry: Registry, *, current: bool = False
    ) -> None:
        known_by = registry if current else self._indexed.current(tx, account)
        if known_by is not registry and known_by.digest != registry.digest:
            _extract(page, known_by)
        types = {one.type for one in page}
        known = self._symbols.find(tx, kinds_of(account), types)
        if len(known) < len(types):
            self._indexed.begin(tx, account, sorted(types - known.keys()))


class _Work:
    """One page on its way into the tables."""

    def __init__(
        self,
        vault: Vault,
        symbols: Symbols,
        displays: Displays,
        permit: Permit,
        tx: Connection,
        origin: str,
        *,
        again: bool,
    ) -> None:
        self._vault, self._symbols, self._permit, self._tx, self._again = vault, symbols, permit, tx, again
        self._displays = displays
        self._origin = symbols.space(tx, origins_of(permit.account))[origin]
        self._hmac = vault.keyring.referrer(permit, "resource")
        self._updated = (vault.clock.now() - _EPOCH) // datetime.resolution
        self._versions: list[tuple[object, ...]] = []
        self._refs: list[str] = []
        self._newest: dict[Key, tuple[int, Parsed]] = {}
        self._replaced: list[int] = []
        self._there: frozenset[Key] = frozenset()
        self._kinds: dict[str, int] = {}
        self._after: dict[Key, Current] = {}

    def run(self, page: Sequence[Parsed]) -> Kept:
        permit, tx = self._permit, self._tx
        kinds = self._symbols.make(tx, kinds_of(permit.account), dict.fromkeys(one.type for one in page))
        # In the page's order, so that the same pages give the same numbers.
        names = dict.fromkeys(one.owner for one in page)
        owners = self._symbols.make(tx, patients_of(permit.account), names)
        self._note(page, names)
        current = self._current(kinds, page)
        self._there = frozenset(current)
        before = seq = self._last()
        for number, one in enumerate(page):
            key = (kinds[one.type], one.id)
            was = current.get(key)
            if was is not None and self._unchanged(one, was):
                continue
            seq += 1
            version = was.version + 1 if was is not None else 1
            digest = self._digest(one, version)
            now = current[key] = Current(seq, version, not one.body, digest, self._updated, owners[one.owner])
            self._add(number, one, key, now, was)
            if was is not None and was.seq <= before:
                self._replaced.append(was.seq)
        if seq > before:
            self._write(seq, current, owners)
        self._kinds, self._after = kinds, current
        refs = tuple(self._refs)
        places = (before + 1, seq) if refs else (0, 0)
        return Kept(seq - before, len(page) - (seq - before), *places, refs, self._updated)

    def _note(self, page: Sequence[Parsed], owners: Iterable[str]) -> None:
        """Note for the act whom the page is about, and get the keys that it is sealed under."""
        permit = self._permit
        note(permit, self._vault.keyring, {*owners, *_named(page)})
        self._seal = self._vault.sealer.keys_for(permit, self._tx, owners).seal

    def _sealed(self, number: int, owner: str, context: bytes, body: bytes) -> tuple[str, bytes]:
        """The act that keeps one of the page, and its body under its owner's key."""
        return self._permit.act, self._seal(owner, context, body)

    def _add(self, number: int, one: Parsed, key: Key, now: Current, was: Current | None) -> None:
        act, body = self._sealed(number, one.owner, bodies.context(one.type, one.id, now.version), one.body)
        previous = was.seq if was is not None else 0
        place = (self._origin, one.offset, one.length, one.line, act)
        head = (now.seq, *key, now.version, previous, now.deleted, now.owner, now.updated)
        self._versions.append((*head, *place, now.digest, body))
        self._newest[key] = (now.seq, one)
        self._refs.append(ref_of(now.seq, now.digest))

    def _unchanged(self, one: Parsed, was: Current) -> bool:
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
        return self._hmac(bodies.context(one.type, one.id, version) + b"|" + one.digest)[:DIGEST_BYTES]

    def _current(self, kinds: dict[str, int], page: Sequence[Parsed]) -> dict[Key, Current]:
        wanted: defaultdict[int, dict[str, None]] = defaultdict(dict)
        for one in page:
            wanted[kinds[one.type]][one.id] = None
        found = {}
        for kind, names in wanted.items():
            ids = list(names)
            if len(ids) == 1:  # a list of ids is worked out anew for every statement
                for row in rows_of(self._tx, _CURRENT_ONE, kind, ids[0]):
                    found[(kind, ids[0])] = Current(*row)
                continue
            for start in range(0, len(ids), _CHUNK):
                for row in self._tx.execute(_CURRENT, {"k": kind, "ids": ids[start : start + _CHUNK]}):
                    found[(kind, row[0])] = Current(*row[1:])
        return found

    def _last(self) -> int:
        found = rows_of(self._tx, "SELECT last FROM counter WHERE name = 'seq'")
        if not found:
            self._tx.exec_driver_sql("INSERT INTO counter (name, last) VALUES ('seq', 0)")
        return int(found[0][0]) if found else 0

    def _write(self, seq: int, current: dict[Key, Current], owners: dict[str, int]) -> None:
        tx = self._tx
        bulk(tx, "UPDATE counter SET last = ? WHERE name = 'seq'", [(seq,)])
        bulk(tx, _VERSION, self._versions)
        remove(tx, self._replaced)
        if self._origin:
            run = {"origin": self._origin, "first": seq - len(self._versions) + 1, "last": seq}
            tx.execute(insert(origin_run), run)
        # Writers are served one after another: what was not there is not there now.
        new = sorted(key for key in self._newest if key not in self._there)
        bulk(tx, _POINTER, [(*key, *current[key][:_STORED]) for key in new])
        old = sorted(key for key in self._newest if key in self._there)
        bulk(tx, _MOVED, [(*current[key][:_STORED], *key) for key in old])
        rows = IndexRows(self._symbols, tx, self._displays)
        for (kind, _), (number, one) in self._newest.items():
            if one.body:
                rows.own(kind, number, owners[one.owner])
                rows.add(kind, number, one.index)
        rows.write()
        if consents := [one for _, one in self._newest.values() if one.type == CONSENT]:
            project_kept(tx, self._permit.account, consents, owners)


class _Each(_Work):
    """A page of what several callers wrote."""

    def __init__(
        self,
        vault: Vault,
        symbols: Symbols,
        displays: Displays,
        permits: Sequence[Permit],
        tx: Connection,
        known: Mapping[Key, Current],
    ) -> None:
        super().__init__(vault, symbols, displays, permits[0], tx, "", again=False)
        self._permits, self._known = permits, known

    def each(self, page: Sequence[Parsed]) -> list[Current]:
        """The current version of each, afterwards."""
        self.run(page)
        return [self._after[(self._kinds[one.type], one.id)] for one in page]

    def _current(self, kinds: dict[str, int], page: Sequence[Parsed]) -> dict[Key, Current]:
        return dict(self._known)

    def _note(self, page: Sequence[Parsed], owners: Iterable[str]) -> None:
        vault, tx = self._vault, self._tx
        # All in few statements; then each permit is asked for its own, which are at hand by now.
        vault.sealer.keys_for(self._permit, tx, [owner for owner in owners if owner])
        self._seals = []
        for permit, one in zip(self._permits, page, strict=True):
            vault.keyring.referrer(permit, "resource")
            note(permit, vault.keyring, {one.owner, *_named([one])})
            self._seals.append(vault.sealer.keys_for(permit, tx, (one.owner,)).seal)

    def _sealed(self, number: int, owner: str, context: bytes, body: bytes) -> tuple[str, bytes]:
        return self._permits[number].act, self._seals[number](owner, context, body)
