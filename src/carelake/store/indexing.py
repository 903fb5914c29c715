"""Index rows of resources: made from index values, written in key order, and taken out when a version is replaced."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, Text, bindparam, delete

from carelake.core.records import IndexValues
from carelake.store.symbols import TERM, Space, Symbols, params_of
from carelake.store.tables import HEAD, INDEXES
from carelake.vault.database import bulk

__all__ = ["LAST_UPDATED", "IndexRows", "clear"]

LAST_UPDATED = "_lastUpdated"
_MILLISECOND = 1000

Row = tuple[Any, ...]


def _insert(name: str, columns: list[str]) -> str:
    return f"INSERT INTO {name} ({', '.join(columns)}) VALUES ({', '.join('?' for _ in columns)})"


def _delete(name: str, columns: list[str]) -> str:
    return f"DELETE FROM {name} WHERE " + " AND ".join(f"{column} = ?" for column in columns)


def _delete_by_head(name: str, columns: list[str]) -> str:
    """As `_delete`, with the head of each text once more: that is what PostgreSQL has an index on."""
    heads = [f" AND left({column}, {HEAD}) = ?" for column in _TEXTS[name].values()]
    return _delete(name, columns) + "".join(heads)


_TEXTS = {t.name: {i: c.name for i, c in enumerate(t.columns) if isinstance(c.type, Text)} for t in INDEXES}
_COLUMNS = {table.name: [column.name for column in table.columns] for table in INDEXES}
_INSERTS = {name: _insert(name, columns) for name, columns in _COLUMNS.items()}
_DELETES = {name: _delete(name, columns) for name, columns in _COLUMNS.items()}
_DELETES_BY_HEAD = {name: _delete_by_head(name, columns) for name, columns in _COLUMNS.items()}
_CLEARS = [delete(table).where(table.c.seq == bindparam("old")) for table in INDEXES]


class IndexRows:
    """Index rows of a page, gathered and then written or removed together."""

    def __init__(self, symbols: Symbols, tx: Connection) -> None:
        self._symbols = symbols
        self._tx = tx
        self._terms = symbols.space(tx, TERM)
        self._params: dict[int, Space] = {}
        self._rows: dict[str, list[Row]] = {name: [] for name in _COLUMNS}
        self._adders: list[tuple[list[Row], Callable[..., Any]]] = []

    def add(self, kind: int, seq: int, owner: int, updated: int, values: IndexValues) -> None:
        """Rows of one version.

        Args:
            kind, owner: symbols.
            updated: microseconds since 1970; searches see milliseconds, as ``meta.lastUpdated`` shows them.
        """
        params = self._params.get(kind) or self._space(kind)
        terms, rows = self._terms, self._rows
        if owner:
            rows["ix_owner"].append((owner, kind, seq))
        low = updated - updated % _MILLISECOND
        rows["ix_date"].append((params[LAST_UPDATED], low, low + _MILLISECOND, seq))
        if values.tokens:
            rows["ix_token"] += [(params[p], code, terms[system], seq) for p, system, code in values.tokens]
        if values.strings:
            rows["ix_string"] += [(params[p], value, given, seq) for p, value, given in values.strings]
        if values.dates:
            rows["ix_date"] += [(params[p], low, high, seq) for p, low, high in values.dates]
        if values.references:
            rows["ix_reference"] += [
                (params[p], key or url, terms[target], seq) for p, target, key, url in values.references
            ]
        if values.quantities:
            rows["ix_quantity"] += [
                (params[p], low, high, terms[system], terms[code], seq)
                for p, low, high, system, code in values.quantities
            ]
        if values.uris:
            rows["ix_uri"] += [(params[p], value, seq) for p, value in values.uris]

    def write(self) -> int:
        """Insert the rows, sorted: neighbours in the tree are written together. Returns their number."""
        for rows in self._rows.values():
            rows[:] = dict.fromkeys(rows)  # a resource may say the same twice
        return self._run(_INSERTS)

    def remove(self) -> int:
        """Delete the rows."""
        if self._tx.dialect.name == "sqlite":
            return self._run(_DELETES)
        for name, rows in self._rows.items():
            places = tuple(_TEXTS[name])
            rows[:] = [(*row, *(row[place][:HEAD] for place in places)) for row in rows]
        return self._run(_DELETES_BY_HEAD)

    def _run(self, statements: dict[str, str]) -> int:
        count = 0
        for name, rows in self._rows.items():
            rows.sort()
            bulk(self._tx, statements[name], rows)
            count += len(rows)
            rows.clear()
        return count

    def _space(self, kind: int) -> Space:
        space = self._params[kind] = self._symbols.space(self._tx, params_of(kind))
        return space


def clear(tx: Connection, seq: int) -> None:
    """Delete a version's rows without knowing them: a scan of every index, for bodies that cannot be opened."""
    for statement in _CLEARS:
        tx.execute(statement, {"old": seq})
