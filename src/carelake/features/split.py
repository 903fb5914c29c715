"""Who trains, calibrates and tests: no patient in two sets, no test row older than the training rows' labels.

Time T is a quantile of the labelled admissions' prediction times; patients fall into three groups by a hash of seed
and id. Training takes its group's admissions whose 30-day label was complete at T, calibration the same of its own
group, testing the third group's admissions discharged after T. So the test looks forward in time and at strangers,
as a deployed model does.

That is bought with rows: training patients' later admissions and test patients' earlier ones are used by nobody.
With the defaults about 25 % of labelled admissions test, 20 % train, 5 % calibrate and half are left out. Between
test share p of patients and q of time, test gets p*q and the others (1-p)*(1-q); p = q wastes least for a given test.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from carelake.core.errors import Invalid

__all__ = ["SETS", "Fractions", "Split", "again", "patient_group", "split"]

SETS = ("train", "calibration", "test")
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - UTC without a zone, as the table


@dataclass(frozen=True, slots=True)
class Fractions:
    """Shares of patients in test and calibration (the rest train), and of labelled time before T."""

    test_patients: float = 0.5
    calibration_patients: float = 0.1
    time: float = 0.5

    def __post_init__(self) -> None:
        shares = (self.test_patients, self.calibration_patients, self.time)
        if min(shares) <= 0 or self.time >= 1 or self.test_patients + self.calibration_patients >= 1:
            raise Invalid("features.split", "Each share must be over 0, and test and calibration together below 1.")


@dataclass(frozen=True, slots=True)
class Split:
    """A split and how it was made.

    Attributes:
        sets: string array as long as the table: ``train``, ``calibration``, ``test``, or null (used by none).
        boundary: T, null when there is no labelled row.
        counts: rows by set, and ``unused``.
        by: what decided: patient and time here, or a split that the data came with.
    """

    sets: pa.Array
    boundary: datetime | None
    seed: int
    fractions: Fractions
    counts: Mapping[str, int]
    by: str = ""

    def body(self) -> dict[str, Any]:
        """The facts of the split as JSON."""
        if self.by:
            return {"by": self.by, "boundary": None, "counts": dict(self.counts)}
        return {
            "boundary": self.boundary.isoformat() if self.boundary else None,
            "seed": self.seed,
            "test_patients": str(self.fractions.test_patients),
            "calibration_patients": str(self.fractions.calibration_patients),
            "time": str(self.fractions.time),
            "counts": dict(self.counts),
        }


def patient_group(patient: str, seed: int, fractions: Fractions) -> str:
    """The set that a patient may be in: it follows from the seed and the id alone."""
    place = int.from_bytes(hashlib.sha256(f"{seed}\x1f{patient}".encode()).digest()[:8], "big") / 2.0**64
    if place < fractions.test_patients:
        return "test"
    return "calibration" if place < fractions.test_patients + fractions.calibration_patients else "train"


def split(
    table: pa.Table, *, seed: int = 1, fractions: Fractions | None = None, follow_up: timedelta = timedelta(days=30)
) -> Split:
    """Share out the labelled rows of a feature table.

    Args:
        table: has ``subject_id``, ``prediction_time`` (timestamp, UTC) and ``label`` (null: not shared out).
        follow_up: how long after the prediction time a label is complete.
    """
    fractions = fractions or Fractions()
    labelled = pc.is_valid(table.column("label")).to_numpy(zero_copy_only=False)
    times = table.column("prediction_time").cast(pa.timestamp("us")).cast(pa.int64()).to_numpy()
    if not labelled.any():
        return Split(pa.nulls(len(table), pa.string()), None, seed, fractions, _counts([None] * len(table)))
    boundary = int(np.quantile(times[labelled], fractions.time, method="lower"))
    sets = _sets(table.column("subject_id"), times, labelled, boundary, follow_up, seed, fractions)
    moment = _EPOCH + timedelta(microseconds=boundary)
    return Split(pa.array(sets, pa.string()), moment, seed, fractions, _counts(sets))


def again(
    table: pa.Table, boundary: str | None, *, seed: int, fractions: Fractions, follow_up_hours: int
) -> pa.Array:
    """The sets of labelled rows by a boundary that was found before, an instant in UTC as `Split.body` has it."""
    labelled = pc.is_valid(table.column("label")).to_numpy(zero_copy_only=False)
    if boundary is None:
        return pa.nulls(len(table), pa.string())
    times = table.column("prediction_time").cast(pa.timestamp("us")).cast(pa.int64()).to_numpy()
    at = (datetime.fromisoformat(boundary) - _EPOCH) // timedelta(microseconds=1)
    follow_up = timedelta(hours=follow_up_hours)
    sets = _sets(table.column("subject_id"), times, labelled, at, follow_up, seed, fractions)
    return pa.array(sets, pa.string())


def _sets(
    subjects: pa.ChunkedArray,
    times: NDArray[np.int64],
    labelled: NDArray[np.bool_],
    boundary: int,
    follow_up: timedelta,
    seed: int,
    fractions: Fractions,
) -> list[str | None]:
    early = labelled & (times + follow_up // timedelta(microseconds=1) <= boundary)
    late = labelled & (times > boundary)
    return [
        group if (late if group == "test" else early)[row] else None
        for row, group in enumerate(_groups(subjects, seed, fractions))
    ]


def _groups(patients: pa.ChunkedArray, seed: int, fractions: Fractions) -> list[str]:
    codes = patients.combine_chunks().dictionary_encode()
    groups = [patient_group(patient, seed, fractions) for patient in codes.dictionary.to_pylist()]
    return [groups[code] for code in codes.indices.to_numpy()]


def _counts(sets: list[str | None]) -> dict[str, int]:
    return {**{name: sets.count(name) for name in SETS}, "unused": sets.count(None)}
