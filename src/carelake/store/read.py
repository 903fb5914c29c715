"""Read, version read and a patient's record (https://hl7.org/fhir/R4/http.html#read, #vread)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Connection, false, select

from carelake.audit.patients import note
from carelake.core.errors import CarelakeError, Gone, NotFound
from carelake.core.permit import Permit
from carelake.store import bodies
from carelake.store.keep import ref_of
from carelake.store.rows import COLUMNS, Version, open_rows, read_versions
from carelake.store.scopes import in_sight, scoped, version_scope
from carelake.store.symbols import Symbols, kinds_of, patients_of
from carelake.store.tables import ix_owner, resource, resource_version
from carelake.vault.database import rows_of, scope_of
from carelake.vault.workspace import Vault

__all__ = ["Readings"]

_PATIENTS = 500
_SELECT = (
    f"SELECT {', '.join(f'v.{column.name}' for column in COLUMNS)} FROM resource r "
    "JOIN resource_version v ON v.seq = r.seq WHERE "
)
_CURRENT = f"{_SELECT} r.kind = ? AND r.id = ?"
_PAIR = "(CAST(? AS BIGINT), CAST(? AS VARCHAR))"
_SIZES = (4, 16, 64)
_CURRENTS = {many: f"{_SELECT} (r.kind, r.id) IN (VALUES {', '.join([_PAIR] * many)})" for many in _SIZES}
_NONE = (0, "")


class Readings:
    """Readings of single resources; each is noted for the permit's act."""

    def __init__(self, vault: Vault, symbols: Symbols) -> None:
        self._vault = vault
        self._symbols = symbols

    def read(self, permit: Permit, tx: Connection, kind: str, key: str) -> dict[str, Any]:
        """The current version.

        Raises:
            NotFound: ``store.no_such_resource``, also where the scope hides it.
            Gone: ``store.deleted``, ``vault.erased``.
        """
        return self._answer(permit, self._one(permit, tx, kind, key, None))

    def shown(self, permit: Permit, tx: Connection, kind: str, key: str, version: str | None = None) -> bodies.Shown:
        """The current version, or another one, as it is answered; errors as `read`."""
        found = self._told(permit, self._one(permit, tx, kind, key, None if version is None else _number(version)))
        return bodies.shown(found.text, found.version, found.updated)

    def vread(self, permit: Permit, tx: Connection, kind: str, key: str, version: str) -> dict[str, Any]:
        """One version; errors as `read`."""
        return self._answer(permit, self._one(permit, tx, kind, key, _number(version)))

    def ref(self, permit: Permit, tx: Connection, kind: str, key: str) -> str:
        """The ref of the current version; errors as `read`."""
        found = self._one(permit, tx, kind, key, None)
        return ref_of(found.seq, found.digest)

    def owner(self, permit: Permit, tx: Connection, kind: str, key: str) -> str:
        """Whose record the current version is in, "" for none or several; errors as `read`."""
        return self._one(permit, tx, kind, key, None).owner

    def resources_of(self, permit: Permit, tx: Connection, patient: str) -> list[tuple[str, dict[str, Any]]]:
        """Ref and current version of everything in one patient's compartment, Patient included, by type and id."""
        key = self._symbols.key(tx, patients_of(permit.account), patient)
        query = select(ix_owner.c.seq).where(
            ix_owner.c.owner == key, scoped(permit, tx, self._symbols, ix_owner.c.seq)
        )
        seqs = list(tx.execute(query).scalars())
        found = read_versions(permit, tx, self._vault, self._symbols, seqs)
        alive = [one for one in found if not one.deleted and not one.erased]
        kept = sorted(alive, key=lambda one: (one.type, one.id))
        permit.log.read(*(ref_of(one.seq, one.digest) for one in kept))
        return [(ref_of(one.seq, one.digest), bodies.with_meta(one.text, one.version, one.updated)) for one in kept]

    def refs_of(
        self, permit: Permit, tx: Connection, patients: Sequence[str], kinds: Collection[str]
    ) -> dict[str, list[str]]:
        """Refs of the current versions of some types in patients' compartments; no body is opened."""
        keys = {self._symbols.key(tx, patients_of(permit.account), one): one for one in patients}
        wanted = [self._symbols.key(tx, kinds_of(permit.account), kind) for kind in sorted(kinds)]
        found: dict[str, list[str]] = {one: [] for one in patients}
        owner, version = ix_owner.c, resource_version.c
        for start in range(0, len(keys), _PATIENTS):
            page = list(keys)[start : start + _PATIENTS]
            query = (
                select(owner.owner, version.seq, version.digest)
                .join(resource_version, version.seq == owner.seq)
                .where(owner.owner.in_(page), version.kind.in_(wanted), version.deleted == false())
                .where(scoped(permit, tx, self._symbols, owner.seq))
                .order_by(version.seq)
            )
            for key, seq, digest in tx.execute(query):
                found[keys[key]].append(ref_of(seq, digest))
        note(permit, self._vault.keyring, (one for one, refs in found.items() if refs))
        permit.log.read(*(ref for refs in found.values() for ref in refs))
        return found

    def there(self, permit: Permit, tx: Connection, kind: str, key: str) -> bool:
        """Whether there is such a resource now that the caller may see. Nothing is opened."""
        row = resource.c
        query = (
            select(row.seq)
            .where(row.kind == self._symbols.key(tx, kinds_of(permit.account), kind), row.id == key)
            .where(row.deleted == false(), scoped(permit, tx, self._symbols, row.seq))
        )
        return tx.execute(query).first() is not None

    def _answer(self, permit: Permit, found: Version) -> dict[str, Any]:
        self._told(permit, found)
        return bodies.with_meta(found.text, found.version, found.updated)

    @staticmethod
    def _told(permit: Permit, found: Version) -> Version:
        permit.log.read(ref_of(found.seq, found.digest))
        if found.erased:
            raise Gone("vault.erased", "The patient's key is gone: the record was erased and cannot be read again.")
        if found.deleted:
            said = "The resource was deleted; an earlier version can still be read."
            raise Gone("store.deleted", said, version=found.version)
        return found

    def _current(self, permit: Permit, tx: Connection, kind: str, symbol: int, key: str) -> Sequence[tuple[Any, ...]]:
        """The row of the current version, still sealed; none or one.

        Where several readings share a snapshot (`Database.together`), the first of an account reads the rows that
        all of them expect: each is shown to its own permit only, and opened with it.
        """
        scope = scope_of(tx)
        if len(scope.expected) < 2 or (kind, key) not in scope.expected:
            return rows_of(tx, _CURRENT, symbol, key)
        known = scope.memo.get((_CURRENT, permit.account))
        if known is None:
            known = scope.memo[_CURRENT, permit.account] = self._expected(permit, tx, scope.expected)
        row = known.get((symbol, key))
        return () if row is None else (row,)

    def _expected(
        self, permit: Permit, tx: Connection, expected: Collection[tuple[str, str]]
    ) -> dict[tuple[int, str], tuple[Any, ...]]:
        kinds = self._symbols.find(tx, kinds_of(permit.account), {kind for kind, _ in expected})
        wanted = [(kinds[kind], key) for kind, key in expected if kind in kinds]
        found: dict[tuple[int, str], tuple[Any, ...]] = {}
        for start in range(0, len(wanted), _SIZES[-1]):
            some = wanted[start : start + _SIZES[-1]]
            many = next(size for size in _SIZES if size >= len(some))
            said = [one for pair in (*some, *[_NONE] * (many - len(some))) for one in pair]
            found.update(((row[1], row[2]), row) for row in rows_of(tx, _CURRENTS[many], *said))
        return found

    def _one(self, permit: Permit, tx: Connection, kind: str, key: str, version: int | None) -> Version:
        symbol = self._symbols.key(tx, kinds_of(permit.account), kind)
        if version is None:
            current = self._current(permit, tx, kind, symbol, key)
            if not current or not in_sight(permit, tx, self._symbols, kind, current[0][0], current[0][5]):
                raise _missing()
            return next(open_rows(permit, tx, self._vault, self._symbols, current))
        row = resource.c
        seq = tx.execute(select(row.seq).where(row.kind == symbol, row.id == key)).scalar()
        scope = version_scope(permit, tx, self._symbols)
        while seq:
            found = tx.execute(
                select(*COLUMNS, resource_version.c.previous).where(resource_version.c.seq == seq, scope)
            ).first()
            if found is None:
                break
            if found.version == version:
                return next(open_rows(permit, tx, self._vault, self._symbols, [tuple(found)[:-1]]))
            seq = found.previous
        raise _missing()


def _number(version: str) -> int:
    return int(version) if version.isascii() and version.isdigit() and len(version) < 10 else 0


def _missing() -> CarelakeError:
    return NotFound("store.no_such_resource", "There is no such resource or version that the caller may see.")
