"""Taking patients out of the record: versions, pointers, index rows, texts of codes, symbols; and what names them.

A page of patients is one transaction, with their keys: before it all is there, after it nothing is. What belongs to
others and names them is rewritten in place, history included: same version, same number, same ref, without the link
(decision 0037). A resource that was about nobody else goes with them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, select, update

from carelake.access.projection import Told, drop, forget, project
from carelake.audit.patients import note
from carelake.core import canonical
from carelake.core.errors import Gone as Erased
from carelake.core.permit import Permit
from carelake.fhir.gone import Gone
from carelake.fhir.search import extract
from carelake.fhir.unlink import without
from carelake.store import bodies
from carelake.store.consents import CONSENT
from carelake.store.erase_shown import Leftovers
from carelake.store.erase_walk import PLACED, Survey, Taken, Version, binaries_in
from carelake.store.indexed import Indexed
from carelake.store.indexing import Displays, IndexRows, remove
from carelake.store.keep import Writer
from carelake.store.symbols import Symbols, kinds_of, patients_of
from carelake.store.tables import BY_SEQ, ix_token, resource, resource_version, symbol
from carelake.store.write import tombstone
from carelake.vault.database import bulk
from carelake.vault.forgotten import raise_epoch
from carelake.vault.workspace import Vault

__all__ = ["Eraser", "Survey", "Taken"]

_MANY = 10_000
_CHUNK = 500
_IDENTIFIERS = frozenset({"token:identifier"})
_V, _R = resource_version.c, resource.c
_OF = select(_V.seq, _V.owner).where(_V.seq > bindparam("after"), _V.owner.in_(bindparam("owners", expanding=True)))


class Eraser(Leftovers):
    """See the module."""

    def __init__(self, vault: Vault, symbols: Symbols, indexed: Indexed, writer: Writer) -> None:
        super().__init__(vault, symbols, indexed)
        self._writer = writer

    # -- whose it is ----------------------------------------------------------------------------------------------

    def survey(self, permit: Permit, tx: Connection, patients: Sequence[str]) -> Survey:
        """All versions of patients, past ones and deletions too: one walk over the owners of all versions."""
        keys = self._keys(permit, tx, patients)
        until = int(tx.execute(select(func.max(_V.seq))).scalar() or 0)
        found = Survey({one: [] for one in patients}, until)
        numbers = list(keys)
        for start in range(0, len(numbers), _MANY):
            for seq, owner in tx.execute(_OF, {"after": 0, "owners": numbers[start : start + _MANY]}):
                found.seqs[keys[owner]].append(seq)
        every = [seq for seqs in found.seqs.values() for seq in seqs]
        origins = {row.origin for row in self._rows(tx, every, select(_V.origin))}
        found.landings = {text for text in self._symbols.texts(tx, origins).values() if text}
        return found

    def _keys(self, permit: Permit, tx: Connection, patients: Iterable[str]) -> dict[int, str]:
        known = self._symbols.find(tx, patients_of(permit.account), patients)
        return {key: text for text, key in known.items() if key}

    # -- a page of patients ---------------------------------------------------------------------------------------

    def take_out(self, permit: Permit, tx: Connection, patients: Sequence[str], survey: Survey) -> Taken:
        """Take patients out, in the caller's transaction, in which their keys are forgotten too (`forget`).

        Bodies are opened once more, for what they are called elsewhere; the caller keeps the answer sealed.
        """
        keys = self._keys(permit, tx, patients)
        seqs = {seq for one in patients for seq in survey.seqs.get(one, ())}
        if keys:
            seqs |= {row.seq for row in tx.execute(_OF, {"after": survey.until, "owners": list(keys)})}
        note(permit, self._vault.keyring, patients)
        taken = Taken({f"Patient/{one}" for one in patients})
        self._take(permit, tx, sorted(seqs), keys, taken)
        forget(tx, permit.account, patients)
        if keys:
            tx.execute(delete(symbol).where(symbol.c.key.in_(list(keys))))
        raise_epoch(tx)  # numbers and texts that other processes remember are good no more
        return taken

    def _take(
        self, permit: Permit, tx: Connection, seqs: Sequence[int], owners: dict[int, str] | None, taken: Taken
    ) -> None:
        """Read versions, some at a time, and remove them. Without ``owners`` they are looked up."""
        versions = []
        for rows in self._held(tx, seqs, PLACED):
            known = owners
            if known is None:
                known = {key: text for key, text in self._symbols.texts(tx, {r.owner for r in rows}).items() if key}
            self._read(permit, tx, rows, known, taken)
            versions += [Version(row.seq, row.kind, row.id) for row in rows]
        self._remove(permit, tx, versions, taken)

    def _read(
        self, permit: Permit, tx: Connection, rows: Sequence[Any], owners: dict[int, str], taken: Taken
    ) -> None:
        """What the versions are called, where they lie, and what came with them."""
        kinds = self._kinds(permit, tx)
        registry = self._indexed.registry(tx, permit.account)
        origins = self._symbols.texts(tx, {row.origin for row in rows})
        keys = self._vault.sealer.keys_for(permit, tx, set(owners.values()) | {""}, create=False)
        for row in rows:
            name = kinds[row.kind]
            taken.resources.add(f"{name}/{row.id}")
            taken.seqs.append((name, row.seq))
            if origins.get(row.origin):
                taken.ranges.add((origins[row.origin], row.offset, row.length))
            if row.deleted:
                continue
            try:
                packed = keys.open(owners.get(row.owner, ""), bodies.context(name, row.id, row.version), row.body)
            except Erased:
                taken.unread += 1
                if name == "Patient":
                    taken.identifiers |= self._indexed_identifiers(tx, row.seq)
                continue
            text = bodies.unpack(packed)
            body = canonical.load(text)
            if name == "Patient":
                told = body.get("identifier", ())
                taken.identifiers |= {(str(i.get("system", "")), str(i.get("value", ""))) for i in told}
            for source, system, code, shown in extract(body, registry, loose=True).displays:
                taken.shown.add((row.kind, source, system, code, shown))
            taken.binaries |= binaries_in(text)

    def _indexed_identifiers(self, tx: Connection, seq: int) -> set[tuple[str, str]]:
        """Identifiers as the index has them, of a Patient that nobody can open any more."""
        rows = tx.execute(
            select(ix_token.c.param, ix_token.c.system, ix_token.c.code).where(ix_token.c.seq == seq)
        ).all()
        texts = self._symbols.texts(tx, {number for row in rows for number in row[:2]})
        return {(texts.get(row.system, ""), row.code) for row in rows if texts.get(row.param) in _IDENTIFIERS}

    def _remove(self, permit: Permit, tx: Connection, rows: Sequence[Version], taken: Taken) -> None:
        """Versions with their pointers and index rows."""
        gone = {row.seq for row in rows}
        counted: dict[tuple[int, str], int] = defaultdict(int)
        for row in rows:
            counted[(row.kind, row.id)] += 1
        taken.counts["index_rows"] += _indexed_rows(tx, sorted(gone))
        remove(tx, sorted(gone))
        mixed = []
        for (kind, key), number in counted.items():
            now = tx.execute(select(_R.seq, _R.version).where(_R.kind == kind, _R.id == key)).first()
            if now is not None and now.version == number:
                tx.execute(delete(resource).where(_R.kind == kind, _R.id == key))
            elif now is not None:
                mixed.append((kind, key, now.seq))
        consents = self._symbols.key(tx, kinds_of(permit.account), CONSENT)
        mine = {key for kind, key in counted if kind == consents}
        for kind, key, newest in mixed:
            self._part(permit, tx, kind, key, newest, gone, taken)
            if kind == consents and newest not in gone:
                mine.discard(key)  # as it is now it is another's
        drop(tx, permit.account, sorted(mine))
        bulk(tx, "DELETE FROM resource_version WHERE seq = ?", [(seq,) for seq in sorted(gone)])
        taken.counts["versions"] += len(gone)
        taken.counts["resources"] += len(counted)

    def _part(
        self, permit: Permit, tx: Connection, kind: int, key: str, newest: int, gone: set[int], taken: Taken
    ) -> None:
        """A resource that was another's too, before or after: their versions stay, joined anew.

        Where the current version goes, an earlier one that was another's is not made current again: it was moved out
        of their record. The resource is deleted there, and stays readable as a version.
        """
        chain, seq = [], newest
        while seq:
            row = tx.execute(select(_V.seq, _V.previous, _V.owner, _V.digest).where(_V.seq == seq)).first()
            if row is None:
                break
            chain.append(row)
            seq = row.previous
        left = [row for row in chain if row.seq not in gone]
        name = self._symbols.texts(tx, [kind]).get(kind, "")
        if left:
            taken.resources.discard(f"{name}/{key}")  # it is theirs now
        where = (_R.kind == kind, _R.id == key)
        if not left:
            tx.execute(delete(resource).where(*where))
            return
        for row, before in zip(left, [*left[1:], None], strict=True):
            previous = before.seq if before is not None else 0
            if row.previous != previous:
                tx.execute(update(resource_version).where(_V.seq == row.seq).values(previous=previous))
                taken.relinked.append((name, row.seq))  # the lake has what it replaced
        if newest in gone:
            told = {"seq": left[0].seq, "digest": left[0].digest, "deleted": False}
            tx.execute(update(resource).where(*where).values(**told))
            owner = self._symbols.texts(tx, [left[0].owner]).get(left[0].owner, "")
            self._writer.keep(permit, tx, "", [tombstone(name, key, owner)])

    # -- what names them ------------------------------------------------------------------------------------------

    def rewrite(
        self, permit: Permit, tx: Connection, seqs: Sequence[int], gone: Gone, taken: Taken
    ) -> list[tuple[str, int]]:
        """Rewrite versions without their links; what was about nobody else goes, and is noted in ``taken``.

        Returns type and seq of those that were rewritten.
        """
        kinds = self._kinds(permit, tx)
        rows = list(self._rows(tx, sorted(seqs), select(*PLACED)))
        rewritten, over = [], set()
        for row, text in list(self._texts(permit, tx, rows, kinds)):
            name = kinds[row.kind]
            body = canonical.load(text) if text else None
            left = without(body, gone) if body is not None else None
            if f"{name}/{row.id}" in gone.resources or (body is not None and left is None):
                over.add((row.kind, row.id))
            elif left is not None and left != body:
                self._rewrite(permit, tx, row, name, left)
                rewritten.append((name, row.seq))
            if text and left != body and row.origin:
                origin = self._symbols.texts(tx, [row.origin]).get(row.origin, "")
                taken.ranges.add((origin, row.offset, row.length))
        if over:
            self._drop(permit, tx, over, taken)
        taken.counts["rewritten"] += len(rewritten)
        raise_epoch(tx)
        return rewritten

    def drop(self, permit: Permit, tx: Connection, names: Iterable[str], taken: Taken) -> None:
        """Take out resources, whole, by ``Type/id``."""
        kinds = {text: key for key, text in self._kinds(permit, tx).items()}
        wanted = {(kinds[t], i) for t, _, i in (name.partition("/") for name in names) if t in kinds}
        self._drop(permit, tx, wanted, taken)
        raise_epoch(tx)  # a sync that has read them already keeps nothing of them

    def _drop(self, permit: Permit, tx: Connection, wanted: set[tuple[int, str]], taken: Taken) -> None:
        chain: list[int] = []
        for kind, key in sorted(wanted):
            seq = tx.execute(select(_R.seq).where(_R.kind == kind, _R.id == key)).scalar()
            while seq:
                chain.append(seq)
                seq = tx.execute(select(_V.previous).where(_V.seq == seq)).scalar()
        self._take(permit, tx, chain, None, taken)

    def _rewrite(self, permit: Permit, tx: Connection, row: Any, name: str, body: dict[str, Any]) -> None:
        owner = self._symbols.texts(tx, [row.owner]).get(row.owner, "")
        packed = bodies.pack(canonical.dump(body))
        context = bodies.context(name, row.id, row.version)
        sealed = self._vault.sealer.keys_for(permit, tx, (owner,)).seal(owner, context, packed)
        # The digest stays: it is an HMAC of what came, and the ref by which lineage and acts know the version.
        tx.execute(update(resource_version).where(_V.seq == row.seq).values(body=sealed))
        now = tx.execute(select(_R.seq).where(_R.kind == row.kind, _R.id == row.id)).scalar()
        if now == row.seq:
            remove(tx, [row.seq])
            rows = IndexRows(self._symbols, tx, Displays())
            rows.own(row.kind, row.seq, row.owner)
            rows.add(row.kind, row.seq, extract(body, self._indexed.registry(tx, permit.account), loose=True))
            rows.write()
            if name == CONSENT:
                project(tx, permit.account, [Told(row.id, row.owner, owner, body)])


def _indexed_rows(tx: Connection, seqs: Sequence[int]) -> int:
    count = 0
    for table in BY_SEQ:
        for start in range(0, len(seqs), _CHUNK):
            page = table.c.seq.in_(list(seqs[start : start + _CHUNK]))
            count += int(tx.execute(select(func.count()).select_from(table).where(page)).scalar_one())
    return count
