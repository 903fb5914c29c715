"""Group commit of small writes: those that wait at the same time are done in one transaction, by one thread.

Writers are served one after another, and to begin, to commit and to wait for the disk costs more than a small write
itself. So whoever comes first does the work of all that wait and commits once; the others gather meanwhile. There is
no timer: who is alone is done at once. A write that fails is undone by itself; none is answered before the commit,
and all fail with it.

Writes that can be done as one page are: their statements are made once for all of them. Where a page fails, its
writes are done one by one, each in a savepoint of its own, so that one that is wrong fails alone.
"""

from __future__ import annotations

import os
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import Any, Generic, Protocol, TypeVar

from sqlalchemy import Connection

from carelake.core.errors import CarelakeError, Unavailable

__all__ = ["ALONE", "Groups", "Page", "Undoing", "Work"]

Answer = TypeVar("Answer")

_MOST = 64

ALONE: Any = object()
"""What a page answers of a write that must be done by itself, after it."""

Page = Callable[[Connection, Sequence[Any]], Sequence[Any]]
"""Does several writes at once: of each what it answers, an exception where it was not done, or `ALONE`."""


@dataclass(slots=True, eq=False)
class Work(Generic[Answer]):
    """One small write.

    Attributes:
        alone: does it by itself.
        done: called after it, in the same transaction: makes its act, which is kept until all are done.
        page: what does it together with others of the same page, None where nothing does.
        item: what the page is given of it.
    """

    alone: Callable[[Connection], Answer]
    done: Callable[[Connection], None]
    page: Page | None = None
    item: Any = None


class Undoing(Protocol):
    """What a group needs of an open transaction's scope."""

    connection: Connection
    after: list[Callable[[], None]]
    undo: list[Callable[[], None]]

    def drop_fresh(self) -> None:
        """Void the keys that were made."""
        ...

    def gather(self) -> None:
        """From here on keep what can be written late, until `write_late`."""
        ...

    def write_late(self) -> None:
        """Write it."""
        ...


class _Waiting(Generic[Answer]):
    """One write, and what came of it."""

    def __init__(self, work: Work[Answer]) -> None:
        self.work = work
        self.done = self.led = self.settled = False
        self.answer: Answer | None = None
        self.error: BaseException | None = None

    def run(self, scope: Undoing) -> None:
        """By itself; an error of its own stays here."""

        self.error = _part(scope, partial(self._do, scope))
        self.settled = True

    def run_lone(self, scope: Undoing) -> None:
        """As the only one: without a savepoint, so an error of its own ends the transaction."""
        try:
            self._do(scope)
        except Exception as error:
            self.error = error
            raise

    def _do(self, scope: Undoing) -> None:
        self.answer = self.work.alone(scope.connection)
        self.work.done(scope.connection)

    def settle(self, scope: Undoing, answer: Any) -> None:
        """Take what the page answers."""
        if answer is ALONE:
            return
        if isinstance(answer, BaseException):
            self.error = answer
        else:
            self.answer = answer
            self.work.done(scope.connection)
        self.settled = True


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

    def run(self, work: Work[Answer]) -> Answer:
        """What ``work`` answers, once it is committed; it may be done by another thread.

        Raises:
            whatever ``work`` does, or the transaction.
        """
        (found,) = self.run_all([work])
        if isinstance(found, BaseException):
            raise found
        answer: Answer = found
        return answer

    def run_all(self, works: Sequence[Work[Any]]) -> list[Any]:
        """What each answers, or its error, once all are committed."""
        mine = [_Waiting(work) for work in works]
        self._queue.extend(mine)
        with self._leading:
            while not all(one.done for one in mine):
                for one in mine:
                    one.led = True
                self._lead()
        return [one.answer if one.error is None else one.error for one in mine]

    def _lead(self) -> None:
        group: list[_Waiting[Any]] = []
        try:
            with self._begun() as scope:
                # Not before: what has come while another process was writing is of this group too.
                group = self._take()
                scope.gather()
                if len(group) == 1:
                    group[0].run_lone(scope)
                else:
                    _paged(scope, group)
                    for one in group:
                        if not one.settled:
                            one.run(scope)
                scope.write_late()
        except BaseException as error:
            group = group or self._take()
            _fail(group, error)
            if not isinstance(error, Exception):
                raise
        finally:
            self.groups += 1
            for one in group:
                one.done = True

    def _take(self) -> list[_Waiting[Any]]:
        # Only the leader takes from the queue, so a write whose thread has been waiting is in this group or was done.
        return [self._queue.popleft() for _ in range(min(len(self._queue), _MOST))]


def _paged(scope: Undoing, group: Sequence[_Waiting[Any]]) -> None:
    """Do those of the group that can be done as one page; what fails is left to be done alone."""
    pages = {one.work.page for one in group if one.work.page is not None}
    for page in pages:
        some = [one for one in group if one.work.page == page]
        if len(some) < 2:
            continue
        if _part(scope, partial(_page, scope, page, some)) is not None:
            for one in some:
                one.settled, one.answer, one.error = False, None, None


def _page(scope: Undoing, page: Page, some: Sequence[_Waiting[Any]]) -> None:
    answers = page(scope.connection, [one.work.item for one in some])
    for one, answer in zip(some, answers, strict=True):
        one.settle(scope, answer)


def _part(scope: Undoing, work: Callable[[], None]) -> Exception | None:
    """In a savepoint; an error is answered, once what was done is undone, with what was to follow it."""
    connection, after, undo, found = scope.connection, len(scope.after), len(scope.undo), None
    connection.exec_driver_sql("SAVEPOINT carelake_part")
    try:
        work()
    except Exception as error:
        found = error
        # What fails from here on has no transaction around it any more, perhaps: it fails the whole group.
        connection.exec_driver_sql("ROLLBACK TO SAVEPOINT carelake_part")
        scope.drop_fresh()
        del scope.after[after:]
        undone = scope.undo[undo:]
        del scope.undo[undo:]
        for call in reversed(undone):
            call()
    connection.exec_driver_sql("RELEASE SAVEPOINT carelake_part")
    return found


def _anew_in_children(groups: Groups) -> None:
    known = weakref.ref(groups)

    def in_child() -> None:
        alive = known()
        if alive is not None:
            alive.anew()

    os.register_at_fork(after_in_child=in_child)


def _fail(group: Sequence[_Waiting[Any]], error: BaseException) -> None:
    """Those that had no error of their own have this one: each an object of its own, or tracebacks would mix."""
    first = True
    for one in group:
        if one.error is None:
            one.error = error if one.led and first else _own(error)
            first = first and not one.led


def _own(error: BaseException) -> BaseException:
    if isinstance(error, CarelakeError):
        return type(error)(error.code, error.message, **error.facts)
    return Unavailable(
        "vault.not_committed", "The write could not be committed, so nothing of it is kept; try again."
    )
