"""Versions that are composed of several blobs: the sealed list of parts, and one stream over them.

The list is sealed under the zone's key and bound to the version's place; it names each part's blob, what the blob is
bound to, its length and digest, in order. So parts cannot be swapped, left out, repeated or reordered, in files or in
rows. A part's blob is bound to the upload and its number in place of a version.
"""

from __future__ import annotations

import hashlib
import io
import os
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import select

from carelake.core.errors import Corrupt, Invalid
from carelake.core.shapes import decodable
from carelake.vault.chunks import ChunkReader, Place
from carelake.vault.depot import Depot
from carelake.vault.tables import object_manifest
from carelake.vault.wrapping import bind, unwrap, wrap

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["MAX_PARTS", "PartsReader", "Piece", "composite", "read_manifest", "seal_manifest"]

MAX_PARTS = 10_000
_M = object_manifest.c


class Piece(msgspec.Struct, frozen=True, array_like=True):
    """One part, as the sealed list has it.

    Attributes:
        object: its blob's opaque name.
        bound: what the blob is bound to in place of a version.
    """

    object: str
    bound: str
    size: int
    sha256: str


def composite(digests: Sequence[str]) -> str:
    """SHA-256 over the parts' SHA-256 digests, in hex."""
    return hashlib.sha256(b"".join(bytes.fromhex(one) for one in digests)).hexdigest()


def seal_manifest(depot: Depot, place: Place, pieces: Sequence[Piece]) -> tuple[int, bytes]:
    """Key version and sealed list."""
    key = depot.key(place.account, place.zone)
    return key.version, wrap(key.secret, msgspec.json.encode(pieces), _bound(place))


def read_manifest(depot: Depot, place: Place) -> list[Piece]:
    """The parts of a version, in order.

    Raises:
        Corrupt: ``vault.missing``, ``vault.altered``.
    """
    with depot.database.snapshot() as connection:
        row = connection.execute(select(object_manifest).where(_M.version == place.version)).first()
    if row is None:
        raise Corrupt("vault.missing", "The list of an object's parts is missing; restore a backup of the database.")
    key = depot.key(place.account, place.zone, row.key_version)
    try:
        return msgspec.json.decode(unwrap(key.secret, row.sealed, _bound(place)), type=decodable(list[Piece]))
    except Corrupt:
        raise Corrupt(
            "vault.altered", "The list of an object's parts fails its check: altered or swapped; restore a backup."
        ) from None


def _bound(place: Place) -> bytes:
    return bind("carelake-parts-1", place.bound)


class PartsReader(io.RawIOBase):
    """One seekable stream over parts; a part is opened when a read comes to it, and one is open at a time."""

    def __init__(self, pieces: Sequence[Piece], open_part: Callable[[int], ChunkReader]) -> None:
        """Make a reader.

        Args:
            open_part: opens a piece by its position.
        """
        super().__init__()
        self._open_part = open_part
        self._starts = [0]
        for piece in pieces:
            self._starts.append(self._starts[-1] + piece.size)
        self.size = self._starts[-1]
        self._at = 0
        self._part: ChunkReader | None = None
        self._index = -1

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start: int = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.size}[whence]
        if start + offset < 0:
            raise Invalid("vault.seek", "A position before the start of the object was asked for.")
        self._at = start + offset
        return self._at

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Fill the buffer, or as much of it as there is left to read."""
        if self.closed:
            raise ValueError("I/O operation on closed file")
        out = memoryview(buffer).cast("B")
        wanted: int = min(len(out), max(0, self.size - self._at))
        done = 0
        while done < wanted:
            part = self._at_part()
            done += part.readinto(out[done:wanted])
            self._at = self._starts[self._index] + part.tell()
        return wanted

    def _at_part(self) -> ChunkReader:
        if self._part is None or not self._starts[self._index] <= self._at < self._starts[self._index + 1]:
            self._release()
            # An empty part starts where the next one does: the last of them is the one with bytes.
            self._index = bisect_right(self._starts, self._at) - 1
            self._part = self._open_part(self._index)
        self._part.seek(self._at - self._starts[self._index])
        return self._part

    def _release(self) -> None:
        if self._part is not None:
            self._part.close()
            self._part = None

    def close(self) -> None:
        self._release()
        super().close()

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError("an open object is not carried elsewhere")
