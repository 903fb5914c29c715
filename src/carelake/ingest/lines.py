"""Lines of a landing with their byte ranges, in bounded memory: a line past the limit is counted, not held."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

__all__ = ["BLOCK", "Line", "lines"]

BLOCK = 1 << 20
_BLANK = b" \t\r"
_BOM = b"\xef\xbb\xbf"


class Line(NamedTuple):
    """One line that is not blank, without the white space around it.

    Attributes:
        data: the text; empty where the line was longer than the limit.
        offset, length: its byte range in the landing.
        number: 1-based.
        next: offset of the line after it.
        ended: whether a newline follows; False for a last line that just stops.
    """

    data: bytes
    offset: int
    length: int
    number: int
    next: int
    ended: bool


class _Held:
    """The start of a line whose end has not been read yet."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.parts: list[bytes] = []
        self.size = 0

    def add(self, part: bytes) -> None:
        self.size += len(part)
        if self.size <= self.limit:
            self.parts.append(part)
        else:
            self.parts.clear()

    def take(self) -> tuple[bytes, int]:
        data, size = b"".join(self.parts), self.size
        self.parts.clear()
        self.size = 0
        return data, size


def lines(
    stream: BinaryIO, limit: int, *, offset: int = 0, number: int = 1, block_size: int = BLOCK
) -> Iterator[Line]:
    """Lines from ``offset``, which is the start of line ``number``; ``limit`` bytes is the longest that is held."""
    stream.seek(offset)
    held = _Held(limit)
    while block := stream.read(block_size):
        *whole, rest = block.split(b"\n")
        for part in whole:
            if held.size:
                held.add(part)
                part, size = held.take()
            else:
                size = len(part)
            if line := _line(part, size, offset, number, ended=True, limit=limit):
                yield line
            offset += size + 1
            number += 1
        if rest:
            held.add(rest)
    data, size = held.take()
    if size and (line := _line(data, size, offset, number, ended=False, limit=limit)):
        yield line


def _line(data: bytes, size: int, offset: int, number: int, *, ended: bool, limit: int) -> Line | None:
    following = offset + size + ended
    if size > limit:
        return Line(b"", offset, size, number, following, ended)
    start = 3 if offset == 0 and data.startswith(_BOM) else 0
    text = data[start:] if start else data
    left = text.lstrip(_BLANK)
    bare = left.rstrip(_BLANK)
    if not bare:
        return None
    return Line(bare, offset + start + len(text) - len(left), len(bare), number, following, ended)
