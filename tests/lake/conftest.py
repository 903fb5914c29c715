"""A workspace and a change feed in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from carelake.audit.nouns import Nouns
from carelake.core import canonical
from carelake.core.clock import FixedClock, instant
from carelake.core.ids import RandomIds
from carelake.core.permit import Permit
from carelake.core.settings import Settings
from carelake.lake import tables as lake_tables
from carelake.store.feed import Change
from carelake.vault.workspace import Vault


class ListFeed:
    """A feed over a list, with the methods of `store.Resources` that the lake follows."""

    def __init__(self) -> None:
        self.entries: list[Change] = []
        self.latest: dict[tuple[str, str], tuple[int, int]] = {}

    def put(self, resource: dict[str, Any], owner: str = "p1", *, deleted: bool = False) -> None:
        kind, name = resource["resourceType"], resource["id"]
        version, previous = self.latest.get((kind, name), (0, 0))
        version += 1
        body = b"" if deleted else canonical.dump(resource)
        seq = len(self.entries) + 1
        at = "2025-01-01T00:00:00.000Z"
        told = (seq, kind, name, version, deleted, owner, at, body, f"resource:{seq}", previous)
        self.entries.append(Change(*told))
        self.latest[kind, name] = (version, seq)

    def changes(self, permit: Permit, after: int, limit: int) -> Sequence[Change]:
        return self.entries[after : after + min(limit, 2)]

    def lag(self, permit: Permit, account: str, after: int) -> tuple[int, int | None]:
        waiting = self.entries[after:]
        oldest = int(instant(waiting[0].last_updated).timestamp() * 1_000_000) if waiting else None
        return len(self.entries), oldest

    def last_seq(self, permit: Permit) -> int:
        return len(self.entries)


@pytest.fixture
def feed() -> ListFeed:
    return ListFeed()


@pytest.fixture
def vault(tmp_path: Path, clock: FixedClock) -> Iterator[Vault]:
    assert lake_tables.lake_table.name
    made = Vault.create(
        tmp_path / "ws", settings=Settings(workspace="w1"), key_dir=tmp_path / "keys", clock=clock, ids=RandomIds()
    )
    with made:
        yield made


@pytest.fixture
def nouns(clock: FixedClock) -> Nouns:
    return Nouns(clock)


@pytest.fixture
def permit(permit_for: Callable[..., Permit]) -> Permit:
    return permit_for("clinical:read", "lake:read", "lake:write", "rows:read", "rows:write")
