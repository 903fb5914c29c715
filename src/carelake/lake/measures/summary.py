"""Rows of a measure to counts and rates: in all and by age, sex and race, small cells left out.

A cell is left out where its denominator, its numerator or the difference of both is beneath the threshold but not 0;
where only the excluded ones are so few, their count and that of the initial population are left out. The total tells
what all that is left out of a stratifier comes to: where that is so few too, the smallest other ones go with it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["STRATIFIERS", "THRESHOLD", "Cell", "Summary", "summarised", "wilson", "withheld"]

THRESHOLD = 11
"""Counts below are not shown; CMS's own rule for small cells."""

STRATIFIERS = ("band", "sex", "race")
_Z = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Cell:
    """Counts of a population; None where one is left out.

    Attributes:
        denominator: without those who are excluded.
        months: of people, where the measure counts events.
    """

    initial: int | None
    excluded: int | None
    denominator: int | None
    numerator: int | None
    events: int | None = None
    months: float | None = None

    @property
    def hidden(self) -> bool:
        """Whether the cell was left out."""
        return self.denominator is None

    @property
    def rate(self) -> float | None:
        """Numerator by denominator; None of nobody."""
        return self.numerator / self.denominator if self.denominator and self.numerator is not None else None

    def as_json(self) -> dict[str, Any]:
        """Counts, rate and its 95 % interval by Wilson; ``{"hidden": true}`` where it is left out."""
        if self.hidden:
            return {"hidden": True}
        assert self.denominator is not None
        assert self.numerator is not None
        interval = [round(x, 6) for x in wilson(self.numerator, self.denominator)] if self.denominator else None
        told: dict[str, Any] = {
            "initial_population": self.initial,
            "denominator_exclusion": self.excluded,
            "denominator": self.denominator,
            "numerator": self.numerator,
            "rate": None if self.rate is None else round(self.rate, 6),
            "interval": interval,
        }
        if self.events is not None:
            told["events"] = self.events
            told["months"] = round(self.months or 0.0, 2)
            told["events_per_1000_months"] = round(1000 * self.events / self.months, 3) if self.months else None
        return told


@dataclass(frozen=True)
class Summary:
    """A measure's result: the whole population and each stratum by stratifier."""

    whole: Cell
    strata: Mapping[str, Mapping[str, Cell]]

    def as_json(self) -> dict[str, Any]:
        """``population`` and ``strata``."""
        return {
            "population": self.whole.as_json(),
            "strata": {
                by: {value: cell.as_json() for value, cell in cells.items()} for by, cells in self.strata.items()
            },
        }


def wilson(numerator: int, denominator: int) -> tuple[float, float]:
    """The 95 % score interval of a proportion (Wilson 1927); (0, 1) of nobody."""
    if not denominator:
        return 0.0, 1.0
    share, z2 = numerator / denominator, _Z * _Z
    middle = (share + z2 / (2 * denominator)) / (1 + z2 / denominator)
    half = (
        _Z
        / (1 + z2 / denominator)
        * math.sqrt(share * (1 - share) / denominator + z2 / (4 * denominator * denominator))
    )
    return max(0.0, middle - half), min(1.0, middle + half)


def summarised(rows: pa.Table, threshold: int = THRESHOLD) -> Summary:
    """Counts of `run.units`.

    Args:
        threshold: 0 or 1 shows all.
    """
    whole = _cell(rows)
    strata = {by: _strata(rows, by, threshold) for by in STRATIFIERS}
    return Summary(_shown(whole, threshold), strata)


_HIDDEN = Cell(None, None, None, None)


def _strata(rows: pa.Table, by: str, threshold: int) -> Mapping[str, Cell]:
    column = pc.fill_null(rows.column(by).cast(pa.string()), "unknown")
    values = sorted(pc.unique(column).to_pylist(), key=_ordered)
    cells = {value: _cell(rows.filter(pc.equal(column, value))) for value in values}
    hidden = withheld({value: _counts(cell) for value, cell in cells.items()}, threshold)
    out = withheld({value: (cell.excluded or 0,) for value, cell in cells.items()}, threshold, hidden)
    return {
        value: _HIDDEN if value in hidden else replace(cell, initial=None, excluded=None) if value in out else cell
        for value, cell in cells.items()
    }


def withheld(cells: Mapping[str, tuple[float, ...]], threshold: int, also: Collection[str] = ()) -> set[str]:
    """Cells that may not be shown: small ones, and as many others that what all have together is not small.

    Args:
        cells: counts of each, of which none may be told where it is under the threshold and not 0.
        also: cells that are not shown anyway.
    """
    told = {name: counts for name, counts in cells.items() if name not in also}
    hidden = {*also, *(name for name, counts in told.items() if _few(counts, threshold))}
    others = sorted((counts, name) for name, counts in told.items() if name not in hidden and counts[0])
    while others and _few([sum(of) for of in zip(*(cells[name] for name in hidden), strict=True)], threshold):
        hidden.add(others.pop(0)[1])
    return hidden


def _few(counts: Collection[float], threshold: int) -> bool:
    return any(0 < count < threshold for count in counts)


def _shown(cell: Cell, threshold: int) -> Cell:
    if _few(_counts(cell), threshold):
        return _HIDDEN
    return replace(cell, initial=None, excluded=None) if 0 < (cell.excluded or 0) < threshold else cell


def _ordered(value: str) -> tuple[int, str]:
    """Age bands by age."""
    digits = value.partition("-")[0].rstrip("+")
    return (int(digits) if digits.isdigit() else 1000, value)


def _cell(rows: pa.Table) -> Cell:
    counted = rows.column("denominator")
    out = pc.and_(counted, rows.column("excluded"))
    left = pc.and_(counted, pc.invert(rows.column("excluded")))
    met = pc.and_(left, rows.column("numerator"))
    more: dict[str, Any] = {}
    if "events" in rows.column_names:
        kept = rows.filter(left)
        more = {"events": int(_sum(kept, "events")), "months": float(_sum(kept, "months"))}
    return Cell(len(rows), _true(out), _true(left), _true(met), **more)


def _true(mask: pa.ChunkedArray) -> int:
    return int(pc.sum(mask).as_py() or 0)


def _sum(rows: pa.Table, name: str) -> float:
    return float(pc.sum(rows.column(name)).as_py() or 0)


def _counts(cell: Cell) -> tuple[int, int, int]:
    assert cell.denominator is not None
    assert cell.numerator is not None
    return (cell.denominator, cell.numerator, cell.denominator - cell.numerator)
