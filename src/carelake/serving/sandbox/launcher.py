"""Starts a sandboxed process, measures it, and talks to it; what it says is held to what the kernel says of it.

A question has so many seconds, and then the process is killed. It is given so much processor time, too, question by
question: the kernel ends what computes beyond that, also when nobody waits for it any more.
"""

from __future__ import annotations

import json
import math
import os
import resource
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from threading import Lock
from typing import Literal

import numpy as np

from carelake.core import canonical
from carelake.core.errors import CarelakeError, Corrupt, Unavailable
from carelake.models.matrix import Floats
from carelake.serving.sandbox import measuring, outer, walls, wire
from carelake.vault.attested.document import TRUST, Attested
from carelake.vault.attested.releases import Released

__all__ = ["Sandbox", "allow_time", "faulty"]

_START_SECONDS = 60.0
_ENVIRONMENT = {"LC_ALL": "C.UTF-8", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
_BYTES = 1 << 20


class Sandbox:
    """One process. Whoever asks waits for the one before; what takes too long is killed.

    Attributes:
        pid: of the process itself, whatever is around it.
        outer: the wall around it.
        ready: what it said of its model; None until there is one.
    """

    def __init__(self, seconds: float, *, outside: str = "auto", debug: bool = False) -> None:
        """Start it; nothing is given to it yet.

        Args:
            seconds: how long an answer to a thousand rows may take.
            debug: its filter lets everything through and only tells of it; no key is ever released to it.

        Raises:
            Unavailable: ``serving.sandbox_unavailable``, ``serving.sandbox_start``.
        """
        self._seconds = seconds
        self._debug = debug
        self._lock = Lock()
        self._mutex = Lock()
        self._askers, self._retired = 0, False
        self._policy = walls.policy(debug=debug)
        self.outer = outer.wanted(outside)
        self.ready: wire.Ready | None = None
        self.module = f"carelake-sandbox-{secrets.token_hex(8)}"
        self._pipe, theirs = socket.socketpair()
        try:
            self._process, self.pid = self._spawned(theirs)
            self._handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            self._pipe.close()
            self._process.kill()
            self._process.wait()
            raise _start("it ended at once") from None
        except BaseException:
            self._pipe.close()
            raise
        finally:
            theirs.close()
        begun = self._heard(_START_SECONDS)
        if not isinstance(begun, wire.Begun):
            raise self._dead(_start("it did not begin"))
        self._begun = begun

    def _spawned(self, theirs: socket.socket) -> tuple[subprocess.Popen[bytes], int]:
        own = [sys.executable, "-I", "-B", "-m", "carelake.serving.sandbox.child", str(theirs.fileno())]
        if self.outer == outer.NONE:
            process = self._popen(own, [theirs.fileno()], _ENVIRONMENT)
            return process, process.pid
        mine, told = socket.socketpair()
        with mine:
            with told:
                command = outer.command(own, _ENVIRONMENT, told.fileno())
                process = self._popen(command, [theirs.fileno(), told.fileno()], {})
            mine.settimeout(_START_SECONDS)
            try:
                return process, int(json.loads(_all(mine))["child-pid"])
            except (OSError, ValueError, KeyError):
                process.kill()
                process.wait()
                raise _start("bubblewrap did not say which process it began") from None

    @staticmethod
    def _popen(command: list[str], given: list[int], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        null = subprocess.DEVNULL
        try:
            return subprocess.Popen(  # noqa: S603 - this Python, or bubblewrap around it
                command, stdin=null, stdout=null, stderr=null, pass_fds=given, env=dict(environment), cwd="/"
            )
        except OSError:
            raise _start("it could not be started") from None

    # -- what it is -----------------------------------------------------------------------------------------------

    def measured(self, model: str) -> dict[str, str]:
        """Its measurements; the walls go up after it, so that nothing is loaded that was not measured."""
        told = canonical.dump({"outer": self.outer, "flags": outer.FLAGS if self.outer != outer.NONE else ()})
        found = measuring.measure(self.pid, self._begun.modules, self._policy + told, model, debug=self._debug)
        self._said(wire.Lock(self._debug), wire.Locked, _START_SECONDS)
        if not self._debug:
            try:
                measuring.standing(self.pid)
            except measuring.Standing as wrong:
                raise self._dead(_start(f"the kernel says otherwise of {', '.join(wrong.args)}")) from None
        return found

    def attested(self, subject: str, measurements: Mapping[str, str], nonce: bytes, at: float) -> Attested:
        """What a document says of it.

        Args:
            at: seconds since 1970.
        """
        own = self._begun.public_key
        return Attested(self.module, round(at * 1000), dict(measurements), own, TRUST, subject, nonce)

    # -- what it does ---------------------------------------------------------------------------------------------

    def load(self, released: Released) -> wire.Ready:
        """Hand over what was released to it.

        Raises:
            Corrupt: what it found wrong with it. Unavailable: ``serving.sandbox_died``, ``serving.sandbox_timeout``.
        """
        told = wire.Load(released.keys, released.document, dict(released.sealed))
        said = self._said(told, wire.Ready, _START_SECONDS)
        assert isinstance(said, wire.Ready)
        self.ready = said
        return said

    def ask(self, x: Floats, scores: Mapping[str, Floats]) -> wire.Said:
        """Score rows.

        Raises:
            Unavailable: ``serving.sandbox_died``, ``serving.sandbox_timeout``.
        """
        order: Literal["C", "F"] = "F" if x.flags.f_contiguous and not x.flags.c_contiguous else "C"
        told = {name: np.ascontiguousarray(one, dtype="<f8").tobytes() for name, one in scores.items()}
        asked = wire.Ask(len(x), np.asarray(x, dtype="<f8").tobytes(order), order, told)
        said = self._said(asked, wire.Said, self._seconds * (1 + len(x) // 1000))
        assert isinstance(said, wire.Said)
        return said

    @property
    def alive(self) -> bool:
        """Whether it can still be asked."""
        return self._pipe.fileno() >= 0 and self._process.poll() is None

    def retire(self) -> None:
        """End it as soon as nobody asks it: whoever does still gets the answer."""
        with self._mutex:
            self._retired = True
            idle = not self._askers
        if idle:
            self.close()

    def close(self) -> None:
        """End it."""
        self._pipe.close()
        with self._mutex:
            handle, self._handle = self._handle, -1
        if handle >= 0:
            with suppress(OSError):  # by its handle: its number may be another's by now
                signal.pidfd_send_signal(handle, signal.SIGKILL)
            os.close(handle)
        self._process.kill()
        self._process.wait()

    # -- the pipe -------------------------------------------------------------------------------------------------

    def _said(self, message: wire.Message, wanted: type[wire.Message], seconds: float) -> wire.Message:
        with self._mutex:
            self._askers += 1
        try:
            with self._lock:
                said = self._exchanged(message, seconds)
        finally:
            with self._mutex:
                self._askers -= 1
                last = self._retired and not self._askers
            if last:
                self.close()
        if isinstance(said, wire.Fault):
            # Once it can have seen rows, not a word of its own goes further: it could be of a patient.
            raise _fault(said) if self.ready is None else faulty()
        if not isinstance(said, wanted):
            raise self._dead(_died())
        return said

    def _exchanged(self, message: wire.Message, seconds: float) -> wire.Message:
        if self._pipe.fileno() < 0:
            raise _died()
        try:
            self._allowed(seconds)
            self._sent(message, seconds)
            return self._heard(seconds)
        except CarelakeError:
            raise
        except BaseException:  # interrupted: the next to ask would get the answer of this one
            self.close()
            raise

    def _allowed(self, seconds: float) -> None:
        try:
            signal.pidfd_send_signal(self._handle, 0)  # its number is its own still
            allow_time(self.pid, seconds)
        except ProcessLookupError:
            raise self._dead(_died()) from None
        except OSError:
            gone = self._pipe.fileno() < 0  # closed meanwhile
            raise self._dead(_died() if gone else _start("its processor time cannot be limited")) from None

    def _sent(self, message: wire.Message, seconds: float) -> None:
        self._pipe.settimeout(seconds)
        try:
            self._pipe.sendall(wire.packed(message))
        except TimeoutError:
            raise self._dead(_late()) from None
        except OSError:
            raise self._dead(_died()) from None

    def _heard(self, seconds: float) -> wire.Message:
        until = time.monotonic() + seconds

        def read(size: int) -> bytes:
            self._pipe.settimeout(max(0.001, until - time.monotonic()))
            return self._pipe.recv(min(size, _BYTES))

        try:
            found = wire.receive(read)
        except TimeoutError:
            raise self._dead(_late()) from None
        except (OSError, ValueError):
            found = None
        if found is None:
            raise self._dead(_died())
        return found

    def _dead(self, error: CarelakeError) -> CarelakeError:
        self.close()
        return error


def allow_time(pid: int, seconds: float) -> None:
    """Let a process compute for so long from now on, and a second or two more; then it gets SIGXCPU."""
    used = time.clock_gettime(~pid << 3)  # CPUCLOCK_PROF of clock_getcpuclockid(3): what the limit is held against
    _, most = resource.prlimit(pid, resource.RLIMIT_CPU)
    wanted = math.ceil(used + seconds) + 1
    resource.prlimit(pid, resource.RLIMIT_CPU, (wanted if most < 0 else min(wanted, most), most))


def _all(pipe: socket.socket) -> bytes:
    parts = []
    while part := pipe.recv(4096):
        parts.append(part)
    return b"".join(parts)


def faulty() -> Unavailable:
    """Of an answer that is none to the rows that were asked."""
    return Unavailable(
        "serving.sandbox_fault", "The sandbox could not score the rows: they are too many at once, perhaps."
    )


def _fault(said: wire.Fault) -> CarelakeError:
    kind = Corrupt if said.code.startswith(("vault.", "models.")) else Unavailable
    return faulty() if said.code == "fault" else kind(said.code, said.message)


def _start(why: str) -> Unavailable:
    return Unavailable("serving.sandbox_start", f"The sandbox is not used: {why}. Look into who changed its files.")


def _died() -> Unavailable:
    return Unavailable(
        "serving.sandbox_died",
        "The sandbox of the endpoint ended before it answered: it was killed, by its own walls or for its "
        "processor time perhaps. Nothing was answered or captured; the next request begins another one.",
    )


def _late() -> Unavailable:
    return Unavailable(
        "serving.sandbox_timeout",
        "The sandbox of the endpoint did not answer within serving.sandbox_seconds and was ended. Nothing was "
        "answered or captured; the next request begins another one.",
    )
