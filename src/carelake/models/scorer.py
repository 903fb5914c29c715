"""A trained model as plain numbers and one LightGBM text: risks, and what each feature adds to them.

`read` is the one place that makes a model of its files; ``kind`` in ``model.json`` says which sort it is:

    risk       a logistic model and boosted trees, stacked
    logistic   the logistic model alone (no ``model.txt``)
    boosting   the trees alone
    event_time hazards of intervals by boosted trees (`survival.scorer`)
    forecast   counts with an interval (`forecast.scorer`)
    sequence   gated recurrent units over series (`sequence.scorer`)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import msgspec
import numpy as np

from carelake.core.errors import Corrupt
from carelake.core.shapes import decodable
from carelake.models import boosting
from carelake.models.calibrate import Curve, Judged
from carelake.models.forecast import scorer as forecast
from carelake.models.logistic import Linear, sigmoid
from carelake.models.matrix import Floats
from carelake.models.sequence import scorer as sequence
from carelake.models.survival import scorer as survival
from carelake.models.tuning import Tried

__all__ = ["KINDS", "RISKS", "Description", "ScoreMap", "Scorer", "read", "stretched"]

RISKS = ("risk", "logistic", "boosting")


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
        isotonic: the curve that the calibration asks for in place of a line, where it does.
        calibration: which of the two was chosen, and why.
        parameters: LightGBM's, where they differ from `boosting.PARAMETERS`.
        tuning: the candidates that were tried.
        validation: figures of cross-fitted risks: patients grouped, on the rows of ``train``.
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
    kind: str = "risk"
    isotonic: Curve | None = None
    calibration: Judged | None = None
    parameters: dict[str, float | int] = {}
    tuning: list[Tried] = []
    validation: dict[str, dict[str, float | int]] = {}


class Scorer:
    """Computes risks; what it needs is in two files (``model.txt``, ``model.json``) and no pickle.

    The score is ``calibration(stack(logistic, trees))`` on the logit scale. Each part is a sum over features, so the
    whole is: `contributions` adds up to the logit exactly, up to rounding. Where the calibration is a curve, a row's
    contributions are stretched by what the curve does to the way from the average patient's score to the row's.
    """

    def __init__(self, text: str, description: Description) -> None:
        """Raises Corrupt ``models.format`` when the two do not fit together."""
        self.text = text
        self.description = description
        self.names = tuple(description.names)
        self._check()
        if description.kind != "logistic":
            boosting.check_text(text, len(self.names))

    @cached_property
    def _booster(self) -> boosting.Booster | None:
        """Made when it is first asked: whoever only reads and checks a model needs no LightGBM."""
        return boosting.parse(self.text, len(self.names)) if self.description.kind != "logistic" else None

    def _check(self) -> None:
        linear, width = self.description.linear, len(self.names)
        lengths = {len(getattr(linear, f)) for f in linear.__struct_fields__ if f != "intercept"}
        if self.description.format != 1 or lengths != {width} or len(set(self.names)) != width or not width:
            raise Corrupt("models.format", "model.json does not hold one number a feature; register the model again.")
        curve, trees = self.description.isotonic, self.description.stack[2]
        alone = self.description.kind == "logistic" and (self.text or trees != 0.0)
        if self.description.kind not in RISKS or alone or (curve is not None and not curve.sound()):
            raise Corrupt("models.format", "model.json is not of a kind that this reads; register the model again.")

    def files(self) -> dict[str, bytes]:
        """The files that `read` makes it of again."""
        said = {"model.json": msgspec.json.encode(self.description)}
        return {**said, "model.txt": self.text.encode()} if self.text else said

    @property
    def threshold(self) -> float:
        """Risk from which an alert is raised."""
        return self.description.threshold

    def logits(self, x: Floats) -> Floats:
        """(n,) log odds of (n, p) values in the order of ``names``, NaN for missing."""
        base, linear, trees = self.description.stack
        out: Floats = base + linear * self.description.linear.score(x)
        if trees != 0.0:
            out = out + trees * self._trees(x, raw_score=True)
        return self._calibrated(out)

    def _calibrated(self, score: Floats) -> Floats:
        intercept, slope = self.description.platt
        out: Floats = intercept + slope * score
        return out if self.description.isotonic is None else self.description.isotonic(out)

    def _trees(self, x: Floats, **what: bool) -> Floats:
        assert self._booster is not None
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
        """What each feature adds to the log odds, (n, p), and where the sum starts: the average patient.

        Of the trees these are SHAP values (TreeSHAP, Lundberg et al. 2020), of the logistic part its terms.
        """
        base, linear, trees = self.description.stack
        parts: Floats = linear * self.description.linear.parts(x)
        start = base + linear * self.description.linear.intercept
        if trees != 0.0:
            tree_parts = self._trees(x, pred_contrib=True)
            parts = parts + trees * tree_parts[:, :-1]
            start += trees * (float(tree_parts[0, -1]) if len(x) else 0.0)
        ends = self._calibrated(start + parts.sum(axis=1))
        begin = float(self._calibrated(np.asarray([start]))[0])
        return stretched(parts, ends - begin), begin


def stretched(parts: Floats, sums: Floats) -> Floats:
    """Rows of parts scaled to given sums; a row that sums to nothing stays so."""
    has = parts.sum(axis=1)
    scale = np.divide(sums, has, out=np.ones_like(has), where=np.abs(has) > 1e-9)
    out: Floats = parts * scale[:, None]
    return out


def _risk(files: Mapping[str, bytes]) -> Scorer:
    description = msgspec.json.decode(files["model.json"], type=decodable(Description))
    return Scorer(files.get("model.txt", b"").decode(), description)


KINDS: Mapping[str, Callable[[Mapping[str, bytes]], Any]] = {
    **dict.fromkeys(RISKS, _risk),
    "event_time": survival.read,
    "forecast": forecast.read,
    "sequence": sequence.read,
}
"""What makes a model of its files, by kind."""


class _Kind(msgspec.Struct):
    kind: str = "risk"


def read(files: Mapping[str, bytes]) -> Scorer:
    """Make a model of its files: ``model.json`` and, of most kinds, ``model.txt``.

    Raises:
        Corrupt: ``models.format``.
    """
    try:
        kind = msgspec.json.decode(files["model.json"], type=decodable(_Kind)).kind
        if kind not in KINDS:
            raise Corrupt(
                "models.format", "model.json is of a kind that this version does not know; upgrade carelake."
            )
        made: Scorer = KINDS[kind](files)
    except (KeyError, msgspec.MsgspecError, UnicodeDecodeError):
        raise Corrupt("models.format", "model.json is not in this version's format; register it again.") from None
    return made
