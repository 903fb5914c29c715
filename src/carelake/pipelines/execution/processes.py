"""Steps in processes of their own: this end of the socket to the warm process that makes them."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

from carelake.core.settings import PipelineSettings
from carelake.pipelines.execution.running import Task, failed

__all__ = ["InProcesses"]


class InProcesses:
    """A `Launcher`. The warm process is begun with the first step, or with `warm`.

    Attributes:
        process: the warm process, None before the first step.

    Args:
        command: begins the warm process; the number of its end of the socket is put after it.
        limits: of each step.
    """

    def __init__(self, command: Sequence[str], limits: PipelineSettings) -> None:
        self._command = list(command)
        self._limits = limits
        self._lock = threading.Lock()
        self._futures: dict[str, Future[dict[str, Any]]] = {}
        self._channel: socket.socket | None = None
        self.process: subprocess.Popen[bytes] | None = None

    def warm(self) -> None:
        """Begin the warm process, unless it is there: what it imports takes seconds."""
        with self._lock:
            if self._channel is None:
                self._start()

    def begin(self, task: Task) -> Future[dict[str, Any]]:
        future: Future[dict[str, Any]] = Future()
        limits = self._limits
        own = int(task.get("seconds") or 0)
        seconds = min(own, limits.seconds) if own and limits.seconds else own or limits.seconds
        asked = {"memory_mb": limits.memory_mb, "cpu_seconds": limits.cpu_seconds, "seconds": seconds}
        with self._lock:
            if self._channel is None:
                self._start()
            self._futures[task["id"]] = future
            self._send({"begin": task, "limits": asked})
        return future

    def stop(self, task: Task) -> None:
        with self._lock:
            if self._channel is not None:
                self._send({"stop": task["id"]})

    def close(self) -> None:
        with self._lock:
            channel, process = self._channel, self.process
            self._channel = None
        if channel is not None:
            with contextlib.suppress(OSError):
                channel.shutdown(socket.SHUT_RDWR)
            channel.close()
        if process is not None:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(  # noqa: S603
                [*self._command, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=sys.stderr.fileno() if _has_number() else subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C is ours to hear
                env=dict(os.environ),
            )
        self._channel = ours
        threading.Thread(target=self._read, args=(ours,), name="carelake-steps", daemon=True).start()

    def _send(self, said: dict[str, Any]) -> None:
        assert self._channel is not None
        with contextlib.suppress(OSError):  # it is gone: the reader tells all who wait
            self._channel.sendall(json.dumps(said).encode() + b"\n")

    def _read(self, channel: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError), channel.makefile("rb") as lines:
            for line in lines:
                said = json.loads(line)
                with self._lock:
                    future = self._futures.pop(said["ended"], None)
                if future is not None:
                    future.set_result({**said["result"], "cpu": said["cpu"], "memory": said["memory"]})
        with self._lock:
            left, self._futures = list(self._futures.values()), {}
            if self._channel is channel:
                self._channel = None
        for future in left:
            message = "The process that begins steps is gone."
            future.set_result(failed("pipelines.crashed", message, "SageMaker.JOB_INTERNAL_ERROR"))


def _has_number() -> bool:
    try:
        sys.stderr.fileno()
    except (OSError, ValueError, AttributeError):
        return False
    return True
