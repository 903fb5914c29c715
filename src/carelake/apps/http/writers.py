"""Small writes, one group after another: all that wait when a group begins are one transaction (decision 0038).

A handler of these is in steps: what it does before the transaction, the write, what it does after. Of a group the
first steps are done one after another with one snapshot, then all writes, then the answers: in one thread, as in
`workers.Lane` and for the same reason.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from functools import partial
from typing import Any, NamedTuple

import anyio.to_thread
from starlette.responses import Response

from carelake.core.errors import Unavailable
from carelake.vault.groups import Work

__all__ = ["Steps", "Writers", "alone"]

Steps = Generator[Work[Any], Any, Response]
"""Yields its one write, is sent what came of it (or has its error thrown into it), and returns the answer."""

_TOGETHER = 32
_ENDING_SECONDS = 10.0

Grouped = Callable[[Sequence[Work[Any]]], list[Any]]
"""Does writes together: what each answers, or its error."""


def alone(steps: Steps, grouped: Grouped) -> Response:
    """The answer of one handler, in this thread."""
    (found,), _ = _done([steps], nullcontext, grouped)
    if isinstance(found, BaseException):
        raise found
    return found


def _done(
    all_steps: Sequence[Steps], snapshot: Callable[[], AbstractContextManager[None]], grouped: Grouped
) -> tuple[list[Response | BaseException], frozenset[int]]:
    """The answers of several handlers, or their errors; and which of them have written, with their acts."""
    found: list[Any] = []  # works of those that wait; answers and errors of those that are done
    try:
        with snapshot():
            found += (_step(steps.__next__) for steps in all_steps)
        waiting = [number for number, one in enumerate(found) if isinstance(one, Work)]
        made = grouped([found[number] for number in waiting])
    except Exception as error:
        found += [error] * (len(all_steps) - len(found))
        waiting = [number for number, one in enumerate(found) if isinstance(one, Work)]
        made = [error] * len(waiting)
    written = [number for number, answer in zip(waiting, made, strict=True) if not isinstance(answer, BaseException)]
    for number, answer in zip(waiting, made, strict=True):
        steps = all_steps[number]
        go_on = steps.throw if isinstance(answer, BaseException) else steps.send
        found[number] = _step(partial(go_on, answer))
    return found, frozenset(written)


def _step(go_on: Callable[[], Work[Any]]) -> Any:
    try:
        return go_on()
    except StopIteration as end:
        return end.value
    except Exception as error:
        return error


class _Asked(NamedTuple):
    steps: Steps
    answer: asyncio.Future[Response]


class Writers:
    """One thread for all small writes."""

    def __init__(
        self,
        gathering: Callable[[], AbstractContextManager[Callable[[], None]]],
        snapshot: Callable[[], AbstractContextManager[None]],
        grouped: Grouped,
        seconds: float,
    ) -> None:
        """Make them.

        Args:
            gathering: keeps the acts that stand alone; what it gives commits them, before any answer leaves.
            snapshot: surrounds the first steps.
            seconds: as of `workers.Workers`.
        """
        self._gathering, self._snapshot, self._grouped, self._seconds = gathering, snapshot, grouped, seconds
        self._pool = ThreadPoolExecutor(1, "writers")
        self._waiting: deque[_Asked] = deque()
        self._running: Future[None] | None = None
        self._called = False

    async def run(self, steps: Steps) -> Response:
        """The answer of a handler in steps.

        Raises:
            Unavailable: ``http.too_slow``; what had not begun by then is not done.
        """
        loop = asyncio.get_running_loop()
        asked = _Asked(steps, loop.create_future())
        self._waiting.append(asked)
        if self._running is None and not self._called:
            # Not at once: with what came at the same moment.
            self._called = True
            loop.call_soon(self._begin, loop)
        timer = loop.call_later(self._seconds, _give_up, asked.answer, self._seconds)
        try:
            return await asked.answer
        finally:
            timer.cancel()

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        self._called = False
        if self._running is None and self._waiting:
            self._running = self._pool.submit(self._go, loop)
            self._running.add_done_callback(lambda _done: loop.call_soon_threadsafe(self._ended, loop))

    def _ended(self, loop: asyncio.AbstractEventLoop) -> None:
        self._running = None
        self._begin(loop)

    def _go(self, loop: asyncio.AbstractEventLoop) -> None:
        while group := self._take():
            found: list[Response | BaseException] = []
            written: frozenset[int] = frozenset()
            try:
                with self._gathering() as settle:
                    found, written = _done([one.steps for one in group], self._snapshot, self._grouped)
                settle()
            except BaseException as error:
                # What was written is committed, its act with it: whoever were told otherwise would send it again.
                found = [found[number] if number in written else error for number in range(len(group))]
            loop.call_soon_threadsafe(_answer, group, found)

    def _take(self) -> list[_Asked]:
        group: list[_Asked] = []
        while self._waiting and len(group) < _TOGETHER:
            one = self._waiting.popleft()
            # Who is not waited for any more is not done: it would be a write that nobody asked for.
            if not one.answer.done():
                group.append(one)
        return group

    @asynccontextmanager
    async def until_done(self, seconds: float = _ENDING_SECONDS) -> AsyncIterator[None]:
        """As `workers.Workers.until_done`."""
        try:
            yield
        finally:
            self._waiting.clear()
            if self._running is not None:
                running = self._running
                await anyio.to_thread.run_sync(lambda: wait([running], seconds))
            self._pool.shutdown(wait=False)


def _answer(group: Sequence[_Asked], found: Sequence[Response | BaseException]) -> None:
    for one, answer in zip(group, found, strict=True):
        if one.answer.done():
            continue
        if isinstance(answer, BaseException):
            one.answer.set_exception(answer)
        else:
            one.answer.set_result(answer)


def _give_up(answer: asyncio.Future[Response], seconds: float) -> None:
    if not answer.done():
        answer.set_exception(
            Unavailable(
                "http.too_slow",
                f"No answer within {seconds:g} s; it may still be done. Ask for less, or try again later.",
            )
        )
