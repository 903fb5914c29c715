"""What goes through the pipe between a sandbox and its launcher: frames of msgpack, a length before each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np

from carelake.core.shapes import decodable
from carelake.models.matrix import Floats

__all__ = [
    "Ask",
    "Begun",
    "Fault",
    "Load",
    "Lock",
    "Locked",
    "Message",
    "Ready",
    "Said",
    "array",
    "packed",
    "receive",
]

_LENGTH = 8
_MOST = 1 << 30


class Begun(msgspec.Struct, frozen=True, tag=True):
    """All is imported and warm, and no wall is up: now the launcher can measure what was loaded."""

    public_key: bytes
    modules: dict[str, str]


class Lock(msgspec.Struct, frozen=True, tag=True):
    """Put the walls up."""

    debug: bool = False


class Locked(msgspec.Struct, frozen=True, tag=True):
    """They are up."""


class Load(msgspec.Struct, frozen=True, tag=True):
    """A model, sealed, with the keys that only this process can open."""

    keys: bytes
    document: str
    sealed: dict[str, bytes]


class Ready(msgspec.Struct, frozen=True, tag=True):
    """What the launcher has to know of the model to ask it."""

    names: list[str]
    words: dict[str, str]
    threshold: float


class Ask(msgspec.Struct, frozen=True, tag=True):
    """Rows to score.

    Attributes:
        x: (n, p) features as little-endian float64, in the order of ``order``: the same bits give the same bits.
        scores: clinical scores by name, (n,) each.
    """

    rows: int
    x: bytes
    order: str
    scores: dict[str, bytes] = {}


class Said(msgspec.Struct, frozen=True, tag=True):
    """What came out: (n,) risks, (n, p) parts and where their sum starts, risks of clinical scores."""

    risk: bytes
    parts: bytes
    start: float
    scores: dict[str, bytes]


class Fault(msgspec.Struct, frozen=True, tag=True):
    """It did not go. ``code`` is one of ours, or a word; there is no value of a row in it."""

    code: str
    message: str


Message = Begun | Lock | Locked | Load | Ready | Ask | Said | Fault

_encoder = msgspec.msgpack.Encoder()
_kinds: Any = Message  # a union of types is no type to mypy
_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(decodable(_kinds))


def packed(message: Message) -> bytes:
    """A message as a frame."""
    body = _encoder.encode(message)
    return len(body).to_bytes(_LENGTH, "big") + body


def receive(read: Callable[[int], bytes]) -> Message | None:
    """The next message; None at the end.

    Args:
        read: as `os.read` of the pipe: some bytes, at most so many, none at the end.

    Raises:
        ValueError: it is none.
    """
    length = _exactly(read, _LENGTH)
    if length is None:
        return None
    size = int.from_bytes(length, "big")
    body = _exactly(read, size) if size <= _MOST else None
    if body is None:
        raise ValueError("a frame was cut")
    return _decoder.decode(body)


def _exactly(read: Callable[[int], bytes], size: int) -> bytes | None:
    first = read(size)
    if len(first) == size:
        return first
    parts, left = [first], size - len(first)
    while parts[-1] and left:
        parts.append(read(left))
        left -= len(parts[-1])
    return b"".join(parts) if not left else None


def array(data: bytes, rows: int, order: str = "C") -> Floats:
    """(n, p) values of bytes, laid out as they were."""
    flat = np.frombuffer(data, dtype="<f8").astype(np.float64)
    made: Floats = flat.reshape((rows, -1), order="F" if order == "F" else "C")
    return made
