"""Where steps' work is done: the port, and its form without processes.

The other form is `processes`: each step in a process of its own, which a warm one makes by forking.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

from carelake.pipelines.execution.running import Task

__all__ = ["InThreads", "Launcher"]


class Launcher(Protocol):
    """Begins steps' work and ends it."""

    def begin(self, task: Task) -> Future[dict[str, Any]]:
        """Begin; the future has what `run_task` answers, with ``cpu`` seconds and ``memory`` in MiB where known."""
        ...

    def stop(self, task: Task) -> None:
        """End it as soon as may be; its future has a failure then, or what it came to before."""
        ...

    def close(self) -> None:
        """End everything that still runs."""
        ...


class InThreads:
    """In threads of this process: nothing is limited, and what has begun goes on to its end."""

    def __init__(self, work: Callable[[Task], dict[str, Any]], parallel: int = 8) -> None:
        self._work = work
        self._pool = ThreadPoolExecutor(parallel, "carelake-step")

    def begin(self, task: Task) -> Future[dict[str, Any]]:
        return self._pool.submit(self._work, task)

    def stop(self, task: Task) -> None:
        """Threads cannot be ended."""

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)
