"""Training sets: the labelled rows of a feature set, shared out to train, calibration and test.

Only rows that a set uses are in it; what was left out is counted in the noun's body.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from carelake.audit.nouns import Nouns
from carelake.core.nouns import Noun
from carelake.core.permit import Permit
from carelake.features import parquet
from carelake.features.featureset import FeatureSet
from carelake.features.split import Fractions, Split, split
from carelake.vault.workspace import Vault

__all__ = ["TrainingSet", "create", "load"]


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """A training set.

    Attributes:
        noun: its body has ``rows``, ``features``, ``attrition``, ``data_end``, ``split``, ``object``, ``sha256``.
        table: the columns of `readmission.build` and ``set``; every row is labelled and in a set.
    """

    noun: Noun
    table: pa.Table

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
) -> TrainingSet:
    """Share out a feature set, or find what was shared out before.

    Args:
        permit: grants ``features:write``, ``rows:read``, ``rows:write``.
    """
    shared = split(features.table, seed=seed, fractions=fractions)
    table = _rows(features, shared)
    said = features.noun.body
    body = {**{name: said[name] for name in ("features", "attrition", "data_end")}, "split": shared.body()}
    return TrainingSet(parquet.keep(permit, vault, nouns, "trainingset", table, (features.noun.ref,), body), table)


def load(permit: Permit, vault: Vault, noun: Noun) -> TrainingSet:
    """Read a training set back, as it was built; `Corrupt` ``features.altered``."""
    return TrainingSet(noun, parquet.read(permit, vault, noun))


def _rows(features: FeatureSet, shared: Split) -> pa.Table:
    """The rows that a set uses, with ``set`` after ``label``; the split and its source in the schema's metadata."""
    built = features.table
    at = built.column_names.index("label") + 1
    table = built.add_column(at, "set", shared.sets).filter(pc.is_valid(shared.sets))
    said = json.dumps({"split": shared.body(), "features": features.noun.ref}, sort_keys=True)
    return table.replace_schema_metadata({b"carelake": said.encode()})
