"""What a bulk export has, and its lines (https://hl7.org/fhir/uv/bulkdata/export.html).

What is exported is chosen in one snapshot and written down as lists of version numbers. Versions are never changed,
so lines made from the lists are of that moment, however long it takes and however often it is begun again; what was
erased since is left out.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Connection, Select, false, func, select, true

from carelake.audit.patients import note
from carelake.core import canonical
from carelake.core.clock import iso
from carelake.core.errors import Gone
from carelake.core.permit import Permit
from carelake.fhir.compartment import compartment_codes, compartment_types, patients, tells_of_patients
from carelake.fhir.query import Query, parse
from carelake.fhir.search import Registry
from carelake.fhir.terminology import Terminology
from carelake.store import bodies
from carelake.store.export_lines import Liner
from carelake.store.export_lists import Seqs
from carelake.store.feed import page_ref
from carelake.store.indexed import Indexed
from carelake.store.keep import ref_of
from carelake.store.rows import COLUMNS
from carelake.store.scopes import scoped, version_scope
from carelake.store.search import Searches
from carelake.store.search.building import Build, prepare
from carelake.store.symbols import TERM, Symbols, kinds_of, params_of, patients_of
from carelake.store.tables import ix_owner, resource, resource_version
from carelake.vault.workspace import Vault

__all__ = ["Chosen", "Exports", "Selected", "Wanted"]

_R, _O, _V = resource.c, ix_owner.c, resource_version.c
_AT_ONCE = 1000
_ALL = 1 << 40
_COLUMNS = ", ".join(f"v.{column.name}" for column in COLUMNS)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked for.

    Attributes:
        types: resource types; each was decided by the gate.
        since, until: microseconds since 1970: changed after, and not after; None for no bound.
        within: what is in a patient's compartment only.
        patients: of these patients only, by id; None for all.
        filters: type -> searches, of which one must match.
    """

    types: tuple[str, ...]
    since: int | None = None
    until: int | None = None
    within: bool = False
    patients: frozenset[str] | None = None
    filters: Mapping[str, tuple[Query, ...]] = field(default_factory=dict)


class Chosen(NamedTuple):
    """Versions of a type: resources, or deletions."""

    type: str
    deleted: bool
    seqs: Seqs


class Selected(NamedTuple):
    """What an export has.

    Attributes:
        seq: newest version of the account in the snapshot.
        updated: its time, microseconds since 1970.
    """

    seq: int
    updated: int
    lists: tuple[Chosen, ...]


class Exports:
    """Reads what bulk exports are made of."""

    def __init__(self, vault: Vault, symbols: Symbols, indexed: Indexed, searches: Searches) -> None:
        self._vault = vault
        self._symbols = symbols
        self._indexed = indexed
        self._searches = searches

    def types(self, tx: Connection, account: str) -> list[str]:
        """Types that the account has, or had, resources of."""
        return sorted(self._symbols.everything(tx, kinds_of(account)))

    def registry(self, tx: Connection, account: str) -> Registry:
        """The account's search parameters, which filters are read by."""
        return self._indexed.registry(tx, account)

    # -- choosing -------------------------------------------------------------------------------------------------

    def select(self, permit: Permit, tx: Connection, wanted: Wanted, terminology: Terminology) -> Selected:
        """Choose, within the permit's scope; ``tx`` is one snapshot.

        Raises:
            Conflict: ``store.index_partial``: a filter needs an index that is not built.
        """
        newest = select(func.max(_V.seq)).where(_V.kind.in_(self._kinds(tx, permit.account)))
        seq = int(tx.execute(newest).scalar() or 0)
        updated = int(tx.execute(select(_V.updated).where(_V.seq == seq)).scalar() or 0)
        reach = set(compartment_types("Patient")) if wanted.within else set(wanted.types)
        lists = []
        for kind in wanted.types:
            if kind in reach and (key := self._symbols.key(tx, kinds_of(permit.account), kind)) > 0:
                lists.append(Chosen(kind, False, self._there(permit, tx, wanted, kind, key, terminology)))
                if wanted.since is not None:
                    lists.append(Chosen(kind, True, self._gone(permit, tx, wanted, key)))
        return Selected(seq, updated, tuple(one for one in lists if one.seqs))

    def _kinds(self, tx: Connection, account: str) -> list[int]:
        return list(self._symbols.everything(tx, kinds_of(account)).values())

    def _there(
        self, permit: Permit, tx: Connection, wanted: Wanted, kind: str, key: int, terminology: Terminology
    ) -> Seqs:
        found = self._in_reach(permit, tx, wanted, kind, key)
        if kind in wanted.filters:
            kept: set[int] = set()
            prepare(tx)
            for query in wanted.filters[kind]:
                self._indexed.require(tx, permit.account, query)
                kept.update(self._searches.matching(permit, tx, query, _ALL, terminology)[1])
            found = array("q", (seq for seq in found if seq in kept))
        return found

    def _in_reach(self, permit: Permit, tx: Connection, wanted: Wanted, kind: str, key: int) -> Seqs:
        query = select(_R.seq).where(_R.kind == key, _R.deleted == false(), *_span(wanted))
        query = query.where(scoped(permit, tx, self._symbols, _R.seq))
        if wanted.patients is None:
            return _ascending(tx, query)
        ids = sorted(wanted.patients)
        theirs = self._owned(tx, permit.account, key, ids) | self._pointing(permit, tx, kind, key, ids)
        found = set[int]()
        for some in _chunks(sorted(theirs)):
            found.update(tx.execute(query.where(_R.seq.in_(some))).scalars())
        return array("q", sorted(found))

    def _owned(self, tx: Connection, account: str, key: int, ids: Sequence[str]) -> set[int]:
        found = set[int]()
        for some in _chunks(self._owners(tx, account, ids)):
            found.update(tx.execute(select(_O.seq).where(_O.kind == key, _O.owner.in_(some))).scalars())
        return found

    def _pointing(self, permit: Permit, tx: Connection, kind: str, key: int, ids: Sequence[str]) -> set[int]:
        """What is in several patients' compartments, by its references: it is owned by none of them."""
        codes = compartment_codes("Patient", kind)
        if not codes or not ids:
            return set()
        # The search that finds the same for one patient tells whether the index is built.
        one = parse((kind,), [], compartment=("Patient", ids[0]))
        registry = self._indexed.require(tx, permit.account, one)
        names = {source.name for code in codes for source in registry.parameters(kind)[code].sources}
        pointed = self._symbols.key(tx, TERM, "Patient")
        found = set[int]()
        for param in self._symbols.find(tx, params_of(key), sorted(names)).values():
            for some in _chunks(ids):
                build = Build(tx.dialect.name)
                test = f"r.param = {build(param)} AND {build.among('r.target', some)} AND r.type = {build(pointed)}"
                found.update(row[0] for row in build.run(tx, f"SELECT r.seq FROM ix_reference r WHERE {test}"))
        return found

    def _gone(self, permit: Permit, tx: Connection, wanted: Wanted, key: int) -> Seqs:
        query = select(_R.seq).join(resource_version, _V.seq == _R.seq)
        query = query.where(_R.kind == key, _R.deleted == true(), *_span(wanted))
        query = query.where(version_scope(permit, tx, self._symbols))
        if wanted.patients is None:
            return _ascending(tx, query)
        found = set[int]()
        for some in _chunks(self._owners(tx, permit.account, sorted(wanted.patients))):
            found.update(tx.execute(query.where(_V.owner.in_(some))).scalars())
        return array("q", sorted(found))

    def _owners(self, tx: Connection, account: str, ids: Sequence[str]) -> list[int]:
        return sorted(self._symbols.find(tx, patients_of(account), ids).values())

    # -- lines ----------------------------------------------------------------------------------------------------

    def lines(
        self, permit: Permit, tx: Connection, seqs: Sequence[int], liner: Liner, *, within: bool = False
    ) -> Iterator[tuple[int, bytes]]:
        """Lines of versions, in blocks: how many, and their text. What was erased since is left out.

        Args:
            within: what is in no patient's compartment is left out; for most, only their bodies tell.
        """
        for some in _chunks(seqs):
            lines, refs = self._block(permit, tx, some, liner, within=within)
            permit.log.read(page_ref(refs))
            permit.log.count(exported=len(lines))
            yield len(lines), b"".join(lines)

    def _block(
        self, permit: Permit, tx: Connection, seqs: Sequence[int], liner: Liner, *, within: bool
    ) -> tuple[list[bytes], list[str]]:
        rows = self._rows(tx, seqs)
        texts = self._symbols.texts(tx, {row[1] for row in rows} | {row[5] for row in rows})
        owners = {texts.get(row[5], "") for row in rows}
        open_ = self._vault.sealer.keys_for(permit, tx, owners, create=False).open
        note(permit, self._vault.keyring, owners)
        lines, refs, line, unpack = [], [], liner.line, bodies.unpack
        for seq, kind, key, version, deleted, owner_key, updated, digest, body in rows:
            type_, owner = texts[kind], texts.get(owner_key, "")
            try:
                packed = open_(owner, bodies.context(type_, key, version), body)
            except Gone:
                continue
            if deleted:
                continue
            text = unpack(packed)
            if not owner and tells_of_patients(type_):
                told = patients(canonical.load(text))
                note(permit, self._vault.keyring, told)
                if within and not told:
                    continue
            lines.append(line(type_, key, version, updated, text))
            refs.append(ref_of(seq, digest))
        return lines, refs

    @staticmethod
    def _rows(tx: Connection, seqs: Sequence[int]) -> Sequence[tuple[Any, ...]]:
        build = Build(tx.dialect.name)
        listed = build.within("v.seq", seqs)
        return build.run(tx, f"SELECT {_COLUMNS} FROM resource_version v WHERE {listed} ORDER BY v.seq")

    def deletions(self, permit: Permit, tx: Connection, seqs: Sequence[int]) -> Iterator[tuple[int, bytes]]:
        """Deletions as the deleted list has them, a Bundle on each line; blocks as `lines`."""
        for some in _chunks(seqs):
            rows = self._rows(tx, some)
            texts = self._symbols.texts(tx, {row[1] for row in rows} | {row[5] for row in rows})
            note(permit, self._vault.keyring, (texts.get(row[5], "") for row in rows))
            permit.log.read(page_ref(ref_of(row[0], row[7]) for row in rows))
            permit.log.count(exported=len(rows))
            yield len(rows), b"".join(_deletion(texts[row[1]], row[2], row[6]) for row in rows)


def _span(wanted: Wanted) -> list[Any]:
    after = [_R.updated > wanted.since] if wanted.since is not None else []
    return after + ([_R.updated <= wanted.until] if wanted.until is not None else [])


def _ascending(tx: Connection, query: Select[Any]) -> Seqs:
    return array("q", sorted(tx.execute(query).scalars()))


def _chunks(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(values), _AT_ONCE):
        yield values[start : start + _AT_ONCE]


def _deletion(kind: str, key: str, updated: int) -> bytes:
    bundle = {
        "resourceType": "Bundle",
        "type": "transaction",
        "meta": {"lastUpdated": iso(bodies.moment(updated))},
        "entry": [{"request": {"method": "DELETE", "url": f"{kind}/{key}"}}],
    }
    return msgspec.json.encode(bundle) + b"\n"
