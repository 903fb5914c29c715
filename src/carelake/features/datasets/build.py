"""Building a data set: the recipe's rows at a snapshot, kept as a feature set and a training set with their proof."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import pyarrow as pa

from carelake.audit.nouns import Nouns
from carelake.core.clock import instant, iso
from carelake.core.errors import Invalid, NotFound, Unsupported
from carelake.core.nouns import Noun
from carelake.core.permit import Permit
from carelake.core.settings import LakeSettings
from carelake.features import cohort, featureset, trainingset
from carelake.features.datasets import make, sources
from carelake.features.datasets.design import Group, Recipe
from carelake.features.datasets.shelf import view
from carelake.features.datasets.sources import Reader
from carelake.features.featureset import FeatureSet
from carelake.features.groups import offline
from carelake.features.groups.known import find
from carelake.features.split import Fractions
from carelake.features.trainingset import TrainingSet
from carelake.lake import results
from carelake.lake.flat import names
from carelake.lake.ready.shards import people
from carelake.lake.seeing.seen import Whose
from carelake.lake.views.execute import engine_of
from carelake.vault.workspace import Vault

__all__ = [
    "SHARD",
    "Lake",
    "build",
    "ending",
    "engine_for",
    "feature_set",
    "kinds_of",
    "noun_of",
    "offline_of",
    "rows",
    "views_of",
]


SHARD = 10_000
"""Patients whose rows are in memory at a time."""
Tell = Callable[[int, int], None]


def _quiet(done: int, of: int) -> None:
    pass


@dataclass(frozen=True)
class Lake:
    """What a data set is made of: an account's lake and feature groups.

    The permit grants ``lake:read``, ``features:read``, ``features:write``, ``rows:read``, ``rows:write``.
    """

    permit: Permit
    vault: Vault
    nouns: Nouns


def build(
    lake: Lake,
    recipe: Recipe,
    snapshot: Noun,
    *,
    data_end: datetime | None = None,
    shard: int = SHARD,
    engine: str | None = None,
    tell: Tell = _quiet,
) -> TrainingSet:
    """Build the training set of a recipe, or find it.

    Args:
        data_end: the end of the data, UTC; by default `cohort.data_end_of`.
        shard: patients whose rows are made at a time. The rows are the same whatever it is, since a SELECT of a
            recipe is about one patient at a time.
        engine: see `engine_for`; the rows are the same.
        tell: how many parts of how many are done.
    """
    share = recipe.share
    features = feature_set(lake, recipe, snapshot, data_end=data_end, shard=shard, engine=engine, tell=tell)
    fractions = Fractions(share.test_patients, share.calibration_patients, share.time)
    return trainingset.create(lake.permit, lake.vault, lake.nouns, features, seed=share.seed, fractions=fractions)


def engine_for(recipe: Recipe, name: str | None, settings: LakeSettings) -> Literal["duckdb", "spark"]:
    """The engine that makes a recipe's rows: the one that is asked for; else the setting's where it can, or DuckDB.

    Raises:
        Unsupported: ``lake.view_engine``; ``datasets.engine``, for Spark with a recipe that has SELECTs of its own.
    """
    on = engine_of(name or None, settings)
    if on == "spark" and recipe.rows != "readmission":
        if name:
            raise Unsupported(
                "datasets.engine",
                "The SELECTs of a recipe are DuckDB's dialect and run there; Spark makes the rows of readmission.",
            )
        return "duckdb"
    return on


def feature_set(
    lake: Lake,
    recipe: Recipe,
    snapshot: Noun,
    *,
    data_end: datetime | None = None,
    shard: int = SHARD,
    engine: str | None = None,
    tell: Tell = _quiet,
) -> FeatureSet:
    """The rows of a recipe before they are shared out; of ``readmission``, what `featureset.create` makes.

    Arguments and errors as those of `build`.
    """
    if recipe.rows == "meds":
        raise Invalid("datasets.recipe", "The rows of this recipe are of a MEDS data set; give one with --meds.")
    permit, vault, nouns = lake.permit, lake.vault, lake.nouns
    now = vault.clock.now()
    taken = iso(now)
    read = sources.reader(permit, vault, snapshot)
    if engine_for(recipe, engine, vault.settings.lake) == "spark":
        from carelake.features.datasets import on_spark

        made, counts = on_spark.rows(
            permit, vault, snapshot, data_end=data_end, ending=lambda: ending(read, now), shard=shard, tell=tell
        )
    else:
        patients = people(permit, vault, snapshot, kinds_of(recipe), shard)
        made, counts = rows(lake, recipe, read, patients, taken=taken, data_end=data_end, tell=tell)
    empty = {name: view(name).empty for name in counts}
    refs = [one.ref for one in results.note(permit, vault, nouns, snapshot, empty, counts, view)] or [snapshot.ref]
    proved = made.prove(vault.keyring.referrer(permit, "proof"))
    body = made.body()
    if recipe.rows == "readmission":  # as `featureset.create` has it
        told = {name: body[name] for name in ("attrition", "data_end")}
        body = {"features": body["features"], **told}
        return featureset.keep(permit, vault, nouns, made.table, proved, refs, body, told=told)
    body |= {"recipe": recipe.body(), "snapshot": snapshot.ref}
    if any(one.group for one in recipe.groups):
        body["taken"] = taken  # feature groups are read as of then
    if recipe.design is not None:
        body["follow_up_hours"] = recipe.design.to_hours
    return featureset.keep(permit, vault, nouns, made.table, proved, refs, body)


def rows(
    lake: Lake,
    recipe: Recipe,
    read: Reader,
    patients: Sequence[Whose],
    *,
    taken: str,
    data_end: datetime | None,
    tell: Tell = _quiet,
) -> tuple[make.Made, dict[str, int]]:
    """A recipe's rows, some patients at a time, with feature groups as of ``taken``; and how many each view has."""
    now = lake.vault.clock.now()
    if data_end is None:
        data_end = ending(read, now)
    groups = {one.name: offline_of(lake, one, taken) for one in recipe.groups if one.group}
    parts, counts = [], Counter[str]()
    for n, some in enumerate(patients):
        tell(n, len(patients))
        tables = read(views_of(recipe), some)
        counts.update({name: len(table) for name, table in tables.items()})
        parts.append(_rows(lake, recipe, tables, groups, data_end))
    return (parts[0] if len(parts) == 1 else make.together(parts)), dict(counts)


def ending(read: Reader, now: datetime) -> datetime:
    """As `cohort.data_end_of`, which looks at observations where there are few encounters only."""
    tables = read(("encounters",), None)
    few = len(tables["encounters"]) < 10 * cohort.MANY
    return cohort.data_end_of(tables | (read(("observations",), None) if few else {}), now)


def _rows(
    lake: Lake,
    recipe: Recipe,
    tables: Mapping[str, pa.Table],
    groups: Mapping[str, pa.Table],
    data_end: datetime,
) -> make.Made:
    limits, now = lake.vault.settings.lake, lake.vault.clock.now()
    if recipe.rows == "readmission":
        return make.of_readmission(tables, data_end=data_end, now=now, limits=limits)
    return make.of_design(recipe, tables, lambda one: groups[one.name], data_end=data_end, now=now, limits=limits)


def offline_of(lake: Lake, group: Group, taken: str) -> pa.Table:
    """A feature group's offline table as of a moment, its record identifier as ``subject_id``.

    Raises:
        Invalid: ``datasets.columns``, for a group whose records are not of patients. NotFound: ``features.no_group``.
    """
    with lake.vault.database.reading(lake.permit) as tx:
        told = find(tx, lake.permit.account, group.group)
    if told.said.subject not in ("", told.record):
        raise Invalid(
            "datasets.columns",
            f"The records of the feature group of {group.name} are not of patients; "
            "join one whose record identifier is the patient's.",
        )
    found = offline.table(lake.permit, lake.vault, group.group, as_of=instant(taken))
    found = found.rename_columns(["subject_id", *found.column_names[1:]])
    return found.drop_columns(["api_invocation_time"]) if "api_invocation_time" in found.column_names else found


def views_of(recipe: Recipe) -> list[str]:
    """The views that a recipe's rows are made of."""
    return list(names()) if recipe.rows == "readmission" else sources.needed(recipe)


def kinds_of(recipe: Recipe) -> list[str]:
    """The types of resources that these views are of."""
    return [view(name).resource for name in views_of(recipe)]


def noun_of(lake: Lake, ref: str, kind: str) -> Noun:
    """The noun of a ref of that kind.

    Raises:
        NotFound: ``datasets.no_such_set``.
    """
    with lake.vault.database.reading(lake.permit) as tx:
        try:
            found = lake.nouns.get(tx, ref, account=lake.permit.account)
        except NotFound:
            found = None
    if found is None or found.kind != kind:
        raise NotFound("datasets.no_such_set", "There is no such data set; `carelake dataset list` shows them.")
    return found
