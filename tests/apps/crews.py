"""``carelake serve --workers 2`` as a process, for tests of its workers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
from tests.apps.served import known

from carelake.access.principals import Principal, Principals
from carelake.apps.wiring import Workspace

COMMAND = [sys.executable, "-c", "from carelake.apps.cli.main import main; main()"]


class Served:
    """``carelake serve --workers 2`` as a process."""

    def __init__(self, environment: dict[str, str], log: Path, **more: str) -> None:
        self._log, root = log, log.parent / "workspace"
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                [*COMMAND, "-w", str(root), "serve", "--port", "0", "--workers", "2"],
                env={**os.environ, **environment, **more},
                stdout=out,
                stderr=out,
            )
        until = time.monotonic() + 90
        while not (told := [line for line in self.lines() if line.startswith("Listening on")]):
            assert self.process.poll() is None, log.read_text()
            assert time.monotonic() < until
            time.sleep(0.05)
        self.url = told[0].removeprefix("Listening on ")

    def lines(self) -> list[str]:
        return self._log.read_text(errors="replace").splitlines()

    def workers(self) -> list[int]:
        return children(self.process.pid)

    def end(self) -> int:
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


def children(pid: int) -> list[int]:
    try:
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def wait_for(what: Callable[[], Any], seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until
        time.sleep(0.05)


def add(workspace: Workspace, name: str) -> None:
    """A clinician of its own: failures under one name lock that name."""
    with workspace.vault.database.ledger() as connection:
        Principals(connection).add(Principal(name, "person", ("clinician",), ("production",)))


def token(workspace: Workspace, name: str = "operator") -> dict[str, str]:
    text = workspace.identity.issue(known(workspace, name), purpose="TREAT", account="production", seconds=600)
    return {"Authorization": f"Bearer {text}"}


@contextmanager
def clients(url: str, many: int, **told: Any) -> Iterator[list[httpx.Client]]:
    """Clients of one connection each, so that both workers have some."""
    found = [httpx.Client(base_url=url, timeout=30, **told) for _ in range(many)]
    try:
        yield found
    finally:
        for one in found:
            one.close()


class Writer:
    """Creates and reads until it is told to stop; keeps what was acknowledged, and counts what was not."""

    def __init__(self, url: str, headers: dict[str, str], stop: threading.Event) -> None:
        self.kept: list[tuple[str, str]] = []
        self.acts: list[str] = []
        self.lost = 0
        self._told = (url, headers, stop)
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        url, headers, stop = self._told
        number = 0
        while not stop.is_set():
            try:
                with httpx.Client(base_url=url, timeout=30, headers=headers) as client:
                    while not stop.is_set():
                        number += 1
                        gender = "female" if number % 2 else "male"
                        answer = client.post("/fhir/Patient", json={"resourceType": "Patient", "gender": gender})
                        assert answer.status_code == 201, answer.text
                        key = answer.headers["Location"].rsplit("/", 3)[-3]
                        self.kept.append((key, gender))
                        self.acts.append(answer.headers["X-Request-Id"])
                        answer = client.get(f"/fhir/Patient/{key}")
                        assert answer.status_code == 200, answer.text
                        self.acts.append(answer.headers["X-Request-Id"])
            except httpx.TransportError:
                self.lost += 1
                time.sleep(0.05)
