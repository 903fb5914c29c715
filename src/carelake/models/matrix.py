"""The table of a training set, as arrays that the learners and the metrics take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from carelake.core.errors import Invalid

__all__ = ["GROUPS", "SCORES", "SETS", "Floats", "Mask", "Rows", "features", "rows", "scores"]

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

SETS = ("train", "calibration", "test")
SCORES = ("lace", "hospital", "hospital_2013")
GROUPS = ("sex", "race", "age_group")
_MAX_FEATURES = 5_000


@dataclass(frozen=True)
class Rows:
    """Index admissions, one a row.

    Attributes:
        names: the features, in the order of the columns of ``x``.
        x: (n, p) values, NaN where missing; each was rounded to float32, so that a float32 runtime sees the same.
        y: (n,) whether the outcome happened.
        subject: (n,) a number per patient, for grouping only.
        sets: (n,) ``train``, ``calibration`` or ``test``.
        scores: clinical scores by name, (n,) each, NaN where missing.
        groups: subgroup labels by name, (n,) each; "unknown" where missing.
    """

    names: tuple[str, ...]
    x: Floats
    y: Mask
    subject: NDArray[np.int64]
    sets: NDArray[np.str_]
    scores: Mapping[str, Floats] = field(default_factory=dict)
    groups: Mapping[str, NDArray[np.str_]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.y)

    @property
    def events(self) -> int:
        """How many rows have the outcome."""
        return int(self.y.sum())

    def where(self, mask: Mask) -> Rows:
        """The rows under a mask."""
        return Rows(
            self.names,
            self.x[mask],
            self.y[mask],
            self.subject[mask],
            self.sets[mask],
            {name: score[mask] for name, score in self.scores.items()},
            {name: label[mask] for name, label in self.groups.items()},
        )

    def part(self, name: str) -> Rows:
        """The rows of one set."""
        return self.where(self.sets == name)


def features(table: pa.Table, names: Sequence[str]) -> Floats:
    """The (n, p) matrix of the named columns, missing as NaN, rounded to float32.

    Raises:
        Invalid: ``models.feature_missing`` (no such column), ``models.feature_type`` (not numbers),
            ``models.feature_infinite``, ``models.feature_names`` (none, twice the same, or too many).
    """
    if not 0 < len(names) <= _MAX_FEATURES or len(set(names)) != len(names):
        raise Invalid(
            "models.feature_names", f"Expected 1 to {_MAX_FEATURES} feature names, each once.", got=len(names)
        )
    matrix = np.empty((table.num_rows, len(names)), dtype=np.float64)
    for at, name in enumerate(names):
        matrix[:, at] = _floats(table, name)
    if np.isinf(matrix).any():
        at = int(np.isinf(matrix).any(axis=0).argmax())
        raise Invalid("models.feature_infinite", f"Feature {names[at]} is infinite in a row; expected finite.")
    return matrix


def _floats(table: pa.Table, name: str) -> Floats:
    if name not in table.column_names:
        raise Invalid("models.feature_missing", f"The table has no column {name}; build the feature set again.")
    column = table.column(name)
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.uint8())
    try:
        values = column.cast(pa.float64()).to_numpy()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise Invalid("models.feature_type", f"Column {name} does not hold numbers; expected float64.") from None
    with np.errstate(over="ignore"):
        return np.asarray(values, dtype=np.float32).astype(np.float64)


def scores(table: pa.Table, wanted: Sequence[str] = SCORES) -> dict[str, Floats]:
    """The clinical scores that the table has, (n,) each, missing as NaN."""
    return {name: _floats(table, name) for name in wanted if name in table.column_names}


def rows(
    table: pa.Table, names: Sequence[str], *, points: Sequence[str] = SCORES, groups: Sequence[str] = GROUPS
) -> Rows:
    """Read a training set: ``subject_id``, ``label``, ``set``, the features, and what there is of scores and groups.

    Rows whose ``set`` is null are used by nobody, and left out.

    Raises:
        Invalid: as `features`; ``models.label`` where a label is missing; ``models.set`` for an unknown set.
    """
    table = table.filter(table.column("set").is_valid())
    label = table.column("label")
    if label.null_count or not pa.types.is_boolean(label.type):
        raise Invalid("models.label", "The column label must hold true or false in every row.")
    sets = np.asarray(table.column("set").to_pylist(), dtype=np.str_)
    if len(sets) and not np.isin(sets, SETS).all():
        raise Invalid("models.set", f"The column set holds a word that is none of {', '.join(SETS)}.")
    codes = table.column("subject_id").combine_chunks().dictionary_encode().indices
    present = set(table.column_names)
    return Rows(
        tuple(names),
        features(table, names),
        np.asarray(label.to_numpy(), dtype=np.bool_),
        np.asarray(codes.to_numpy(zero_copy_only=False), dtype=np.int64),
        sets,
        scores(table, points),
        {name: _labels(table, name) for name in groups if name in present},
    )


def _labels(table: pa.Table, name: str) -> NDArray[np.str_]:
    return np.asarray([str(v) if v else "unknown" for v in table.column(name).to_pylist()], dtype=np.str_)
