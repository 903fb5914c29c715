"""What the HTTP door needs of the wiring, and no more."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

from carelake.access.gate import Gate
from carelake.access.identity import Caller, Identity
from carelake.audit.nouns import Nouns
from carelake.audit.trail import Trail
from carelake.core.permit import Permit
from carelake.core.settings import Settings
from carelake.vault.workspace import Vault

if TYPE_CHECKING:
    from carelake.pipelines.erase import Erasures
    from carelake.pipelines.platform import Platform
    from carelake.serving.endpoint import Endpoints
    from carelake.serving.predictions import Prediction
    from carelake.store.resources import Resources

__all__ = ["Door"]


class Door(Protocol):
    """An open workspace, as `carelake.apps.wiring.Workspace` is one."""

    vault: Vault
    settings: Settings
    gate: Gate
    identity: Identity
    trail: Trail
    nouns: Nouns

    def enter(self, caller: Caller, action: str, target: str, *, job: bool = False) -> AbstractContextManager[Permit]:
        """Enter the gate as a caller; the act is committed when the block is left."""
        ...

    @property
    def erasures(self) -> Erasures:
        """Erasures of patients."""
        ...

    @property
    def endpoints(self) -> Endpoints:
        """Endpoints of models."""
        ...

    @property
    def platform(self) -> Platform:
        """The rooms' repositories, and the way to act as a service."""
        ...

    @property
    def resources(self) -> Resources:
        """The record."""
        ...

    def predict(
        self, permit: Permit, endpoint: str, *, patient: str | None = None, days: float | None = None
    ) -> Sequence[Prediction]:
        """The prediction of one patient, or the morning list, the highest risk first."""
        ...
