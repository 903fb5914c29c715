"""Running a measure over a snapshot, a shard of patients at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import duckdb
import pyarrow as pa

from carelake.core.nouns import Noun
from carelake.core.permit import Permit
from carelake.lake.engines.engine import connect
from carelake.lake.measures.catalogue import Measure, Period, statement
from carelake.lake.ready import shards as ready
from carelake.vault.workspace import Vault

__all__ = ["BANDS", "figures", "units"]

BANDS = (("0-17", 18), ("18-44", 45), ("45-64", 65), ("65-74", 75), ("75-84", 85), ("85+", 1000))
"""Age bands: a name, and the age at which the next begins."""

_VIEWS = ("patient", "encounter", "condition")
_MORE = {
    "diabetes": ("observation_lab",),
    "blood_pressure": ("blood_pressure",),
    "population": ("coverage", "claim"),
}
_BASE = {"diabetes_poor": "diabetes", "diabetes_control": "diabetes"}
Progress = Callable[[int, int], None]


def _quiet(done: int, of: int) -> None:
    """Nobody looks."""


def units(
    permit: Permit,
    vault: Vault,
    snapshot: Noun,
    asked: Measure,
    period: Period,
    sets: pa.Table,
    progress: Progress = _quiet,
) -> pa.Table:
    """One row per patient or stay: id, patient_id, age, band, sex, race, denominator, excluded, numerator.

    ``ed-use`` has events and months too.
    """
    base = _BASE.get(asked.sql, "")
    select = statement(asked.sql)
    if base:
        select = f"WITH {base} AS ({statement(base)}) {select}"
    text = f"SELECT *, band(age) AS band FROM ({select}) ORDER BY patient_id, id"
    parts = list(_each(permit, vault, snapshot, period, sets, _MORE.get(base or asked.sql, ()), text, progress))
    return pa.concat_tables(parts)


def figures(
    permit: Permit,
    vault: Vault,
    snapshot: Noun,
    name: str,
    period: Period,
    sets: pa.Table,
    progress: Progress = _quiet,
) -> pa.Table:
    """Columns section, a, b, n of ``population`` or ``utilisation``, summed over all patients."""
    parts = list(_each(permit, vault, snapshot, period, sets, _MORE.get(name, ()), statement(name), progress))
    summed = pa.concat_tables(parts).group_by(["section", "a", "b"], use_threads=False).aggregate([("n", "sum")])
    return summed.rename_columns(["section", "a", "b", "n"])


def _each(
    permit: Permit,
    vault: Vault,
    snapshot: Noun,
    period: Period,
    sets: pa.Table,
    more: tuple[str, ...],
    text: str,
    progress: Progress,
) -> Iterator[pa.Table]:
    everybody = ready.views(permit, vault, snapshot, ["organization"]) if "coverage" in more else {}
    # Nobody's shard gives no rows, with their columns.
    parts = ready.shards(permit, vault, snapshot) or [frozenset({""})]
    for number, patients in enumerate(parts, 1):
        found = {**ready.views(permit, vault, snapshot, [*_VIEWS, *more], patients), **everybody, "value_set": sets}
        with _prepared(vault, period) as connection:
            for name, table in found.items():
                connection.register(name, table)
            connection.execute(statement("prepare"))
            yield connection.sql(text).to_arrow_table()
        progress(number, len(parts))


@contextmanager
def _prepared(vault: Vault, period: Period) -> Iterator[duckdb.DuckDBPyConnection]:
    bands = " ".join(f"WHEN age < {below} THEN '{name}'" for name, below in BANDS)
    with connect(vault.settings.lake) as connection:
        connection.execute(ready.macros())
        for word, day in (("begins", period.first), ("ends", period.after)):
            connection.execute(f"CREATE TEMP MACRO {word}() AS TIMESTAMP '{day.isoformat()} 00:00:00'")
        connection.execute(f"CREATE TEMP MACRO band(age) AS CASE {bands} END")
        yield connection
