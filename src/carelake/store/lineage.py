"""Where a version came from: the landing and the bytes of it, as a noun; and what came from a landing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, select

from carelake.core.nouns import Noun
from carelake.core.permit import Permit
from carelake.store.keep import DIGEST_BYTES
from carelake.store.scopes import version_scope
from carelake.store.symbols import Symbols, kinds_of, origins_of
from carelake.store.tables import origin_run, resource, resource_version

__all__ = ["Family"]

_HEX = 16 + 2 * DIGEST_BYTES
_CHUNK = 500
_V = resource_version.c
_COLUMNS = (
    _V.seq,
    _V.kind,
    _V.id,
    _V.version,
    _V.deleted,
    _V.origin,
    _V.offset,
    _V.length,
    _V.line,
    _V.act,
    _V.digest,
)


class Family:
    """Resource versions as nouns, in the permit's account and scope; the `Kin` of `audit.nouns`.

    A noun's body has type, version, and the byte range and line in the landing it was made from; no id, which is a
    patient's identifier. Its state is ``current``, ``superseded`` or ``deleted``.
    """

    def __init__(self, permit: Permit, symbols: Symbols) -> None:
        self._permit = permit
        self._symbols = symbols

    def find(self, tx: Connection, refs: Sequence[str]) -> list[Noun]:
        """The nouns of these refs that there are; what names another content under a known number is none."""
        wanted = {seq: ref for ref in refs if (seq := _seq(ref)) is not None}
        kinds = {key: text for text, key in self._symbols.everything(tx, kinds_of(self._permit.account)).items()}
        scope = version_scope(self._permit, tx, self._symbols)
        query = select(*_COLUMNS).where(_V.kind.in_(list(kinds)), scope)
        rows: list[Any] = []
        for start in range(0, len(wanted), _CHUNK):
            rows += tx.execute(query.where(_V.seq.in_(list(wanted)[start : start + _CHUNK]))).all()
        rows = [row for row in rows if bytes(row.digest).hex() == wanted[row.seq][-2 * DIGEST_BYTES :]]
        newest = self._newest(tx, rows)
        origins = self._symbols.texts(tx, {row.origin for row in rows})
        made = {row.seq: self._noun(row, wanted[row.seq], kinds, newest, origins.get(row.origin, "")) for row in rows}
        return [made[seq] for seq in wanted if seq in made]

    def made_from(self, tx: Connection, ref: str) -> list[tuple[str, str]]:
        """Ranges of refs that hold all versions that came from a landing, each first and last."""
        if not ref.startswith("landing:"):
            return []
        origin = self._symbols.key(tx, origins_of(self._permit.account), ref)
        query = select(origin_run.c.first, origin_run.c.last).where(origin_run.c.origin == origin)
        runs: list[list[int]] = []
        for first, last in tx.execute(query.order_by(origin_run.c.first)):
            if runs and runs[-1][1] == first - 1:
                runs[-1][1] = last
            else:
                runs.append([first, last])
        # "g" sorts after every hex digit.
        return [(f"resource:{first:016x}", f"resource:{last:016x}g") for first, last in runs]

    @staticmethod
    def _newest(tx: Connection, rows: Sequence[Any]) -> set[int]:
        """Those of these versions that are the current ones."""
        found: set[int] = set()
        for kind in {row.kind for row in rows}:
            ids = [row.id for row in rows if row.kind == kind]
            for start in range(0, len(ids), _CHUNK):
                page = resource.c.id.in_(ids[start : start + _CHUNK])
                found.update(tx.execute(select(resource.c.seq).where(resource.c.kind == kind, page)).scalars())
        return found

    def _noun(self, row: Any, ref: str, kinds: Mapping[int, str], newest: set[int], origin: str) -> Noun:
        state = "deleted" if row.deleted else "current" if row.seq in newest else "superseded"
        body = {
            "type": kinds[row.kind],
            "version": row.version,
            "offset": row.offset,
            "length": row.length,
            "line": row.line,
        }
        return Noun(ref, self._permit.account, state, row.act, (origin,) if origin else (), body)


def _seq(ref: str) -> int | None:
    kind, _, digits = ref.partition(":")
    if kind != "resource" or len(digits) != _HEX:
        return None
    try:
        seq = int(digits[:16], 16)
    except ValueError:
        return None
    return seq if seq < 1 << 63 else None
