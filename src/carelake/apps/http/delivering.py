"""While the server runs, events are delivered to those who follow them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from threading import Event
from typing import Any

import anyio
import anyio.to_thread

from carelake.apps.errors import code_of
from carelake.apps.http.metrics import Metrics

__all__ = ["Round", "keep_delivering"]

Round = Callable[[Callable[[], bool]], Any]
"""One round of deliveries; it asks the function given whether it should stop. Answers reports, as `Courier.round`."""


@asynccontextmanager
async def keep_delivering(deliver: Round | None, seconds: float, metrics: Metrics, log: Any) -> AsyncIterator[None]:
    """Deliver every ``seconds`` while the block runs; what is on its way when it ends is finished.

    What fails is counted, and told in the log when it begins to: by code, since an error's text may hold anything.
    """
    if deliver is None or seconds <= 0:
        yield
        return
    ending = Event()

    said: set[tuple[str, str]] = set()

    def once() -> None:
        try:
            failed = {(one.name, one.failed) for one in deliver(ending.is_set) or () if one.failed}
        except Exception as error:  # a busy database must not end the server; the next round tries again
            failed = {("", code_of(error))}
        for consumer, code in sorted(failed):
            metrics.not_delivered(code)
            if (consumer, code) not in said:
                log.error("not delivered", consumer=consumer, code=code)
        said.clear()
        said.update(failed)

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
