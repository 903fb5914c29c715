"""The platform: the repositories of every room over one workspace, as recipes use them.

Each is imported when it is first asked for: the process of a step that enters a model reads no lake and no learner.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection

from carelake.access.gate import Gate
from carelake.access.identity import Caller, Identity
from carelake.audit.nouns import Nouns
from carelake.core.permit import Permit
from carelake.events.outbox import Outbox
from carelake.pipelines.api import Pipelines
from carelake.pipelines.execution.executor import Executor
from carelake.pipelines.execution.launching import Launcher
from carelake.store import Resources
from carelake.store.write import parsed
from carelake.vault.workspace import Vault

if TYPE_CHECKING:
    from carelake.lake.following.sync import SyncReport
    from carelake.models.packages.groups import ModelPackageGroups
    from carelake.models.packages.packages import ModelPackages
    from carelake.models.papers import Papers
    from carelake.models.registry import Registry
    from carelake.monitor.check import Monitor
    from carelake.monitor.executions import Executions
    from carelake.monitor.schedules import Schedules
    from carelake.serving.endpoint import Endpoints

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
    serving: Endpoints | None = None

    @cached_property
    def registry(self) -> Registry:
        """Model versions."""
        from carelake.models.registry import Registry

        return Registry(self.vault, self.nouns, self.outbox)

    @cached_property
    def model_groups(self) -> ModelPackageGroups:
        """Model package groups, as SageMaker's clients see them."""
        from carelake.models.packages.groups import ModelPackageGroups

        return ModelPackageGroups(self.vault)

    @cached_property
    def model_packages(self) -> ModelPackages:
        """Model packages, as SageMaker's clients see them."""
        from carelake.models.packages.packages import ModelPackages

        return ModelPackages(self.vault, self.nouns, self.registry)

    @cached_property
    def papers(self) -> Papers:
        """Cards, checklists and exports of model versions."""
        from carelake.models.papers import Papers

        return Papers(self.vault, self.nouns, self.registry, self.model_packages)

    @cached_property
    def endpoints(self) -> Endpoints:
        """Endpoints, which write their answers back into the record."""
        if self.serving is not None:
            return self.serving
        from carelake.serving.endpoint import Endpoints

        return Endpoints(self.vault, self.nouns, self.outbox, self.registry, self._keep, self.gate)

    @cached_property
    def monitor(self) -> Monitor:
        """Checks over predictions."""
        from carelake.monitor.check import Monitor

        return Monitor(self.vault, self.nouns, self.outbox)

    @cached_property
    def schedules(self) -> Schedules:
        """When endpoints are checked."""
        from carelake.monitor.schedules import Schedules

        return Schedules(self.vault)

    @cached_property
    def executions(self) -> Executions:
        """Checks that are due, and with outcomes of the lake."""
        from carelake.monitor.executions import Executions

        return Executions(self.vault, self.nouns, self.monitor, self.endpoints)

    @cached_property
    def pipelines(self) -> Pipelines:
        """Pipelines and their executions."""
        return Pipelines(self.vault, self.outbox)

    def executor(self, launcher: Launcher) -> Executor:
        """Carries executions out, their steps by this launcher."""
        parallel = self.vault.settings.pipelines.parallel
        own, policies = (self.vault, self.nouns, self.outbox, launcher), self.gate.policies.digest
        return Executor(*own, policies, parallel, gate=self.gate, identity=self.identity)

    @contextmanager
    def acting(self, name: str, caller: Caller, action: str, target: str, *, job: bool = False) -> Iterator[Permit]:
        """Enter the gate as the principal ``name`` on behalf of the caller, for the caller's purpose."""
        who = self.identity.named(name, caller.principal)
        with self.gate.enter(who, action, target, caller.purpose, account=caller.account, job=job) as permit:
            yield permit

    def sync(self, permit: Permit) -> SyncReport:
        """Bring the lake up to the record's newest change; the snapshot tells which landings are new in it."""
        from carelake.lake.following.sync import sync

        return sync(permit, self.vault, self.resources, self.nouns)

    def _keep(self, permit: Permit, tx: Connection, resources: Sequence[Mapping[str, Any]]) -> object:
        return self.resources.keep(permit, tx, "", [parsed(dict(resource)) for resource in resources])
