"""A lock that is passed on in the order in which it was asked for: a plain one may go to the same thread for ever."""

from __future__ import annotations

from collections import deque
from threading import Lock

__all__ = ["Turns"]


class Turns:
    """One thread at a time, in turn."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._waiting: deque[Lock] = deque()
        self._taken = False

    def acquire(self, timeout: float) -> bool:
        """Wait for the turn, at most so many seconds; whether it has come."""
        with self._lock:
            if not self._taken:
                self._taken = True
                return True
            mine = Lock()
            mine.acquire()
            self._waiting.append(mine)
        try:
            if mine.acquire(timeout=timeout):
                return True
        except BaseException:
            if not self._left(mine):
                self.release()
            raise
        return not self._left(mine)

    def release(self) -> None:
        """Pass it on to who has waited longest."""
        with self._lock:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._taken = False

    def _left(self, mine: Lock) -> bool:
        """Wait no longer; False when the turn came at that very moment, and is this thread's."""
        with self._lock:
            if mine in self._waiting:
                self._waiting.remove(mine)
                return True
            return False
