"""The rows of a recipe: labels, features as of each prediction time, and their proof; nothing is kept here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from carelake.core.errors import Invalid
from carelake.core.settings import LakeSettings
from carelake.features import asof, cohort, featureset, proof, readmission
from carelake.features.datasets import labels, scores, sources
from carelake.features.datasets.design import Group, Recipe
from carelake.features.engines import Run
from carelake.lake.engines.engine import run

__all__ = ["Made", "groups_of", "joined", "of_design", "of_readmission", "together"]

Offline = Callable[[Group], pa.Table]
"""Reads a feature group's offline table as of the moment of the data set."""


@dataclass(frozen=True, slots=True)
class Made:
    """Rows of a recipe.

    Attributes:
        table: labels, facts and features. features: names of the columns to learn from.
        outcomes: columns of what came after the prediction time, the label not among them.
        prove: their proof with a MAC.
    """

    table: pa.Table
    features: tuple[str, ...]
    attrition: Mapping[str, int]
    data_end: datetime | None
    outcomes: tuple[str, ...]
    prove: Callable[[proof.Mac], pa.Table]

    def body(self) -> dict[str, Any]:
        """For the noun."""
        return {
            "features": list(self.features),
            "attrition": dict(self.attrition),
            "data_end": self.data_end.isoformat() if self.data_end else None,
            "outcomes": list(self.outcomes),
        }


def of_readmission(
    tables: Mapping[str, Any],
    *,
    data_end: datetime | None,
    now: datetime | None,
    limits: LakeSettings,
    on: Run = run,
    marks: Callable[[pa.Table, Mapping[str, Any]], Mapping[str, proof.Marks]] = featureset.marks_of,
) -> Made:
    """The rows of the readmission recipe.

    Args:
        on: the engine that knows the tables. marks: of its rows, on that engine.
    """
    built = readmission.build(tables, data_end=data_end, now=now, limits=limits, on=on)
    said = readmission.attrition(built)
    told = marks(built, tables)  # now: a proof that waits for them would keep the views of every shard in memory
    return Made(
        built,
        tuple(one.name for one in readmission.features()),
        said["attrition"],
        datetime.fromisoformat(said["data_end"]),
        ("readmitted", "died_first"),
        lambda mac: featureset.proof_of(built, told, mac),
    )


def of_design(
    recipe: Recipe,
    tables: Mapping[str, pa.Table],
    offline: Offline,
    *,
    data_end: datetime | None,
    now: datetime | None = None,
    limits: LakeSettings,
) -> Made:
    """The rows of a design and its groups.

    Args:
        tables: the views of `sources.needed`, and ``encounters`` where no ``data_end`` is given.
        data_end: end of the data, UTC; by default `cohort.data_end_of`.
        now: the present, after which no date is believed.
    """
    if recipe.design is None:
        raise Invalid("datasets.recipe", "The recipe has no [design].")
    end = cohort.naive(data_end) if data_end else cohort.data_end_of(tables, now)
    told = labels.build(recipe.design, sources.events_of(recipe.design, tables, limits), end, limits=limits)
    found = groups_of(recipe, tables, offline, limits)
    return joined(recipe, told.table, found, told.attrition, end, outcomes=labels.FACTS[1:])


def groups_of(
    recipe: Recipe, tables: Mapping[str, pa.Table], offline: Offline, limits: LakeSettings
) -> dict[str, pa.Table]:
    """The recipe's groups by name."""
    return {
        one.name: sources.group_of(
            one, sources.select(one.sql, tables, limits, f"group {one.name}") if one.sql else offline(one)
        )
        for one in recipe.groups
    }


def joined(
    recipe: Recipe,
    told: pa.Table,
    groups: Mapping[str, pa.Table],
    attrition: Mapping[str, int],
    data_end: datetime | None,
    *,
    outcomes: tuple[str, ...] = (),
) -> Made:
    """Labels with the features of groups, as of each label's time."""
    staleness = {one.name: one.staleness for one in recipe.groups if one.staleness is not None}
    found = asof.best(told, groups, staleness=staleness)
    table = scores.added(recipe.scores, asof.with_features(told, groups, found))
    parts = {name: [f"{name}__{one}" for one in asof.features_of(group)] for name, group in groups.items()}
    marks = proof.joined_marks(groups, found)
    return Made(
        table,
        tuple(name for some in parts.values() for name in some),
        attrition,
        data_end,
        outcomes,
        lambda mac: proof.proof(table, mac, marks, values=table.column_names, parts=parts),
    )


def together(parts: Sequence[Made]) -> Made:
    """The rows of shards of patients as one table, by subject."""
    table = pa.concat_tables([one.table for one in parts])
    order = pc.sort_indices(table.column("subject_id"))  # stable: those of a subject stay in their order
    attrition = {name: sum(one.attrition[name] for one in parts) for name in parts[0].attrition}

    def prove(mac: proof.Mac) -> pa.Table:
        return pa.concat_tables([one.prove(mac) for one in parts]).take(order)

    first = parts[0]
    rows = table.replace_schema_metadata(None).take(order).combine_chunks()
    return Made(rows, first.features, attrition, first.data_end, first.outcomes, prove)
