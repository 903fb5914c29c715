"""Slips: short texts that are given to a caller and taken back later, who can neither read nor change them.

A slip is a random nonce and AES-256-GCM, in URL-safe base64. Its key is derived (HMAC) from the reference key of
the permit's account, for one purpose; what it belongs to is its additional data: it opens for the same account,
purpose and binding, and for nothing else.
"""

from __future__ import annotations

import os
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from carelake.core.errors import Invalid
from carelake.core.permit import Permit
from carelake.vault.keyring import Keyring
from carelake.vault.wrapping import NONCE_BYTES

__all__ = ["Slips"]


class Slips:
    """Makes and takes the slips of one purpose.

    Args:
        bound: what they belong to, for example a digest of the search whose pages they are.
    """

    def __init__(self, permit: Permit, keyring: Keyring, purpose: str, bound: bytes) -> None:
        secret = keyring.reference(permit, f"slip-{purpose}", b"")
        self._aead = AESGCM(bytes.fromhex(secret[-64:]))
        self._bound = bound

    def give(self, data: bytes) -> str:
        """The slip of some bytes."""
        nonce = os.urandom(NONCE_BYTES)
        return urlsafe_b64encode(nonce + self._aead.encrypt(nonce, data, self._bound)).decode().rstrip("=")

    def take(self, slip: str) -> bytes:
        """The bytes back.

        Raises:
            Invalid: ``vault.slip``: it is none of ours, or of something else.
        """
        try:
            raw = urlsafe_b64decode(slip.encode("ascii") + b"=" * (-len(slip) % 4))
            return self._aead.decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], self._bound)
        except (ValueError, Base64Error, InvalidTag):
            raise Invalid("vault.slip", "This was not given out here, or for something else.") from None
