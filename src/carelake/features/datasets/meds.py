"""Data sets of a MEDS 0.4 data set: its events are the groups, labels of the standard the rows.

A file holds whole subjects, so the join goes file by file and holds one at a time. MEDS has one time: an event is
known when it happened, unless the data has our extension column ``recorded_time``; what has no time was always known.
A recipe's groups are SELECTs over ``meds`` (``subject_id``, ``time``, ``code``, ``numeric_value``, ``text_value``
and the data set's further columns); without any, the last value and the count of the commonest numeric codes are
taken. Subjects of a data set that carelake wrote are the record's patients again, so that an erasure finds them.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from carelake.core import canonical
from carelake.core.errors import CarelakeError, Invalid, NotFound
from carelake.core.permit import Permit
from carelake.core.settings import LakeSettings
from carelake.features import asof, featureset, proof, trainingset
from carelake.features.datasets import make, sources
from carelake.features.datasets.build import Lake
from carelake.features.datasets.design import Group, Recipe
from carelake.features.split import Fractions, Split
from carelake.features.trainingset import TrainingSet
from carelake.lake import query
from carelake.lake.meds import labels as meds_labels
from carelake.lake.meds.read import shards
from carelake.lake.meds.schema import DATASET
from carelake.lake.ready.shards import Numbers
from carelake.vault.workspace import Vault

__all__ = ["Given", "build", "given", "labels_of", "made_of"]

RECORDED = "recorded_time"
_ALWAYS = -62_135_596_800_000_000
"""The first of January of the year 1 in microseconds: an event without a time."""
_CODES = 64
_SETS = {"train": "train", "tuning": "calibration", "held_out": "test"}
_OURS = "carelake"
_NUMERIC = """
SELECT subject_id, time AS event_time, {write} AS write_time, numeric_value::DOUBLE AS last,
    {count}::DOUBLE AS count
FROM meds WHERE code = '{code}' AND numeric_value IS NOT NULL
"""
_COUNT = "count(*) OVER (PARTITION BY subject_id ORDER BY time)"
_COUNT_KNOWN = """(
        SELECT count(*) FROM meds AS earlier
        WHERE earlier.subject_id = meds.subject_id AND earlier.code = '{code}' AND earlier.numeric_value IS NOT NULL
            AND earlier.time <= meds.time
            AND greatest(earlier.time, earlier.{write}) <= greatest(meds.time, meds.{write})
    )"""
"""Where events are recorded late: those only that were known when this one was."""


@dataclass(frozen=True, slots=True)
class Given:
    """A MEDS data set and labels, as the user gave them."""

    folder: Path
    labels: Path

    def body(self) -> dict[str, Any]:
        """What they are, for the noun."""
        names = sorted((self.folder / "data").glob("**/*.parquet"))
        one = hashlib.sha256()
        for path in names:
            one.update(_digest(path).encode())
        return {"files": len(names), "sha256": one.hexdigest(), "labels_sha256": _digest(self.labels)}


def given(folder: Path | None, labels: Path | None) -> Given | None:
    """Both, or neither.

    Raises:
        Invalid: ``datasets.meds``.
    """
    if folder is None and labels is None:
        return None
    if folder is None or labels is None or not (folder / "data").is_dir() or not labels.is_file():
        raise Invalid("datasets.meds", "Give a MEDS data set's folder (with data/) and a file of labels, both.")
    return Given(folder, labels)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def build(lake: Lake, recipe: Recipe, said: Given) -> TrainingSet:
    """Build the training set of a MEDS data set, or find it; sets are the data set's own where it has splits."""
    body = {"recipe": recipe.body(), "meds": said.body(), "follow_up_hours": 0}
    made = made_of(lake, recipe, said)
    proved = made.prove(lake.vault.keyring.referrer(lake.permit, "proof"))
    features = featureset.keep(lake.permit, lake.vault, lake.nouns, made.table, proved, (), {**made.body(), **body})
    share = recipe.share
    return trainingset.create(
        lake.permit, lake.vault, lake.nouns, features, seed=share.seed, shared=_splits(said, made),
        fractions=Fractions(share.test_patients, share.calibration_patients, share.time),
    )  # fmt: skip


def made_of(lake: Lake, recipe: Recipe, said: Given) -> make.Made:
    """Its rows, in the order of the labels; ``number`` is the subject's id in the data set."""
    if recipe.rows != "meds":
        raise Invalid("datasets.recipe", 'The recipe is of other rows; for a MEDS data set it says rows = "meds".')
    told = meds_labels.read(str(said.labels))
    place = pa.array(range(len(told)), pa.int64())
    told = told.append_column("place", place)
    groups = recipe.groups or tuple(_common(said.folder))
    if not groups:
        raise Invalid("datasets.meds", "The data set has no numeric events to make features of; give a recipe.")
    wanted = Recipe(name=recipe.name, title=recipe.title, rows="meds", groups=groups, share=recipe.share)
    sources.needed(wanted, known=["meds"])
    parts = list(_joined(wanted, told, said.folder, lake.vault.settings.lake))
    table = pa.concat_tables([one.table for one in parts]).combine_chunks()
    order = pc.sort_indices(table.column("place"))
    marks = {
        one.name: proof.Marks(*(_together(parts, one.name, which).take(order) for which in ("event", "write")))
        for one in groups
    }
    table = _named(lake.permit, lake.vault, lake, said.folder, table.take(order).drop_columns(["place"]))
    features = tuple(name for one in groups for name in table.column_names if name.startswith(f"{one.name}__"))
    columns = {one.name: [name for name in features if name.startswith(f"{one.name}__")] for one in groups}
    counted = {"labels": len(told), "index": len(table)}
    return make.Made(
        table, features, counted, None, (),
        lambda mac: proof.proof(table, mac, marks, values=table.column_names, parts=columns),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Part:
    table: pa.Table
    marks: Mapping[str, proof.Marks]


def _together(parts: list[_Part], group: str, which: str) -> pa.Array:
    return pa.chunked_array([getattr(one.marks[group], which) for one in parts]).combine_chunks()


def _joined(recipe: Recipe, told: pa.Table, folder: Path, limits: LakeSettings) -> Iterator[_Part]:
    """The labels of each file's subjects with their features; then those of subjects that are in no file."""
    left = told
    empty: pa.Table | None = None
    for events in shards(folder):
        known = _known(events)
        empty = known.slice(0, 0)
        who = pc.unique(known.column("subject_id"))
        mine = pc.is_in(left.column("subject_id"), who)
        if pc.sum(pc.is_in(told.column("subject_id"), who)) != pc.sum(mine):
            raise Invalid("meds.rows", "The dataset breaks a rule of MEDS 0.4: a subject is in two files.")
        yield _part(recipe, left.filter(mine), known, limits)
        left = left.filter(pc.invert(mine))
    if empty is None:
        raise Invalid("datasets.meds", "The data set has no files in data/.")
    yield _part(recipe, left, empty, limits)


def _part(recipe: Recipe, told: pa.Table, events: pa.Table, limits: LakeSettings) -> _Part:
    groups = {
        one.name: sources.group_of(one, sources.select(one.sql, {"meds": events}, limits, f"group {one.name}"))
        for one in recipe.groups
    }
    staleness = {one.name: one.staleness for one in recipe.groups if one.staleness is not None}
    found = asof.best(told, groups, staleness=staleness)
    return _Part(asof.with_features(told, groups, found), proof.joined_marks(groups, found))


def _known(events: pa.Table) -> pa.Table:
    at = events.column_names.index("time")
    always = pa.scalar(_ALWAYS, pa.int64()).cast(pa.timestamp("us"))
    events = events.set_column(at, "time", pc.fill_null(events.column("time"), always))
    if RECORDED in events.column_names:
        return events
    return events.append_column(RECORDED, events.column("time"))


def _common(folder: Path) -> Iterator[Group]:
    """A group for each of the commonest codes with numbers, by their name."""
    counts: Counter[str] = Counter()
    late = False
    for events in shards(folder):
        late = late or RECORDED in events.column_names
        numbers = events.filter(pc.is_valid(events.column("numeric_value")))
        for one in numbers.column("code").value_counts().to_pylist():
            counts[one["values"]] += one["counts"]
    common = sorted(counts, key=lambda code: (-counts[code], code))[:_CODES]
    names: set[str] = set()
    for code in sorted(common):
        name = re.sub(r"[^A-Za-z0-9_-]+", "_", f"c_{code}")[:56]
        while name in names:
            name += "_"
        names.add(name)
        said = {"write": RECORDED, "code": code.replace("'", "''")}
        count = _COUNT_KNOWN.format(**said) if late else _COUNT
        yield Group(name=name, sql=_NUMERIC.format(count=count, **said))


def _named(permit: Permit, vault: Vault, lake: Lake, folder: Path, table: pa.Table) -> pa.Table:
    """Subjects as text: the record's patients where carelake wrote the data set, else their numbers."""
    numbers = table.column("subject_id")
    names = {}
    if _is_ours(folder):
        names = {number: patient for patient, number in _numbers(lake).items()}
    said = [names.get(one, str(one)) for one in numbers.to_pylist()]
    return table.set_column(table.column_names.index("subject_id"), "subject_id", pa.array(said, pa.string()))


def _is_ours(folder: Path) -> bool:
    path = folder / DATASET
    try:
        told = canonical.load(path.read_bytes()) if path.is_file() and path.stat().st_size < 1 << 20 else {}
    except (ValueError, CarelakeError):
        return False
    return isinstance(told, dict) and told.get("dataset_name") == _OURS


def _numbers(lake: Lake) -> dict[str, int]:
    """The number of each patient of the record in `meds export`."""
    try:
        snapshot = query.snapshot_of(lake.permit, lake.vault, lake.nouns)
    except NotFound:
        return {}
    found = Numbers(lake.permit, lake.vault, snapshot).of(["Patient"])
    return dict(zip(found.column("id").to_pylist(), found.column("n").to_pylist(), strict=True))


def _splits(said: Given, made: make.Made) -> Split | None:
    """The data set's own split, None where it has none for somebody."""
    path = said.folder / "metadata" / "subject_splits.parquet"
    if not path.is_file():
        return None
    try:
        told = pq.read_table(path, columns=["subject_id", "split"])
    except (OSError, pa.ArrowException, KeyError):
        raise Invalid("meds.unreadable", "metadata/subject_splits.parquet cannot be read.") from None
    named = dict(zip(told.column("subject_id").to_pylist(), told.column("split").to_pylist(), strict=True))
    numbers = meds_labels.read(str(said.labels)).column("subject_id").to_pylist()
    labelled = pc.is_valid(made.table.column("label")).to_pylist()
    sets = [_SETS.get(named.get(one, "")) if known else None for one, known in zip(numbers, labelled, strict=True)]
    counts = Counter(one or "unused" for one in sets)
    told_of = {name: counts.get(name, 0) for name in (*_SETS.values(), "unused")}
    return Split(pa.array(sets, pa.string()), None, 0, Fractions(), told_of, by="subject_splits")


def labels_of(lake: Lake, made: TrainingSet) -> pa.Table:
    """The labels of a training set in the standard's shape, subjects by the numbers of `meds export`.

    Raises:
        Invalid: ``datasets.meds``, where somebody has no number.
    """
    table = made.table
    names = table.column("subject_id").to_pylist()
    numbers = {} if "meds" in made.noun.body and all(one.isdigit() for one in names) else _numbers(lake)
    found = [numbers.get(one, int(one) if one.isdigit() else None) for one in names]
    if None in found:
        raise Invalid("datasets.meds", "Somebody in the set is not in the lake any more, and so has no number there.")
    subjects = pa.chunked_array([np.asarray(found, dtype=np.int64)])
    return meds_labels.written(subjects, table.column("prediction_time"), table.column("label"))
