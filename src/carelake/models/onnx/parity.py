"""The parity gate: an ONNX derivative says what the native model says, or there is none.

Compared are rows of the training data, where they are at hand, and rows made for it: for each threshold of each tree
a value just below it, at it, and just above it in float32, each feature missing, and rows of such values at random.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import numpy as np

from carelake.core import canonical
from carelake.core.errors import Refused
from carelake.core.shapes import decodable
from carelake.models.matrix import Floats
from carelake.models.onnx.graph import INPUT, OUTPUT, build, thresholds
from carelake.models.onnx.safety import opened
from carelake.models.scorer import Scorer

__all__ = ["TOLERANCE", "Compared", "boundary_rows", "claimed", "compare", "derived", "refuse_unequal"]

TOLERANCE = 1e-9
_SEED = 20260107
_RANDOM = 2_000
_MOST = 60_000
_CHUNK = 5_000


@dataclass(frozen=True, slots=True)
class Compared:
    """How far the two are apart.

    Attributes:
        largest: largest difference of probabilities; infinite where either gives none.
        rows: compared. over: rows that differ by more than the tolerance.
    """

    largest: float
    rows: int
    over: int

    @property
    def holds(self) -> bool:
        """Whether they say the same."""
        return self.rows > 0 and self.over == 0 and self.largest <= TOLERANCE


class _Report(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``parity.json``."""

    largest: float
    rows: int
    over: int
    sample_rows: int
    boundary_rows: int
    tolerance: float
    format: int = 1


def derived(scorer: Scorer, sample: Floats | None = None) -> dict[str, bytes]:
    """``model.onnx`` and ``parity.json`` of a model, to be registered or exported with it.

    Args:
        sample: (n, p) rows of the training data.

    Raises:
        Refused: ``models.parity``, with the figures. as `graph.build`.
    """
    data = build(scorer)
    edges = boundary_rows(scorer)
    rows = edges if sample is None or not len(sample) else np.vstack([np.asarray(sample, dtype=np.float64), edges])
    found = compare(scorer, data, rows)
    if not found.holds:
        raise _unequal(found)
    said = _Report(found.largest, found.rows, found.over, len(rows) - len(edges), len(edges), TOLERANCE)
    return {"model.onnx": data, "parity.json": canonical.dump(msgspec.to_builtins(said))}


def refuse_unequal(scorer: Scorer, data: bytes, report: bytes) -> None:
    """Let pass a derivative that comes with its report, and holds against the native model here and now.

    Raises:
        Refused: ``models.parity``, with the figures; ``models.onnx_unsafe``.
    """
    told = claimed(report)
    if told is None or not told.holds:
        raise Refused("models.parity", "model.onnx comes without a parity report, or with one that does not hold.")
    found = compare(scorer, data, boundary_rows(scorer))
    if not found.holds:
        raise _unequal(found)


def claimed(report: bytes) -> Compared | None:
    """What ``parity.json`` says; None when it is none."""
    try:
        told = msgspec.json.decode(report, type=decodable(_Report))
    except (msgspec.MsgspecError, RecursionError):
        return None
    return Compared(told.largest, told.rows, told.over)


def compare(scorer: Scorer, data: bytes, rows: Floats) -> Compared:
    """Both models on (n, p) rows that are float32 already."""
    session = opened(data)
    largest, over = 0.0, 0
    for begin in range(0, len(rows), _CHUNK):
        part = np.asarray(rows[begin : begin + _CHUNK], dtype=np.float32)
        ours = scorer.risk(part.astype(np.float64))
        theirs = np.asarray(session.run([OUTPUT], {INPUT: part})[0], dtype=np.float64).reshape(-1)
        apart = np.abs(ours - theirs) if theirs.shape == ours.shape else np.full(len(ours), np.inf)
        apart = np.where(np.isfinite(apart), apart, np.inf)
        largest = max(largest, float(apart.max(initial=0.0)))
        over += int((apart > TOLERANCE).sum())
    return Compared(largest, len(rows), over)


def boundary_rows(scorer: Scorer) -> Floats:
    """(n, p) rows at the edges of the model, the same for the same model."""
    middle = np.asarray(scorer.description.linear.medians, dtype=np.float64)
    edges = [_around(values) for values in thresholds(scorer)]
    made = [middle[None, :], np.full((1, len(middle)), np.nan)]
    for at, values in enumerate(edges):
        rows = np.repeat(middle[None, :], len(values) + 1, axis=0)
        rows[:, at] = [*values, np.nan]
        made.append(rows)
    random = np.random.default_rng(_SEED)
    mixed = np.empty((_RANDOM, len(middle)))
    for at, values in enumerate(edges):
        choices = np.asarray([*values, middle[at], np.nan])
        mixed[:, at] = random.choice(choices, _RANDOM)
    every = np.vstack([*made, mixed])
    if len(every) > _MOST:
        every = every[np.sort(random.choice(len(every), _MOST, replace=False))]
    return every.astype(np.float32).astype(np.float64)


def _around(values: Floats) -> Floats:
    at = values.astype(np.float32)
    low, high = (np.nextafter(at, np.float32(side)) for side in (-np.inf, np.inf))
    return np.unique(np.concatenate([low, at, high]).astype(np.float64))


def _unequal(found: Compared) -> Refused:
    return Refused(
        "models.parity",
        f"The ONNX model differs from the native one: max |dp| {found.largest:.3g} over {found.rows} rows, "
        f"{found.over} rows by more than {TOLERANCE:g}; it is not kept.",
        largest=found.largest,
        rows=found.rows,
        over=found.over,
    )
