"""``kill -9`` at every moment of every operation on objects, and a disk that fills up at every moment.

Moments are what becomes durable or visible: each sync and rename of a file, each removal, each commit. After a kill
the next open finds the state from before or the one from after, nothing in between, and no bytes without a row.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine.default import DefaultDialect

from carelake.core.clock import FixedClock
from carelake.core.errors import CarelakeError
from carelake.core.ids import RandomIds
from carelake.core.permit import Permit, mint
from carelake.core.settings import LifecycleRules, ObjectSettings, Settings
from carelake.vault.space import known
from carelake.vault.workspace import Vault

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")]

ZONES = ("landing", "lake")
GRANTS = [f"{zone}:{right}" for zone in ZONES for right in ("read", "write", "keep")]
RULES = {"landing": LifecycleRules(cool_days=1, expire_days=50, expire_old_days=1, abort_upload_days=1)}
BIG = bytes(range(256)) * 8192  # 2 MiB: two chunks
STRAY_INLINE = (
    "SELECT count(*) FROM object_inline WHERE object NOT IN (SELECT object FROM object_version WHERE NOT deleted) "
    "AND object NOT IN (SELECT object FROM object_part)"
)
Work = Callable[[Vault, Permit], Any]


class Silent:
    def read(self, *refs: str) -> None: ...
    def wrote(self, *refs: str) -> None: ...
    def count(self, **numbers: int) -> None: ...
    def key(self, name: str) -> None: ...
    def note(self, **facts: object) -> None: ...
    def flush(self, connection: Any) -> None: ...


def opened(home: Path, days: int = 0) -> Vault:
    clock = FixedClock(datetime(2026, 1, 2, tzinfo=UTC) + timedelta(days=days))
    settings = Settings(workspace="w1", objects=ObjectSettings(inline_bytes=64), lifecycle=RULES)
    said: dict[str, Any] = {"settings": settings, "key_dir": home / "keys", "clock": clock, "ids": RandomIds()}
    if (home / "ws").exists():
        return Vault.open(home / "ws", **said)
    return Vault.create(home / "ws", **said)


def permit(vault: Vault) -> Permit:
    return mint(
        act="a" * 32, principal="t", account="production", purpose="TREAT", action="t", target="t",
        grants=[*GRANTS, "rows:read", "rows:write", "vault:verify"], scope=(),
        expires=vault.clock.now() + timedelta(hours=1), log=Silent(),
    )  # fmt: skip


def upload(vault: Vault) -> str:
    (begun,) = vault.objects.uploads.list(permit(vault), "landing", "up")
    return begun.id


def old_version(vault: Vault, name: str = "old") -> str:
    return vault.objects.versions(permit(vault), "landing", name)[-1].version


WORKS: dict[str, Work] = {
    "put": lambda v, p: v.objects.put(p, "landing", "new", BIG),
    "put inline": lambda v, p: v.objects.put(p, "landing", "new", b"x"),
    "overwrite": lambda v, p: v.objects.put(p, "lake", "table", BIG + b"2"),
    "begin": lambda v, p: v.objects.uploads.begin(p, "landing", "other"),
    "part": lambda v, p: v.objects.uploads.put(p, "landing", upload(v), 3, BIG),
    "part again": lambda v, p: v.objects.uploads.put(p, "landing", upload(v), 1, BIG + b"2"),
    "complete": lambda v, p: v.objects.uploads.complete(
        p, "landing", upload(v), v.objects.uploads.parts(p, "landing", upload(v))[:1]
    ),
    "abort": lambda v, p: v.objects.uploads.abort(p, "landing", upload(v)),
    "restore": lambda v, p: v.objects.restore(p, "landing", "old", old_version(v)),
    "restore inline": lambda v, p: v.objects.restore(p, "landing", "small", old_version(v, "small")),
    "rm": lambda v, p: v.objects.remove(p, "landing", "old"),
    "rm version": lambda v, p: v.objects.remove(p, "landing", "old", version=old_version(v)),
    "purge": lambda v, p: v.objects.keeping.purge(p, "landing", "old"),
    "delete": lambda v, p: v.objects.delete(p, "landing", "old"),
    "tag": lambda v, p: v.objects.tag(p, "landing", "old", {"a": "b"}),
    "hold": lambda v, p: v.objects.keeping.hold(p, "landing", "old", on=True),
}


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("start")
    with opened(home) as vault:
        p, objects = permit(vault), vault.objects
        for data in (BIG, BIG + b"1"):
            objects.put(p, "landing", "old", data)
        for data in (b"1", b"2"):
            objects.put(p, "landing", "small", data)
        objects.put(p, "lake", "table", BIG)
        begun = objects.uploads.begin(p, "landing", "up")
        for number in (1, 2):
            objects.uploads.put(p, "landing", begun.id, number, BIG)
    return home


@contextmanager
def copied(start: Path, place: Path) -> Iterator[Path]:
    shutil.copytree(start, place)
    try:
        yield place
    finally:
        shutil.rmtree(place)


def state(home: Path, days: int = 0) -> Any:
    """What can be seen, without what is random; and that nothing is left over, missing or altered."""
    with opened(home, days) as vault:
        p, objects = permit(vault), vault.objects
        found = [
            [
                (one.name, one.size, one.sha256, one.current, one.marker, one.storage, one.held, dict(one.tags))
                for one in objects.report.inventory(p, zone)
            ]
            for zone in ZONES
        ]
        uploads = [
            (one.name, objects.uploads.parts(p, "landing", one.id)) for one in objects.uploads.list(p, "landing")
        ]
        assert list(objects.verify(p)) == []
        depot = objects._depot
        rows = known(depot)
        there = {(f.blob.object, f.blob.storage) for f in depot.blobs.walk(vault.clock.now()) if f.kind != "aside"}
        assert there <= rows, "bytes without a row"
        with depot.database.snapshot() as connection:
            stray = connection.exec_driver_sql(STRAY_INLINE).scalar()
        assert stray == 0, "inline bytes without a row"
    return found, uploads


def at_moment(number: int, act: Callable[[], None]) -> Callable[[], int]:
    """Count moments from now on; ``act`` at the one of that number. Returns the counter."""
    passed = 0

    def moment(call: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*args: Any, **more: Any) -> Any:
            nonlocal passed
            passed += 1
            if passed == number:
                act()
            return call(*args, **more)

        return watched

    os.replace, os.fsync, os.unlink = moment(os.replace), moment(os.fsync), moment(os.unlink)
    commit, changes = DefaultDialect.do_commit, {}

    def committed(self: Any, connection: Any) -> None:
        now = connection.total_changes
        if changes.get(id(connection), 0) == now:
            return commit(self, connection)
        changes[id(connection)] = now
        return moment(commit)(self, connection)

    DefaultDialect.do_commit = committed  # type: ignore[method-assign]
    return lambda: passed


def forked(home: Path, work: Work, number: int, days: int = 0) -> int:
    """Do the work in a child that is killed at a moment; 0 when it came to its end, else its signal."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            vault = opened(home, days)
            p = permit(vault)
            at_moment(number, lambda: os.kill(os.getpid(), signal.SIGKILL))
            work(vault, p)
            vault.close()
            code = 0
        finally:
            sys.stderr.flush()
            os._exit(code)
    status = os.waitpid(child, 0)[1]
    assert not os.WIFEXITED(status) or os.WEXITSTATUS(status) == 0
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


@pytest.mark.parametrize("name", WORKS)
def test_killed_at_every_moment(start: Path, tmp_path: Path, name: str) -> None:
    work = WORKS[name]
    before = state(start)
    with copied(start, tmp_path / "whole") as home:
        with opened(home) as vault:
            work(vault, permit(vault))
        after = state(home)
    assert before != after
    seen = []
    for number in range(1, 60):
        with copied(start, tmp_path / str(number)) as home:
            killed = forked(home, work, number)
            now = state(home)
            assert now in (before, after), (name, number)
            seen.append(now == after)
            if not killed:
                break
    assert number < 59
    assert seen == sorted(seen), "once it has happened, it stays so"
    assert seen[-1]


def test_a_lifecycle_run_is_killed_at_every_moment(start: Path, tmp_path: Path) -> None:
    def work(vault: Vault, p: Permit) -> None:
        vault.objects.lifecycle.run(p, "landing")

    with copied(start, tmp_path / "whole") as home:
        with opened(home, days=10) as vault:
            work(vault, permit(vault))
        after = state(home, days=10)
    assert "cool" in repr(after)
    for number in range(1, 100):
        with copied(start, tmp_path / str(number)) as home:
            killed = forked(home, work, number, days=10)
            state(home, days=10)
            with opened(home, days=10) as vault:
                work(vault, permit(vault))
            assert state(home, days=10) == after, number
            if not killed:
                break
    assert 5 < number < 99


@pytest.mark.parametrize("name", ["put", "overwrite", "part", "restore", "put inline"])
def test_a_full_disk_at_every_write(start: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each write, sync and rename of a file is refused in turn, as a full disk does; what was there stays whole."""
    before = state(start)
    writes = ("write", "pwrite", "fsync", "replace", "mkdir")
    codes = []
    for number in range(1, 30):
        with copied(start, tmp_path / str(number)) as home:
            with opened(home) as vault, monkeypatch.context() as patch:
                fill_up(patch, writes, number)
                codes.append(code_of(lambda vault=vault: WORKS[name](vault, permit(vault))))
            if not codes[-1]:
                break
            assert state(home) == before, number
    assert codes[-1] == ""
    assert set(codes[:-1]) <= {"vault.disk_full"}
    assert len(codes) > (0 if name in ("put inline", "restore") else 3)


def fill_up(patch: pytest.MonkeyPatch, writes: tuple[str, ...], number: int) -> None:
    """From that write on the disk is full."""
    passed = 0

    def full(call: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*args: Any, **more: Any) -> Any:
            nonlocal passed
            passed += 1
            if passed >= number:
                raise OSError(errno.ENOSPC, "No space left on device")
            return call(*args, **more)

        return watched

    for call in writes:
        patch.setattr(os, call, full(getattr(os, call)))


def code_of(call: Callable[[], Any]) -> str:
    try:
        call()
    except CarelakeError as error:
        return error.code
    return ""


def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    """On a file system of 3 MiB: put until it is full; what was answered is there, and what was not is not."""
    place = tmp_path / "small"
    place.mkdir()
    if os.geteuid() != 0 or os.system(f"mount -t tmpfs -o size=3m tmpfs {place} 2>/dev/null") != 0:
        pytest.skip("needs the right to mount a small file system")
    try:
        kept, failed = fill(place)
        with opened(place) as vault:
            p = permit(vault)
            names = [one.name for one in vault.objects.list(p, "landing")]
            assert names == sorted(kept)
            for name, data in kept.items():
                assert vault.objects.get(p, "landing", name) == data
            assert list(vault.objects.verify(p)) == []
        assert failed >= 5
        assert kept
    finally:
        os.system(f"umount {place}")


def fill(place: Path) -> tuple[dict[str, bytes], int]:
    kept: dict[str, bytes] = {}
    failed = 0
    vault = opened(place)
    try:
        for number in range(400):
            size = (100_000, 50, 7_000)[number % 3]
            name, data = f"{number:04d}", os.urandom(size)
            code = code_of(lambda name=name, data=data: vault.objects.put(permit(vault), "landing", name, data))
            assert code in ("", "vault.disk_full")
            if not code:
                kept[name] = data
            elif (failed := failed + 1) > 12:
                break
    finally:
        vault.close()
    return kept, failed
