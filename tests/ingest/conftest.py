"""An open vault, and a reading of sources without the store: pages committed as the recipe commits them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

import carelake.audit.tables
import carelake.ingest.tables  # noqa: F401
from carelake.audit.nouns import Nouns
from carelake.core.clock import FixedClock
from carelake.core.ids import RandomIds
from carelake.core.permit import Permit
from carelake.core.records import Parsed, Rejected
from carelake.core.settings import IngestSettings, Settings
from carelake.ingest import Quarantine, Quarantined, Reader, expand
from carelake.vault.workspace import Vault

GRANTS = ("landing:read", "landing:write", "clinical:read", "clinical:write", "rows:read", "rows:write")


@dataclass
class Told:
    """What a reading gave."""

    parsed: list[Parsed]
    rejected: list[Rejected]
    already: int

    @property
    def reasons(self) -> list[tuple[int, str]]:
        return [(one.line, one.code) for one in self.rejected]

    @property
    def ids(self) -> list[str]:
        return [f"{one.type}/{one.id}" for one in self.parsed]


class Bench:
    """A workspace to read into."""

    def __init__(self, root: Path, clock: FixedClock, permit: Permit, **bounds: Any) -> None:
        self.folder = root / "sources"
        self.folder.mkdir(exist_ok=True)
        self.permit = permit
        self.root, self.clock = root, clock
        self.vault = self._open(**bounds)

    def _open(self, **bounds: Any) -> Vault:
        settings = Settings("a" * 32, ingest=IngestSettings(**{"workers": 0, "page": 5000, **bounds}))
        make = Vault.open if (self.root / "w").exists() else Vault.create
        return make(self.root / "w", settings=settings, key_dir=self.root / "k", clock=self.clock, ids=RandomIds())

    def again(self, **bounds: Any) -> None:
        """Close, and open with other bounds."""
        self.vault.close()
        self.vault = self._open(**bounds)

    def file(self, name: str, content: bytes | str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def read(self, *paths: Path, stop_after: int | None = None) -> Told:
        told = Told([], [], 0)
        with Reader(self.vault, Nouns(self.clock)) as reader:
            for number, page in enumerate(reader.pages(self.permit, expand(paths)), 1):
                with self.vault.database.transaction(self.permit) as tx:
                    for part in page:
                        told.parsed += part.parsed
                        told.rejected += part.rejected
                        told.already += part.already
                        reader.commit(self.permit, tx, part, stored=len(part.parsed), unchanged=0)
                if number == stop_after:
                    break
        return told

    def quarantine(self) -> list[Quarantined]:
        return Quarantine(self.vault.database, self.clock).list(self.permit)


@pytest.fixture
def bench_with(
    tmp_path: Path, clock: FixedClock, permit_for: Callable[..., Permit]
) -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def make(**bounds: Any) -> Bench:
        root = tmp_path / str(len(made))
        root.mkdir()
        made.append(Bench(root, clock, permit_for(*GRANTS), **bounds))
        return made[-1]

    yield make
    for bench in made:
        bench.vault.close()


@pytest.fixture
def bench(bench_with: Callable[..., Bench]) -> Bench:
    return bench_with()


@pytest.fixture
def patient() -> Callable[..., str]:
    """``patient("p1", gender="male")``: one Patient as a line."""

    def make(key: str = "p1", **other: Any) -> str:
        return json.dumps({"resourceType": "Patient", "id": key, **other})

    return make


@pytest.fixture
def bundle() -> Callable[..., str]:
    """A Bundle of resources, each with its fullUrl or none."""

    def make(
        *entries: dict[str, Any] | tuple[str, dict[str, Any]], kind: str = "transaction", indent: Any = 1
    ) -> str:
        made = [
            {"fullUrl": one[0], "resource": one[1]} if isinstance(one, tuple) else {"resource": one}
            for one in entries
        ]
        return json.dumps({"resourceType": "Bundle", "type": kind, "entry": made}, indent=indent)

    return make


@pytest.fixture
def body() -> Callable[[Parsed], dict[str, Any]]:
    import zstandard

    def unpack(record: Parsed) -> dict[str, Any]:
        found: dict[str, Any] = msgspec.json.decode(zstandard.ZstdDecompressor().decompress(record.body))
        return found

    return unpack
