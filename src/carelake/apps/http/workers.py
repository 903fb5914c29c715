"""Bounds of the work behind the asynchronous edge: threads, and the bytes of all bodies together."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from typing import Any, Generic, NamedTuple, TypeVar

import anyio
import anyio.to_thread
from starlette.responses import Response

from carelake.core.errors import Unavailable

__all__ = ["Bodies", "Lane", "Outcome", "Patience", "Reading", "Workers", "readings"]

Job = TypeVar("Job")
Answer = TypeVar("Answer")
Outcome = Response | BaseException

_THREADS = 16
_TOGETHER = 64
_WITH_IT, _AFTER_IT = 1, 4
"""Turns of the event loop that a group waits for who comes with the first of it; for who was answered just now."""
_PATIENCE, _LEAST_PATIENCE = 0.002, 0.0002
"""Seconds that a group waits for as many as the last one had; for less it does not begin to wait."""
_ANSWER_SECONDS = 60.0
_ENDING_SECONDS = 10.0


class Workers:
    """So many threads and no more. Who gave up waiting frees none: its work has its thread until it is done."""

    def __init__(self, most: int = _THREADS, seconds: float = _ANSWER_SECONDS) -> None:
        self._pool = ThreadPoolExecutor(most, "http")
        self._seconds = seconds
        self._running: set[Future[Any]] = set()

    async def run(self, work: Callable[[], Answer]) -> Answer:
        """The answer of plain synchronous code.

        Raises:
            Unavailable: ``http.too_slow``; work that had not begun by then is not done.
        """
        running = self._pool.submit(work)
        self._running.add(running)
        running.add_done_callback(self._running.discard)
        try:
            with anyio.fail_after(self._seconds):
                return await asyncio.wrap_future(running)
        except TimeoutError:
            raise _too_slow(self._seconds) from None

    @asynccontextmanager
    async def until_done(self, seconds: float = _ENDING_SECONDS) -> AsyncIterator[None]:
        """Wait at the end for what still runs, but not for ever: it leans on the workspace, which is closed next."""
        try:
            yield
        finally:
            self._pool.shutdown(wait=False, cancel_futures=True)
            await anyio.to_thread.run_sync(lambda: wait(list(self._running), seconds))


class Reading(NamedTuple):
    """One of those that `readings` does.

    Attributes:
        expected: what it will ask the store for, where that is known.
    """

    work: Callable[[], Response]
    expected: Hashable = None


class _Asked(NamedTuple, Generic[Job]):
    job: Job
    answer: asyncio.Future[Response]


class Patience:
    """How long a group waits for who was answered just now.

    Attributes:
        hoped: how many there were in the last group, and came while it was done.
        seconds: the longest that the next one waits for as many.
    """

    def __init__(self) -> None:
        self.hoped = 0
        self.seconds = _PATIENCE
        self._timer: asyncio.TimerHandle | None = None
        self._over = False

    def waits(self, loop: asyncio.AbstractEventLoop, waiting: int, then: Callable[[], None]) -> bool:
        """Whether to wait for more; ``then`` is called when that took too long."""
        if self._over or waiting >= self.hoped or self.seconds < _LEAST_PATIENCE:
            self._over = False
            self.seconds = min(_PATIENCE, self.seconds + _LEAST_PATIENCE / 16)
            return False
        self._timer = loop.call_later(self.seconds, self._give_up, then)
        return True

    def came(self, waiting: int) -> bool:
        """Whether those that are waited for are all there now."""
        if self._timer is None or waiting < self.hoped:
            return False
        self._timer.cancel()
        self._timer = None
        self.seconds = min(_PATIENCE, 2 * self.seconds)
        return True

    def _give_up(self, then: Callable[[], None]) -> None:
        self._timer, self._over = None, True
        self.seconds *= 0.75
        then()


class Lane(Generic[Job]):
    """Quick work, one group after another: all that wait when a group begins are done with it.

    Threads beside each other would take the interpreter's lock from each other at every step; one that does sixteen
    jobs in a row with one snapshot and one commit is done sooner with each of them. The next group begins when the
    answers of the last one are on their way: so who asks again at once is in it, and commits are few.

    Who was answered and asks again a moment later would wait for a whole group. So a group waits for as many as were
    just answered, as long as that helps: each time that they do not come, the next one waits a quarter less.
    """

    def __init__(
        self,
        together: Callable[[Sequence[Job]], Sequence[Outcome]],
        seconds: float = _ANSWER_SECONDS,
    ) -> None:
        """Make a lane.

        Args:
            together: does a group of at least one: the answer of each, or its error; an error that it raises is that
                of all.
            seconds: as of `Workers`.
        """
        self._together = together
        self._seconds = seconds
        self._pool = ThreadPoolExecutor(1, "lane")
        self._waiting: deque[_Asked[Job]] = deque()
        self._running: Future[None] | None = None
        self._called = False
        self._patience = Patience()

    async def run(self, job: Job) -> Response:
        """As `Workers.run`."""
        loop = asyncio.get_running_loop()
        asked = _Asked(job, loop.create_future())
        self._waiting.append(asked)
        if self._patience.came(len(self._waiting)):
            self._begin(loop, 0)
        else:
            self._call(loop)
        timer = loop.call_later(self._seconds, _give_up, asked.answer, self._seconds)
        try:
            return await asked.answer
        finally:
            timer.cancel()

    def _call(self, loop: asyncio.AbstractEventLoop, turns: int = _WITH_IT) -> None:
        """Begin some turns of the loop later, with what comes meanwhile."""
        if self._running is None and not self._called:
            self._called = True
            loop.call_soon(self._begin, loop, turns)

    def _begin(self, loop: asyncio.AbstractEventLoop, turns: int) -> None:
        if turns:
            loop.call_soon(self._begin, loop, turns - 1)
            return
        if self._waiting and self._patience.waits(loop, len(self._waiting), lambda: self._begin(loop, 0)):
            return
        self._called = False
        group = self._take()
        if group:
            self._running = self._pool.submit(self._go, loop, group)

    def _go(self, loop: asyncio.AbstractEventLoop, group: Sequence[_Asked[Job]]) -> None:
        try:
            found = self._together([one.job for one in group])
        except BaseException as error:
            found = [error] * len(group)
        loop.call_soon_threadsafe(self._ended, loop, group, found)

    def _ended(self, loop: asyncio.AbstractEventLoop, group: Sequence[_Asked[Job]], found: Sequence[Outcome]) -> None:
        self._running = None
        self._patience.hoped = min(_TOGETHER, len(group) + len(self._waiting))
        for one, answer in zip(group, found, strict=True):
            _tell(one.answer, answer)
        self._call(loop, _AFTER_IT)

    def _take(self) -> list[_Asked[Job]]:
        group: list[_Asked[Job]] = []
        while self._waiting and len(group) < _TOGETHER:
            one = self._waiting.popleft()
            # Who is not waited for any more is not done: it would be an act, or a write, that nobody asked for.
            if not one.answer.done():
                group.append(one)
        return group

    @asynccontextmanager
    async def until_done(self, seconds: float = _ENDING_SECONDS) -> AsyncIterator[None]:
        """As `Workers.until_done`."""
        try:
            yield
        finally:
            self._waiting.clear()
            if self._running is not None:
                running = self._running
                await anyio.to_thread.run_sync(lambda: wait([running], seconds))
            self._pool.shutdown(wait=False)


def readings(
    together: Callable[[Iterable[Hashable]], AbstractContextManager[object]],
) -> Callable[[Sequence[Reading]], Sequence[Outcome]]:
    """What a lane does with plain synchronous code.

    Args:
        together: surrounds what is done together, of which it is told what that expects; nothing is answered before
            it has ended, and nothing at all but the error when it raises.
    """

    def do(asked: Sequence[Reading]) -> Sequence[Outcome]:
        with together(one.expected for one in asked if one.expected is not None):
            return [_done(one.work) for one in asked]

    return do


def _done(work: Callable[[], Response]) -> Outcome:
    try:
        return work()
    except Exception as error:
        return error


def _tell(waits: asyncio.Future[Response], answer: Outcome) -> None:
    if waits.done():
        return
    if isinstance(answer, StopIteration):  # a future takes none: nobody after it would be told
        waits.set_exception(RuntimeError("A handler raised StopIteration."))
    elif isinstance(answer, BaseException):
        waits.set_exception(answer)
    else:
        waits.set_result(answer)


def _give_up(answer: asyncio.Future[Response], seconds: float) -> None:
    if not answer.done():
        answer.set_exception(_too_slow(seconds))


def _too_slow(seconds: float) -> Unavailable:
    return Unavailable(
        "http.too_slow", f"No answer within {seconds:g} s; it may still be done. Ask for less, or try again later."
    )


class Bodies:
    """The memory that the bodies of all requests may have together; used on the event loop only."""

    def __init__(self, most: int) -> None:
        self._left = most

    @contextmanager
    def share(self) -> Iterator[Callable[[int], None]]:
        """What one request takes, piece by piece; it is given back when the block ends.

        Raises:
            Unavailable: ``http.busy``.
        """
        taken = 0

        def take(size: int) -> None:
            nonlocal taken
            if size > self._left:
                raise Unavailable("http.busy", "Too many large requests at once; try again later.")
            self._left -= size
            taken += size

        try:
            yield take
        finally:
            self._left += taken
