"""Index rows of resources: made from index values, written in key order, and taken out by ``seq``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, select

from carelake.core.records import IndexValues
from carelake.fhir.search.sources import spanned
from carelake.store.symbols import TERM, UNIT, Space, Symbols, params_of
from carelake.store.tables import BY_SEQ, INDEXES, display, resource_version
from carelake.vault.database import bulk, scope_of

__all__ = ["Displays", "IndexRows", "remove"]

Row = tuple[Any, ...]

_CHUNK = 500
_REMEMBERED = 200_000


def _insert(name: str, columns: list[str]) -> str:
    return f"INSERT INTO {name} ({', '.join(columns)}) VALUES ({', '.join('?' for _ in columns)})"


_INSERTS = {table.name: _insert(table.name, [column.name for column in table.columns]) for table in INDEXES}
_DISPLAY = _insert("display", [column.name for column in display.columns]) + " ON CONFLICT DO NOTHING"
_DELETES = [f"DELETE FROM {table.name} WHERE seq = ?" for table in BY_SEQ]
_OWNED = select(resource_version.c.owner, resource_version.c.kind, resource_version.c.seq).where(
    resource_version.c.seq.in_(bindparam("seqs", expanding=True))
)
_DISOWN = "DELETE FROM ix_owner WHERE owner = ? AND kind = ? AND seq = ?"


class Displays:
    """Which texts of codes are in ``display`` already; what a transaction writes joins on its commit.

    An erasure takes texts out, and raises the epoch: what was remembered before it is good no more.
    """

    def __init__(self) -> None:
        self._seen: set[Row] = set()
        self._epoch: int | None = None

    def write(self, tx: Connection, rows: Iterable[Row]) -> None:
        """Write those that were not seen before."""
        scope = scope_of(tx)
        epoch = scope.epoch
        if epoch != self._epoch:
            self._seen, self._epoch = set(), epoch
        new = sorted(set(rows) - self._seen)
        if new:
            bulk(tx, _DISPLAY, new)
            scope.after.append(lambda: self._remember(new, epoch))

    def _remember(self, rows: list[Row], epoch: int | None) -> None:
        if epoch is None or epoch != self._epoch:
            return
        if len(self._seen) > _REMEMBERED:
            self._seen.clear()
        self._seen.update(rows)


class IndexRows:
    """Index rows of a page, gathered and then written together."""

    def __init__(self, symbols: Symbols, tx: Connection, displays: Displays, *, find_only: bool = False) -> None:
        """Args: find_only: to compare, not to write: a text without a symbol gets a number that no row has."""
        self._symbols = symbols
        self._tx = tx
        self._displays = displays
        self._find_only = find_only
        self._terms = symbols.space(tx, TERM, find_only=find_only)
        self._units = symbols.space(tx, UNIT, find_only=find_only)
        self._params: dict[int, Space] = {}
        self._rows: dict[str, list[Row]] = {name: [] for name in _INSERTS}
        self._shown: list[Row] = []

    def own(self, kind: int, seq: int, owner: int) -> None:
        """That a version is in the compartment of one patient, a symbol; 0 for none."""
        if owner:
            self._rows["ix_owner"].append((owner, kind, seq))

    def add(self, kind: int, seq: int, values: IndexValues) -> None:
        """Rows of one version; ``kind`` is a symbol."""
        params = self._params.get(kind) or self._space(kind)
        terms, units, rows = self._terms, self._units, self._rows
        if values.tokens:
            rows["ix_token"] += [(params[p], code, terms[system], seq) for p, system, code in values.tokens]
        if values.strings:
            rows["ix_string"] += [(params[p], value, given, seq) for p, value, given in values.strings]
        if values.dates:
            rows["ix_date"] += [(params[spanned(p, high - low)], low, high, seq) for p, low, high in values.dates]
        if values.references:
            rows["ix_reference"] += [
                (params[p], key or url, terms[target], seq) for p, target, key, url in values.references
            ]
        if values.quantities:
            rows["ix_quantity"] += [
                (params[p], low, high, terms[system], units[code], seq)
                for p, low, high, system, code in values.quantities
            ]
        if values.uris:
            rows["ix_uri"] += [(params[p], value, seq) for p, value in values.uris]
        if values.displays:
            self._shown += [(params[p], text, terms[system], code) for p, system, code, text in values.displays]
        if values.parts or values.words or values.positions:
            self._rare(params, seq, values)

    def _rare(self, params: Space, seq: int, values: IndexValues) -> None:
        terms, units, rows = self._terms, self._units, self._rows
        rows["ix_position"] += [(params[p], lat, long, seq) for p, lat, long in values.positions]
        rows["ix_word"] += [(params[p], word, seq) for p, word in values.words]
        rows["ix_part"] += [
            (params[p], text, low, high, terms[system], units[unit], seq, item)
            for p, item, text, low, high, system, unit in values.parts
        ]

    def write(self) -> int:
        """Insert the rows, sorted: neighbours in the tree are written together. Returns their number."""
        count = 0
        for name, rows in self._rows.items():
            rows.sort()
            bulk(self._tx, _INSERTS[name], rows)
            count += len(rows)
            rows.clear()
        if self._shown:
            self._displays.write(self._tx, self._shown)
            self._shown = []
        return count

    def rows(self, table: str) -> list[Row]:
        """The rows of one table so far."""
        return self._rows[table]

    def sources(self, kind: int) -> dict[int, str]:
        """Names of the sources that the rows of a type are of, by their symbols."""
        return {key: name for name, key in self._params.get(kind, {}).items()}

    def _space(self, kind: int) -> Space:
        space = self._symbols.space(self._tx, params_of(kind), find_only=self._find_only)
        self._params[kind] = space
        return space


def remove(tx: Connection, seqs: Sequence[int]) -> None:
    """Take out all rows of these versions, of which none is the current one any more."""
    if not seqs:
        return
    ordered = sorted(seqs)
    owned: list[Row] = []
    for start in range(0, len(ordered), _CHUNK):
        found = tx.execute(_OWNED, {"seqs": ordered[start : start + _CHUNK]})
        owned += [tuple(row) for row in found if row.owner]
    bulk(tx, _DISOWN, sorted(owned))
    rows = [(seq,) for seq in ordered]
    for statement in _DELETES:
        bulk(tx, statement, rows)
