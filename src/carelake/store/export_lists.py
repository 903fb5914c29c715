"""Lists of version numbers, packed: what an export has is written down before its first line is read."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Iterator
from typing import TypeAlias

import zstandard

from carelake.core.errors import Corrupt

__all__ = ["Seqs", "pack_seqs", "pieces", "unpack_seqs"]

Seqs: TypeAlias = "array[int]"
"""Signed numbers of 64 bits, ascending."""

_MOST = 1 << 28


def pack_seqs(seqs: Iterable[int]) -> bytes:
    """Differences as little-endian numbers of 64 bits, under zstd: mostly small, so mostly nothing."""
    last = 0
    steps = array("q")
    for seq in seqs:
        steps.append(seq - last)
        last = seq
    return zstandard.compress(_little(steps).tobytes())


def unpack_seqs(packed: bytes) -> Seqs:
    """The numbers back; `Corrupt` ``store.list`` when it is not what `pack_seqs` made."""
    steps = array("q")
    try:
        steps.frombytes(zstandard.decompress(packed, max_output_size=_MOST))
    except (zstandard.ZstdError, ValueError):
        raise Corrupt("store.list", "The list of an export cannot be unpacked; begin the export anew.") from None
    seqs = _little(steps)
    last = 0
    for index, step in enumerate(seqs):
        last += step
        seqs[index] = last
    return seqs


def pieces(seqs: Seqs, size: int) -> Iterator[Seqs]:
    """The list in parts of at most so many."""
    for start in range(0, len(seqs), size):
        yield seqs[start : start + size]


def _little(numbers: Seqs) -> Seqs:
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers
