"""Lists of a backup, sealed: AES-SIV (RFC 5297), so that equal lists give equal pieces and are shipped once.

The key is derived (HKDF, RFC 5869) from a version of the database's key, which the key ring of the point holds: who
can open the database in the backup can read its lists, and nobody else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from carelake.core.errors import Corrupt
from carelake.core.shapes import decodable
from carelake.vault.backup.pieces import Pieces
from carelake.vault.wrapping import bind

__all__ = ["Index"]

_CUT, _MOST, _MOST_BYTES = 256, 2048, 4 << 20
_encode = msgspec.msgpack.Encoder().encode


class Index:
    """Sealed lists in a folder of pieces."""

    def __init__(self, pieces: Pieces, secret: bytes, workspace: str) -> None:
        derived = HKDF(hashes.SHA256(), 64, salt=None, info=bind("carelake-backup-1", workspace)).derive(secret)
        self._siv = AESSIV(derived)
        self._pieces = pieces
        self._bound = [bind("carelake-backup-list-1", workspace)]

    def put(self, value: object) -> str:
        """Seal one value as a piece."""
        data = self._siv.encrypt(_encode(value), self._bound)
        return self._pieces.put(data)[0]

    def get(self, name: str, kind: Any) -> Any:
        """One value back; `Corrupt` ``vault.backup_piece`` or ``vault.backup_list``."""
        try:
            return msgspec.msgpack.decode(
                self._siv.decrypt(self._pieces.get(name), self._bound), type=decodable(kind)
            )
        except (InvalidTag, msgspec.DecodeError):
            raise Corrupt(
                "vault.backup_list", "A list of the backup fails its check: altered, or of another workspace."
            ) from None

    def put_all(self, values: Iterable[tuple[str, object]]) -> list[str]:
        """Seal a long list of named values in groups.

        A group ends where a digest of the name says so: what was added or removed elsewhere leaves it as it was.
        """
        names, group, size = [], list[msgspec.Raw](), 0
        for name, value in values:
            group.append(msgspec.Raw(_encode(value)))
            size += len(group[-1])
            mark = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
            if mark % _CUT == 0 or len(group) >= _MOST or size >= _MOST_BYTES:
                names.append(self.put(group))
                group, size = [], 0
        return [*names, self.put(group)] if group else names

    def get_all(self, names: Sequence[str], kind: Any) -> Iterator[Any]:
        """The values of a long list."""
        for name in names:
            yield from self.get(name, list[kind])
