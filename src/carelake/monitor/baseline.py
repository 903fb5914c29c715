"""The baseline of a model version: how each input and the risk were spread when the model was made.

``statistics.json`` and ``constraints.json`` of SageMaker Model Monitor in one file, with ``spread`` beside them: the
points that later rows are counted between (`monitor.spread`), and what the model's quality, its differences between
groups and its explanations were on the same rows, each with its standard deviation. No value of a single patient is
in it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from carelake.core.errors import Invalid
from carelake.core.shapes import decodable
from carelake.models.matrix import Floats, Rows
from carelake.models.scorer import Scorer
from carelake.monitor import attribution, bias, performance, quality
from carelake.monitor.spread import Column, Counts, Words, count, count_words, measure, measure_words
from carelake.monitor.statistics import constraints, statistics

__all__ = [
    "PREDICTION",
    "Baseline",
    "Column",
    "counted",
    "counted_table",
    "of_model",
    "of_shards",
    "of_table",
    "profile",
    "with_errors",
]

PREDICTION = "prediction"
"""The name of the column of risks."""
_ENOUGH_LATER = 500


class Baseline(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``baseline.json``.

    Attributes:
        quality: figures of `performance.figures` with their standard deviations; empty where there were no labels.
        bias: figures of `bias.figures` by facet and value, with their standard deviations.
        attributions: global SHAP values by feature.
    """

    statistics: dict[str, Any]
    constraints: dict[str, Any]
    spread: dict[str, Column]
    rows: int
    source: str
    format: int = 1
    quality: dict[str, Any] = {}
    bias: dict[str, Any] = {}
    attributions: dict[str, float] = {}

    def to_bytes(self) -> bytes:
        """JSON."""
        return msgspec.json.encode(self)

    @property
    def digest(self) -> str:
        """Names the cells: counts over baselines of one digest add up."""
        return hashlib.sha256(msgspec.json.encode(self.spread)).hexdigest()

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Baseline:
        """What `models.artifact.load` read; `Invalid` ``monitor.baseline`` when it is something else."""
        try:
            return msgspec.convert(content, decodable(cls))
        except msgspec.ValidationError:
            raise Invalid(
                "monitor.baseline", "baseline.json is not a baseline of this version; train again."
            ) from None


def of_model(data: Rows, scorer: Scorer) -> Baseline:
    """The baseline of a training set: of its test rows, which the model was not fitted on, if they are enough.

    They are the latest. Histories grow as a record does (there are more known conditions and earlier stays each
    year), so older rows would make an unchanged hospital look shifted; and their risks are not flattered by the fit.
    """
    later = data.part("test")
    chosen, source = (later, "test rows") if len(later) >= _ENOUGH_LATER else (data, "all rows")
    risk = scorer.risk(chosen.x)
    made = profile(chosen.x, risk, data.names, source)
    seen = performance.Labelled(chosen.y, risk, chosen.subject, scorer.threshold)
    return msgspec.structs.replace(
        made,
        quality=performance.baseline(seen),
        bias=bias.baseline(seen, chosen.groups),
        attributions=attribution.of_rows(scorer, chosen.x),
    )


def profile(x: Floats, p: Floats, names: Sequence[str], source: str) -> Baseline:
    """Describe (n, p) features and (n,) risks."""
    columns = _columns(x, p, names)
    spread = {name: measure(values) for name, values in columns.items()}
    seen = {name: count(spread[name], values) for name, values in columns.items()}
    return _baseline(spread, seen, len(x), source)


def with_errors(made: Baseline, real: Floats, told: Floats) -> Baseline:
    """A baseline of a forecast, with how far its backtest's (n,) amounts lay from what came."""
    figures = quality.regression(real, told)["regression_metrics"]
    return msgspec.structs.replace(made, quality={"rows": len(real), "figures": figures})


def of_table(table: pa.Table, source: str) -> Baseline:
    """Describe a table's columns of numbers, truths and text; others are left out."""
    spread = {}
    for name in table.column_names:
        values = _values(table.column(name))
        if values is not None:
            spread[name] = measure(values) if isinstance(values, np.ndarray) else measure_words(values)
    return _baseline(spread, counted_table(spread, table), table.num_rows, source)


def counted(spread: Mapping[str, Column], x: Floats, p: Floats, names: Sequence[str]) -> dict[str, Counts]:
    """Count (n, p) features and (n,) risks by a baseline's cells; columns that it does not know are left out."""
    columns = _columns(x, p, names)
    return {name: count(spread[name], values) for name, values in columns.items() if name in spread}


def of_shards(tables: Iterable[pa.Table], source: str) -> Baseline:
    """As `of_table`, of tables that are looked at one after another, in bounded memory (extra `monitor`).

    A column of which one shard has text and another numbers is left out.
    """
    from carelake.monitor.sketch import Sketch

    numbers: dict[str, Sketch] = {}
    words: dict[str, Words] = {}
    rows = 0
    for table in tables:
        rows += table.num_rows
        for name in table.column_names:
            values = _values(table.column(name))
            if isinstance(values, np.ndarray):
                numbers.setdefault(name, Sketch()).add(values)
            elif values is not None:
                words.setdefault(name, Words()).add(values)
    kept: dict[str, Sketch | Words] = {name: one for name, one in numbers.items() if name not in words}
    kept |= {name: one for name, one in words.items() if name not in numbers}
    spread = {name: one.column() for name, one in kept.items()}
    seen = {name: one.counts(spread[name]) for name, one in kept.items()}
    return _baseline(spread, seen, rows, source)


def counted_table(spread: Mapping[str, Column], table: pa.Table) -> dict[str, Counts]:
    """Count a table's columns by a baseline's cells; one that changed between text and numbers counts as gone."""
    found = {}
    for name, column in spread.items():
        values = _values(table.column(name)) if name in table.column_names else None
        if isinstance(values, np.ndarray) and not column.text:
            found[name] = count(column, values)
        elif isinstance(values, list) and column.text:
            found[name] = count_words(column, values)
    return found


def _baseline(spread: dict[str, Column], seen: dict[str, Counts], rows: int, source: str) -> Baseline:
    return Baseline(statistics(spread, seen, rows), constraints(spread, seen), spread, rows, source)


def _columns(x: Floats, p: Floats, names: Sequence[str]) -> dict[str, Floats]:
    by_column = np.asfortranarray(x)
    return {name: by_column[:, at] for at, name in enumerate(names)} | {PREDICTION: p}


def _values(column: pa.ChunkedArray) -> Floats | list[str | None] | None:
    kind = column.type
    if pa.types.is_boolean(kind):
        column = column.cast(pa.uint8())
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        words: list[str | None] = column.to_pylist()
        return words
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        return None
    return np.asarray(column.cast(pa.float64()).to_numpy(), dtype=np.float64)
