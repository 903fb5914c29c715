"""While the server runs, events are delivered to those who follow them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from threading import Event
from typing import Any

import anyio
import anyio.to_thread

__all__ = ["Round", "keep_delivering"]

Round = Callable[[Callable[[], bool]], Any]
"""One round of deliveries; it asks the function given whether it should stop."""


@asynccontextmanager
async def keep_delivering(deliver: Round | None, seconds: float) -> AsyncIterator[None]:
    """Deliver every ``seconds`` while the block runs; what is on its way when it ends is finished."""
    if deliver is None or seconds <= 0:
        yield
        return
    ending = Event()

    def once() -> None:
        # A busy database must not end the server; the next round tries again.
        with suppress(Exception):
            deliver(ending.is_set)

    async def again() -> None:
        while True:
            await anyio.sleep(seconds)
            await anyio.to_thread.run_sync(once)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(again)
        try:
            yield
        finally:
            ending.set()
            tasks.cancel_scope.cancel()
