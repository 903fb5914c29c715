"""Types that msgspec decodes to, worked out by one thread before any uses them.

msgspec (0.22) works out the fields of a `Struct` when it is first decoded to, and shows its half-done work to other
threads: two that meet there end the process with SIGSEGV, where the type holds another one. So each type is worked
out under one lock, and used after that only. What is told to ``decode``, ``convert`` and ``Decoder`` goes through
`decodable`; tests/architecture checks it.
"""

from __future__ import annotations

from threading import Lock
from typing import TypeVar

import msgspec

__all__ = ["decodable"]

_Shape = TypeVar("_Shape")
_turn = Lock()
_done: set[object] = set()


def decodable(shape: type[_Shape]) -> type[_Shape]:
    """The type itself, with all that it holds worked out."""
    if shape not in _done:
        with _turn:
            msgspec.msgpack.Decoder(shape)
        _done.add(shape)
    return shape
