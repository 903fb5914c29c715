"""A workspace, a change feed in memory, and a few resources of each kind that the views read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from carelake.audit.nouns import Nouns
from carelake.core import canonical
from carelake.core.clock import FixedClock
from carelake.core.ids import RandomIds
from carelake.core.permit import Permit
from carelake.core.settings import Settings
from carelake.lake import tables as lake_tables
from carelake.vault.workspace import Vault


@dataclass(frozen=True)
class Entry:
    """A change as the feed tells of it."""

    seq: int
    type: str
    id: str
    version: int
    deleted: bool
    updated: datetime
    owner: str
    body: bytes | None


@dataclass
class ListFeed:
    """A feed over a list; ``stop_after`` breaks off as a killed process would."""

    entries: list[Entry] = field(default_factory=list)
    stop_after: int | None = None

    def put(self, resource: dict[str, Any], owner: str = "p1", *, deleted: bool = False) -> None:
        key = (resource["resourceType"], resource["id"])
        version = 1 + sum((e.type, e.id) == key for e in self.entries)
        body = None if deleted else canonical.dump(resource)
        at = datetime(2025, 1, 1, tzinfo=UTC)
        self.entries.append(Entry(len(self.entries) + 1, *key, version, deleted, at, owner, body))

    def changes(self, permit: Permit, after: int) -> Iterable[Entry]:
        for entry in self.entries:
            if self.stop_after is not None and entry.seq > self.stop_after:
                raise KeyboardInterrupt
            if entry.seq > after:
                yield entry

    def head(self, permit: Permit) -> int:
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


def patient(name: str = "p1", **more: Any) -> dict[str, Any]:
    return {"resourceType": "Patient", "id": name, "gender": "female", "birthDate": "1950-03-01", **more}


def observation(name: str, value: str = "7.10", **more: Any) -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "id": name,
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "718-7", "display": "Hb"}]},
        "subject": {"reference": "Patient/p1"},
        "effectiveDateTime": "2024-03-01T10:00:00-05:00",
        "issued": "2024-03-01T16:00:00.250Z",
        "valueQuantity": {"value": canonical.load(value), "unit": "g/dL", "code": "g/dL"},
        **more,
    }
