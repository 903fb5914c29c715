"""A model of time to an event as numbers and one LightGBM text: survival curves, and the risk at a horizon."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np

from carelake.core.errors import Corrupt
from carelake.core.shapes import decodable
from carelake.models import boosting
from carelake.models.logistic import Linear, logit, sigmoid
from carelake.models.matrix import Floats

__all__ = ["EventTime", "HazardScorer", "read", "stretched"]


class EventTime(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``model.json`` of the kind ``event_time``.

    Attributes:
        edges: of the intervals, days, from 0.
        horizon: the moment at which `HazardScorer.risk` looks, days; one of the edges.
        linear: a logistic model of hazards over the features and one column an interval: the baseline.
        platt: intercept and slope that cross-fitted hazards ask for.
        alive: share without the event at each edge (Kaplan-Meier on the training rows).
    """

    names: list[str]
    words: dict[str, str]
    edges: list[float]
    horizon: float
    linear: Linear
    platt: tuple[float, float]
    alive: list[float]
    threshold: float
    training_set: str
    rounds: int
    versions: dict[str, str]
    parameters: dict[str, float | int] = {}
    validation: dict[str, dict[str, float | int]] = {}
    kind: str = "event_time"
    format: int = 1


class HazardScorer:
    """Hazards of intervals by trees over the features and the interval's middle (discrete-time survival)."""

    def __init__(self, text: str, description: EventTime) -> None:
        """Raises Corrupt ``models.format`` when the two do not fit together."""
        self.text = text
        self.description = description
        self.names = tuple(description.names)
        self.edges = np.asarray(description.edges)
        self._check()
        self._booster = boosting.parse(text, len(self.names) + 1)

    def _check(self) -> None:
        said, width = self.description, len(self.names)
        rising = len(self.edges) > 1 and self.edges[0] == 0.0 and bool((np.diff(self.edges) > 0).all())
        fits = len(said.alive) == len(self.edges) and said.horizon in said.edges[1:]
        linear = len(said.linear.coefficients) == width + len(self.edges) - 1
        if said.format != 1 or not (rising and fits and linear and width and len(set(self.names)) == width):
            raise Corrupt("models.format", "model.json is not a sound model of time to an event; register it again.")

    def files(self) -> dict[str, bytes]:
        """The files that `read` makes it of again."""
        return {"model.json": msgspec.json.encode(self.description), "model.txt": self.text.encode()}

    @property
    def threshold(self) -> float:
        """Risk at the horizon from which an alert is raised."""
        return self.description.threshold

    def hazards(self, x: Floats) -> Floats:
        """(n, K) risk of the event in each interval, for who came to it without."""
        intercept, slope = self.description.platt
        raised = [self._raised(x, at, raw_score=True) for at in range(len(self.edges) - 1)]
        return sigmoid(intercept + slope * np.column_stack(raised))

    def _raised(self, x: Floats, at: int, **what: bool) -> Floats:
        middle = (self.edges[at] + self.edges[at + 1]) / 2.0
        with_time = np.column_stack([x, np.full(len(x), np.float32(middle), dtype=np.float64)])
        out: Floats = np.asarray(self._booster.predict(with_time, num_threads=1, **what), dtype=np.float64)
        return out

    def survival(self, x: Floats, times: Floats) -> Floats:
        """(n, len(times)) chance to be without the event at each moment up to the last edge.

        Between edges the hazard is constant.
        """
        total = np.cumsum(-np.log1p(-self.hazards(x)), axis=1)
        known = np.hstack([np.zeros((len(x), 1)), total])
        out: Floats = np.exp(-np.stack([np.interp(times, self.edges, row) for row in known]))
        return out

    def risk(self, x: Floats) -> Floats:
        """(n,) probability of the event by the horizon."""
        upto = int(np.searchsorted(self.edges, self.description.horizon))
        out: Floats = 1.0 - np.exp(np.log1p(-self.hazards(x)[:, :upto]).sum(axis=1))
        return out

    def baseline_risk(self, x: Floats) -> Floats:
        """(n,) the same by the logistic model of hazards."""
        upto, steps = int(np.searchsorted(self.edges, self.description.horizon)), len(self.edges) - 1
        lost = np.zeros(len(x))
        for at in range(upto):
            here = np.hstack([x, np.tile(np.eye(steps)[at], (len(x), 1))])
            lost += np.log1p(-sigmoid(self.description.linear.score(here)))
        out: Floats = 1.0 - np.exp(lost)
        return out

    def score_risks(self, scores: Mapping[str, Floats]) -> dict[str, Floats]:
        """No clinical score is mapped to times."""
        return {}

    def contributions(self, x: Floats) -> tuple[Floats, float]:
        """What each feature adds to the log odds of the risk at the horizon, and where the sum starts.

        TreeSHAP of the hazards' log odds, mean of the intervals up to the horizon, stretched so that a row adds up.
        """
        upto = int(np.searchsorted(self.edges, self.description.horizon))
        found = [self._raised(x, at, pred_contrib=True)[:, : len(self.names)] for at in range(upto)]
        parts: Floats = np.mean(found, axis=0)
        start = float(logit(np.asarray([1.0 - self.description.alive[upto]]))[0])
        return stretched(parts, logit(self.risk(x)) - start), start


def stretched(parts: Floats, sums: Floats) -> Floats:
    """Rows of parts moved to given sums: the difference is shared out by the parts' sizes, so no sign need turn."""
    size = np.abs(parts)
    share = np.divide(size, size.sum(axis=1, keepdims=True), out=np.zeros_like(parts), where=size > 0)
    out: Floats = parts + share * (sums - parts.sum(axis=1))[:, None]
    return out


def read(files: Mapping[str, bytes]) -> HazardScorer:
    """Make a model of its files."""
    description = msgspec.json.decode(files["model.json"], type=decodable(EventTime))
    return HazardScorer(files["model.txt"].decode(), description)
