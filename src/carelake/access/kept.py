"""What was found of a credential and is true still: by its digest, bounded, and good for one state of all rights."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Generic, Protocol, TypeVar

__all__ = ["Kept"]

_MOST = 4096


class _Ends(Protocol):
    @property
    def until(self) -> datetime: ...


_Found = TypeVar("_Found", bound=_Ends)


class Kept(Generic[_Found]):
    """Findings by credential, in two generations: what is asked for moves to the young one, a full young one ages.

    A credential itself is never kept, so that a dump of memory holds no more of them than are being looked at. Every
    step is one operation of a dict, so threads need no lock.
    """

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._young: dict[bytes, tuple[object, _Found]] = {}
        self._old: dict[bytes, tuple[object, _Found]] = {}

    def get(self, credential: str, state: object, now: datetime) -> _Found | None:
        """What was found in this very state, while it lasts."""
        name = _name(credential)
        entry = self._young.get(name)
        if entry is None and (entry := self._old.get(name)) is not None:
            self._put(name, entry)
        if entry is None or entry[0] != state or now >= entry[1].until:
            return None
        return entry[1]

    def has(self, credential: str) -> bool:
        """Whether anything was found of it, in whatever state."""
        name = _name(credential)
        return name in self._young or name in self._old

    def put(self, credential: str, state: object, found: _Found) -> None:
        """Keep it."""
        self._put(_name(credential), (state, found))

    def forget(self, credential: str) -> None:
        """Look at it anew the next time."""
        name = _name(credential)
        self._young.pop(name, None)
        self._old.pop(name, None)

    def _put(self, name: bytes, entry: tuple[object, _Found]) -> None:
        if len(self._young) * 2 >= self._most:
            self._old, self._young = self._young, {}
        self._young[name] = entry


def _name(credential: str) -> bytes:
    return hashlib.sha256(credential.encode(errors="replace")).digest()
