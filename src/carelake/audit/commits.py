"""Group commit: acts that wait at the same time go to the disk together (decision D3).

Whoever comes first writes for all that wait: an act alone is committed at once by its own thread, and while it waits
for the disk the others gather for the next commit. There is no timer and no thread of its own, so nothing is delayed
when there is nothing to share, and nothing is lost when the process ends: `commit` returns after the commit, or
raises.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock, local

from carelake.audit.acts import ActRow, commit
from carelake.core.errors import CarelakeError, Unavailable
from carelake.vault.database import Database

__all__ = ["Commits"]

_MOST = 500
"""Acts of one commit; the writers of data wait for it."""


@dataclass(slots=True)
class _Waiting:
    rows: Sequence[ActRow]
    done: bool = False
    led: bool = False
    error: BaseException | None = None


class Commits:
    """Commits acts that stand alone: of reads, of refusals, of the beginnings and ends of jobs."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._queue: deque[_Waiting] = deque()
        self._leading = Lock()
        self._thread = local()
        self.groups = 0

    @contextmanager
    def gathering(self) -> Iterator[Callable[[], None]]:
        """Keep the acts of this thread inside the block; what it gives commits them in one go, after the block.

        For who does several readings one after another and answers none of them before that call has returned.
        It raises as `commit` does, for all of them.
        """
        kept: list[ActRow] = []
        self._thread.kept = kept
        try:
            yield lambda: self._commit(kept) if kept else None
        finally:
            self._thread.kept = None

    def commit(self, row: ActRow) -> None:
        """Return once the act is committed, or kept (`gathering`); not from inside a write transaction of the thread.

        Raises:
            Unavailable: ``vault.disk_full``, ``vault.busy``: the act is not kept, so what it tells of must not leave.
        """
        kept: list[ActRow] | None = getattr(self._thread, "kept", None)
        if kept is not None:
            kept.append(row)
        else:
            self._commit((row,))

    def _commit(self, rows: Sequence[ActRow]) -> None:
        mine = _Waiting(rows)
        self._queue.append(mine)
        with self._leading:
            while not mine.done:
                mine.led = True
                self._lead()
        if mine.error is not None:
            raise mine.error if mine.led else _own(mine.error)

    def _lead(self) -> None:
        # Only the leader takes from the queue, so an act whose thread has been waiting is in this group or was done.
        group = [self._queue.popleft() for _ in range(min(len(self._queue), _MOST))]
        try:
            commit(self._database, [row for one in group for row in one.rows])
        except BaseException as error:
            for one in group:
                one.error = error
            if not isinstance(error, Exception):
                raise
        finally:
            self.groups += 1
            for one in group:
                one.done = True


def _own(error: BaseException) -> BaseException:
    """An error to raise in this thread: one object raised in several would mix their tracebacks."""
    if isinstance(error, CarelakeError):
        return type(error)(error.code, error.message, **error.facts)
    return Unavailable("audit.not_committed", "The act could not be written, so nothing is answered; try again.")
