"""The object format, version 1 (decision D5): AES-256-GCM in chunks, any range readable without the rest.

A published construction, STREAM (Hoang, Reyhanitabar, Rogaway, Vizar 2015), over a random data key per object:

    header, 92 bytes, big-endian
        magic "CLKO", format u16, zero u16, zone key version u32, chunk size u32, plaintext length u64,
        nonce prefix 7 bytes, zero u8, data key wrapped by the zone key 60 bytes
    chunk i: ciphertext of up to ``chunk size`` bytes and a tag of 16
        nonce: prefix, i as u32, 1 if it is the last chunk else 0
        AAD:   workspace, account, zone, object, version (each with its length), i as u64, the same last flag

The data key is wrapped with the whole header and the place as AAD, so no bit of the header can be changed. A writer
does not know the length at the start: it leaves room for the header and writes it at the end, before the file gets
its name. An empty object has one empty chunk.
"""

from __future__ import annotations

import hashlib
import io
import os
import struct
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from carelake.core.errors import Conflict, Corrupt, Invalid
from carelake.vault.blobs import HEADER_BYTES
from carelake.vault.drivers.local import FileSink, FileSource
from carelake.vault.wrapping import TAG_BYTES, bind, new_key, unwrap, wrap

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

    from carelake.vault.blobs import Sink, Source
    from carelake.vault.keyring import Key

__all__ = ["CHUNK_BYTES", "HEADER_BYTES", "ChunkReader", "ChunkWriter", "Place", "released", "stored_size"]

CHUNK_BYTES = 1 << 20
_MAX_CHUNK_BYTES = 16 << 20
_HEAD = struct.Struct(">4sHHIIQ7sx")
_WRAPPED_BYTES = 60
assert _HEAD.size + _WRAPPED_BYTES == HEADER_BYTES
_MAGIC = b"CLKO"
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Place:
    """Where an object belongs; bound into every chunk."""

    workspace: str
    account: str
    zone: str
    object: str
    version: str

    @property
    def bound(self) -> bytes:
        """The place as AAD."""
        return bind("carelake-object-1", self.workspace, self.account, self.zone, self.object, self.version)


def _chunk_count(size: int, chunk: int) -> int:
    return max(1, -(-size // chunk))


def stored_size(size: int, chunk: int = CHUNK_BYTES) -> int:
    """Bytes on disk of an object of ``size`` bytes."""
    return HEADER_BYTES + size + TAG_BYTES * _chunk_count(size, chunk)


def _read_head(header: bytes) -> tuple[int, int, int, bytes]:
    """Key version, chunk size, plaintext length and nonce prefix of a header."""
    magic, number, _, version, chunk, size, prefix = _HEAD.unpack(header[: _HEAD.size])
    if magic != _MAGIC or number != _FORMAT or not 0 < chunk <= _MAX_CHUNK_BYTES:
        raise _altered("its header is not one of this format")
    return version, chunk, size, prefix


def released(header: bytes, place: Place, key_of: Callable[[int], Key]) -> bytes:
    """The data key of one blob, which opens this blob and no other.

    Raises:
        Corrupt: ``vault.altered``.
    """
    version, *_ = _read_head(header)
    head, wrapped = header[: _HEAD.size], header[_HEAD.size :]
    try:
        return unwrap(key_of(version).secret, wrapped, place.bound + head)
    except Corrupt:
        raise _altered("its header does not belong to this place") from None


class _Cipher:
    """Nonce and AAD of each chunk of one object."""

    def __init__(self, key: bytes, prefix: bytes, bound: bytes) -> None:
        self.aead = AESGCM(key)
        self._prefix = prefix
        self._bound = bound

    def names(self, index: int, last: bool) -> tuple[bytes, bytes]:
        flag = b"\x01" if last else b"\x00"
        return self._prefix + index.to_bytes(4, "big") + flag, self._bound + index.to_bytes(8, "big") + flag


def _altered(reason: str) -> Corrupt:
    return Corrupt(
        "vault.altered",
        f"A stored object fails its check: {reason}. It was altered, cut or swapped; restore it from a backup.",
    )


class ChunkWriter:
    """Encrypts a stream into a blob; `finish` makes it whole.

    Up to the end of the first chunk nothing is written: an object that is not longer than ``inline`` bytes never
    asks for a sink, and its sealed bytes are in `inline` after `finish`.
    """

    def __init__(
        self, sink: Callable[[], Sink] | int, place: Place, chunk: int = CHUNK_BYTES, *, inline: int = 0
    ) -> None:
        """Make a writer.

        Args:
            sink: makes the sink when it is needed; or the handle of an open, empty file.
            inline: longest plaintext that needs no sink.
        """
        self._open_sink = (lambda: FileSink(sink)) if isinstance(sink, int) else sink
        self._sink: Sink | None = None
        self._inline_bytes = inline
        self.inline: bytes | None = None
        self._place = place
        self._chunk = chunk
        self._data_key = new_key()
        self._prefix = os.urandom(7)
        self._cipher = _Cipher(self._data_key, self._prefix, place.bound)
        self._held = bytearray()
        self._sealed = memoryview(bytearray())
        self._index = 0
        self._digest = hashlib.sha256()
        self._hasher: ThreadPoolExecutor | None = None
        self._hashing: Future[None] | None = None
        self._finished = False
        self.size = 0

    def write(self, data: ReadableBuffer) -> int:
        """Take bytes. One full chunk is held back, since only the end tells which one is the last."""
        view = memoryview(data).cast("B")
        self.size += len(view)
        self._hash(view)
        try:
            self._take(view)
        finally:
            if not isinstance(data, bytes):
                self._hashed()  # the caller may change its buffer from here on
        return len(view)

    def _take(self, view: memoryview) -> None:
        if self._held:
            room = self._chunk - len(self._held)
            self._held += view[:room]
            view = view[room:]
            if not view:
                return
            self._seal(self._held)
            self._held = bytearray()
        while len(view) > self._chunk:
            self._seal(view[: self._chunk])
            view = view[self._chunk :]
        self._held += view

    def finish(self, key: Key) -> str:
        """Write the last chunk and the header, durably. Returns the SHA-256 of the plaintext, in hex.

        Once only, whether it succeeds or not: `Conflict` ``vault.discarded`` after that.
        """
        if self._finished:
            raise Conflict("vault.discarded", "This writer was discarded; nothing of it is kept.")
        self._finished = True
        head = _HEAD.pack(_MAGIC, _FORMAT, 0, key.version, self._chunk, self.size, self._prefix)
        head += wrap(key.secret, self._data_key, self._place.bound + head)
        last = self._encrypted(self._held, last=True)
        if self._sink is None and 0 < self._inline_bytes >= self.size:
            self.inline = head + last
        else:
            sink = self._needed()
            sink.append(last)
            sink.finish(head)
        self.release()
        return self._digest.hexdigest()

    def discard(self) -> None:
        """Leave nothing of what was not finished."""
        self.release()
        if self._sink is not None:
            self._sink.discard()

    def release(self) -> None:
        """End the hashing thread, if there is one."""
        self._hashed()
        if self._hasher is not None:
            self._hasher.shutdown()
            self._hasher = None

    def _seal(self, plain: bytearray | memoryview) -> None:
        self._needed().append(self._encrypted(plain, last=False))

    def _needed(self) -> Sink:
        if self._sink is None:
            self._sink = self._open_sink()
        return self._sink

    def _encrypted(self, plain: bytearray | memoryview, *, last: bool) -> memoryview:
        need = len(plain) + TAG_BYTES
        if len(self._sealed) < need:
            self._sealed = memoryview(bytearray(need))
        nonce, bound = self._cipher.names(self._index, last)
        self._index += 1
        self._cipher.aead.encrypt_into(nonce, plain, bound, self._sealed[:need])
        return self._sealed[:need]

    def _hash(self, view: memoryview) -> None:
        # SHA-256 costs ten times what AES does; for a large piece it runs beside encryption and disk.
        self._hashed()
        if len(view) < self._chunk:
            self._digest.update(view)
            return
        self._hasher = self._hasher or ThreadPoolExecutor(1, thread_name_prefix="vault-sha256")
        self._hashing = self._hasher.submit(self._digest.update, view)

    def _hashed(self) -> None:
        if self._hashing is not None:
            self._hashing.result()
            self._hashing = None


class ChunkReader(io.RawIOBase):
    """Reads an encrypted blob; seeks freely and decrypts only the chunks it is asked for.

    Closes its source, which may be given as the handle of a file. Raises `Corrupt` ``vault.altered`` for
    anything that is not exactly what was written.
    """

    def __init__(self, source: Source | int, place: Place, key_of: Callable[[int], Key] | bytes) -> None:
        """Open a blob.

        Args:
            key_of: the zone's key by its version; or the data key of this one blob (`released`).
        """
        super().__init__()
        self._source: Source = FileSource(source) if isinstance(source, int) else source
        self._at = 0
        try:
            self._open(place, key_of)
        except BaseException:
            self.close()
            raise

    def _open(self, place: Place, key_of: Callable[[int], Key] | bytes) -> None:
        header = bytearray(HEADER_BYTES)
        if self._source.read_at(0, memoryview(header)) < HEADER_BYTES:
            raise _altered("its header is cut")
        _, chunk, size, prefix = _read_head(bytes(header))
        data_key = key_of if isinstance(key_of, bytes) else released(bytes(header), place, key_of)
        self.size: int = size
        self._chunk: int = chunk
        self._last = _chunk_count(size, chunk) - 1
        if self._source.size != stored_size(size, chunk):
            raise _altered("its length is not the one in the header")
        self._cipher = _Cipher(data_key, prefix, place.bound)
        self._stored = memoryview(bytearray(min(chunk, size) + TAG_BYTES))
        self._plain = memoryview(bytearray(min(chunk, size)))
        self._plain_index = -1
        if size == 0:
            # No read ever asks for the one chunk of an empty object.
            self._decrypt(0, self._plain)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._check_open()
        start: int = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.size}[whence]
        if start + offset < 0:
            raise Invalid("vault.seek", "A position before the start of the object was asked for.")
        self._at = start + offset
        return self._at

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Fill the buffer, or as much of it as there is left to read."""
        self._check_open()
        out = memoryview(buffer).cast("B")
        wanted: int = min(len(out), max(0, self.size - self._at))
        done = 0
        while done < wanted:
            index, within = divmod(self._at, self._chunk)
            length = self._length(index)
            take = min(length - within, wanted - done)
            if take == length and index != self._plain_index:
                self._decrypt(index, out[done : done + take])
            else:
                self._load(index)
                out[done : done + take] = self._plain[within : within + take]
            done += take
            self._at += take
        return wanted

    def readall(self) -> bytes:
        """What is left. `io.BytesIO` gives its bytes away without a copy, where a bytearray has to be copied."""
        out = io.BytesIO()
        piece = memoryview(bytearray(min(self._chunk, max(0, self.size - self._at))))
        while got := self.readinto(piece):
            out.write(piece[:got])
        return out.getvalue()

    def close(self) -> None:
        if not self.closed:
            self._source.close()
        super().close()

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")

    def _length(self, index: int) -> int:
        return min(self._chunk, self.size - index * self._chunk)

    def _load(self, index: int) -> None:
        if index != self._plain_index:
            self._plain_index = -1
            self._decrypt(index, self._plain[: self._length(index)])
            self._plain_index = index

    def _decrypt(self, index: int, out: memoryview) -> None:
        length = len(out) + TAG_BYTES
        stored = self._stored[:length]
        start = HEADER_BYTES + index * (self._chunk + TAG_BYTES)
        if self._source.read_at(start, stored) < length:
            raise _altered("it is cut")
        nonce, bound = self._cipher.names(index, index == self._last)
        try:
            self._cipher.aead.decrypt_into(nonce, stored, bound, out)
        except InvalidTag:
            raise _altered(f"chunk {index} is not what was written") from None

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError("an open object is not carried elsewhere")
