"""A lake over given resources, and the resources that tests of ready-made views, exports and measures share."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from carelake.apps.wiring import import_tables
from carelake.audit.nouns import Nouns
from carelake.core import canonical
from carelake.core.clock import FixedClock
from carelake.core.ids import RandomIds
from carelake.core.permit import Permit, mint
from carelake.core.settings import Settings
from carelake.fhir.compartment import owner
from carelake.lake import query
from carelake.lake.following import sync
from carelake.store.feed import Change
from carelake.synth.generation import generate
from carelake.vault.workspace import Vault

__all__ = ["NOW", "Place", "guide_examples", "place_of", "synthetic"]

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
Resource = dict[str, Any]


class _Silent:
    """An `ActLog` that forgets."""

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: None

    ended = False


class _Feed:
    """A change feed over a list."""

    def __init__(self) -> None:
        self.entries: list[Change] = []
        self.latest: dict[tuple[str, str], tuple[int, int]] = {}

    def put(self, resource: Resource) -> None:
        kind, name = resource["resourceType"], resource["id"]
        version, previous = self.latest.get((kind, name), (0, 0))
        seq = len(self.entries) + 1
        body = canonical.dump(resource)
        at = "2025-01-01T00:00:00.000Z"
        told = (seq, kind, name, version + 1, False, owner(resource), at, body, f"resource:{seq}", previous)
        self.entries.append(Change(*told))
        self.latest[kind, name] = (version + 1, seq)

    def changes(self, permit: Permit, after: int, limit: int) -> list[Change]:
        return self.entries[after : after + limit]

    def lag(self, permit: Permit, account: str, after: int) -> tuple[int, int | None]:
        return len(self.entries), None

    def last_seq(self, permit: Permit) -> int:
        return len(self.entries)


class Place:
    """A workspace whose lake has these resources."""

    def __init__(self, vault: Vault, clock: FixedClock) -> None:
        self.vault, self.clock, self.nouns, self.feed = vault, clock, Nouns(clock), _Feed()

    def put(self, resources: Iterable[Resource]) -> None:
        for resource in resources:
            self.feed.put(resource)
        sync.sync(self.permit(), self.vault, self.feed, self.nouns)
        self.snapshot = query.snapshot_of(self.permit(), self.vault, self.nouns)

    def permit(self, *scope: str, purpose: str = "HOPERAT") -> Permit:
        return mint(
            act="a" * 32,
            principal="tester",
            account="production",
            purpose=purpose,
            action="lake:export",
            target="lake",
            grants=("clinical:read", "lake:read", "lake:write", "rows:read", "rows:write"),
            scope=scope,
            expires=self.clock.now() + timedelta(hours=1),
            log=_Silent(),  # type: ignore[arg-type]
        )


@contextmanager
def place_of(folder: Path, resources: Iterable[Resource]) -> Iterator[Place]:
    """A new workspace in a folder with these resources in its lake."""
    clock = FixedClock(NOW)
    import_tables()
    settings = Settings(workspace="w1")
    with Vault.create(
        folder / "ws", settings=settings, key_dir=folder / "keys", clock=clock, ids=RandomIds()
    ) as vault:
        made = Place(vault, clock)
        made.put(resources)
        yield made


def synthetic(folder: Path, patients: int, seed: int = 7) -> list[Resource]:
    """Resources of a synthetic hospital, 2021 to 2023."""
    made = generate(folder, patients=patients, seed=seed, start=date(2021, 1, 1), workers=1)
    return [canonical.load(line) for file in made.files for line in file.read_bytes().splitlines() if line.strip()]


def guide_examples(shared_data: Path) -> list[Resource]:
    """The examples of US Core 6.1.0, those in bundles too."""
    data = (shared_data / "us-core-6.1.0" / "us_core_610.tgz").read_bytes()
    found: list[Resource] = []
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for member in archive:
            stream = archive.extractfile(member) if member.name.startswith("package/example/") else None
            if stream is not None:
                found.append(canonical.load(stream.read()))
    inside = [e["resource"] for one in found if one["resourceType"] == "Bundle" for e in one.get("entry", ())]
    return found + [one for one in inside if "id" in one]
