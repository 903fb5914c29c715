"""Processes for the tests of the trail: ``python audit_child.py WORK ROOT ARGUMENT...``.

acts ROOT COUNT        write so many acts, one by one, sealing between them
moments ROOT           seal what is pending; prints how many moments there were
killed ROOT WHEN:N     as ``moments``, but dead before or after the N-th moment: a commit that changed something,
                       a file that is given its name
readers ROOT THREADS   read acts through the gate in threads until killed; prints the id of each that was answered
hold ROOT              be elected, say so, and then hang
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy.engine.default import DefaultDialect

from carelake.access.gate import Gate
from carelake.access.policy import Policies
from carelake.access.principals import DEFAULTS
from carelake.apps.wiring import import_tables
from carelake.audit.trail import Trail
from carelake.core.clock import SystemClock
from carelake.core.ids import RandomIds
from carelake.core.settings import AuditSettings, Settings
from carelake.vault.workspace import Vault

AUDITOR = next(who for who in DEFAULTS if who.name == "auditor")
passed = 0


def opened(root: Path) -> tuple[Vault, Gate, Trail]:
    import_tables()
    settings = Settings(workspace="w1", audit=AuditSettings(lease_seconds=2))
    vault = Vault.open(root / "ws", settings=settings, key_dir=root / "keys", clock=SystemClock(), ids=RandomIds())
    return vault, Gate(vault, Policies.load(Path("/nonexistent"))), Trail(vault)


def one(gate: Gate) -> str:
    with gate.enter(AUDITOR, "audit:read", "trail", "HOPERAT", account="production") as permit:
        return permit.act


def acts(root: Path, count: str) -> None:
    vault, gate, trail = opened(root)
    for _ in range(int(count)):
        one(gate)
        trail.seal(gate.sealing(), closing=True)
    vault.close()


def durable(act: Callable[[], Any], moment: str, number: int) -> Any:
    global passed
    passed += 1
    if moment == "before" and passed == number:
        os.kill(os.getpid(), signal.SIGKILL)
    done = act()
    if moment == "after" and passed == number:
        os.kill(os.getpid(), signal.SIGKILL)
    return done


def watch(moment: str, number: int) -> None:
    commit, replace, changes = DefaultDialect.do_commit, os.replace, dict[int, int]()

    def watched(self: Any, connection: Any) -> None:
        now, before = connection.total_changes, changes.get(id(connection), 0)
        changes[id(connection)] = now
        if now == before:
            commit(self, connection)
        else:
            durable(lambda: commit(self, connection), moment, number)

    DefaultDialect.do_commit = watched  # type: ignore[method-assign]
    os.replace = lambda *args, **other: durable(lambda: replace(*args, **other), moment, number)


def moments(root: Path) -> None:
    killed(root, "count:0")
    sys.stdout.write(f"{passed}\n")


def killed(root: Path, point: str) -> None:
    vault, gate, trail = opened(root)
    moment, _, number = point.partition(":")
    watch(moment, int(number))
    trail.seal(gate.sealing())
    vault.close()


def readers(root: Path, threads: str) -> None:
    _, gate, _ = opened(root)
    lock = threading.Lock()

    def read() -> None:
        while True:
            told = one(gate)
            with lock:
                sys.stdout.write(told + "\n")
                sys.stdout.flush()

    for _ in range(int(threads)):
        threading.Thread(target=read, daemon=True).start()
    time.sleep(60)


def hold(root: Path) -> None:
    _, _, trail = opened(root)
    sys.stdout.write(f"{trail.lease.take()}\n")
    sys.stdout.flush()
    time.sleep(60)


if __name__ == "__main__":
    {"acts": acts, "moments": moments, "killed": killed, "readers": readers, "hold": hold}[sys.argv[1]](
        Path(sys.argv[2]), *sys.argv[3:]
    )
