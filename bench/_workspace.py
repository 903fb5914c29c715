"""Workspaces for the benches: made and loaded by the command, as anyone would, and opened in this process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from _postgres import PostgresServer

__all__ = ["COMMAND", "Home", "cpu", "rss"]

COMMAND = [sys.executable, "-c", "from carelake.apps.cli.main import main; main()"]


def _tree(pid: int) -> Iterator[int]:
    """A process and those it started."""
    yield pid
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return
    for child in children:
        yield from _tree(int(child))


def rss(pid: int) -> int:
    """Resident bytes of a process tree; pages that processes share are counted in each."""
    total = 0
    for one in _tree(pid):
        try:
            total += int(Path(f"/proc/{one}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except OSError:
            continue
    return total


def cpu(pid: int) -> float:
    """Seconds of processor time of a process tree so far, of its ended children too."""
    ticks = 0
    for one in _tree(pid):
        try:
            # After the name, which may hold anything: state is the first, utime to cstime are the 12th to 15th.
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


class Home:
    """A folder with a workspace in it and its keys; on PostgreSQL when a server is given."""

    def __init__(self, folder: Path, server: PostgresServer | None = None, database: str = "carelake") -> None:
        self.root, self._server, self._database = folder / "workspace", server, database
        self.environment = {**os.environ, "CARELAKE_KEY_DIR": str(folder / "keys")}
        if server is not None:
            self.environment["CARELAKE_DATABASE__URL"] = server.url(database)
            self.environment["CARELAKE_DATABASE__PASSWORD_FILE"] = str(server.password_file)
        self.there = (self.root / "carelake.toml").exists()

    def make(self) -> None:
        """A new workspace."""
        if self._server is not None:
            self._server.create(self._database)
        self.root.parent.mkdir(parents=True, exist_ok=True)
        self.run("init", str(self.root))
        self.there = True

    def run(self, *arguments: str) -> bytes:
        """One command to its end; its output."""
        command = [*COMMAND, *arguments]
        done = subprocess.run(command, check=False, capture_output=True, env=self.environment)
        if done.returncode:
            raise SystemExit(f"carelake {arguments} ended with {done.returncode}: {done.stderr.decode()}")
        return done.stdout

    def ingest(self, source: Path, **settings: str) -> dict[str, Any]:
        """Read a folder by ``carelake ingest``: its report, the rate, processor time and the most memory held."""
        before = self._cpu()
        process = subprocess.Popen(
            [*COMMAND, "-w", str(self.root), "ingest", str(source), "--json"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={**self.environment, **settings},
        )  # fmt: skip
        peak, began = 0, time.monotonic()
        while process.poll() is None:
            peak = max(peak, rss(process.pid))
            time.sleep(0.1)
        whole = time.monotonic() - began
        assert process.stdout is not None
        report = json.loads(process.stdout.read())
        return {
            "read": report["read"], "stored": report["stored"], "quarantined": report["quarantined"],
            "seconds": report["seconds"], "command_seconds": round(whole, 2),
            "per_second": round(report["read"] / report["seconds"]), "peak_rss": peak,
            "cpu_seconds": round(self._cpu() - before, 2),
        }  # fmt: skip

    def settle(self) -> None:
        """Leave the server as it is some minutes after a load."""
        if self._server is not None:
            self._server.settle(self._database)

    def _cpu(self) -> float:
        """Of this process's ended children, and of the database server."""
        ours = os.times()
        server = cpu(self._server.process.pid) if self._server is not None else 0.0
        return ours.children_user + ours.children_system + server

    def bytes(self) -> int:
        """Size on disk of the workspace, with its database wherever that is."""
        files = sum(path.stat().st_size for path in self.root.rglob("*") if path.is_file())
        return files + (self._server.bytes(self._database) if self._server is not None else 0)

    @contextmanager
    def opened(self) -> Iterator[Any]:
        """The workspace, open in this process."""
        from carelake.apps.wiring import Workspace

        workspace = Workspace.open(self.root, self.environment)
        try:
            yield workspace
        finally:
            workspace.close()
