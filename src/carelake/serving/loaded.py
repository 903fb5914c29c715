"""Models that are loaded: each is read and verified once in a process, and again when the key ring has changed."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock

from carelake.core.permit import Permit, check
from carelake.models.artifact import ModelFiles
from carelake.models.registry import Registry
from carelake.vault.workspace import Vault

__all__ = ["Loaded"]

_MOST = 16


class Loaded:
    """Model versions by ref. A ref names their content, so what was verified stays true of what is in memory."""

    def __init__(self, vault: Vault, registry: Registry) -> None:
        self._vault = vault
        self._registry = registry
        self._lock = Lock()
        self._known: OrderedDict[tuple[str, str, int], ModelFiles] = OrderedDict()

    def files(self, permit: Permit, ref: str) -> ModelFiles:
        """A version's files, checked. Needs ``models:read``, and ``rows:read`` the first time.

        Raises:
            as `Registry.files`.
        """
        check(permit, "models:read", now=self._vault.clock.now())
        # A key that was disabled or destroyed since opens nothing that was opened under it before.
        key = (permit.account, ref, self._vault.keyring.current().file.generation)
        with self._lock:
            found = self._known.get(key)
            if found is not None:
                self._known.move_to_end(key)
        if found is not None:
            permit.log.read(ref)
            return found
        found = self._registry.files(permit, ref)
        with self._lock:
            self._known[key] = found
            while len(self._known) > _MOST:
                self._known.popitem(last=False)
        return found
