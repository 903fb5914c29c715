"""Watches the clocks of acts while they pass in order: set back, they are worth a look, and break nothing."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from carelake.core.clock import instant

__all__ = ["ClockWatch"]

_BEHIND = timedelta(seconds=1)
_MOST = 100


class ClockWatch:
    """Sees the acts in order."""

    def __init__(self) -> None:
        self._reached = ""
        self._runs: list[list[int]] = []

    def see(self, seq: int, at: str) -> None:
        """The next act and its time."""
        if at >= self._reached:
            self._reached = at
        elif instant(self._reached) - instant(at) > _BEHIND:
            self._note(seq)

    def _note(self, seq: int) -> None:
        if self._runs and self._runs[-1][1] == seq - 1:
            self._runs[-1][1] = seq
        elif len(self._runs) < _MOST:
            self._runs.append([seq, seq])

    def findings(self) -> Iterator[tuple[str, str]]:
        """Name and reason of each run of acts whose clock was behind."""
        for first, last in self._runs:
            name = f"act {first}" if first == last else f"acts {first} to {last}"
            yield name, "the clock was behind what the trail had reached: set back, or of another machine"
