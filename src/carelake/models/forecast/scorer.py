"""A forecasting model as numbers and LightGBM texts, one a quantile: counts with an interval."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np

from carelake.core.errors import Corrupt
from carelake.core.shapes import decodable
from carelake.models import boosting
from carelake.models.matrix import Floats

__all__ = ["Forecast", "ForecastScorer", "read"]

_HEAD = "tree\nversion=v4\n"


class Forecast(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``model.json`` of the kind ``forecast``.

    Attributes:
        quantiles: lower, middle, upper, in the order of the texts.
        margins: what is added on both sides of the interval (of the level), by days ahead from 1.
        level: the feature whose exponential is the level that counts are of.
        horizon: the feature that tells the days ahead.
    """

    names: list[str]
    words: dict[str, str]
    quantiles: list[float]
    margins: list[float]
    level: str
    horizon: str
    training_set: str
    rounds: int
    versions: dict[str, str]
    parameters: dict[str, float | int] = {}
    kind: str = "forecast"
    format: int = 1


class ForecastScorer:
    """Counts foretold: middle and interval."""

    def __init__(self, texts: list[str], description: Forecast) -> None:
        """Raises Corrupt ``models.format`` when they do not fit together."""
        self.texts = texts
        self.description = description
        self.names = tuple(description.names)
        self._check()
        self._boosters = [boosting.parse(text, len(self.names), "quantile") for text in texts]

    def _check(self) -> None:
        said = self.description
        three = len(self.texts) == 3 == len(said.quantiles) and 0 < said.quantiles[0] < said.quantiles[1]
        named = len(set(self.names)) == len(self.names) > 0 and {said.level, said.horizon} <= set(self.names)
        if said.format != 1 or not three or not named or not said.margins:
            raise Corrupt("models.format", "model.json is not a sound forecasting model; register it again.")

    def files(self) -> dict[str, bytes]:
        """The files that `read` makes it of again."""
        return {"model.json": msgspec.json.encode(self.description), "model.txt": "".join(self.texts).encode()}

    @property
    def threshold(self) -> float:
        """A forecast raises no alert."""
        return float("inf")

    def interval(self, x: Floats) -> tuple[Floats, Floats, Floats]:
        """(n,) lower end, middle, upper end, in counts; none below 0, in order."""
        level = np.exp(x[:, self.names.index(self.description.level)])
        found = [np.asarray(one.predict(x, num_threads=1), dtype=np.float64) for one in self._boosters]
        low, middle, high = np.sort(np.maximum(found, 0.0), axis=0)
        ahead = x[:, self.names.index(self.description.horizon)].astype(np.int64)
        margin = np.asarray(self.description.margins)[np.clip(ahead, 1, len(self.description.margins)) - 1]
        low, high = np.minimum(low - margin, middle), np.maximum(high + margin, middle)
        return np.maximum(low, 0.0) * level, middle * level, high * level

    def risk(self, x: Floats) -> Floats:
        """(n,) the middle: what a monitor follows in place of a risk."""
        return self.interval(x)[1]

    def contributions(self, x: Floats) -> tuple[Floats, float]:
        """TreeSHAP of the middle, as a part of the level."""
        parts = np.asarray(self._boosters[1].predict(x, pred_contrib=True, num_threads=1), dtype=np.float64)
        return parts[:, :-1], float(parts[0, -1]) if len(x) else 0.0

    def score_risks(self, scores: Mapping[str, Floats]) -> dict[str, Floats]:
        """No clinical score foretells counts."""
        return {}


def read(files: Mapping[str, bytes]) -> ForecastScorer:
    """Make a model of its files."""
    description = msgspec.json.decode(files["model.json"], type=decodable(Forecast))
    text = files["model.txt"].decode()
    if not text.startswith(_HEAD):
        raise Corrupt("models.format", "The model text does not start as LightGBM's do; register the model again.")
    return ForecastScorer([_HEAD + part for part in text.removeprefix(_HEAD).split(_HEAD)], description)
