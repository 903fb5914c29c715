"""How many rows things have: counted up to a bound, and remembered while the record grows little.

A bound that is enough to choose by is all that is counted. A wrong figure makes a search slower, never wrong.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection

from carelake.store.search.building import Build
from carelake.store.search.nodes import Arm

__all__ = ["FEW", "Counts", "Known"]

FEW = 200
"""A condition with fewer rows leads whatever the others are."""

_KEPT = 20_000
_GROWTH = 1.2
_WINDOWS, _WINDOW = 24, 400
_LAST = "SELECT last FROM counter WHERE name = 'seq'"


class Known:
    """Figures of earlier searches: number of rows, the bound they were counted to, and the newest seq then."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rows: dict[tuple[Any, ...], tuple[int, int, int]] = {}

    def get(self, key: tuple[Any, ...], most: int, last: int) -> int | None:
        """The figure, if it was counted as far as that and the record has hardly grown since."""
        found = self._rows.get(key)
        if found is None:
            return None
        rows, bound, then = found
        fresh = last <= then * _GROWTH + 100 if rows >= FEW else last == then
        return min(rows, most) if fresh and (bound >= most or rows < bound) else None

    def put(self, key: tuple[Any, ...], rows: int, bound: int, last: int) -> None:
        """Remember a figure."""
        with self._lock:
            if len(self._rows) >= _KEPT:
                self._rows.clear()
            self._rows[key] = (rows, bound, last)


class Counts:
    """The costs that one search is planned by."""

    def __init__(self, tx: Connection, known: Known) -> None:
        self._tx = tx
        self._known = known
        self._dialect = tx.dialect.name
        self._rows: dict[tuple[Any, ...], int] = {}
        self._bounds: dict[tuple[Any, ...], int] = {}
        self._last: int | None = None

    @property
    def last(self) -> int:
        """The newest seq."""
        if self._last is None:
            self._last = int(self._tx.exec_driver_sql(_LAST).scalar() or 0)
        return self._last

    def ensure(self, arms: Iterable[Arm], most: int) -> None:
        """Count these ranges up to a bound, in one statement."""
        # A few are counted sooner than it is found out whether a figure still holds.
        kept = most > FEW
        wanted: dict[tuple[Any, ...], Arm] = {}
        for arm in arms:
            if self._bounds.get(arm.key, 0) >= most or (kept and self._rows.get(arm.key, FEW) < FEW):
                continue  # counted as far as that, or to its end, already
            found = self._known.get(arm.key, most, self.last) if kept else None
            if found is None:
                wanted[arm.key] = arm
            else:
                self._rows[arm.key] = found
        todo = list(wanted.values())
        for start in range(0, len(todo), 100):
            page = todo[start : start + 100]
            build = Build(self._dialect)
            counts = [arm.count(build, most) for arm in page]
            row = build.run(self._tx, f"SELECT {', '.join(counts)}")[0]
            for arm, rows in zip(page, row, strict=True):
                self._rows[arm.key] = rows
                self._bounds[arm.key] = most
                if kept:
                    self._known.put(arm.key, rows, most, self.last)

    def rows(self, arm: Arm) -> int:
        """As counted; what was not counted is thought to be a lot."""
        return self._rows.get(arm.key, 1_000_000)

    def share(self, arm: Arm, parts: Sequence[Arm]) -> None:
        """What an arm was split into has its rows between them."""
        for part in parts:
            self._rows[part.key] = self.rows(arm) // len(parts)
            self._bounds.pop(part.key, None)  # not counted itself

    def size(self, kind: int) -> int:
        """About how many resources a type has: by windows over all seqs, spread evenly."""
        key = ("size", kind)
        found = self._rows.get(key)
        if found is None:
            found = self._known.get(key, 1 << 62, self.last)
            if found is None:
                found = self._sampled(kind)
                self._known.put(key, found, 1 << 62, self.last)
            self._rows[key] = found
        return found

    def _sampled(self, kind: int) -> int:
        build = Build(self._dialect)
        whole = self.last <= _WINDOWS * _WINDOW
        starts = [0] if whole else [self.last * i // _WINDOWS for i in range(_WINDOWS)]
        width = self.last + 1 if whole else _WINDOW
        tests = (
            f"(SELECT count(*) FROM resource r WHERE r.kind = {build(kind)} "
            f"AND r.seq > {build(start)} AND r.seq <= {build(start + width)})"
            for start in starts
        )
        counted = int(build.run(self._tx, f"SELECT {' + '.join(tests)}")[0][0])
        return counted if whole else max(1, counted) * self.last // (_WINDOWS * _WINDOW)
