"""Fit gated units to series: Adam on small batches, stopped when strangers' loss no longer falls."""

from __future__ import annotations

import platform
from collections.abc import Mapping

import msgspec
import numpy as np

from carelake.core.errors import Invalid
from carelake.models.calibrate import fit_line
from carelake.models.logistic import fit_linear
from carelake.models.matrix import Floats, Mask, Rows
from carelake.models.sequence.gru import Gru, adam, fresh
from carelake.models.sequence.scorer import Sequence, SequenceScorer, shaped
from carelake.models.tuning import folds_of

__all__ = ["SequencePlan", "train"]

_SEED = 20260107


class SequencePlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What can be chosen.

    Attributes:
        series: how many series the columns hold, one after another.
        width: gated units.
        epochs: times that all rows are seen, at most; ``patience`` of them without a better loss end it.
        decay: pull of the weights towards 0.
        Others as in `train.Plan`.
    """

    name: str
    series: int
    width: int = 12
    epochs: int = 40
    patience: int = 5
    batch: int = 128
    rate: float = 0.01
    decay: float = 1e-4
    folds: int = 5
    alert_share: float = 0.15
    enough_events: int = 100
    replicates: int = 200
    thresholds: tuple[float, ...] = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4)
    temporal: bool = True
    not_computable: Mapping[str, str] = {}


def train(
    data: Rows, plan: SequencePlan, *, training_set: str, words: Mapping[str, str] | None = None
) -> SequenceScorer:
    """Fit on the rows of ``train``, of which a fold of patients tells when to stop; calibrate on ``calibration``.

    Raises:
        Invalid: ``models.train``: one outcome only, fewer patients than folds, or columns that are no series.
    """
    base, later = data.part("train"), data.part("calibration")
    few = len(np.unique(base.subject)) < plan.folds or not 0 < base.events < len(base)
    if few or len(data.names) % plan.series:
        raise Invalid("models.train", "Training needs patients in every fold, both outcomes, and whole series.")
    cube = base.x.reshape(len(base), plan.series, -1)
    means, scales = _spread(cube)
    held = folds_of(base.subject, plan.folds, _SEED) == 0
    steps = shaped(base.x, means.tolist(), scales.tolist())
    found, epochs = _descend(steps[~held], base.y[~held], steps[held], base.y[held], plan)
    draft = Sequence(
        names=list(data.names),
        words={name: words[name] for name in data.names if words and name in words},
        series=plan.series,
        means=means.tolist(),
        scales=scales.tolist(),
        width=plan.width,
        weights=found.weights.tolist(),
        linear=fit_linear(base.x, base.y),
        platt=(0.0, 1.0),
        threshold=0.5,
        training_set=training_set,
        rounds=epochs,
        versions={"numpy": np.__version__, "python": platform.python_version()},
        parameters={"width": plan.width, "rate": plan.rate, "batch": plan.batch, "decay": plan.decay},
    )
    return _calibrated(draft, base.where(held), later, plan)


def _calibrated(draft: Sequence, held: Rows, later: Rows, plan: SequencePlan) -> SequenceScorer:
    """The line and the alert, by rows that no weight was fitted on."""
    scorer = SequenceScorer(draft)
    judged = later if min(later.events, len(later) - later.events) >= 30 else held
    platt = fit_line(scorer.logits(judged.x), judged.y, tight=0.2)
    scorer = SequenceScorer(msgspec.structs.replace(draft, platt=platt))
    cut = float(np.quantile(scorer.risk(judged.x), 1.0 - plan.alert_share))
    threshold = round(cut, 4) or cut
    return SequenceScorer(msgspec.structs.replace(scorer.description, threshold=threshold))


def _spread(cube: Floats) -> tuple[Floats, Floats]:
    """Mean and standard deviation of each series' known values; 0 and 1 where there are none."""
    known = [part[~np.isnan(part)] for part in cube.transpose(1, 0, 2)]
    means = np.asarray([part.mean() if len(part) else 0.0 for part in known])
    scales = np.asarray([part.std() if len(part) else 1.0 for part in known])
    return means, np.where(scales > 1e-9, scales, 1.0)


def _descend(x: Floats, y: Mask, held_x: Floats, held_y: Mask, plan: SequencePlan) -> tuple[Gru, int]:
    """The weights that did best on the held rows, and after how many epochs."""
    random = np.random.default_rng(_SEED)
    at = best = fresh(x.shape[2], plan.width, _SEED)
    moments: tuple[Floats, Floats] = (np.zeros_like(at.weights), np.zeros_like(at.weights))
    least, since, step, kept = np.inf, 0, 0, 0
    for epoch in range(1, plan.epochs + 1):
        for rows in np.array_split(random.permutation(len(y)), max(1, len(y) // plan.batch)):
            step += 1
            _, gradient = at.gradient(x[rows], y[rows])
            moments, move = adam(moments, step, gradient + plan.decay * at.weights, plan.rate)
            at = Gru(at.inputs, at.width, at.weights - move)
        score = at.score(held_x)
        loss = float((np.logaddexp(0.0, score) - held_y * score).mean())
        least, since, best, kept = (loss, 0, at, epoch) if loss < least - 1e-5 else (least, since + 1, best, kept)
        if since >= plan.patience:
            break
    return best, kept
