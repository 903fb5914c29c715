"""Several workers on one address: a parent that accepts, hands on to the least busy, and replaces the dead.

The parent opens no workspace, runs no threads and answers nothing. Each worker is a process of its own from its first
instruction (no fork of a process that has pools or keys), with a channel to the parent: connections go over it as
descriptors, and its end tells either side that the other one is gone, however it went. While no worker can take a
connection, those that come wait to be accepted. A worker that says nothing for too long hangs: it is ended. See
decision 0036.
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
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from carelake.apps.http.channel import Worker
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
_TURN_SECONDS = 0.5
_LATE = 0.2
"""The part of its time after which a silent worker is given no more connections."""
_ABORT_SECONDS = 2.0
_LEAVING = 10
"""Times as long may one be silent that closes its workspace: it seals, or waits for a writer."""


@dataclass
class _Place:
    """One worker's place: who has it now, and when the next one may begin."""

    worker: Worker | None = None
    rest: float = 0.0
    again: float = 0.0

    def lengthen(self, now: float) -> None:
        """Rest before the next one begins, longer each time."""
        self.rest = min(_LONGEST_REST, max(1.0, self.rest * 2))
        self.again = now + self.rest


@dataclass
class Crew:
    """A parent and its workers.

    Attributes:
        command: begins a worker; the number of its descriptor, its own number and the shared folder are added to it.
        tls: whether they speak TLS, for the address that is told.
        note: told what happened, in a line.
        silent_seconds: a worker that says nothing for so long is ended, and another one begins; 0: never.
    """

    command: Sequence[str]
    workers: int
    tls: bool
    note: Callable[[str], None]
    silent_seconds: float = 30.0
    _places: list[_Place] = field(default_factory=list)
    _waiting: deque[socket.socket] = field(default_factory=deque)
    _accepting: bool = False
    _ending: bool = False
    _folder: Path = field(default_factory=Path)
    _turned: float = 0.0

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
                    started(url_of(listener, tls=self.tls))
                self._turned = time.monotonic()
                while not self._ending:
                    self._turn(wakened, listener)
        finally:
            listener.close()
            self._end_all()
            for line in self._waiting:
                line.close()
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
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        worker = Worker(number, process, ours, time.monotonic())
        self._places[number].worker = worker
        self._select.register(ours, selectors.EVENT_READ, worker)

    def _wait_until_ready(self) -> None:
        until = time.monotonic() + _START_SECONDS
        while not self._ending and not all(one.worker and one.worker.ready for one in self._places):
            for key, _ in self._select.select(0.5):
                if isinstance(key.data, Worker):
                    self._listen(key.data)
            lost = [one.worker for one in self._places if one.worker and one.worker.process.poll() is not None]
            if lost or time.monotonic() > until:
                raise Unavailable(
                    "http.workers",
                    "The workers did not begin; what hindered them stands above. Mend it, start again.",
                )

    def _turn(self, wakened: socket.socket, listener: socket.socket) -> None:
        self._open_or_shut(listener)
        for key, _ in self._select.select(_TURN_SECONDS):
            if key.fileobj is listener:
                self._accept(listener)
            elif isinstance(key.data, Worker):
                self._listen(key.data)
            else:
                with suppress(BlockingIOError):
                    wakened.recv(4096)
        now = time.monotonic()
        # Time in which the parent itself did not run tells nothing of the workers: they may not have run either.
        passed, self._turned = min(now - self._turned, 2 * _TURN_SECONDS), now
        for number, place in enumerate(self._places):
            if (worker := place.worker) is not None:
                if worker.process.poll() is not None:
                    self._lost(place, worker, now)
                else:
                    self._watch(worker, now, passed)
            if place.worker is None and now >= place.again and not self._ending:
                self._begin_again(number, place, now)
        self._serve_waiting()

    def _begin_again(self, number: int, place: _Place, now: float) -> None:
        """As `_begin`; where the machine has no process or memory left for it, later."""
        try:
            self._begin(number)
        except OSError:
            self.note(f"Worker {number} could not begin; it is tried again.")
            place.lengthen(now)

    def _watch(self, worker: Worker, now: float, passed: float) -> None:
        """End a worker that hangs: its event loop says something each second, while it runs."""
        worker.silent += passed
        if worker.condemned:
            if worker.silent >= _ABORT_SECONDS:
                worker.process.kill()
        elif (
            worker.has_been
            and 0 < (most := self.silent_seconds * (_LEAVING if worker.leaving else 1)) <= worker.silent
        ):
            self.note(f"Worker {worker.number} said nothing for {most:g} s; it is ended.")
            self._condemn(worker)
        elif not worker.has_been and now - worker.began > _START_SECONDS:
            self.note(f"Worker {worker.number} did not begin within {_START_SECONDS:g} s; it is ended.")
            self._condemn(worker)

    @staticmethod
    def _condemn(worker: Worker) -> None:
        """Ask it to tell where it stands, which it does when it is aborted; one that is stopped is killed after."""
        worker.condemned, worker.ready, worker.silent = True, False, 0.0
        with suppress(OSError):
            worker.process.send_signal(signal.SIGABRT)

    def _lost(self, place: _Place, worker: Worker, now: float) -> None:
        self.note(f"Worker {worker.number} ended ({worker.process.returncode}); another one begins.")
        quick = now - worker.began < _QUICK_SECONDS or not worker.has_been
        place.worker, place.again = None, now
        if quick:
            place.lengthen(now)
        else:
            place.rest = 0.0
        self._forget(worker)

    def _forget(self, worker: Worker) -> None:
        with suppress(KeyError, ValueError):
            self._select.unregister(worker.channel)
        self._waiting.extend(worker.close())
        mark_dead(worker.process.pid, self._folder)

    def _listen(self, worker: Worker) -> None:
        before = worker.has_been
        if not worker.hear():
            with suppress(KeyError, ValueError):
                self._select.unregister(worker.channel)  # its end is seen by `poll`
        if worker.has_been and not before and self._turned:
            self.note(f"Worker {worker.number} takes connections.")
        self._waiting.extend(worker.refused)
        worker.refused.clear()

    # -- connections ----------------------------------------------------------------------------------------------

    def _able(self) -> list[Worker]:
        """Who may be given a connection, the least busy first."""
        late = self.silent_seconds * _LATE or float("inf")
        found = [one.worker for one in self._places if one.worker is not None and one.worker.able(late)]
        return sorted(found, key=lambda one: one.lines)

    def _open_or_shut(self, listener: socket.socket) -> None:
        """Accept while somebody can take what comes; else it waits in the listener's queue, and is not refused."""
        wanted = not self._waiting and bool(self._able())
        if wanted and not self._accepting:
            self._select.register(listener, selectors.EVENT_READ)
        elif self._accepting and not wanted:
            self._select.unregister(listener)
        self._accepting = wanted

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
            if not self._hand_over(line):
                self._waiting.append(line)
                return

    def _hand_over(self, line: socket.socket) -> bool:
        return any(worker.give(line) for worker in self._able())

    def _serve_waiting(self) -> None:
        """Hand over what was accepted and not taken: of a worker that died, or that nobody could take then."""
        while self._waiting and self._hand_over(self._waiting[0]):
            self._waiting.popleft()

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
