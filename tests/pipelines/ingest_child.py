"""Reads a folder into a workspace, to be killed meanwhile: ``python ingest_child.py ROOT SOURCES WORKERS``."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from carelake.apps.wiring import import_tables
from carelake.audit.nouns import Nouns
from carelake.core.clock import FixedClock
from carelake.core.ids import RandomIds
from carelake.core.permit import Permit, mint
from carelake.core.settings import IngestSettings, Settings
from carelake.events.outbox import Outbox
from carelake.ingest import reader
from carelake.pipelines.ingest import IngestReport, ingest
from carelake.store import Resources
from carelake.vault.workspace import Vault

GRANTS = ("landing:read", "landing:write", "clinical:read", "clinical:write", "rows:read", "rows:write")


class Quiet:
    """An `ActLog` that keeps counts only."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    def read(self, *refs: str) -> None: ...
    def wrote(self, *refs: str) -> None: ...
    def patients(self, *refs: str) -> None: ...
    def key(self, name: str) -> None: ...
    def note(self, **facts: object) -> None: ...
    def flush(self, connection: Any) -> None: ...

    def count(self, **numbers: int) -> None:
        for name, number in numbers.items():
            self.counts[name] = self.counts.get(name, 0) + number


def workspace(root: Path, workers: int) -> tuple[Vault, Permit]:
    """Open the workspace below ``root``, or make it."""
    import_tables()
    clock = FixedClock(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    settings = Settings("a" * 32, ingest=IngestSettings(workers=workers))
    make = Vault.open if (root / "w").exists() else Vault.create
    vault = make(root / "w", settings=settings, key_dir=root / "k", clock=clock, ids=RandomIds())
    permit = mint(
        act="a" * 32,
        principal="tester",
        account="production",
        purpose="TREAT",
        action="record:ingest",
        target="record",
        grants=GRANTS,
        scope=(),
        expires=clock.now() + timedelta(hours=1),
        log=Quiet(),
    )
    return vault, permit


def run(vault: Vault, permit: Permit, *paths: Path) -> IngestReport:
    """The recipe."""
    outbox = Outbox(vault.clock, vault.ids, workspace="a" * 32)
    return ingest(vault, permit, paths, resources=Resources(vault), nouns=Nouns(vault.clock), outbox=outbox)


if __name__ == "__main__":
    # Many small pages: more moments to be killed between.
    reader._PAGE = 300
    opened, leave = workspace(Path(sys.argv[1]), int(sys.argv[3]))
    sys.stdout.write("open\n")
    sys.stdout.flush()
    run(opened, leave, Path(sys.argv[2]))
    opened.close()
