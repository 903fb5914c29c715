"""What the ``urn:`` fullUrls of a Bundle stand for, in as little memory as a Bundle of millions of entries needs.

The common case, ``urn:uuid:X`` of a resource whose id is X, takes 17 bytes: the uuid, and the type as a number.
"""

from __future__ import annotations

import re
from bisect import bisect_left

__all__ = ["Names"]

_UUID = re.compile(r"urn:uuid:([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})")
_KEY = 16
_SIZE = _KEY + 1
_TYPES = 255


class Names:
    """fullUrl to ``Type/id``. Fill it with `add`, then ask with `get`."""

    def __init__(self) -> None:
        self._others: dict[str, str] = {}
        self._types: dict[str, int] = {}
        self._loose: list[bytes] = []
        self._sorted = b""

    def __bool__(self) -> bool:
        return bool(self._others or self._loose or self._sorted)

    def add(self, url: str, kind: str, key: str) -> None:
        """Name one entry; of entries with the same fullUrl any may win."""
        uuid = _UUID.fullmatch(url)
        if uuid is None or uuid[1] != key or (kind not in self._types and len(self._types) >= _TYPES):
            self._others[url] = f"{kind}/{key}"
            return
        number = self._types.setdefault(kind, len(self._types))
        self._loose.append(_packed(key) + bytes((number,)))

    def get(self, url: str) -> str | None:
        """What the fullUrl stands for."""
        found = self._others.get(url)
        uuid = _UUID.fullmatch(url)
        if found is not None or uuid is None:
            return found
        number = self._find(_packed(uuid[1]))
        return None if number is None else f"{list(self._types)[number]}/{uuid[1]}"

    def _find(self, key: bytes) -> int | None:
        if self._loose:
            self._sorted = b"".join(sorted(self._loose))
            self._loose = []
        held = self._sorted
        at = _SIZE * bisect_left(range(len(held) // _SIZE), key, key=lambda i: held[i * _SIZE : i * _SIZE + _KEY])
        return held[at + _KEY] if held[at : at + _KEY] == key else None


def _packed(uuid: str) -> bytes:
    return bytes.fromhex(uuid.replace("-", ""))
