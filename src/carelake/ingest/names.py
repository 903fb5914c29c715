"""What the fullUrls of a Bundle stand for, in as little memory as a Bundle of millions of entries needs.

The common cases, ``urn:uuid:X`` of a resource whose id is X and an address that ends with its type and id, take 17
bytes: the uuid or a digest of the address, and the type as a number.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from hashlib import blake2b

__all__ = ["Names", "key_of"]

_UUID = re.compile(r"urn:uuid:([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})")
_KEY = 16
_SIZE = _KEY + 1
_TYPES = 255


def key_of(url: str) -> str:
    """The form in which fullUrls are compared: of a ``urn:`` case does not count (RFC 4122 section 3)."""
    return url.lower() if url[:4].lower() == "urn:" else url


class Names:
    """fullUrl, as `key_of` gives it, to ``Type/id``. Fill it with `add`, then ask with `get`.

    Attributes:
        linked: some of them are addresses, not ``urn:``.
    """

    def __init__(self) -> None:
        self._others: dict[str, str] = {}
        self._types: dict[str, int] = {}
        self._loose: list[bytes] = []
        self._sorted = b""
        self.linked = False

    def __bool__(self) -> bool:
        return bool(self._others or self._loose or self._sorted)

    def add(self, url: str, kind: str, key: str) -> None:
        """Name one entry; of entries with the same fullUrl any may win."""
        packed, last = _packed(url)
        self.linked = self.linked or not url.startswith("urn:")
        if not packed or last != key or (kind not in self._types and len(self._types) >= _TYPES):
            self._others[url] = f"{kind}/{key}"
            return
        number = self._types.setdefault(kind, len(self._types))
        self._loose.append(packed + bytes((number,)))

    def get(self, url: str) -> str | None:
        """What the fullUrl stands for."""
        found = self._others.get(url)
        if found is not None:
            return found
        packed, last = _packed(url)
        number = self._find(packed) if packed else None
        return None if number is None else f"{list(self._types)[number]}/{last}"

    def _find(self, key: bytes) -> int | None:
        if self._loose:
            self._sorted = b"".join(sorted(self._loose))
            self._loose = []
        held = self._sorted
        at = _SIZE * bisect_left(range(len(held) // _SIZE), key, key=lambda i: held[i * _SIZE : i * _SIZE + _KEY])
        return held[at + _KEY] if held[at : at + _KEY] == key else None


def _packed(url: str) -> tuple[bytes, str]:
    """A fullUrl in 16 bytes, and the id that it ends with; no bytes where it is of no common form."""
    if (uuid := _UUID.fullmatch(url)) is not None:
        return bytes.fromhex(uuid[1].replace("-", "")), uuid[1]
    if url.startswith("urn:"):
        return b"", ""
    return blake2b(url.encode("utf-8", "replace"), digest_size=_KEY).digest(), url.rpartition("/")[2]
