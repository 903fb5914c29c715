"""The root key in the operating system's keyring (extra ``keys``): Keychain, Credential Locker, Secret Service.

The item's service is ``carelake``; its user name is the workspace's id, with ``.VERSION`` after the first one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from carelake.core.errors import Conflict, Corrupt, Unavailable
from carelake.vault.roots import RootSettings, check_workspace_id
from carelake.vault.wrapping import KEY_BYTES, new_key

__all__ = ["OsKeyringRoot"]

_SERVICE = "carelake"
_UNFIT = ("keyring.backends.fail", "keyring.backends.null", "keyrings.alt.file.PlaintextKeyring")


@dataclass(frozen=True)
class OsKeyringRoot:
    """Asks whichever backend the library ``keyring`` chooses; one that keeps nothing, or in the clear, is refused."""

    workspace: str

    def make(self, version: int, made: str, *, first: bool) -> tuple[bytes, RootSettings]:
        """As `Root.make`."""
        backend = _backend()
        while _ask(backend, "get_password", _SERVICE, self._user(version)) is not None:
            if first:
                raise Conflict(
                    "vault.root_key_exists", "The keyring holds a root key for this workspace id; it is not replaced."
                )
            version += 1
        key = new_key()
        _ask(backend, "set_password", _SERVICE, self._user(version), key.hex())
        settings = RootSettings("keyring", version, made=made)
        if self.fetch(settings) != key:
            raise Unavailable("vault.root_provider", "The operating system's keyring did not keep the root key.")
        return key, settings

    def fetch(self, settings: RootSettings) -> bytes:
        """As `Root.fetch`."""
        text = _ask(_backend(), "get_password", _SERVICE, self._user(settings.version))
        if text is None:
            raise Unavailable(
                "vault.root_key_missing",
                f"The root key of workspace {self.workspace} is not in this user's keyring (service {_SERVICE}, "
                f"user {self._user(settings.version)}). Log in as the user who has it, or restore it from its kit.",
            )
        try:
            key = bytes.fromhex(str(text))
        except ValueError:
            key = b""
        if len(key) != KEY_BYTES:
            raise Corrupt("vault.root_key", "The root key in the keyring is not 64 hex digits; restore it.")
        return key

    def held(self, before: int) -> list[int]:
        """As `Root.held`."""
        backend = _backend()
        return [n for n in range(1, before) if _ask(backend, "get_password", _SERVICE, self._user(n)) is not None]

    def remove(self, version: int) -> None:
        """As `Root.remove`."""
        backend, user = _backend(), self._user(version)
        if _ask(backend, "get_password", _SERVICE, user) is not None:
            _ask(backend, "delete_password", _SERVICE, user)

    def _user(self, version: int) -> str:
        return check_workspace_id(self.workspace) + (f".{version}" if version > 1 else "")


def _backend() -> Any:
    try:
        import keyring
    except ImportError:
        raise Unavailable(
            "vault.root_provider", "A root key in the OS keyring needs the extra: pip install 'carelake[keys]'."
        ) from None
    found = keyring.get_keyring()
    inner = getattr(found, "backends", None)
    kind = f"{type(found).__module__}.{type(found).__qualname__}"
    if kind.startswith(_UNFIT) or (inner is not None and not list(inner)):
        raise Unavailable(
            "vault.root_provider",
            "There is no keyring here that keeps secrets; start one (for example the desktop's), or choose another "
            "provider of the root key.",
        )
    return found


def _ask(backend: Any, verb: str, *words: str) -> str | None:
    try:
        found: str | None = getattr(backend, verb)(*words)
    except Exception as error:
        # The libraries raise what they like; none of it is ours to show: it can hold what was asked.
        raise Unavailable(
            "vault.root_provider",
            f"The operating system's keyring did not answer ({type(error).__name__}); unlock it and try again.",
        ) from None
    return found
