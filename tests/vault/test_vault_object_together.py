"""Several processes and threads on the same objects: conditions hold, no version is lost, readers see whole ones."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from threading import Thread

import pytest

from carelake.core.clock import FixedClock
from carelake.core.errors import CarelakeError
from carelake.core.permit import Permit
from carelake.vault.workspace import Vault

PermitFor = Callable[..., Permit]
WRITERS, ROUNDS = 3, 15
CHILD = """
    import sys
    from datetime import timedelta
    from pathlib import Path
    from carelake.core.clock import SystemClock
    from carelake.core.errors import Conflict
    from carelake.core.ids import RandomIds
    from carelake.core.permit import mint
    from carelake.core.settings import ObjectSettings, Settings
    from carelake.vault.workspace import Vault

    class Log:
        def key(self, name): pass
        def flush(self, connection): pass

    root, keys, name, rounds = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    clock = SystemClock()
    settings = Settings(workspace="w1", objects=ObjectSettings(inline_bytes=100))
    vault = Vault.open(root, settings=settings, key_dir=keys, clock=clock, ids=RandomIds())
    grants = ["landing:read", "landing:write", "rows:read", "rows:write"]
    permit = mint(act="a", principal="t", account="production", purpose="TREAT", action="x", target="t", scope=(),
                  grants=grants, expires=clock.now() + timedelta(hours=1), log=Log())
    objects = vault.objects
    print("ready", flush=True)
    sys.stdin.readline()
    first = 0
    for number in range(rounds):
        try:
            objects.put(permit, "landing", f"one-{number}", name.encode(), if_none_match=True)
            first += 1
        except Conflict:
            pass
        # A counter, raised by compare and swap: no step may be lost. By turns inline and in a file.
        while True:
            told = objects.stat(permit, "landing", "counter")
            value = int(objects.get(permit, "landing", "counter", told.version))
            data = str(value + 1).encode().rjust(200 if value % 2 else 10)
            try:
                objects.put(permit, "landing", "counter", data, if_match=told.version)
                break
            except Conflict:
                continue
        objects.put(permit, "landing", f"own-{name}", str(number).encode())
    vault.close()
    print(first)
"""


@pytest.mark.slow
def test_processes_write_the_same_objects(vault: Vault, permit_for: PermitFor, tmp_path: Path) -> None:
    permit = permit_for("landing:read", "landing:write", "vault:verify")
    vault.objects.put(permit, "landing", "counter", b"0")
    command = [sys.executable, "-c", textwrap.dedent(CHILD), str(vault.root), str(tmp_path / "keys")]
    children = [
        subprocess.Popen([*command, str(n), str(ROUNDS)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for n in range(WRITERS)
    ]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
    wins = sum(int(child.communicate(b"go\n", timeout=120)[0]) for child in children)
    assert [child.returncode for child in children] == [0] * WRITERS
    assert wins == ROUNDS, "exactly one writer is the first of each name"
    objects = vault.objects
    assert int(objects.get(permit, "landing", "counter")) == WRITERS * ROUNDS
    versions = objects.versions(permit, "landing", "counter")
    assert len(versions) == WRITERS * ROUNDS + 1
    found = sorted(int(objects.get(permit, "landing", "counter", one.version)) for one in versions)
    assert found == list(range(WRITERS * ROUNDS + 1))
    assert [one.current for one in versions] == [True] + [False] * (WRITERS * ROUNDS)
    for n in range(WRITERS):
        assert len(objects.versions(permit, "landing", f"own-{n}")) == ROUNDS
    assert list(objects.verify(permit)) == []


def test_readers_see_whole_objects_while_they_move_and_are_replaced(
    vault: Vault, permit_for: PermitFor, clock: FixedClock
) -> None:
    permit = permit_for("lake:read", "lake:write", "lake:keep", "rows:read", expires=clock.now() + timedelta(days=99))
    objects, failed, done = vault.objects, [], []
    objects.put(permit, "lake", "table", bytes(300_000))

    def read() -> None:
        while not done:
            try:
                data = objects.get(permit, "lake", "table")
                assert data == data[:1] * 300_000
            except (CarelakeError, AssertionError) as error:
                failed.append(error)

    threads = [Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for number in range(60):
        objects.put(permit, "lake", "table", bytes([number]) * 300_000)
        row = objects._catalogue.find("production", "lake", "table").row
        objects.lifecycle._move(permit, row, ("cool", "archive")[number % 2])
    done.append(True)
    for thread in threads:
        thread.join()
    assert failed == []


def test_an_old_database_beside_newer_objects_loses_none(
    vault: Vault, permit_for: PermitFor, clock: FixedClock, tmp_path: Path
) -> None:
    """A backup of the database is put back, and a process was killed: what it does not know is set aside, and comes
    back with the newer database."""
    from carelake.core.ids import RandomIds

    permit = permit_for("landing:read", "landing:write", "vault:verify")
    vault.objects.put(permit, "landing", "a", b"older")
    vault.close()
    database = vault.root / "carelake.db"
    old = database.read_bytes()
    said = {"settings": vault.settings, "key_dir": tmp_path / "keys", "clock": clock, "ids": RandomIds()}
    with Vault.open(vault.root, **said) as newer:  # type: ignore[arg-type]
        newer.objects.put(permit, "landing", "a", b"newer")
        newer.objects.put(permit, "landing", "b", b"newest")
    new = database.read_bytes()
    database.write_bytes(old)
    (vault.root / "vault" / ".open-0123456789abcdef").touch(mode=0o600)
    with Vault.open(vault.root, **said) as restored:  # type: ignore[arg-type]
        assert restored.objects.get(permit, "landing", "a") == b"older"
        assert list(restored.objects.verify(permit)) == []
    database.write_bytes(new)
    with Vault.open(vault.root, **said) as again:  # type: ignore[arg-type]
        assert again.objects.get(permit, "landing", "a") == b"newer"
        assert again.objects.get(permit, "landing", "b") == b"newest"
        assert list(again.objects.verify(permit)) == []
    assert len(list((vault.root / "vault" / "production" / "landing").glob("*/*"))) == 3
    assert os.listdir(vault.root / "vault" / ".aside") == []
