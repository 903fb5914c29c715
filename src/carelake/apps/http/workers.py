"""Bounds of the work behind the asynchronous edge: threads, and the bytes of all bodies together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import asynccontextmanager, contextmanager

import anyio
import anyio.to_thread
from starlette.responses import Response

from carelake.core.errors import Unavailable

__all__ = ["Bodies", "Workers"]

_THREADS = 16
_ANSWER_SECONDS = 60.0
_ENDING_SECONDS = 10.0


class Workers:
    """So many threads and no more. Who gave up waiting frees none: its work has its thread until it is done."""

    def __init__(self, most: int = _THREADS, seconds: float = _ANSWER_SECONDS) -> None:
        self._pool = ThreadPoolExecutor(most, "http")
        self._seconds = seconds
        self._running: set[Future[Response]] = set()

    async def run(self, work: Callable[[], Response]) -> Response:
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
            raise Unavailable(
                "http.too_slow",
                f"No answer within {self._seconds:g} s; it may still be done. Ask for less, or try again later.",
            ) from None

    @asynccontextmanager
    async def until_done(self, seconds: float = _ENDING_SECONDS) -> AsyncIterator[None]:
        """Wait at the end for what still runs, but not for ever: it leans on the workspace, which is closed next."""
        try:
            yield
        finally:
            self._pool.shutdown(wait=False, cancel_futures=True)
            await anyio.to_thread.run_sync(lambda: wait(list(self._running), seconds))


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
