"""The port of the object store: where sealed bytes lie. A driver knows opaque names, and neither keys nor names.

A blob is written once, whole or not at all, and never changed. Drivers: `drivers.local`, `drivers.s3`; one behaviour
suite, ``tests/contracts``, holds for both.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

__all__ = ["HEADER_BYTES", "STORAGES", "Blob", "Blobs", "Found", "Guard", "InlineSource", "Sink", "Source"]

HEADER_BYTES = 92
"""Room that a sink leaves in front, for what is known last (`chunks`)."""

STORAGES = ("hot", "cool", "archive")
"""Storage classes, from the dearest to the cheapest."""


@dataclass(frozen=True, slots=True)
class Blob:
    """Where sealed bytes lie.

    Attributes:
        object: opaque name, 32 hex digits, unique in the workspace.
        storage: one of `STORAGES`.
    """

    account: str
    zone: str
    object: str
    storage: str = "hot"

    @property
    def path(self) -> str:
        """``ACCOUNT/ZONE/2 HEX/32 HEX``; says nothing about the content."""
        return f"{self.account}/{self.zone}/{self.object[:2]}/{self.object}"


@dataclass(frozen=True, slots=True)
class Guard:
    """What keeps a version from being removed; S3's words (Object Lock).

    Attributes:
        mode: ``governance``, which may be shortened by who may keep; ``compliance``, which nobody shortens; or "".
        until: end of the retention.
        hold: legal hold, until it is lifted.
    """

    mode: Literal["", "governance", "compliance"] = ""
    until: datetime | None = None
    hold: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """One thing that `Blobs.walk` came upon.

    Attributes:
        kind: ``blob``; ``aside``, set aside by `Blobs.set_aside`; ``upload``, begun and not finished.
        seconds: its age, from when it was written, begun or set aside.
    """

    blob: Blob
    kind: Literal["blob", "aside", "upload"]
    seconds: float


class Sink(Protocol):
    """A blob that is being written. Its first bytes, the header, are known last."""

    def append(self, data: memoryview) -> None:
        """Take the next bytes after the header's room. The buffer is the caller's again afterwards."""
        ...

    def finish(self, head: bytes) -> None:
        """Put the header in its room; when this returns, the blob is there and durable."""
        ...

    def discard(self) -> None:
        """Leave nothing of an unfinished blob. Does nothing after `finish`."""
        ...


class Source(Protocol):
    """A blob that is open for reading."""

    size: int

    def read_at(self, start: int, out: memoryview) -> int:
        """Fill ``out`` from an offset, or as much of it as there is; the number of bytes."""
        ...

    def close(self) -> None:
        """Let go."""
        ...


class Blobs(Protocol):
    """A place for blobs."""

    def create(self, blob: Blob, guard: Guard | None = None) -> Sink:
        """Begin a new blob.

        Raises:
            Unavailable: ``vault.disk_full``, ``vault.bucket``; here or at any step of the sink.
        """
        ...

    def open(self, blob: Blob) -> Source:
        """Open a blob; one that was set aside is taken back.

        Raises:
            Corrupt: ``vault.missing``.
        """
        ...

    def move(self, blob: Blob, storage: str, guard: Guard | None = None) -> Blob | None:
        """Have the blob durably in another storage class as well; the copy to `remove` once that is entered.

        Args:
            guard: what is to keep it there too, as in `create`.
        """
        ...

    def remove(self, blob: Blob) -> None:
        """Remove the bytes for good, also such as were set aside; those that are not there already count as removed.

        Raises:
            Refused: ``vault.retained``, where the place itself keeps them (Object Lock).
        """
        ...

    def abort(self, blob: Blob) -> None:
        """Leave nothing of uploads that were begun; of a finished blob everything."""
        ...

    def protect(self, blob: Blob, guard: Guard) -> None:
        """Have the place itself keep the blob, where it can; the vault's own rows decide in any case."""
        ...

    def set_aside(self, blob: Blob) -> None:
        """Take a blob that no row knows out of the way, so that it can come back."""
        ...

    def walk(self, now: datetime, under: str = "*/*") -> Iterator[Found]:
        """Everything that lies there, in no order, with its age at ``now``.

        Args:
            under: only that of one ``ACCOUNT/ZONE``.
        """
        ...


class InlineSource:
    """A blob that came with its row."""

    def __init__(self, sealed: bytes) -> None:
        self._sealed = sealed
        self.size = len(sealed)

    def read_at(self, start: int, out: memoryview) -> int:
        """See `Source`."""
        piece = self._sealed[start : start + len(out)]
        out[: len(piece)] = piece
        return len(piece)

    def close(self) -> None:
        """Nothing to let go."""
