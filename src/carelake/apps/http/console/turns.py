"""Turns: so many statements of the console run at once, and threads are left for those who read the record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition

from carelake.apps.http.calls import Call
from carelake.core.errors import Unavailable

__all__ = ["Turns", "turn"]

_AT_ONCE, _OF_ONE = 4, 2
_WAIT_SECONDS = 2.0
_RETRY = 2


class Turns:
    """So many at once, and so many of them one principal's."""

    def __init__(self, most: int = _AT_ONCE, seconds: float = _WAIT_SECONDS) -> None:
        self._most, self._seconds = most, seconds
        self._running: Counter[str] = Counter()
        self._free = Condition()

    @contextmanager
    def of(self, name: str, most: int) -> Iterator[None]:
        """A turn of a principal's while the block runs.

        Raises:
            Unavailable: ``lake.too_many``, where so many of theirs run; ``http.busy``.
        """
        with self._free:
            free = self._free.wait_for(
                lambda: self._running[name] >= most or self._running.total() < self._most, self._seconds
            )
            if self._running[name] >= most:
                raise Unavailable(
                    "lake.too_many",
                    f"{most} of your statements run already; wait for one to end.",
                    retry_after=_RETRY,
                )
            if not free:
                raise Unavailable(
                    "http.busy", "Too many statements run here; try again in a moment.", retry_after=_RETRY
                )
            self._running[name] += 1
        try:
            yield
        finally:
            with self._free:
                self._running[name] -= 1
                self._running += Counter()  # without those that have none
                self._free.notify_all()


_TURNS = Turns()


@contextmanager
def turn(call: Call) -> Iterator[None]:
    """A turn of the visitor's in this process, see `Turns.of`."""
    most = min(_OF_ONE, call.door.settings.lake.statements)
    with _TURNS.of(call.caller("lake:query", "lake").principal.name, most):
        yield
