"""While the server runs, acts are sealed into segments within a second of their commit (decision D3)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import anyio
import anyio.to_thread

from carelake.apps.http.metrics import Metrics
from carelake.apps.http.ports import Door

__all__ = ["keep_sealed"]


@asynccontextmanager
async def keep_sealed(workspace: Door, metrics: Metrics, seconds: float) -> AsyncIterator[None]:
    """Seal every ``seconds`` while the block runs, and once more when it ends."""
    seal = partial(_seal, workspace, metrics)

    async def again() -> None:
        while True:
            await anyio.sleep(seconds)
            await anyio.to_thread.run_sync(seal)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(again)
        try:
            yield
        finally:
            tasks.cancel_scope.cancel()
    await anyio.to_thread.run_sync(seal)


def _seal(workspace: Door, metrics: Metrics) -> None:
    try:
        metrics.sealed(workspace.trail.seal(workspace.gate.sealing()))
    except Exception:  # a busy database must not end the server; the next round tries again, and the metric tells
        metrics.not_sealed()
