"""What every test may ask for: the public data sets, a standing clock, and permits minted without the gate."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from carelake.core.clock import FixedClock
from carelake.core.ids import RandomIds
from carelake.core.permit import Permit, mint
from carelake.core.settings import Settings


class SilentLog:
    """An `ActLog` for tests of rooms below the gate: it notes, and writes nothing."""

    def __init__(self) -> None:
        self.reads: list[str] = []
        self.writes: list[str] = []
        self.counts: dict[str, int] = {}
        self.keys: list[str] = []
        self.flushes = 0

    def read(self, *refs: str) -> None:
        self.reads += refs

    def wrote(self, *refs: str) -> None:
        self.writes += refs

    def count(self, **numbers: int) -> None:
        for name, number in numbers.items():
            self.counts[name] = self.counts.get(name, 0) + number

    def key(self, name: str) -> None:
        self.keys.append(name)

    def flush(self, connection: Any) -> None:
        self.flushes += 1


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))


@pytest.fixture
def permit_for(clock: FixedClock) -> Callable[..., Permit]:
    """``permit_for("landing:write", "rows:write", account="research")``: a permit with those grants."""

    def make(*grants: str, account: str = "production", **other: Any) -> Permit:
        said: dict[str, Any] = {
            "act": "a" * 32,
            "principal": "tester",
            "purpose": "TREAT",
            "action": "test:act",
            "target": "test",
            "scope": (),
            "expires": clock.now() + timedelta(hours=1),
            "log": SilentLog(),
        }
        return mint(account=account, grants=grants, **{**said, **other})

    return make


@pytest.fixture
def vault(tmp_path: Path, clock: FixedClock) -> Iterator[Any]:
    """A new workspace in a temporary folder, with every room's tables and its root key beside it."""
    from carelake.apps.wiring import import_tables
    from carelake.vault.workspace import Vault

    import_tables()
    made = Vault.create(
        tmp_path / "ws", settings=Settings(workspace="w1"), key_dir=tmp_path / "keys", clock=clock, ids=RandomIds()
    )
    with made:
        yield made


@pytest.fixture
def gate(vault: Any) -> Any:
    """The gate of that workspace, with the package's own policies and the default principals."""
    from carelake.access.gate import Gate
    from carelake.access.policy import Policies
    from carelake.access.principals import DEFAULTS, Principals

    with vault.database.ledger() as connection:
        for who in DEFAULTS:
            Principals(connection).add(who)
    return Gate(vault, Policies.load(Path("/nonexistent")))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of public suites and data sets; tests that need it skip where it is absent."""
    told = os.environ.get("CARELAKE_TEST_DATA")
    folder = Path(told) if told else Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("public data sets are not here; set CARELAKE_TEST_DATA to their folder")
    return folder
