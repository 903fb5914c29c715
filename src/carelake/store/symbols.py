"""Symbols: small numbers for texts that repeat. A symbol never changes its meaning and is never used again."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, bindparam, select

from carelake.store.tables import symbol
from carelake.vault.database import bulk, rows_of, scope_of

__all__ = ["TERM", "UNIT", "Space", "Symbols", "kinds_of", "origins_of", "params_of", "patients_of"]

TERM = "term"
"""Space of code systems and of the types that references point to."""

UNIT = "unit"
"""Space of units, small enough to be listed whole: a quantity is looked for in all that its unit converts to."""

_PATIENTS = "patient:"
_EPOCH = "@"
_NOT_KEPT = "@-"
_CACHED = 200_000
_CHUNK = 500
_FEW = 100
"""Symbols that a write found are worth remembering; those of bulk work are not asked for again soon."""

_FIND = select(symbol.c.text, symbol.c.key).where(
    symbol.c.space == bindparam("space"), symbol.c.text.in_(bindparam("texts", expanding=True))
)
_AT_ONCE = 16
_FIND_FEW = f'SELECT text, "key" FROM symbol WHERE space = ? AND text IN ({", ".join("?" * _AT_ONCE)})'
_NAME = select(symbol.c.key, symbol.c.text).where(symbol.c.key.in_(bindparam("keys", expanding=True)))
_ALL = select(symbol.c.text, symbol.c.key).where(symbol.c.space == bindparam("space"))


def kinds_of(account: str) -> str:
    """Space of an account's resource types."""
    return f"kind:{account}"


def params_of(kind: int) -> str:
    """Space of the sources of a resource type, which is named by its symbol."""
    return f"param:{kind}"


def patients_of(account: str) -> str:
    """Space of an account's patients."""
    return f"{_PATIENTS}{account}"


def origins_of(account: str) -> str:
    """Space of the landings' refs that an account's versions came from."""
    return f"origin:{account}"


def _slot(tx: Connection, name: str) -> str:
    """Where a space is remembered: patients' by the epoch of erasures, and not at all where one is under way."""
    if not name.startswith(_PATIENTS):
        return name
    epoch = scope_of(tx).epoch
    return f"{name}{_NOT_KEPT}" if epoch is None else f"{name}{_EPOCH}{epoch}"


class Space(dict[str, int]):
    """Symbols of one space in one transaction. "" is 0.

    One that is missing is made, or with `find_only` stands for a number below 0, which no row has.
    """

    def __init__(
        self, symbols: Symbols, tx: Connection, name: str, known: dict[str, int], *, find_only: bool = False
    ) -> None:
        super().__init__(known)
        self._symbols, self._tx, self._name, self._find_only = symbols, tx, name, find_only

    def __missing__(self, text: str) -> int:
        take = self._symbols.find if self._find_only else self._symbols.make
        key = self[text] = take(self._tx, self._name, (text,)).get(text, -1 - len(self)) if text else 0
        return key


class Symbols:
    """Looks symbols up and makes new ones. What it remembers is committed; a transaction's own join on commit."""

    def __init__(self) -> None:
        self._known: dict[str, dict[str, int]] = {}
        self._texts: dict[int, str] = {}

    def space(self, tx: Connection, name: str, *, find_only: bool = False) -> Space:
        """A small space as a mapping that makes what is missing."""
        return Space(self, tx, name, self._known.get(_slot(tx, name), {}), find_only=find_only)

    def make(self, tx: Connection, name: str, texts: Iterable[str]) -> dict[str, int]:
        """Symbols of texts, made where they are missing. "" is 0."""
        wanted = dict.fromkeys(texts)
        found = self.find(tx, name, wanted)
        missing = [text for text in wanted if text not in found]
        if missing:
            bulk(tx, "INSERT INTO symbol (space, text) VALUES (?, ?)", [(name, text) for text in missing])
            made = self._select(tx, name, missing)
            found |= made
            slot = _slot(tx, name)
            scope_of(tx).after.append(lambda: self._remember(slot, made))
        return found

    def find(self, tx: Connection, name: str, texts: Iterable[str]) -> dict[str, int]:
        """Symbols of those texts that have one."""
        known = self._known.get(_slot(tx, name), {})
        found: dict[str, int] = {}
        missing = []
        for text in texts:
            key = known.get(text) if text else 0
            if key is None:
                missing.append(text)
            else:
                found[text] = key
        if missing:
            loaded = self._select(tx, name, missing)
            found |= loaded
            scope, slot = scope_of(tx), _slot(tx, name)
            if not scope.writing:
                self._remember(slot, loaded)
            elif len(loaded) <= _FEW:
                # One that this transaction made itself is committed by then, too.
                scope.after.append(lambda: self._remember(slot, loaded))
        return found

    def key(self, tx: Connection, name: str, text: str) -> int:
        """The symbol of one text, or -1, which no row has."""
        return self.find(tx, name, (text,)).get(text, -1)

    def everything(self, tx: Connection, name: str) -> dict[str, int]:
        """A small space whole."""
        return dict(tx.execute(_ALL, {"space": name}).all())

    def texts(self, tx: Connection, keys: Iterable[int]) -> dict[int, str]:
        """Texts of symbols."""
        found, missing = {0: ""}, []
        for key in set(keys):
            text = self._texts.get(key)
            if text is not None:
                found[key] = text
            elif key:
                missing.append(key)
        return found | self._load(tx, missing) if missing else found

    def _load(self, tx: Connection, missing: list[int]) -> dict[int, str]:
        found: dict[int, str] = {}
        for start in range(0, len(missing), _CHUNK):
            chunk = missing[start : start + _CHUNK]
            found.update(tx.execute(_NAME, {"keys": chunk}).all())
        if not scope_of(tx).writing:
            if len(self._texts) > _CACHED:
                self._texts.clear()
            self._texts |= found
        return found

    def _select(self, tx: Connection, name: str, texts: list[str]) -> dict[str, int]:
        if len(texts) <= _AT_ONCE:
            # The same statement for any number of them ("" is no symbol's), past SQLAlchemy's work for a list.
            padded = [*texts, *([""] * (_AT_ONCE - len(texts)))]
            return dict(rows_of(tx, _FIND_FEW, name, *padded))
        found: dict[str, int] = {}
        for start in range(0, len(texts), _CHUNK):
            rows = tx.execute(_FIND, {"space": name, "texts": texts[start : start + _CHUNK]})
            found.update(rows.all())
        return found

    def _remember(self, name: str, made: dict[str, int]) -> None:
        if name.endswith(_NOT_KEPT):
            return
        if name not in self._known:
            # Of a patients' space another epoch's: who was erased lost the symbol, and it is never used again.
            stem, mark, _ = name.rpartition(_EPOCH)
            for old in [one for one in self._known if mark and one.startswith(stem + mark)]:
                self._known.pop(old, None)
        known = self._known.setdefault(name, {})
        if len(known) > _CACHED:
            known.clear()
        known |= made
