"""Group commit of small writes: those that wait at the same time are done in one transaction, by one thread.

Writers are served one after another, and to begin, to commit and to wait for the disk costs more than a small write
itself. So whoever comes first does the work of all that wait, each in a savepoint of its own, and commits once; the
others gather meanwhile. There is no timer: who is alone is done at once. A write that fails is undone by itself; none
is answered before the commit, and all fail with it.
"""

from __future__ import annotations

import os
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from threading import Lock
from typing import Any, Generic, Protocol, TypeVar

from sqlalchemy import Connection

from carelake.core.errors import CarelakeError, Unavailable

__all__ = ["Groups", "Undoing"]

Answer = TypeVar("Answer")

_MOST = 32


class Undoing(Protocol):
    """What a group needs of an open transaction's scope."""

    connection: Connection
    after: list[Callable[[], None]]
    undo: list[Callable[[], None]]

    def drop_fresh(self) -> None:
        """Void the keys that were made."""
        ...


class _Waiting(Generic[Answer]):
    """One write, and what came of it."""

    def __init__(self, work: Callable[[Connection], Answer]) -> None:
        self.work = work
        self.done = self.led = False
        self.answer: Answer | None = None
        self.error: BaseException | None = None

    def run(self, scope: Undoing) -> None:
        """In a savepoint; an error of its own stays here."""
        connection, after, undo = scope.connection, len(scope.after), len(scope.undo)
        connection.exec_driver_sql("SAVEPOINT carelake_part")
        try:
            self.answer = self.work(connection)
        except Exception as error:
            self.error = error
            connection.exec_driver_sql("ROLLBACK TO SAVEPOINT carelake_part")
            scope.drop_fresh()
            del scope.after[after:]
            undone = scope.undo[undo:]
            del scope.undo[undo:]
            for call in reversed(undone):
                call()
        connection.exec_driver_sql("RELEASE SAVEPOINT carelake_part")


class Groups:
    """Does writes together.

    Args:
        begun: a write transaction, which commits when its block is left without an error.
    """

    def __init__(self, begun: Callable[[], AbstractContextManager[Undoing]]) -> None:
        self._begun = begun
        self.groups = 0
        self.anew()
        _anew_in_children(self)

    def anew(self) -> None:
        """In a child: whoever leads or waits in the parent does not here."""
        self._queue: deque[_Waiting[Any]] = deque()
        self._leading = Lock()

    def run(self, work: Callable[[Connection], Answer]) -> Answer:
        """What ``work`` answers, once it is committed; it may be done by another thread.

        Raises:
            whatever ``work`` does, or the transaction.
        """
        mine = _Waiting(work)
        self._queue.append(mine)
        with self._leading:
            while not mine.done:
                mine.led = True
                self._lead()
        if mine.error is not None:
            raise mine.error
        answer: Answer = mine.answer  # type: ignore[assignment]
        return answer

    def _lead(self) -> None:
        # Only the leader takes from the queue, so a write whose thread has been waiting is in this group or was done.
        group = [self._queue.popleft() for _ in range(min(len(self._queue), _MOST))]
        try:
            with self._begun() as scope:
                for one in group:
                    one.run(scope)
        except BaseException as error:
            _fail(group, error)
            if not isinstance(error, Exception):
                raise
        finally:
            self.groups += 1
            for one in group:
                one.done = True


def _anew_in_children(groups: Groups) -> None:
    known = weakref.ref(groups)

    def in_child() -> None:
        alive = known()
        if alive is not None:
            alive.anew()

    os.register_at_fork(after_in_child=in_child)


def _fail(group: Sequence[_Waiting[Any]], error: BaseException) -> None:
    """Those that had no error of their own have this one: each an object of its own, or tracebacks would mix."""
    for one in group:
        if one.error is None:
            one.error = error if one.led else _own(error)


def _own(error: BaseException) -> BaseException:
    if isinstance(error, CarelakeError):
        return type(error)(error.code, error.message, **error.facts)
    return Unavailable(
        "vault.not_committed", "The write could not be committed, so nothing of it is kept; try again."
    )
