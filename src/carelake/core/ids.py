"""Identifiers, injected: time-ordered for acts, derived for what must come out the same twice."""

from __future__ import annotations

import secrets
import time
import uuid
from typing import Protocol

__all__ = ["Ids", "RandomIds", "SequenceIds", "derived_uuid"]

_LOW = (1 << 62) - 1
_NAMESPACE = uuid.UUID("6f5c2c0a-8f5e-5d0b-9a53-3c3a7d1f0e11")


class Ids(Protocol):
    """Makes new identifiers."""

    def new(self) -> str:
        """A new identifier: 32 lower-case hex digits, later ones sort after earlier ones."""
        ...


class RandomIds:
    """UUID version 7 (RFC 9562 section 5.7) without dashes."""

    def new(self) -> str:
        millis = time.time_ns() // 1_000_000
        drawn = secrets.randbits(74)  # in one call: each is one of the system
        value = (millis << 80) | (0x7 << 76) | ((drawn >> 62) << 64) | (0b10 << 62) | (drawn & _LOW)
        return f"{value:032x}"


class SequenceIds:
    """Counts, for tests."""

    def __init__(self) -> None:
        self._next = 0

    def new(self) -> str:
        self._next += 1
        return f"{self._next:032x}"


def derived_uuid(*parts: str) -> str:
    """A UUID that follows from its parts alone (decision D6: a missing id comes from landing hash and position)."""
    return str(uuid.uuid5(_NAMESPACE, "\x1f".join(parts)))
