"""Models that are loaded: each is read and verified once in a process, and again when the key ring has changed.

A variant that is deployed into a sandbox is not loaded here: `sandbox.boxes` has it, and its bytes are opened there.
"""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock

from carelake.core.errors import Refused
from carelake.core.permit import Permit, check
from carelake.models.artifact import ModelFiles
from carelake.models.registry import Registry
from carelake.serving.config import Variant
from carelake.serving.sandbox.boxes import Boxes
from carelake.vault.workspace import Vault

__all__ = ["Loaded"]

_MOST = 16


class Loaded:
    """Model versions by ref. A ref names their content, so what was verified stays true of what is in memory."""

    def __init__(self, vault: Vault, registry: Registry) -> None:
        self._vault = vault
        self._registry = registry
        self.boxes = Boxes(vault, registry)
        self._lock = Lock()
        self._known: OrderedDict[tuple[str, str, int], ModelFiles] = OrderedDict()

    def of(self, permit: Permit, variant: Variant) -> ModelFiles:
        """The files of a variant, as it was deployed. Needs ``models:read``, ``rows:read``.

        Raises:
            as `Registry.files`, `Boxes.files`. Refused: ``serving.sandbox_always``.
        """
        if variant.sandbox:
            return self.boxes.files(permit, variant.endpoint, variant.model)
        if self._vault.settings.serving.sandbox == "always":
            raise Refused(
                "serving.sandbox_always",
                "The settings want every endpoint in a sandbox, and this one was deployed without: deploy it again.",
            )
        return self.files(permit, variant.model)

    def named(self, permit: Permit, endpoint: str, model: str) -> ModelFiles:
        """The files behind an endpoint's ref: in its sandbox, where something is released to one. Needs as `of`."""
        boxed = self._vault.objects.releases.rule(permit, endpoint) is not None
        return self.of(permit, Variant("", endpoint, model, sandbox=boxed))

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
