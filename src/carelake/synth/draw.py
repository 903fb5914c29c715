"""Seeded randomness: one independent stream per patient and purpose, so that chunks and workers change nothing."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Sequence
from typing import TypeVar

__all__ = ["Stream", "expit", "logit", "stream"]

Item = TypeVar("Item")


class Stream(random.Random):
    """A Mersenne Twister with the few draws the simulator needs."""

    def chance(self, probability: float) -> bool:
        """True with that probability."""
        return self.random() < probability

    def normal(self, mean: float, deviation: float) -> float:
        """A normal draw."""
        return mean + deviation * self.gauss(0.0, 1.0)

    def pick(self, items: Sequence[Item]) -> Item:
        """One of them, evenly."""
        return items[int(self.random() * len(items))]

    def weighted(self, weights: Sequence[float]) -> int:
        """An index, with probability in proportion to its weight."""
        left = self.random() * sum(weights)
        for index, weight in enumerate(weights):
            left -= weight
            if left < 0.0:
                return index
        return len(weights) - 1

    def minutes(self, low: float, high: float) -> int:
        """A whole number of minutes, evenly between two bounds."""
        return int(low + (high - low) * self.random())

    def exponential_between(self, mean: float, low: float, high: float) -> float:
        """An exponential delay that is known to lie between two bounds."""
        u = self.random()
        return low - mean * math.log(1.0 - u * (1.0 - math.exp(-(high - low) / mean)))

    def uuid(self) -> str:
        """A random UUID (version 4)."""
        h = f"{self.getrandbits(128):032x}"
        return f"{h[:8]}-{h[8:12]}-4{h[13:16]}-a{h[17:20]}-{h[20:]}"


def stream(*parts: str | int) -> Stream:
    """The stream that follows from its parts alone."""
    seed = hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=16).digest()
    return Stream(int.from_bytes(seed))


def expit(x: float) -> float:
    """Probability of a log odds."""
    return 1.0 / (1.0 + math.exp(-x))


def logit(p: float) -> float:
    """Log odds of a probability."""
    return math.log(p / (1.0 - p))
