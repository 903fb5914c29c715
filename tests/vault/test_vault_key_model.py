"""The keys against a model: rotation never loses, destruction always does, a hold blocks and lets go again.

What the model knows: under which versions each thing was sealed, which of them are held, and which are gone. Old
copies of the key ring and of the list are put back in between; a second opening of the workspace must agree.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from carelake.apps.wiring import import_tables
from carelake.core.clock import FixedClock
from carelake.core.errors import CarelakeError, Gone, Refused
from carelake.core.ids import RandomIds
from carelake.core.permit import Permit, mint
from carelake.core.settings import Settings
from carelake.vault import destruction, rotation
from carelake.vault.workspace import Vault

ZONES = ("landing", "clinical")
KEYS = tuple(f"production/{zone}" for zone in ZONES)
GRANTS = (*(f"{zone}:{what}" for zone in ZONES for what in ("read", "write")), "rows:read", "rows:write")
GRANTS += ("keys:read", "keys:write", "keys:destroy")


def attempt(call: Callable[[], Any]) -> tuple[Any, CarelakeError | None]:
    """What a call answered, or the error that it ended with."""
    try:
        return call(), None
    except CarelakeError as error:
        return None, error


class _Silent:
    ended = False

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


_LOG = _Silent()


class KeyMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.place = tempfile.TemporaryDirectory(prefix="carelake-keys-")
        self.root = Path(self.place.name)
        self.clock = FixedClock(datetime(2026, 1, 1, tzinfo=UTC))
        import_tables()
        said: dict[str, Any] = {"settings": Settings("m"), "key_dir": self.root / "keys", "clock": self.clock}
        self.said = {**said, "ids": RandomIds()}
        self.vaults = [Vault.create(self.root / "ws", **self.said)]
        self.vaults.append(Vault.open(self.root / "ws", **self.said))
        self.version = dict.fromkeys(KEYS, 1)
        self.stored: dict[str, tuple[str, int]] = {}
        self.held: set[str] = set()
        self.asked: dict[str, datetime] = {}
        self.gone: set[tuple[str, int]] = set()
        self.copies: list[bytes] = []

    def permit(self, who: str = "ann") -> Permit:
        return mint(
            act="a" * 32,
            principal=who,
            account="production",
            purpose="TREAT",
            action="test:act",
            target="test",
            grants=GRANTS,
            scope=(),
            expires=self.clock.now() + timedelta(hours=1),
            log=_LOG,
        )

    def blocked(self, key: str, version: int) -> type[CarelakeError] | None:
        if (key, version) in self.gone:
            return Gone
        return Refused if self.held & {key, f"{key}/v{version}", "production"} or self.waits(key, version) else None

    def waits(self, key: str, version: int) -> bool:
        return any(name in self.asked for name in (key, f"{key}/v{version}"))

    @initialize()
    def start(self) -> None:
        for which, zone in enumerate(ZONES):
            self.write(which, zone)

    @rule(which=st.integers(0, 1), zone=st.sampled_from(ZONES))
    def write(self, which: int, zone: str) -> None:
        key, vault = f"production/{zone}", self.vaults[which]
        why = self.blocked(key, self.version[key])
        name = f"{zone}-{len(self.stored)}"
        _, error = attempt(lambda: vault.objects.put(self.permit(), zone, name, name.encode()))
        assert isinstance(error, why) if why else error is None
        if error is None:
            self.stored[name] = (key, self.version[key])

    @rule(which=st.integers(0, 1), key=st.sampled_from((*KEYS, "production")))
    def rotate(self, which: int, key: str) -> None:
        keyring = self.vaults[which].keyring
        try:
            rotation.rotate(self.permit(), keyring, self.clock, key)
        except Refused:
            assert self.held & {key, "production"} or key in self.asked
        else:
            assert not self.held & {key, "production"}
            if key in self.version:
                self.version[key] += 1

    @rule(which=st.integers(0, 1), key=st.sampled_from((*KEYS, "production")), number=st.integers(0, 3))
    def disable(self, which: int, key: str, number: int) -> None:
        name = self.named(key, number)
        if name is not None:
            destruction.disable(self.permit(), self.vaults[which].keyring, self.clock, name)
            self.held.add(name)

    @precondition(lambda self: self.held)
    @rule(which=st.integers(0, 1), data=st.data())
    def enable(self, which: int, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.held)))
        destruction.enable(self.permit(), self.vaults[which].keyring, self.clock, name)
        self.held.discard(name)

    @rule(which=st.integers(0, 1), key=st.sampled_from(KEYS), number=st.integers(0, 3))
    def destroy(self, which: int, key: str, number: int) -> None:
        name = self.named(key, number)
        if name is None or name in self.asked or name == f"{key}/v{self.version[key]}":
            return
        destruction.ask(self.permit(), self.vaults[which].keyring, self.clock, name, days=7)
        destruction.confirm(self.permit("bob"), self.vaults[1 - which].keyring, self.clock, name)
        self.asked[name] = self.clock.now() + timedelta(days=7)

    @precondition(lambda self: self.asked)
    @rule(which=st.integers(0, 1), data=st.data())
    def cancel(self, which: int, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.asked)))
        destruction.cancel(self.permit(), self.vaults[which].keyring, self.clock, name)
        del self.asked[name]

    @rule(which=st.integers(0, 1), days=st.sampled_from((1, 4, 8)))
    def wait(self, which: int, days: int) -> None:
        self.clock.move(days=days)
        destruction.destroy_due(self.vaults[which].keyring, self.clock)
        self.fall_due()

    def fall_due(self) -> None:
        for name in [name for name, at in self.asked.items() if at <= self.clock.now()]:
            self.asked.pop(name, None)  # a version falls with its whole key
            self.held.discard(name)
            for key in KEYS:
                for version in range(1, self.version[key] + 1):
                    if name in (key, f"{key}/v{version}"):
                        self.gone.add((key, version))
                        self.held.discard(f"{key}/v{version}")
                        self.asked.pop(f"{key}/v{version}", None)

    @rule()
    def keep_a_copy(self) -> None:
        self.copies.append((self.root / "ws" / "keyring.json").read_bytes())

    @precondition(lambda self: self.copies)
    @rule(data=st.data())
    def put_an_old_ring_back(self, data: st.DataObject) -> None:
        """It may lose what only the newer one knew, never bring back what was destroyed, nor enable what was held."""
        old = data.draw(st.sampled_from(self.copies))
        path = self.root / "ws" / "keyring.json"
        newest = path.read_bytes()
        self.close()
        path.write_bytes(old)
        with Vault.open(self.root / "ws", **self.said) as vault:
            for name, (key, version) in self.stored.items():
                why = self.blocked(key, version)
                if why is not None:
                    zone = key.partition("/")[2]
                    _, error = attempt(lambda z=zone, n=name: vault.objects.get(self.permit(), z, n))
                    assert error is not None, f"{key}/v{version} reads again"
        path.write_bytes(newest)
        self.vaults = [Vault.open(self.root / "ws", **self.said) for _ in range(2)]
        self.fall_due()

    def named(self, key: str, number: int) -> str | None:
        """The key, or one of its versions; None for what is not there or gone."""
        if key == "production":
            return key
        versions = range(1, self.version[key] + 1)
        if number == 0:
            return None if all((key, version) in self.gone for version in versions) else key
        return None if number not in versions or (key, number) in self.gone else f"{key}/v{number}"

    @invariant()
    def every_opening_agrees(self) -> None:
        permit = self.permit()
        for name, (key, version) in self.stored.items():
            why = self.blocked(key, version)
            for vault in self.vaults:
                found, error = attempt(lambda v=vault, k=key, n=name: v.objects.get(permit, k.partition("/")[2], n))
                if why is None:
                    assert error is None, error
                    assert found == name.encode()
                else:
                    assert error is not None
                    assert error.code in ("vault.key_disabled", "vault.key_destroyed")

    def close(self) -> None:
        for vault in self.vaults:
            vault.close()

    def teardown(self) -> None:
        self.close()
        self.place.cleanup()


TestKeys = KeyMachine.TestCase
TestKeys.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
