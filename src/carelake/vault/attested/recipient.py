"""The recipient's side: a key pair that never leaves its process, and what is opened with what was released to it.

A release is sealed by HPKE (RFC 9180: X25519, HKDF-SHA256, AES-256-GCM) to the public key of the document that it
answers, bound to that document's digest. It holds the data key of each object and the digest that its bytes must
have; the bytes themselves travel as they lie in the vault.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from carelake.core.errors import Corrupt
from carelake.core.shapes import decodable
from carelake.vault.blobs import InlineSource
from carelake.vault.chunks import HEADER_BYTES, ChunkReader, ChunkWriter, Place, released
from carelake.vault.wrapping import new_key

__all__ = ["Grant", "Recipient", "rehearsal", "sealed_to"]

_SUITE = hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
_ABOUT = b"carelake-release-1"


class Grant(msgspec.Struct, frozen=True, array_like=True):
    """What opens one object.

    Attributes:
        place: where it belongs, in the order of `Place`.
        sha256: of the plaintext, in hex.
    """

    key: bytes
    place: tuple[str, str, str, str, str]
    sha256: str


def sealed_to(public_key: bytes, document: str, grants: Mapping[str, Grant]) -> bytes:
    """Grants by file, which only the holder of the private half opens; bound to the document of that digest."""
    told = msgspec.msgpack.encode(dict(grants))
    key = X25519PublicKey.from_public_bytes(public_key)
    return _SUITE.encrypt(told, key, info=_ABOUT + document.encode())


class Recipient:
    """A key pair of one process, made in memory and written nowhere."""

    def __init__(self) -> None:
        self._key = X25519PrivateKey.generate()

    @property
    def public_key(self) -> bytes:
        """32 bytes."""
        return self._key.public_key().public_bytes_raw()

    def open(self, released: bytes, document: str, sealed: Mapping[str, bytes]) -> dict[str, bytes]:
        """The plaintext of each file that was granted.

        Args:
            document: digest of the document that the release answers.
            sealed: the objects as they lie in the vault.

        Raises:
            Corrupt: ``vault.release_altered``, ``vault.altered``.
        """
        try:
            told = _SUITE.decrypt(released, self._key, info=_ABOUT + document.encode())
        except (InvalidTag, ValueError):
            raise _altered("what was released is not for this process and document") from None
        grants = msgspec.msgpack.decode(told, type=decodable(dict[str, Grant]))
        if set(grants) != set(sealed):
            raise _altered("other files came than were released")
        return {file: _opened(grant, sealed[file]) for file, grant in grants.items()}


class _MadeUp(NamedTuple):
    secret: bytes
    version: int


def rehearsal(public_key: bytes, document: str, files: Mapping[str, bytes]) -> tuple[bytes, dict[str, bytes]]:
    """What `Recipient.open` takes, of small made-up files: for who must have gone the way once before it counts."""
    key: Any = _MadeUp(new_key(), 1)
    place = ("workspace", "account", "zone", "object", "version")
    grants, sealed = {}, {}
    for file, data in files.items():
        writer = ChunkWriter(_nowhere, Place(*place), inline=len(data))
        writer.write(data)
        sha256 = writer.finish(key)
        sealed[file] = writer.inline or b""
        grants[file] = Grant(released(sealed[file][:HEADER_BYTES], Place(*place), lambda _: key), place, sha256)
    return sealed_to(public_key, document, grants), sealed


def _nowhere() -> Any:
    raise _altered("what is rehearsed is small")


def _opened(grant: Grant, sealed: bytes) -> bytes:
    with ChunkReader(InlineSource(sealed), Place(*grant.place), grant.key) as reader:
        found = reader.readall()
    if hashlib.sha256(found).hexdigest() != grant.sha256:
        raise _altered("a file has another digest than the one that was approved")
    return found


def _altered(what: str) -> Corrupt:
    return Corrupt("vault.release_altered", f"Nothing is opened: {what}. Look into who changed it.")
