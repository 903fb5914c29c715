"""Texts of codes after an erasure, and what is left of anybody in the rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection, delete, func, select

from carelake.core import canonical
from carelake.core.permit import Permit
from carelake.fhir.gone import Gone
from carelake.fhir.search import extract
from carelake.store.erase_walk import COLUMNS, Shown, Walker
from carelake.store.symbols import TERM, kinds_of, params_of, patients_of
from carelake.store.tables import display, ix_reference, ix_token, resource, symbol
from carelake.vault.forgotten import raise_epoch

__all__ = ["Leftovers"]

_CHUNK = 500
_FEW = 50
_R = resource.c


class Leftovers(Walker):
    """See the module."""

    # -- texts of codes -------------------------------------------------------------------------------------------

    def all_shown(self, permit: Permit, tx: Connection) -> set[Shown]:
        """Every text of a code that the account has."""
        found: set[Shown] = set()
        for kind in self._kinds(permit, tx):
            params = {key: text for text, key in self._symbols.everything(tx, params_of(kind)).items()}
            numbers = list(params)
            for start in range(0, len(numbers), _CHUNK):
                page = display.c.param.in_(numbers[start : start + _CHUNK])
                rows = tx.execute(select(display).where(page)).all()
                systems = self._symbols.texts(tx, {row.system for row in rows})
                found |= {(kind, params[r.param], systems.get(r.system, ""), r.code, r.value) for r in rows}
        return found

    def drop_shown(self, permit: Permit, tx: Connection, shown: Iterable[Shown]) -> int:
        """Delete texts of codes that no current resource says any more; answers how many.

        Nearly every text is found again in the first resource that has the code.
        """
        kinds, registry = self._kinds(permit, tx), self._indexed.registry(tx, permit.account)
        wanted: dict[tuple[int, str, str, str], set[str]] = defaultdict(set)
        for kind, source, system, code, folded in shown:
            wanted[(kind, source, system, code)].add(folded)
        gone = 0
        for (kind, source, system, code), texts in sorted(wanted.items()):
            param = self._symbols.key(tx, params_of(kind), source)
            number = self._symbols.key(tx, TERM, system) if system else 0
            of_code = (display.c.param == param, display.c.system == number, display.c.code == code)
            there = set(tx.execute(select(display.c.value).where(*of_code)).scalars()) & texts
            last = 0
            while there:
                have = (ix_token.c.param == param, ix_token.c.system == number, ix_token.c.code == code)
                page = select(ix_token.c.seq).where(*have, ix_token.c.seq > last).order_by(ix_token.c.seq).limit(_FEW)
                seqs = list(tx.execute(page).scalars())
                if not seqs:
                    break
                last = seqs[-1]
                for _, text in self._texts(permit, tx, list(self._rows(tx, seqs, select(*COLUMNS))), kinds):
                    if text and there:
                        said = extract(canonical.load(text), registry, loose=True).displays
                        there -= {t for p, s, c, t in said if (p, s, c) == (source, system, code)}
            for text in there:
                gone += tx.execute(delete(display).where(*of_code, display.c.value == text)).rowcount
        if gone:
            raise_epoch(tx)
        return gone

    # -- what is left ---------------------------------------------------------------------------------------------

    def residue(self, permit: Permit, tx: Connection, patients: Iterable[str], gone: Gone) -> dict[str, int]:
        """Rows that still name what is gone, by table; `mentions` looks into the bodies."""
        kinds = self._symbols.everything(tx, kinds_of(permit.account))
        by_kind: dict[str, list[str]] = defaultdict(list)
        for one in gone.resources:
            kind, _, key = one.partition("/")
            by_kind[kind].append(key)
        found = {"symbol": 0, "resource": 0, "ix_reference": 0}
        space = symbol.c.space == patients_of(permit.account)
        found["symbol"] = _count(tx, symbol.c.text, patients, space)
        for kind, ids in by_kind.items():
            found["resource"] += _count(tx, _R.id, ids, _R.kind == kinds.get(kind, -1))
        terms = {key: text for text, key in self._symbols.everything(tx, TERM).items()}
        pointing = ix_reference.c.param.in_(list(tx.execute(select(ix_reference.c.param).distinct()).scalars()))
        ids = sorted({key for keys in by_kind.values() for key in keys})
        for start in range(0, len(ids), _CHUNK):
            page = ix_reference.c.target.in_(ids[start : start + _CHUNK])
            for target, kind in tx.execute(select(ix_reference.c.target, ix_reference.c.type).where(pointing, page)):
                found["ix_reference"] += f"{terms.get(kind, '')}/{target}" in gone.resources
        return found


def _count(tx: Connection, column: Any, values: Iterable[str], *conditions: Any) -> int:
    wanted, count = sorted(set(values)), 0
    for start in range(0, len(wanted), _CHUNK):
        page = column.in_(wanted[start : start + _CHUNK])
        count += int(tx.execute(select(func.count()).select_from(column.table).where(page, *conditions)).scalar_one())
    return count
