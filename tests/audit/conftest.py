"""Acts through the real gate, a trail to seal them, and processes beside this one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from carelake.access.gate import Gate
from carelake.access.principals import DEFAULTS
from carelake.audit.trail import Trail, Verdict
from carelake.vault.workspace import Vault

CHILD = Path(__file__).with_name("audit_child.py")


class Ward:
    """One workspace with its gate and trail."""

    def __init__(self, vault: Vault, gate: Gate) -> None:
        self.vault, self.gate = vault, gate
        self.trail = Trail(vault)
        self.who = {who.name: who for who in DEFAULTS}

    @property
    def root(self) -> Path:
        return self.vault.root.parent

    def act(self, times: int = 1, *patients: str) -> None:
        for _ in range(times):
            with self.gate.enter(
                self.who["auditor"], "audit:read", "trail", "HOPERAT", account="production"
            ) as permit:
                permit.log.count(rows=3)
                permit.log.patients(*patients)

    def seal(self, **other: Any) -> int:
        return self.trail.seal(self.gate.sealing(), **other)

    def sealed(self, *runs: int) -> Ward:
        for times in runs:
            self.act(times)
            self.seal()
        return self

    def verify(self, **other: Any) -> Verdict:
        return self.trail.verify(self.gate.sealing(), **other)

    def sql(self, sql: str, *values: object) -> None:
        with self.vault.database.ledger() as connection:
            connection.exec_driver_sql(sql, values)

    def rows(self, sql: str) -> list[Any]:
        with self.vault.database.ledger_reading() as connection:
            return list(connection.exec_driver_sql(sql).all())


@pytest.fixture
def ward(vault: Any, gate: Any) -> Ward:
    return Ward(vault, gate)


@pytest.fixture
def child(ward: Ward) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """``child("acts", 5)``: a process on the same workspace."""
    started: list[subprocess.Popen[str]] = []

    def start(work: str, *arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, str(CHILD), work, str(ward.root), *map(str, arguments)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()
