"""Rates: how many requests one principal, or one address, may make; counted over all workers in shared memory.

A bucket of tokens, kept as one moment (the "generic cell rate algorithm", ITU-T I.371): each request moves it on by
the time that one request is worth, and who would move it too far beyond now waits. A moment that has passed tells
nothing any more, so the table can be small: a key has a few places that it may be in, and takes the oldest. Keys are
digests under a secret of this server, so that nobody can choose whose place to take. Workers do not lock: two that
meet in one place lose one request's count.
"""

from __future__ import annotations

import hashlib
import mmap
import secrets
import struct
import time
from collections.abc import Callable
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path

__all__ = ["SIZE", "Rates", "Table", "source_of"]

_SETS, _WAYS = 1 << 14, 4
_PLACE = struct.Struct("=Qd")
SIZE = 32 + _SETS * _WAYS * _PLACE.size
"""Bytes of the table: the secret, and 65,536 places."""


class Table:
    """The table of all workers in a file, or of this process alone."""

    def __init__(self, file: Path | None = None) -> None:
        if file is None:
            self.memory: mmap.mmap = mmap.mmap(-1, SIZE)
            self.memory[:32] = secrets.token_bytes(32)
        else:
            with file.open("r+b") as handle:
                self.memory = mmap.mmap(handle.fileno(), SIZE)
        self.secret = bytes(self.memory[:32])

    @staticmethod
    def make(file: Path) -> None:
        """An empty table in a new file."""
        with file.open("xb") as handle:
            handle.write(secrets.token_bytes(32))
            handle.truncate(SIZE)


class Rates:
    """One kind of rate over a table."""

    def __init__(
        self,
        table: Table,
        kind: str,
        per_second: float,
        burst_seconds: float,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Count in ``table``.

        Args:
            now: a clock that all workers of the machine share.
        """
        self._memory, self._kind, self._now = table.memory, kind, now
        self._worth = 1.0 / per_second if per_second > 0 else 0.0
        self._ahead = max(burst_seconds, self._worth)
        self._place = lru_cache(4096)(self._found)
        self._secret = table.secret

    def wait(self, key: str) -> float:
        """Count one request; 0 lets it pass, else so many seconds are to be waited, and it does not count."""
        if not self._worth:
            return 0.0
        now = self._now()
        first, tag = self._place(key)
        at, until = self._look(first, tag)
        until = max(until, now) + self._worth
        over = until - now - self._ahead
        if over > 1e-9:
            return over
        _PLACE.pack_into(self._memory, at, tag, until)
        return 0.0

    def _found(self, key: str) -> tuple[int, int]:
        digest = hashlib.blake2b(f"{self._kind}\x1f{key}".encode(errors="replace"), key=self._secret, digest_size=16)
        number = digest.digest()
        first = int.from_bytes(number[:8], "little") % _SETS
        return 32 + first * _WAYS * _PLACE.size, int.from_bytes(number[8:], "little") | 1

    def _look(self, first: int, tag: int) -> tuple[int, float]:
        """Where the key is, and its moment; else the place whose moment is the oldest."""
        oldest, place = float("inf"), first
        for at in range(first, first + _WAYS * _PLACE.size, _PLACE.size):
            known, until = _PLACE.unpack_from(self._memory, at)
            if known == tag:
                return at, until
            if until < oldest:
                oldest, place = until, at
        return place, 0.0


@lru_cache(4096)
def source_of(client: str) -> str:
    """What counts as one address: of IPv6 a network that one customer has (RFC 6177: a /64 at least)."""
    try:
        address = ip_address(client)
    except ValueError:
        return client
    if address.version == 6 and address.ipv4_mapped is None:
        return address.exploded[:19]
    return str(address.ipv4_mapped or address) if address.version == 6 else client
