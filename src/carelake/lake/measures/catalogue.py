"""The measures that there are, their value sets, and the period that one is asked for."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from importlib.resources import files
from typing import Any

import pyarrow as pa

from carelake.core.errors import Invalid, NotFound

__all__ = ["FIGURES", "Measure", "Period", "measure", "measures", "period_of", "statement", "value_sets"]

FIGURES = ("population", "utilisation")
"""Summaries: counts without a denominator."""

_SET = re.compile(r"[a-z][a-z0-9_]*")
_PERIOD = re.compile(r"(\d{4})(?:-Q([1-4])|-(\d{2}))?|(\d{4}-\d{2}-\d{2})/(\d{4}-\d{2}-\d{2})")
_MOST_CODES = 200_000


@dataclass(frozen=True, slots=True)
class Measure:
    """A proportion: see ``measures.toml``."""

    name: str
    title: str
    sql: str
    unit: str
    better: str
    like: str
    simplified: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Period:
    """Days, the last one in it."""

    first: date
    last: date

    @property
    def after(self) -> date:
        """The day after the last."""
        return self.last + timedelta(days=1)


@cache
def measures() -> Mapping[str, Measure]:
    """All of them by name."""
    told = tomllib.loads(files("carelake.lake.measures").joinpath("measures.toml").read_text("utf-8"))
    return {
        name: Measure(name=name, **{**said, "simplified": tuple(said["simplified"])}) for name, said in told.items()
    }


def measure(name: str) -> Measure:
    """The measure of that name.

    Raises:
        NotFound: ``measures.no_such_measure``.
    """
    found = measures().get(name)
    if found is None:
        there = ", ".join([*measures(), *FIGURES])
        raise NotFound("measures.no_such_measure", f"There is no such measure; there are {there}.")
    return found


@cache
def statement(name: str) -> str:
    """A SQL file of the measures."""
    return files("carelake.lake.measures").joinpath("sql", f"{name}.sql").read_text("utf-8")


def period_of(said: str) -> Period:
    """``2025``, ``2025-Q3``, ``2025-06`` or ``2025-01-01/2025-06-30``, which has its last day in it.

    Raises:
        Invalid: ``measures.period``.
    """
    found = _PERIOD.fullmatch(said)
    try:
        if found is None:
            raise ValueError
        year, quarter, month, first, last = found.groups()
        if first:
            made = Period(date.fromisoformat(first), date.fromisoformat(last))
        else:
            begin, length = (int(month), 1) if month else (3 * int(quarter) - 2, 3) if quarter else (1, 12)
            after = begin + length
            end = date(int(year) + (after > 12), (after - 1) % 12 + 1, 1) - timedelta(days=1)
            made = Period(date(int(year), begin, 1), end)
        if not date(1900, 1, 1) <= made.first <= made.last < date(9000, 1, 1):
            raise ValueError
    except (ValueError, OverflowError):
        raise Invalid(
            "measures.period", "Not a period; expected 2025, 2025-Q3, 2025-06 or 2025-01-01/2025-06-30."
        ) from None
    return made


def value_sets(own: str | None = None) -> pa.Table:
    """Columns name, system, code, prefix.

    Args:
        own: TOML of the form of ``value_sets.toml``; a set in it replaces ours of the same name, in all its systems.

    Raises:
        Invalid: ``measures.value_sets``.
    """
    known, ours = _sets(files("carelake.lake.measures").joinpath("value_sets.toml").read_text("utf-8"))
    replaced, theirs = _sets(own) if own else (set(), [])
    if replaced - known:
        raise _wrong(f"a set is used by no measure; there are {', '.join(sorted(known))}")
    rows = [row for row in ours if row[0] not in replaced] + theirs
    names, systems, codes, prefixes = zip(*rows, strict=True)
    return pa.table(
        {
            "name": pa.array(names, pa.string()),
            "system": pa.array(systems, pa.string()),
            "code": pa.array(codes, pa.string()),
            "prefix": pa.array(prefixes, pa.bool_()),
        }
    )


def _sets(text: str) -> tuple[set[str], list[tuple[str, str, str, bool]]]:
    """Names of the sets, and their rows: a set may be empty."""
    try:
        told: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise _wrong("it is not TOML") from None
    names: set[str] = set()
    rows: list[tuple[str, str, str, bool]] = []
    for title, said in told.items():
        name = title.partition(" ")[0]
        system, codes = (said.get("system"), said.get("codes")) if isinstance(said, dict) else (None, None)
        if not _SET.fullmatch(name) or not isinstance(system, str) or not isinstance(codes, list):
            raise _wrong("a set needs a system and codes")
        if len(rows) + len(codes) > _MOST_CODES or not all(isinstance(code, str) and code for code in codes):
            raise _wrong(f"codes are texts, at most {_MOST_CODES}")
        names.add(name)
        rows += [(name, system, code.removesuffix("*"), code.endswith("*")) for code in codes]
    return names, rows


def _wrong(what: str) -> Invalid:
    return Invalid(
        "measures.value_sets", f"The file of value sets is wrong: {what}. See docs/measures.md for its form."
    )
