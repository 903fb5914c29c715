"""The warm process: it has imported what jobs need, and forks a process for each step, which it holds to its limits.

It talks over one socket, a JSON object a line. ``{"begin": TASK, "limits": {...}}`` forks; ``{"stop": ID}`` ends that
process. What it tells: ``{"ended": ID, "result": {...}, "cpu": SECONDS, "memory": MIB}``. When whoever began it is
gone, so is the other end of the socket, and every process of a step is ended.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import resource
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from carelake.pipelines.execution.running import Task, failed

__all__ = ["serve"]

_TICK = 0.05
_GRACE = 5.0
_MOST = 64 * 1024 * 1024
_DONE = object()
_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)


@dataclass
class _Child:
    """One process of a step."""

    name: str
    pid: int
    pipe: int
    memory_mb: int
    until: float
    said: bytearray = field(default_factory=bytearray)
    most: int = 0
    over: str = ""
    stopped: float = 0.0


def serve(channel: socket.socket, work: Callable[[Task], dict[str, Any]], warming: Iterable[object] = ()) -> None:
    """Serve until the other end is closed.

    Args:
        warming: gone through meanwhile, one by one: what later steps need is imported while the first ones run.
    """
    _Warm(channel, work, iter(warming)).through()


class _Warm:
    def __init__(
        self, channel: socket.socket, work: Callable[[Task], dict[str, Any]], warming: Iterator[object]
    ) -> None:
        self._channel = channel
        self._work = work
        self._warming: Iterator[object] | None = warming
        self._children: dict[int, _Child] = {}
        self._asked = bytearray()
        self._select = selectors.DefaultSelector()
        self._select.register(channel, selectors.EVENT_READ)

    def through(self) -> None:
        open_ = True
        while open_:
            for key, _ in self._select.select(self._patience()):
                if key.fileobj is self._channel:
                    open_ = self._hear() and open_
                else:
                    self._listen(self._children[key.fd])
            self._watch()
            if self._warming is not None and next(self._warming, _DONE) is _DONE:
                self._warming = None
                gc.collect()
                gc.freeze()  # a child's collector leaves our pages alone
        for child in self._children.values():
            _end(child.pid, signal.SIGKILL)

    def _patience(self) -> float | None:
        if self._warming is not None:
            return 0.0
        return _TICK if self._children else None

    def _hear(self) -> bool:
        """Take what is asked; whether anybody is still there."""
        try:
            data = self._channel.recv(1 << 16)
        except OSError:
            data = b""
        self._asked += data
        while (at := self._asked.find(b"\n")) >= 0:
            said = json.loads(bytes(self._asked[:at]))
            del self._asked[: at + 1]
            if "begin" in said:
                self._begin(said["begin"], said["limits"])
            else:
                for child in self._children.values():
                    if child.name == said["stop"]:
                        child.stopped = time.monotonic()
                        _end(child.pid, signal.SIGTERM)
        return bool(data)

    def _begin(self, task: Task, limits: dict[str, int]) -> None:
        hear, tell = os.pipe()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            self._child(task, limits, tell)
        os.close(tell)
        until = time.monotonic() + limits["seconds"] if limits["seconds"] else float("inf")
        self._children[hear] = _Child(task["id"], pid, hear, limits["memory_mb"], until)
        self._select.register(hear, selectors.EVENT_READ)

    def _child(self, task: Task, limits: dict[str, int], tell: int) -> None:
        """The process of a step: it never returns."""
        code = 1
        try:
            os.setsid()
            if sys.platform == "linux":
                ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGKILL)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            self._channel.close()
            for other in self._children:
                os.close(other)
            if limits["cpu_seconds"]:
                resource.setrlimit(resource.RLIMIT_CPU, (limits["cpu_seconds"], limits["cpu_seconds"] + 5))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core holds what was in memory
            data = json.dumps(self._work(task)).encode()
            with os.fdopen(tell, "wb") as pipe:
                pipe.write(data)
            code = 0
        finally:
            with contextlib.suppress(Exception):
                sys.stderr.flush()
            os._exit(code)

    def _listen(self, child: _Child) -> None:
        data = os.read(child.pipe, 1 << 16)
        child.said += data
        if len(child.said) > _MOST:
            child.over = "its answer"
            _end(child.pid, signal.SIGKILL)
        if not data:
            self._ended(child)

    def _ended(self, child: _Child) -> None:
        self._select.unregister(child.pipe)
        os.close(child.pipe)
        del self._children[child.pipe]
        # It has closed its pipe, or is gone; then what it left behind in its group goes too, while its number is its.
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        _end(child.pid, signal.SIGKILL)
        _, status, used = os.wait4(child.pid, 0)
        most = max(child.most, used.ru_maxrss // 1024 if sys.platform == "linux" else used.ru_maxrss >> 20)
        said = {"ended": child.name, "result": _result(child, status), "cpu": used.ru_utime + used.ru_stime}
        with contextlib.suppress(OSError):
            self._channel.sendall(json.dumps({**said, "memory": most}).encode() + b"\n")

    def _watch(self) -> None:
        """Hold the processes to their limits."""
        now = time.monotonic()
        for child in self._children.values():
            if child.stopped and now > child.stopped + _GRACE:
                _end(child.pid, signal.SIGKILL)
            elif not child.over and now > child.until:
                child.over = "the time"
                _end(child.pid, signal.SIGKILL)
            elif not child.over and child.memory_mb:
                child.most = max(child.most, _megabytes(child.pid))
                if child.most > child.memory_mb:
                    child.over = "the memory"
                    _end(child.pid, signal.SIGKILL)


def _result(child: _Child, status: int) -> dict[str, Any]:
    code = os.waitstatus_to_exitcode(status)
    if child.over:
        return _limited(child.over)
    if child.stopped and code != 0:
        return failed("pipelines.stopped", "The step was stopped.", "")
    if code in (-signal.SIGXCPU, -signal.SIGKILL) and not child.said:
        return _limited("the processor time") if code == -signal.SIGXCPU else _crashed(f"signal {-code}")
    if code != 0:
        return _crashed(f"signal {-code}" if code < 0 else f"code {code}")
    found = json.loads(bytes(child.said))
    assert isinstance(found, dict)
    return found


def _limited(what: str) -> dict[str, Any]:
    message = f"The step went beyond {what} that it may take; docs/pipelines.md says how to give it more."
    return failed("pipelines.limit", message, "SageMaker.RESOURCE_LIMIT")


def _crashed(how: str) -> dict[str, Any]:
    return failed("pipelines.crashed", f"The step's process ended with {how}.", "SageMaker.JOB_INTERNAL_ERROR")


def _end(pid: int, number: signal.Signals) -> None:
    # The group is there once the child leads its session; before that, the child alone.
    for call in (os.killpg, os.kill):
        with contextlib.suppress(OSError):
            call(pid, number)
            return


def _megabytes(pid: int) -> int:
    """Resident memory of a process and those that it began; 0 where there is no /proc."""
    total, ahead = 0, [pid]
    while ahead:
        one = ahead.pop()
        with contextlib.suppress(OSError, ValueError, IndexError):
            total += int(Path(f"/proc/{one}/statm").read_text().split()[1]) * resource.getpagesize()
            ahead += map(int, Path(f"/proc/{one}/task/{one}/children").read_text().split())
    return total >> 20
