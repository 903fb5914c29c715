"""Wrapping one key, or one short secret, by another: AES-256-GCM with everything that names it bound as AAD.

Layout of a wrapped secret: 12 bytes random nonce, ciphertext, 16 bytes tag.
"""

from __future__ import annotations

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from carelake.core.errors import Corrupt

__all__ = ["KEY_BYTES", "NONCE_BYTES", "TAG_BYTES", "bind", "new_key", "unwrap", "wrap"]

KEY_BYTES = 32
NONCE_BYTES = 12
TAG_BYTES = 16


def new_key() -> bytes:
    """256 random bits."""
    return os.urandom(KEY_BYTES)


def bind(*parts: str | int | bytes) -> bytes:
    """Parts as one unambiguous byte string: each one's length, then its bytes."""
    out = bytearray()
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode()
        out += len(data).to_bytes(4, "big") + data
    return bytes(out)


def wrap(key: bytes, secret: bytes, bound: bytes) -> bytes:
    """``secret`` under ``key``, good only with the same ``bound``."""
    nonce = os.urandom(NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, secret, bound)


def unwrap(key: bytes, wrapped: bytes, bound: bytes) -> bytes:
    """The secret back.

    Raises:
        Corrupt: ``vault.wrapped_key``: altered, moved from another place, or under another key.
    """
    try:
        return AESGCM(key).decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], bound)
    except (InvalidTag, ValueError):
        raise Corrupt(
            "vault.wrapped_key",
            "A wrapped key fails its check: it was altered or belongs to another place. Restore it from a backup.",
        ) from None
