"""A model that is scored elsewhere, as the rest of the room knows models: it asks the sandbox."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from carelake.models.matrix import Floats
from carelake.serving.sandbox import wire
from carelake.serving.sandbox.launcher import Sandbox, faulty

__all__ = ["BoxedScorer", "Scored"]


class Scored(NamedTuple):
    """All that is said to rows, in one go."""

    risk: Floats
    parts: Floats
    start: float
    scores: dict[str, Floats]


class _Words(NamedTuple):
    words: Mapping[str, str]


class BoxedScorer:
    """What `models.scorer.Scorer` answers, without the model."""

    def __init__(self, sandbox: Sandbox, ready: wire.Ready) -> None:
        self.sandbox = sandbox
        self.names = tuple(ready.names)
        self.threshold = ready.threshold
        self.description = _Words(ready.words)

    def scored(self, x: Floats, scores: Mapping[str, Floats]) -> Scored:
        """Risks, parts and the risks of clinical scores, for one question through the pipe.

        Raises:
            Unavailable: ``serving.sandbox_died``, ``serving.sandbox_timeout``, ``serving.sandbox_fault``.
        """
        if not len(x):
            return Scored(np.empty(0), np.empty((0, len(self.names))), 0.0, {})
        said = self.sandbox.ask(x, scores)
        if not said.scores.keys() <= scores.keys():
            raise faulty()
        told = {name: _sized(one, len(x), 1)[:, 0] for name, one in said.scores.items()}
        parts = _sized(said.parts, len(x), len(self.names))
        return Scored(_sized(said.risk, len(x), 1)[:, 0], parts, said.start, told)

    def risk(self, x: Floats) -> Floats:
        """(n,) probabilities."""
        return self.scored(x, {}).risk

    def contributions(self, x: Floats) -> tuple[Floats, float]:
        """(n, p) what each feature adds, and where the sum starts."""
        said = self.scored(x, {})
        return said.parts, said.start

    def score_risks(self, scores: Mapping[str, Floats]) -> dict[str, Floats]:
        """Risks of clinical scores."""
        count = len(next(iter(scores.values()), ()))
        return self.scored(np.zeros((count, len(self.names))), scores).scores


def _sized(data: bytes, rows: int, columns: int) -> Floats:
    """What came out, held to the rows that went in: one that is too short would move risks to other patients."""
    if len(data) != 8 * rows * columns:
        raise faulty()
    return wire.array(data, rows)
