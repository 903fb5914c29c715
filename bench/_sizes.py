"""What benches of growing hospitals on both databases share: a folder, hospitals, a database's turn, the report."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from _postgres import PostgresServer, postgres_missing
from carelake.synth import generate

__all__ = ["begun", "hospitals", "present", "scratch", "served", "written"]


@contextmanager
def scratch(bench: str) -> Iterator[Path]:
    """A folder that is gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix=f"carelake-{bench}-"))
    folder.chmod(0o711)  # PostgreSQL runs as another user when we are root
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def hospitals(folder: Path, sizes: str, per_patient: float) -> list[Path]:
    """Made-up ones of about so many resources each; the sizes are separated by commas."""
    made = []
    for size in map(int, sizes.split(",")):
        made.append(folder / f"hospital{size}")
        generate(made[-1], patients=max(1, round(size / per_patient)), seed=3)
    return made


def present(databases: str) -> Iterator[str]:
    """Of names separated by commas, those that can be measured here; each is told when its turn comes."""
    for name in databases.split(","):
        print(f"== {name}", flush=True)
        if name == "postgresql" and (reason := postgres_missing()):
            print(reason)
        else:
            yield name


@contextmanager
def served(folder: Path, database: str) -> Iterator[PostgresServer | None]:
    """The server of a database, while it is measured; none for the embedded one."""
    server = PostgresServer(folder / "server") if database == "postgresql" else None
    try:
        yield server
    finally:
        if server is not None:
            server.stop()


def begun(bench: str) -> dict[str, Any]:
    """The head of a report."""
    return {
        "bench": bench, "at": datetime.now(UTC).isoformat(timespec="seconds"), "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
    }  # fmt: skip


def written(report: dict[str, Any], out: Path) -> None:
    """Keep a report in a folder, by its bench and day."""
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{report['bench']}-{report['at'][:10]}.json").write_text(json.dumps(report, indent=2) + "\n")
