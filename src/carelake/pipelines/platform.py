"""The platform: the repositories of every room over one workspace, as recipes use them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sqlalchemy import Connection

from carelake.access.gate import Gate
from carelake.access.identity import Caller, Identity
from carelake.audit.nouns import Nouns
from carelake.core.permit import Permit
from carelake.events.outbox import Outbox
from carelake.lake.sync import SyncReport, sync
from carelake.models.registry import Registry
from carelake.monitor.check import Monitor
from carelake.pipelines.runs import Runs
from carelake.serving.endpoint import Endpoints
from carelake.store import Resources
from carelake.store.write import parsed
from carelake.vault.workspace import Vault

__all__ = ["Platform"]


@dataclass(frozen=True)
class Platform:
    """One workspace's repositories."""

    vault: Vault
    gate: Gate
    identity: Identity
    nouns: Nouns
    outbox: Outbox
    resources: Resources

    @cached_property
    def registry(self) -> Registry:
        """Model versions."""
        return Registry(self.vault, self.nouns, self.outbox)

    @cached_property
    def endpoints(self) -> Endpoints:
        """Endpoints, which write their answers back into the record."""
        return Endpoints(self.vault, self.nouns, self.outbox, self.registry, self._keep)

    @cached_property
    def monitor(self) -> Monitor:
        """Checks over predictions."""
        return Monitor(self.vault, self.nouns, self.outbox)

    @cached_property
    def runs(self) -> Runs:
        """Runs of recipes."""
        return Runs(self.vault)

    @contextmanager
    def acting(self, name: str, caller: Caller, action: str, target: str, *, job: bool = False) -> Iterator[Permit]:
        """Enter the gate as the principal ``name`` on behalf of the caller, for the caller's purpose."""
        who = self.identity.named(name, caller.principal)
        with self.gate.enter(who, action, target, caller.purpose, account=caller.account, job=job) as permit:
            yield permit

    def sync(self, permit: Permit) -> SyncReport:
        """Bring the lake up to the record's newest change; the snapshot tells which landings are new in it."""
        return sync(permit, self.vault, self.resources, self.nouns)

    def _keep(self, permit: Permit, tx: Connection, resources: Sequence[Mapping[str, Any]]) -> object:
        return self.resources.keep(permit, tx, "", [parsed(dict(resource)) for resource in resources])
