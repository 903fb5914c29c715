"""Several workers on one address: a parent that accepts, hands on to the least busy, and replaces the dead.

The parent opens no workspace, runs no threads and answers nothing. Each worker is a process of its own from its first
instruction (no fork of a process that has pools or keys), with a line to the parent: connections come over it as
descriptors, and its end tells either side that the other one is gone, however it went. See decision 0036.
"""

from __future__ import annotations

import errno
import os
import selectors
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from carelake.apps.http.metrics import FOLDER, mark_dead
from carelake.apps.http.rates import Table
from carelake.apps.http.server import GRACE_SECONDS, no_port, url_of
from carelake.core.errors import Unavailable

__all__ = ["RATES", "Crew"]

RATES = "rates"
_FOLDER = "carelake-serve-"
_BACKLOG = 1024
_START_SECONDS = 120.0
_END_SECONDS = GRACE_SECONDS + 20.0
_QUICK_SECONDS = 5.0
_LONGEST_REST = 30.0


@dataclass
class _Worker:
    number: int
    process: subprocess.Popen[bytes]
    channel: socket.socket
    began: float
    ready: bool = False
    lines: int = 0


@dataclass
class _Place:
    """One worker's place: who has it now, and when the next one may begin."""

    worker: _Worker | None = None
    rest: float = 0.0
    again: float = 0.0


@dataclass
class Crew:
    """A parent and its workers.

    Attributes:
        command: begins a worker; the number of its descriptor, its own number and the shared folder are added to it.
        tls: whether they speak TLS, for the address that is told.
        note: told what happened, in a line.
    """

    command: Sequence[str]
    workers: int
    tls: bool
    note: Callable[[str], None]
    _places: list[_Place] = field(default_factory=list)
    _ending: bool = False
    _folder: Path = field(default_factory=Path)

    def run(self, host: str, port: int, started: Callable[[str], None] = lambda _url: None) -> None:
        """Serve until SIGINT or SIGTERM.

        Raises:
            Unavailable: ``http.port``; ``http.workers``, when they do not begin.
        """
        listener = _listening(host, port)
        _sweep()
        self._folder = Path(tempfile.mkdtemp(prefix=f"{_FOLDER}{os.getpid()}-"))
        Table.make(self._folder / RATES)
        waker, wakened = socket.socketpair()
        waker.setblocking(False)
        wakened.setblocking(False)
        before = {one: signal.signal(one, self._end) for one in (signal.SIGINT, signal.SIGTERM)}
        before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda *_: None)
        woken = signal.set_wakeup_fd(waker.fileno())
        try:
            with selectors.DefaultSelector() as selector:
                self._select = selector
                selector.register(wakened, selectors.EVENT_READ)
                self._places = [_Place() for _ in range(self.workers)]
                for number in range(self.workers):
                    self._begin(number)
                self._wait_until_ready()
                if not self._ending:
                    selector.register(listener, selectors.EVENT_READ)
                    started(url_of(listener, tls=self.tls))
                while not self._ending:
                    self._turn(wakened, listener)
        finally:
            listener.close()
            self._end_all()
            signal.set_wakeup_fd(woken)
            for one, handler in before.items():
                signal.signal(one, handler)
            waker.close()
            wakened.close()
            shutil.rmtree(self._folder, ignore_errors=True)

    def _end(self, _number: int, _frame: FrameType | None) -> None:
        self._ending = True

    # -- workers --------------------------------------------------------------------------------------------------

    def _begin(self, number: int) -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        try:
            process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                [*self.command, str(theirs.fileno()), str(number), str(self._folder)],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env={**os.environ, FOLDER: str(self._folder)},
                process_group=0,  # Ctrl-C is for the parent, which ends them
            )
        finally:
            theirs.close()
        worker = _Worker(number, process, ours, time.monotonic())
        self._places[number].worker = worker
        self._select.register(ours, selectors.EVENT_READ, worker)

    def _wait_until_ready(self) -> None:
        until = time.monotonic() + _START_SECONDS
        while not self._ending and not all(one.worker and one.worker.ready for one in self._places):
            for key, _ in self._select.select(0.5):
                if isinstance(key.data, _Worker):
                    self._listen(key.data)
            lost = [one.worker for one in self._places if one.worker and one.worker.process.poll() is not None]
            if lost or time.monotonic() > until:
                raise Unavailable(
                    "http.workers",
                    "The workers did not begin; what hindered them stands above. Mend it, start again.",
                )

    def _turn(self, wakened: socket.socket, listener: socket.socket) -> None:
        for key, _ in self._select.select(0.5):
            if key.fileobj is listener:
                self._accept(listener)
            elif isinstance(key.data, _Worker):
                self._listen(key.data)
            else:
                with suppress(BlockingIOError):
                    wakened.recv(4096)
        now = time.monotonic()
        for place in self._places:
            if place.worker is not None and place.worker.process.poll() is not None:
                self._lost(place, place.worker, now)
            if place.worker is None and now >= place.again and not self._ending:
                self._begin(self._places.index(place))

    def _lost(self, place: _Place, worker: _Worker, now: float) -> None:
        self.note(f"Worker {worker.number} ended ({worker.process.returncode}); another one begins.")
        quick = now - worker.began < _QUICK_SECONDS or not worker.ready
        place.rest = min(_LONGEST_REST, max(1.0, place.rest * 2)) if quick else 0.0
        place.worker, place.again = None, now + place.rest
        self._forget(worker)

    def _forget(self, worker: _Worker) -> None:
        with suppress(KeyError, ValueError):
            self._select.unregister(worker.channel)
        worker.channel.close()
        mark_dead(worker.process.pid, self._folder)

    def _listen(self, worker: _Worker) -> None:
        try:
            said = worker.channel.recv(65536)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            said = b""
        if not said:
            with suppress(KeyError, ValueError):
                self._select.unregister(worker.channel)  # its end is seen by `poll`
            worker.ready = False
            return
        worker.ready = worker.ready or b"r" in said
        worker.lines -= said.count(b"x")

    # -- connections ----------------------------------------------------------------------------------------------

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(64):
            try:
                line, _ = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    time.sleep(0.05)
                return
            with line:
                self._hand_over(line)

    def _hand_over(self, line: socket.socket) -> None:
        able = [one.worker for one in self._places if one.worker is not None and one.worker.ready]
        for worker in sorted(able, key=lambda one: one.lines):
            try:
                socket.send_fds(worker.channel, [b"c"], [line.fileno()])
            except OSError:  # it takes no more at the moment, or is gone
                continue
            worker.lines += 1
            return

    # -- the end --------------------------------------------------------------------------------------------------

    def _end_all(self) -> None:
        alive = [one.worker for one in self._places if one.worker is not None]
        for worker in alive:
            with suppress(OSError):
                worker.process.send_signal(signal.SIGTERM)
        until = time.monotonic() + _END_SECONDS
        for worker in alive:
            try:
                worker.process.wait(max(0.1, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
            self._forget(worker)


def _listening(host: str, port: int) -> socket.socket:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.create_server(found[4][:2], family=found[0], backlog=_BACKLOG)
    except OSError:
        raise no_port() from None
    listener.setblocking(False)
    return listener


def _sweep() -> None:
    """Remove the folders of parents that were killed; they hold numbers only."""
    for one in Path(tempfile.gettempdir()).glob(f"{_FOLDER}*-*"):
        pid = one.name.removeprefix(_FOLDER).partition("-")[0]
        with suppress(OSError, ValueError):
            if one.lstat().st_uid == os.getuid() and not _alive(int(pid)):
                shutil.rmtree(one, ignore_errors=True)


def _alive(pid: int) -> bool:
    """Whether there is a process of this number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
