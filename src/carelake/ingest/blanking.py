"""Blanking ranges of a landing: the same length and lines, an empty object where a resource was."""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import BinaryIO

__all__ = ["BLOCK", "Span", "blocks", "copy", "is_blank", "joined", "meets"]

BLOCK = 1 << 20

Span = tuple[int, int]
"""Start and end of bytes."""


def is_blank(data: bytes) -> bool:
    """Whether it is what is left of an entry."""
    return data.startswith(b"{") and data.endswith(b"}") and not data[1:-1].strip(b" \n") and len(data) > 2


def blocks(stream: BinaryIO, start: int, end: int) -> Iterator[bytes]:
    """The bytes of a range, some at a time."""
    stream.seek(start)
    while start < end and (block := stream.read(min(BLOCK, end - start))):
        start += len(block)
        yield block


def joined(spans: Iterable[Span]) -> list[Span]:
    """Spans in order, none within another."""
    made: list[Span] = []
    for start, end in sorted(set(spans)):
        if made and start < made[-1][1]:
            made[-1] = (made[-1][0], max(end, made[-1][1]))
        else:
            made.append((start, end))
    return made


def meets(spans: Sequence[Span], start: int, end: int) -> bool:
    """Whether a range has a byte in common with one of the spans, which are `joined`."""
    at = bisect_left(spans, end, key=lambda one: one[0])
    return at > 0 and spans[at - 1][1] > start


def copy(
    stream: BinaryIO, size: int, blanks: Sequence[Span], old: set[Span], write: Callable[[bytes], object]
) -> list[tuple[int, int, str]]:
    """Write the content with these spans blanked; the manifest's ranges."""
    ranges: list[tuple[int, int, str]] = []
    at = 0
    for start, end in [*blanks, (size, size)]:
        if start > at:
            digest = hashlib.sha256()
            for block in blocks(stream, at, start):
                digest.update(block)
                write(block)
            ranges.append((at, start - at, digest.hexdigest()))
        if end > start:
            for block in blocks(stream, start, end):
                write(_emptied(block, first=stream.tell() - len(block) == start, last=stream.tell() == end))
            ranges.append((start, end - start, ""))
        at = end
    return ranges


_TO_SPACE = bytes(10 if code == 10 else 32 for code in range(256))


def _emptied(block: bytes, *, first: bool, last: bool) -> bytes:
    """An empty object of the same length and lines; an id within a text becomes zeros."""
    if first and not block.startswith(b"{"):
        return b"0" * len(block)
    made = bytearray(block.translate(_TO_SPACE))
    if first:
        made[:1] = b"{"
    if last:
        made[-1:] = b"}"
    return bytes(made)
