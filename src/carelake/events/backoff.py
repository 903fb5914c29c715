"""How long to wait after a failure: exponential, with half of each wait drawn by chance, and an end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from secrets import SystemRandom

__all__ = ["Backoff"]


@dataclass(frozen=True)
class Backoff:
    """Waits of about ``first``, twice that, four times that, up to ``cap`` seconds.

    Attributes:
        tries: attempts in all; after the last one an event is a dead letter.
        chance: a number from 0 up to 1, so that consumers that failed together do not return together.
    """

    first: float = 1.0
    cap: float = 21_600.0
    tries: int = 16
    chance: Callable[[], float] = SystemRandom().random

    def seconds(self, attempts: int, asked: float | None = None) -> float | None:
        """How long to wait after so many attempts, or None when that was the last.

        Args:
            asked: what the receiver asked for (Retry-After); kept to where it is longer, up to ``cap``.
        """
        if attempts >= self.tries:
            return None
        full: float = min(self.cap, self.first * 2.0 ** (attempts - 1))
        wait = full / 2 + self.chance() * full / 2
        return wait if asked is None else max(wait, min(asked, self.cap))
