"""The channel between a parent and one worker: connections go one way, single bytes come back.

A connection goes as a descriptor. What comes back is in the order of what was done:

    r  the worker takes connections          b  its event loop runs (a beat)
    t  it took the oldest one given          n  it could not take it: it has no descriptors left
    x  a connection of it ended              q  it ends: it takes no more

The parent keeps each connection until it is taken, so what is given to a worker that hangs or dies goes to another
one. A worker reads nothing of a connection before the parent was told that it is taken: nobody reads a part of it
and another one the rest. The end of the channel tells either side of the other's death.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import subprocess
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

__all__ = ["Follower", "Worker"]

_READY, _TAKEN, _NOT_TAKEN, _ENDED, _BEAT, _LEAVING = b"r", b"t", b"n", b"x", b"b", b"q"
_MOST_GIVEN = 64
"""Connections that wait to be taken; some 277 messages fit into the channel."""
_MOST_BEATS = 10
_PASSING = frozenset({errno.ENOMEM, errno.ENOBUFS, errno.EMFILE, errno.ENFILE})


@dataclass(eq=False)
class Worker:
    """The parent's side of one worker.

    Attributes:
        ready: it takes connections; ``has_been`` once, whatever came later.
        lines: connections that it has.
        silent: for so many seconds nothing was heard of it.
        given: what it did not take yet, oldest first.
        refused: what it could not take, to be fetched by who looks.
        full: it takes none until something is heard of it.
        condemned: it was told to end since it hangs.
        leaving: it said that it ends, and may be silent while it closes its workspace.
    """

    number: int
    process: subprocess.Popen[bytes]
    channel: socket.socket
    began: float
    ready: bool = False
    has_been: bool = False
    lines: int = 0
    silent: float = 0.0
    given: deque[socket.socket] = field(default_factory=deque)
    refused: deque[socket.socket] = field(default_factory=deque)
    full: bool = False
    condemned: bool = False
    leaving: bool = False

    def able(self, late: float) -> bool:
        """Whether it may be given a connection; who is silent for ``late`` seconds may not."""
        return self.ready and not self.full and self.silent < late and len(self.given) < _MOST_GIVEN

    def give(self, line: socket.socket) -> bool:
        """Hand a connection to it, which it then closes; False when it takes none now."""
        try:
            socket.send_fds(self.channel, [b"c"], [line.fileno()])
        except OSError:  # the channel is full, or its end is about to be seen
            self.full = True
            return False
        self.given.append(line)
        self.lines += 1
        return True

    def hear(self) -> bool:
        """Read what it says; False when the channel has ended."""
        try:
            said = self.channel.recv(65536)
        except (BlockingIOError, InterruptedError):
            return True
        except OSError:
            said = b""
        if not said:
            self.ready = False
            return False
        self.silent, self.full = 0.0, False
        for number in said:
            self._heed(bytes((number,)))
        return True

    def _heed(self, word: bytes) -> None:
        if word == _READY:
            self.ready = self.has_been = True
        elif word == _TAKEN:
            self.given.popleft().close()
        elif word == _NOT_TAKEN:
            self.refused.append(self.given.popleft())
            self.lines -= 1
            self.full = True  # until it says something again, which is its next beat at the latest
        elif word == _ENDED:
            self.lines -= 1
        elif word == _LEAVING:
            self.ready, self.leaving = False, True

    def close(self) -> list[socket.socket]:
        """Of a process that is gone: what it never took."""
        while self._more():
            self.hear()
        self.channel.close()
        left = [*self.refused, *self.given]
        self.refused.clear()
        self.given.clear()
        return left

    def _more(self) -> bool:
        with suppress(OSError):
            return bool(self.channel.recv(1, socket.MSG_PEEK))
        return False


class Follower:
    """The worker's side, on its event loop."""

    def __init__(
        self, channel: socket.socket, begin: Callable[[socket.socket], None], gone: Callable[[], None], beat: float
    ) -> None:
        """Follow a parent.

        Args:
            begin: given each connection that was taken.
            gone: called once when the parent is gone.
            beat: seconds between beats; 0 for none.
        """
        self._channel, self._begin, self._gone, self._beat = channel, begin, gone, beat
        self._unsaid = bytearray()
        self._taken: deque[socket.socket] = deque()
        self._over = False
        channel.setblocking(False)

    def start(self) -> None:
        """Take connections from now on."""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._channel, self._take)
        self._say(_READY)
        if self._beat > 0:
            self._loop.call_later(self._beat, self._beats)

    def stop(self) -> None:
        """Take none any more; what is on the way goes to another worker."""
        if not self._over:
            self._loop.remove_reader(self._channel)
            self._say(_LEAVING)

    def ended(self) -> None:
        """A connection has ended."""
        self._say(_ENDED)

    def _take(self) -> None:
        try:
            said, handles, _, _ = socket.recv_fds(self._channel, 1, 1)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            if error.errno in _PASSING:
                return
            said, handles = b"", []
        if not said:
            self._end()
        elif handles:
            self._taken.append(socket.socket(fileno=handles[0]))
            self._say(_TAKEN)
        else:
            self._say(_NOT_TAKEN)

    def _end(self) -> None:
        """The parent is gone: nobody would end us any more."""
        if not self._over:
            self._over = True
            self._loop.remove_reader(self._channel)
            self._loop.remove_writer(self._channel)
            self._gone()

    def _beats(self) -> None:
        if not self._over:
            if len(self._unsaid) < _MOST_BEATS:
                self._say(_BEAT)
            self._loop.call_later(self._beat, self._beats)

    def _say(self, word: bytes) -> None:
        self._unsaid += word
        self._speak()

    def _speak(self) -> None:
        """Say what is unsaid; what is taken begins when that is told."""
        try:
            while self._unsaid:
                del self._unsaid[: self._channel.send(self._unsaid)]
        except (BlockingIOError, InterruptedError):
            self._loop.add_writer(self._channel, self._speak)
            return
        except OSError:  # the parent is gone, which the reader sees too
            self._unsaid.clear()
        if not self._over:
            self._loop.remove_writer(self._channel)
        while self._taken:
            self._begin(self._taken.popleft())
