"""A sequence model as numbers: series in the columns of a matrix, the risk, and what each series adds to it."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np

from carelake.core.errors import Corrupt
from carelake.core.shapes import decodable
from carelake.models.logistic import Linear, sigmoid
from carelake.models.matrix import Floats
from carelake.models.sequence.gru import Gru

__all__ = ["Sequence", "SequenceScorer", "read"]


class Sequence(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``model.json`` of the kind ``sequence``.

    Attributes:
        names: columns: the steps of the first series from the oldest to the newest, then those of the next.
        series: how many; the columns are as many times the steps.
        means, scales: of each series.
        weights: of the gated units, see `gru.Gru`.
        linear: the logistic baseline over all columns.
        platt: intercept and slope that the calibration rows ask for.
    """

    names: list[str]
    words: dict[str, str]
    series: int
    means: list[float]
    scales: list[float]
    width: int
    weights: list[float]
    linear: Linear
    platt: tuple[float, float]
    threshold: float
    training_set: str
    rounds: int
    versions: dict[str, str]
    parameters: dict[str, float | int] = {}
    validation: dict[str, dict[str, float | int]] = {}
    kind: str = "sequence"
    format: int = 1


class SequenceScorer:
    """Risks of series. A missing value is the last known one of its series (or the mean), with a flag beside it."""

    def __init__(self, description: Sequence) -> None:
        """Raises Corrupt ``models.format`` when the numbers do not fit together."""
        self.description = description
        self.names = tuple(description.names)
        said, columns = description, len(description.names)
        sound = said.format == 1 and said.series > 0 and said.width > 0 and columns and columns % said.series == 0
        lengths = len(said.means) == len(said.scales) == said.series and len(said.linear.coefficients) == columns
        if not sound or not lengths or len(said.weights) != Gru.size(2 * said.series, said.width):
            raise Corrupt("models.format", "model.json is not a sound sequence model; register it again.")
        self._gru = Gru(2 * said.series, said.width, np.asarray(said.weights))

    def files(self) -> dict[str, bytes]:
        """The files that `read` makes it of again."""
        return {"model.json": msgspec.json.encode(self.description)}

    @property
    def threshold(self) -> float:
        """Risk from which an alert is raised."""
        return self.description.threshold

    def steps(self, x: Floats) -> Floats:
        """(n, steps, 2 series) what the units are given: values in standard deviations, and flags of missing ones."""
        return shaped(x, self.description.means, self.description.scales)

    def logits(self, x: Floats) -> Floats:
        """(n,) log odds."""
        return self._of_steps(self.steps(x))

    def _of_steps(self, steps: Floats) -> Floats:
        intercept, slope = self.description.platt
        out: Floats = intercept + slope * self._gru.score(steps)
        return out

    def risk(self, x: Floats) -> Floats:
        """(n,) probabilities."""
        return sigmoid(self.logits(x))

    def logistic_risk(self, x: Floats) -> Floats:
        """(n,) probabilities of the logistic baseline."""
        return sigmoid(self.description.linear.score(x))

    def score_risks(self, scores: Mapping[str, Floats]) -> dict[str, Floats]:
        """Clinical scores are no part of this kind."""
        return {}

    def contributions(self, x: Floats) -> tuple[Floats, float]:
        """What each series adds to the log odds, told in the column of its newest step; the sum starts at the means.

        By occlusion: the log odds less those with the series at its mean, shared out so that a row adds up.
        """
        steps, series = self.steps(x), self.description.series
        here = self._of_steps(steps)
        start = float(self._of_steps(np.zeros_like(steps[:1]))[0]) if len(x) else 0.0
        lost = np.empty((len(x), series))
        for at in range(series):
            without = steps.copy()
            without[:, :, [at, series + at]] = 0.0
            lost[:, at] = here - self._of_steps(without)
        share = np.abs(lost) / np.maximum(np.abs(lost).sum(axis=1, keepdims=True), 1e-12)
        parts = np.zeros(x.shape)
        newest = np.arange(1, series + 1) * (len(self.names) // series) - 1
        parts[:, newest] = lost + share * (here - start - lost.sum(axis=1))[:, None]
        return parts, start


def shaped(x: Floats, means: list[float], scales: list[float]) -> Floats:
    """(n, steps, 2 series) of (n, series * steps): the last known value of each series, and flags of missing ones."""
    series = len(means)
    cube = (x.reshape(len(x), series, -1) - np.asarray(means)[:, None]) / np.asarray(scales)[:, None]
    missing = np.isnan(cube)
    filled = np.where(missing, 0.0, np.clip(cube, -5.0, 5.0))
    for at in range(1, filled.shape[2]):
        known = ~missing[:, :, :at].all(axis=2)
        filled[:, :, at] = np.where(missing[:, :, at] & known, filled[:, :, at - 1], filled[:, :, at])
    return np.concatenate([filled, missing.astype(np.float64)], axis=1).transpose(0, 2, 1)


def read(files: Mapping[str, bytes]) -> SequenceScorer:
    """Make a model of its files."""
    return SequenceScorer(msgspec.json.decode(files["model.json"], type=decodable(Sequence)))
