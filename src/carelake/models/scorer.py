"""A trained model as plain numbers and one LightGBM text: risks, and what each feature adds to them."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np

from carelake.core.errors import Corrupt
from carelake.models import boosting
from carelake.models.logistic import Linear, sigmoid
from carelake.models.matrix import Floats

__all__ = ["Description", "ScoreMap", "Scorer"]


class ScoreMap(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A clinical score as a risk: ``sigmoid(intercept + slope * score)``, fitted on the training rows.

    ``median`` stands in for a missing score.
    """

    intercept: float
    slope: float
    median: float

    def risk(self, score: Floats) -> Floats:
        """(n,) probabilities."""
        return sigmoid(self.intercept + self.slope * np.where(np.isnan(score), self.median, score))


class Description(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``model.json``: everything of a model that is not a tree.

    Attributes:
        names: features in the order of the columns.
        words: a readable name per feature, where there is one.
        linear: the logistic baseline, which is also a part of the model.
        stack: intercept, weight of the logistic score, weight of the trees' score (by cross-fitting).
        platt: intercept and slope that the calibration rows ask for, on top.
        scores: clinical scores as risks.
        threshold: risk from which an alert is raised.
        training_set: ref.
        versions: libraries that made it.
    """

    names: list[str]
    words: dict[str, str]
    linear: Linear
    stack: tuple[float, float, float]
    platt: tuple[float, float]
    scores: dict[str, ScoreMap]
    threshold: float
    training_set: str
    rounds: int
    versions: dict[str, str]
    format: int = 1


class Scorer:
    """Computes risks; what it needs is in two files (``model.txt``, ``model.json``) and no pickle.

    The score is ``platt(stack(logistic, trees))`` on the logit scale. Each part is a sum over features, so the whole
    is: `contributions` adds up to the logit exactly, up to rounding.
    """

    def __init__(self, text: str, description: Description) -> None:
        """Raises Corrupt ``models.format`` when the two do not fit together."""
        self.text = text
        self.description = description
        self.names = tuple(description.names)
        self._check()
        self._booster = boosting.parse(text, len(self.names))

    def _check(self) -> None:
        linear, width = self.description.linear, len(self.names)
        lengths = {len(getattr(linear, f)) for f in linear.__struct_fields__ if f != "intercept"}
        if self.description.format != 1 or lengths != {width} or len(set(self.names)) != width or not width:
            raise Corrupt("models.format", "model.json does not hold one number a feature; register the model again.")

    @property
    def threshold(self) -> float:
        """Risk from which an alert is raised."""
        return self.description.threshold

    def logits(self, x: Floats) -> Floats:
        """(n,) log odds of (n, p) values in the order of ``names``, NaN for missing."""
        base, linear, trees = self.description.stack
        intercept, slope = self.description.platt
        raised: Floats = self._trees(x, raw_score=True)
        out: Floats = intercept + slope * (base + linear * self.description.linear.score(x) + trees * raised)
        return out

    def _trees(self, x: Floats, **what: bool) -> Floats:
        # One thread: a second costs a few rows more than it saves, most of all on a busy machine.
        out: Floats = np.asarray(self._booster.predict(x, num_threads=1, **what), dtype=np.float64)
        return out

    def risk(self, x: Floats) -> Floats:
        """(n,) probabilities."""
        return sigmoid(self.logits(x))

    def logistic_risk(self, x: Floats) -> Floats:
        """(n,) probabilities of the logistic baseline alone."""
        return sigmoid(self.description.linear.score(x))

    def score_risks(self, scores: Mapping[str, Floats]) -> dict[str, Floats]:
        """Probabilities of each clinical score that the model knows and the rows have."""
        return {name: m.risk(scores[name]) for name, m in self.description.scores.items() if name in scores}

    def contributions(self, x: Floats) -> tuple[Floats, float]:
        """What each feature adds to the log odds, (n, p), and where the sum starts: the average patient."""
        base, linear, trees = self.description.stack
        intercept, slope = self.description.platt
        tree_parts = self._trees(x, pred_contrib=True)
        parts: Floats = slope * (linear * self.description.linear.parts(x) + trees * tree_parts[:, :-1])
        expected = float(tree_parts[0, -1]) if len(x) else 0.0
        start = base + linear * self.description.linear.intercept + trees * expected
        return parts, intercept + slope * start
