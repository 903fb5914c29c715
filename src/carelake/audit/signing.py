"""The trail's signing key: what is signed names the key's version, so that the key can be rotated."""

from __future__ import annotations

from collections.abc import Callable

from carelake.core.errors import Conflict
from carelake.vault.keyring import Keyring

__all__ = ["TrailKey"]

_TRIES = 3


class TrailKey:
    """Signs and verifies for the trail."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring

    @property
    def version(self) -> int:
        """The version that signs now."""
        return max(self._keyring.public_keys_pem("security", "trail"))

    def sign(self, data: bytes) -> bytes:
        """ECDSA P-256 with SHA-256, by the newest version."""
        return self._keyring.sign_trail(data)

    def sign_naming(self, text: Callable[[int], bytes]) -> tuple[bytes, bytes]:
        """The text for the version that signs, and its signature: the two agree also while the key is rotated."""
        for _ in range(_TRIES):
            version = self.version
            data = text(version)
            signature = self.sign(data)
            if self.verify(data, signature, version):
                return data, signature
        raise Conflict("audit.key_rotating", "The trail's signing key is being rotated; seal again in a moment.")

    def verify(self, data: bytes, signature: bytes, version: int) -> bool:
        """Was this signed by that version of the key?"""
        return self._keyring.verify(data, signature, account="security", purpose="trail", version=version)

    def public(self) -> dict[int, bytes]:
        """PEM of each version."""
        return self._keyring.public_keys_pem("security", "trail")
