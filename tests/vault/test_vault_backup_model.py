"""Backups against a model: whatever is written, removed, backed up and pruned, each point is what it was."""

from __future__ import annotations

import os
import shutil
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from carelake.core.clock import FixedClock
from carelake.core.ids import RandomIds
from carelake.core.permit import mint
from carelake.core.settings import ObjectSettings, Settings
from carelake.vault.backup.manifest import points
from carelake.vault.backup.opening import open_ring, unlike
from carelake.vault.backup.restore import begin
from carelake.vault.backup.retention import prune
from carelake.vault.backup.ship import ship
from carelake.vault.workspace import Vault

GRANTS = ("vault:backup", "vault:verify", "rows:read", "rows:write", "landing:read", "landing:write")
NAMES = st.sampled_from(["a", "b", "c", "d"])


class Silent:
    """An act log that notes nothing."""

    ended = False

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


class Backups(RuleBasedStateMachine):
    """A vault, its backup, and for each point what was in it."""

    taken = Bundle("taken")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="carelake-model-"))
        self.now: dict[str, bytes] = {}
        self.then: dict[str, dict[str, bytes]] = {}
        self.order: list[str] = []

    @initialize()
    def make(self) -> None:
        from carelake.apps.wiring import import_tables

        import_tables()
        self.clock = FixedClock(datetime(2026, 1, 2, tzinfo=UTC))
        # Some objects beside their rows, some in files.
        told = Settings(workspace="w1", objects=ObjectSettings(inline_bytes=1000))
        self.vault = Vault.create(
            self.folder / "ws", settings=told, key_dir=self.folder / "keys", clock=self.clock, ids=RandomIds()
        )
        (self.folder / "ws" / "carelake.toml").write_text('workspace = "w1"\n')
        self.permit: Any = mint(
            act="a" * 32,
            principal="tester",
            account="production",
            purpose="TREAT",
            action="test:act",
            target="test",
            grants=GRANTS,
            scope=(),
            expires=self.clock.now() + timedelta(days=1),
            log=Silent(),
        )

    @rule(name=NAMES, size=st.sampled_from([0, 10, 5000, 300_000]))
    def put(self, name: str, size: int) -> None:
        self.now[name] = os.urandom(size)
        self.vault.objects.put(self.permit, "landing", name, self.now[name])

    @rule(name=NAMES)
    def delete(self, name: str) -> None:
        if name in self.now:
            del self.now[name]
            self.vault.objects.delete(self.permit, "landing", name)

    @rule(target=taken)
    def backup(self) -> str:
        self.clock.move(seconds=1)
        made = ship(self.permit, self.vault, self.folder / "out", trail=lambda connection: {})
        self.then[made.envelope.point] = dict(self.now)
        self.order.append(made.envelope.point)
        return made.envelope.point

    @rule(keep=st.integers(1, 3))
    def prune(self, keep: int) -> None:
        if self.order:
            prune(self.permit, self.vault.keyring, self.clock, self.folder / "out", keep=keep)
            self.order = self.order[-keep:]

    @rule(target=taken, point=consumes(taken))
    def restore(self, point: str) -> Any:
        if point not in self.order:
            return multiple()
        copy = self.folder / "copy"
        keys = self.folder / "keys"
        work = begin(
            self.folder / "out",
            copy,
            open_ring=lambda path, name, copy: open_ring(
                path, name, copy, root_keys=keys, beside=keys, passphrase=None, clock=self.clock
            ),
            point=point,
        )
        told = msgspec.structs.replace(self.vault.settings, copy=work.copy)
        work.assemble(told)
        with Vault(
            copy,
            settings=told,
            key_dir=keys,
            keyring=work.keyring,
            clock=self.clock,
            ids=RandomIds(),
        ) as vault:
            work.fill(vault)
            assert unlike(vault.database, work.body, lambda *_: None) == []
            found = {one.name: vault.objects.get(self.permit, "landing", one.name) for one in self.listed(vault)}
            assert found == self.then[point]
            assert list(vault.objects.verify(self.permit)) == []
        shutil.rmtree(copy)
        return point

    def listed(self, vault: Any) -> Any:
        return vault.objects.list(self.permit, "landing")

    @invariant()
    def points_are_those(self) -> None:
        if self.order:
            assert [one.point for one in points(self.folder / "out")] == self.order

    def teardown(self) -> None:
        self.vault.close()
        shutil.rmtree(self.folder)


TestBackups = Backups.TestCase
TestBackups.settings = settings(
    max_examples=8, stateful_step_count=8, deadline=None, suppress_health_check=list(HealthCheck)
)
