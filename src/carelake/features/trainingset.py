"""Training sets: the labelled rows of a feature set, shared out to train, calibration and test.

Only rows that a set uses are in it; what was left out is counted in the noun's body.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta

import pyarrow as pa
import pyarrow.compute as pc

from carelake.audit.nouns import Nouns
from carelake.core.nouns import Noun
from carelake.core.permit import Permit
from carelake.features import leaks, parquet
from carelake.features.featureset import FeatureSet
from carelake.features.split import Fractions, Split, split
from carelake.vault.workspace import Vault

__all__ = ["TrainingSet", "create", "load"]

_MONTH_HOURS = 30 * 24
_TOLD = ("features", "attrition", "data_end", "recipe", "follow_up_hours", "outcomes", "snapshot", "taken", "meds")
_OUTCOMES = ("readmitted", "died_first")


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """A training set.

    Attributes:
        noun: its body has ``rows``, ``features``, ``attrition``, ``data_end``, ``split``, ``leaks`` (see
            `features.leaks`), ``proof``, ``object``, ``sha256``.
        table: the columns of the feature set and ``set``; every row is labelled and in a set.
        proof: of each row, in the same order; it does not cover ``set``, which follows from the split.
    """

    noun: Noun
    table: pa.Table
    proof: pa.Table | None = None

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the feature columns, in order."""
        return tuple(self.noun.body["features"])


def create(
    permit: Permit,
    vault: Vault,
    nouns: Nouns,
    features: FeatureSet,
    *,
    seed: int = 1,
    fractions: Fractions | None = None,
    shared: Split | None = None,
) -> TrainingSet:
    """Share out a feature set, or find what was shared out before.

    Args:
        permit: grants ``features:write``, ``rows:read``, ``rows:write``.
        shared: a split that the data came with; by default `split.split`.
    """
    said = features.noun.body
    follow_up = timedelta(hours=int(said.get("follow_up_hours", _MONTH_HOURS)))
    shared = shared or split(features.table, seed=seed, fractions=fractions, follow_up=follow_up)
    table = _rows(features, shared)
    proved = None if features.proof is None else features.proof.filter(pc.is_valid(shared.sets))
    told = {name: said[name] for name in _TOLD if name in said}
    body = {**told, "split": shared.body()}
    if proved is not None:
        body["leaks"] = leaks.report(table, proved, said["features"], outcomes=said.get("outcomes", _OUTCOMES))
    noun = parquet.keep(permit, vault, nouns, "trainingset", table, (features.noun.ref,), body, proof=proved)
    return TrainingSet(noun, table, proved)


def load(permit: Permit, vault: Vault, noun: Noun) -> TrainingSet:
    """Read a training set back, as it was built; `Corrupt` ``features.altered``."""
    return TrainingSet(noun, parquet.read(permit, vault, noun), parquet.read_proof(permit, vault, noun))


def _rows(features: FeatureSet, shared: Split) -> pa.Table:
    """The rows that a set uses, with ``set`` after ``label``; the split and its source in the schema's metadata."""
    built = features.table
    at = built.column_names.index("label") + 1
    table = built.add_column(at, "set", shared.sets).filter(pc.is_valid(shared.sets))
    said = json.dumps({"split": shared.body(), "features": features.noun.ref}, sort_keys=True)
    return table.replace_schema_metadata({b"carelake": said.encode()})
