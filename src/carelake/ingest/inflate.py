"""Bytes of a source, unpacked in bounded blocks, with what went wrong on the way remembered instead of raised.

A damaged file still holds good lines before the damage; the reader keeps them and refuses the rest. gzip is
recognised by its first bytes (RFC 1952 section 2.3.1), never by the file's name.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator
from typing import BinaryIO

__all__ = ["BLOCK", "FREE", "Content"]

BLOCK = 1 << 20
FREE = 64 << 20
"""Output below this is never called a bomb, whatever its ratio: small files of repeated text pack very well."""

_MAGIC = b"\x1f\x8b"


class Content:
    """The unpacked content of one source; iterate once.

    Attributes, complete when the iteration has ended:
        fault: "" or the code of what ended it early: ``ingest.truncated``, ``ingest.gzip``, ``ingest.bomb``,
            ``ingest.unreadable``.
        size: bytes of content.
    """

    def __init__(self, stream: BinaryIO, max_ratio: int) -> None:
        self._stream = stream
        self._max_ratio = max_ratio
        self._raw = hashlib.sha256()
        self._sha = hashlib.sha256()
        self._taken = 0
        self.fault = ""
        self.size = 0

    @property
    def raw_sha256(self) -> bytes:
        """Digest of the bytes as they lay on disk; only of those that were read, where there is a fault."""
        return self._raw.digest()

    @property
    def sha256(self) -> bytes:
        """Digest of the content."""
        return self._sha.digest()

    def __iter__(self) -> Iterator[bytes]:
        first = self._read()
        unpacked = self._inflate(first) if first[:2] == _MAGIC else self._plain(first)
        for block in unpacked:
            self._sha.update(block)
            self.size += len(block)
            yield block
            if self.size > FREE and self.size > self._max_ratio * self._taken:
                self.fault = "ingest.bomb"
                return

    def _read(self) -> bytes:
        try:
            data = self._stream.read(BLOCK) or b""
        except OSError:
            self.fault = "ingest.unreadable"
            data = b""
        self._raw.update(data)
        self._taken += len(data)
        return data

    def _plain(self, data: bytes) -> Iterator[bytes]:
        while data:
            yield data
            data = self._read()

    def _inflate(self, data: bytes) -> Iterator[bytes]:
        member = zlib.decompressobj(31)
        while True:
            before = member.copy()
            try:
                block = member.decompress(data, BLOCK)
            except zlib.error:
                self.fault = self.fault or "ingest.gzip"
                yield from _salvage(before, data)
                return
            if block:
                yield block
            if member.eof:
                data = self._next_member(member.unused_data)
                if not data:
                    return
                member = zlib.decompressobj(31)
                continue
            # What is held back is output as well as input: an empty tail alone does not mean that all is out.
            data = member.unconsumed_tail or (b"" if len(block) == BLOCK else self._read())
            if not data and len(block) < BLOCK:
                self.fault = self.fault or "ingest.truncated"
                return

    def _next_member(self, rest: bytes) -> bytes:
        """The start of the next member (RFC 1952 section 2.2), past zero padding; empty at the end or at a fault."""
        rest = rest.lstrip(b"\0")
        while len(rest) < 2 and (more := self._read()):
            rest = (rest + more).lstrip(b"\0")
        if rest and not rest.startswith(_MAGIC):
            self.fault = "ingest.gzip"
            return b""
        return rest


def _salvage(member: zlib._Decompress, data: bytes) -> Iterator[bytes]:
    """What can be unpacked before the damage: zlib gives nothing of a call that fails, so ever smaller pieces."""
    for step in (4096, 64, 1):
        while data:
            before = member.copy()
            try:
                block = member.decompress(data[:step])
            except zlib.error:
                member = before
                break
            if block:
                yield block
            data = data[step:]
