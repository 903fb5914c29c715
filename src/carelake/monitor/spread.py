"""How a column is spread: points of its distribution as a baseline, and counts in between them that add up.

A baseline (`Column`) is at most 257 values with the share of rows at or under each; between two of them, under the
first and above the last lie at least ten rows of the baseline, so none is the value of a single patient's that others
do not surround. What is seen later is only counted between those points (`Counts`): counts of days, of shards and of
endpoints add up exactly, and a window over a year is a sum and no second reading.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from carelake.core.errors import Invalid
from carelake.models.matrix import Floats

__all__ = ["FEW", "Column", "Counts", "Words", "count", "count_words", "edges", "measure", "measure_words", "placed"]

FEW = 10
"""Rows that must lie in between before a value is kept."""
_POINTS = 257
_WORDS = 50


class Column(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One column's distribution among its present values.

    Attributes:
        points: values in order, at most 257; none for text.
        below: share of present values at or under each point; for text, the share of each word.
        present, missing: rows.
        words: of text: the values that at least ten rows have, the most frequent first, at most 50.
        whole: all values were whole numbers.
        text: it holds words and no numbers.
    """

    points: list[float]
    below: list[float]
    present: int
    missing: int
    words: list[str] = []
    whole: bool = False
    text: bool = False

    @property
    def completeness(self) -> float:
        """Share of rows that have a value."""
        return self.present / max(1, self.present + self.missing)

    @property
    def cells(self) -> int:
        """Of a count: under the first point, at it, up to each further one, above; of text: words, and others."""
        return len(self.words) + 1 if self.text else len(self.points) + 2


@dataclass(frozen=True, slots=True)
class Counts:
    """Rows of one column, counted by the cells of a baseline.

    Attributes:
        cells: (`Column.cells`,) rows.
        total, square: sums of the values and of their squares.
        broken: values that are no whole numbers.
        negative: values under 0.
    """

    cells: NDArray[np.int64]
    missing: int
    total: float = 0.0
    square: float = 0.0
    broken: int = 0
    negative: int = 0

    @property
    def present(self) -> int:
        """Rows with a value."""
        return int(self.cells.sum())

    @property
    def rows(self) -> int:
        """All rows."""
        return self.present + self.missing

    def __add__(self, other: Counts) -> Counts:
        """Both together; they must be of the same baseline."""
        if len(self.cells) != len(other.cells):
            raise Invalid("monitor.cells", "Counts over different baselines do not add up; count again.")
        return Counts(
            self.cells + other.cells,
            self.missing + other.missing,
            self.total + other.total,
            self.square + other.square,
            self.broken + other.broken,
            self.negative + other.negative,
        )


def measure(values: Floats) -> Column:
    """The baseline of (n,) numbers, NaN for missing."""
    known = np.sort(values[~np.isnan(values)])
    whole = bool(len(known)) and bool((known == np.floor(known)).all())
    points, below = placed(known)
    return Column(points, below, len(known), len(values) - len(known), whole=whole)


def placed(known: Floats) -> tuple[list[float], list[float]]:
    """Points and shares of sorted values."""
    points = np.unique(known)
    if len(points) > _POINTS:
        places = np.linspace(0.005, 0.995, _POINTS) * (len(known) - 1)
        points = np.unique(known[places.round().astype(int)])
    under = np.searchsorted(known, points, side="left")
    upto = np.searchsorted(known, points, side="right")
    kept, last = [], 0
    for at, (before, after) in enumerate(zip(under.tolist(), upto.tolist(), strict=True)):
        if after - last >= FEW and len(known) - before >= FEW:
            kept.append(at)
            last = after
    return points[kept].tolist(), (upto[kept] / max(1, len(known))).tolist()


class Words:
    """One column's texts so far."""

    def __init__(self) -> None:
        self._often: Counter[str] = Counter()
        self._missing = 0

    def add(self, values: Sequence[str | None]) -> None:
        """Take in n texts, None for missing."""
        self._often.update(value for value in values if value is not None)
        self._missing += sum(value is None for value in values)

    def column(self) -> Column:
        """The baseline's column: the words that ten rows have, the most frequent first, at most 50."""
        ranked = sorted(self._often.items(), key=lambda one: (-one[1], one[0]))
        chosen = [(word, often) for word, often in ranked[:_WORDS] if often >= FEW]
        total = self._often.total()
        shares = [often / total for _, often in chosen]
        return Column([], shares, total, self._missing, words=[word for word, _ in chosen], text=True)

    def counts(self, column: Column) -> Counts:
        """What was seen, by the words of a column."""
        cells = [self._often[word] for word in column.words]
        return Counts(np.asarray([*cells, self._often.total() - sum(cells)], dtype=np.int64), self._missing)


def measure_words(values: Sequence[str | None]) -> Column:
    """The baseline of n texts, None for missing."""
    seen = Words()
    seen.add(values)
    return seen.column()


def edges(column: Column) -> Floats:
    """Upper bounds of all cells but the last, each included; the first lies just under the first point."""
    points = np.asarray(column.points, dtype=np.float64)
    return np.concatenate([np.nextafter(points[:1], -np.inf), points])


def count(column: Column, values: Floats) -> Counts:
    """Count (n,) numbers, NaN for missing, by a baseline's cells."""
    known = values[~np.isnan(values)]
    cells = np.bincount(np.searchsorted(edges(column), known, side="left"), minlength=column.cells)
    if not column.points:  # there is no cell in between
        cells = np.asarray([0, len(known)])
    return Counts(
        cells.astype(np.int64),
        len(values) - len(known),
        float(known.sum()),
        float(known @ known),
        int(np.count_nonzero(known != np.floor(known))),
        int(np.count_nonzero(known < 0)),
    )


def count_words(column: Column, values: Sequence[str | None]) -> Counts:
    """Count n texts, None for missing, by a baseline's words; the last cell is for all others."""
    seen = Words()
    seen.add(values)
    return seen.counts(column)
