"""kill -9 and a full disk at every write point of every change: the old ring or the new one, never neither."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import warnings
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from carelake.core.clock import FixedClock
from carelake.core.errors import CarelakeError, Unavailable
from carelake.core.ids import RandomIds
from carelake.core.permit import Permit
from carelake.core.settings import Settings
from carelake.vault import destruction, reroot, rotation
from carelake.vault.roots import KeyFileRoot
from carelake.vault.workspace import Vault

PermitFor = Callable[..., Permit]
Change = Callable[[Vault, PermitFor, FixedClock], object]
GRANTS = ("landing:read", "landing:write", "rows:read", "rows:write", "keys:read", "keys:write", "keys:destroy")
_CALLS = ("write", "fsync", "replace", "rename", "link", "unlink", "pwrite", "ftruncate")


def _rotate(vault: Vault, permit_for: PermitFor, clock: FixedClock) -> object:
    return rotation.rotate(permit_for(*GRANTS), vault.keyring, clock, "production", below=True)


def _disable(vault: Vault, permit_for: PermitFor, clock: FixedClock) -> object:
    return destruction.disable(permit_for(*GRANTS), vault.keyring, clock, "production/lake")


def _reroot(vault: Vault, permit_for: PermitFor, clock: FixedClock) -> object:
    permit = permit_for(*GRANTS, account="security")
    keys = vault.forgotten.key_dir
    return reroot.move(permit, vault.keyring, clock, KeyFileRoot(keys, "w1"), keep_old=False)


def _destroy(vault: Vault, permit_for: PermitFor, clock: FixedClock) -> object:
    clock.move(days=7)
    return destruction.destroy_due(vault.keyring, clock)


CHANGES: dict[str, Change] = {"rotate": _rotate, "disable": _disable, "reroot": _reroot, "destroy": _destroy}


def _open(place: Path, clock: FixedClock) -> Vault:
    return Vault.open(place / "ws", settings=Settings("w1"), key_dir=place / "keys", clock=clock, ids=RandomIds())


@pytest.fixture
def prepared(tmp_path: Path, clock: FixedClock, permit_for: PermitFor) -> Path:
    """A workspace with an object, and a key whose destruction is confirmed."""
    place = tmp_path / "prepared"
    said: dict[str, Any] = {"settings": Settings("w1"), "key_dir": place / "keys", "clock": clock, "ids": RandomIds()}
    with Vault.create(place / "ws", **said) as vault:
        vault.objects.put(permit_for(*GRANTS), "landing", "a", b"kept")
        destruction.ask(permit_for(*GRANTS), vault.keyring, clock, "production/features", days=7)
        destruction.confirm(permit_for(*GRANTS, principal="b"), vault.keyring, clock, "production/features")
    return place


def _counting(at: int, end: Callable[[], Any]) -> Callable[[], None]:
    """From now on, the call number ``at`` of those that write ends so, before it does anything."""
    seen = 0

    def wrap(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*words: Any, **named: Any) -> Any:
            nonlocal seen
            seen += 1
            if seen == at:
                end()
            return real(*words, **named)

        return call

    real = {name: getattr(os, name) for name in _CALLS}
    for name in _CALLS:
        setattr(os, name, wrap(real[name]))
    return lambda: [setattr(os, name, call) for name, call in real.items()] and None


def _killed(place: Path, change: Change, at: int, permit_for: PermitFor, clock: FixedClock) -> bool:
    """Make the change in a process that is killed at its write point number ``at``; False when it came to its end."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            vault = _open(place, clock)
            _counting(at, lambda: os.kill(os.getpid(), signal.SIGKILL))
            change(vault, permit_for, clock)
            os._exit(0)
        except BaseException:
            os._exit(1)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the change failed"
    return os.WIFSIGNALED(status)


def _whole(place: Path, name: str, clock: FixedClock, permit_for: PermitFor) -> tuple[object, ...]:
    """What the ring says after reopening; everything in it works."""
    with _open(place, clock) as vault:
        later = permit_for(*GRANTS, expires=clock.now() + timedelta(hours=1))
        assert vault.objects.get(later, "landing", "a") == b"kept"
        vault.objects.put(later, "landing", "b", b"new")
        file = vault.keyring.current().file
        told = (len(file.keys), sorted(file.holds), file.root.version, [entry.state for entry in file.keys])
        rotation.rotate(later, vault.keyring, clock, "production/landing")
    with _open(place, clock) as vault:
        assert vault.objects.get(later, "landing", "b") == b"new"
    return told


@pytest.mark.parametrize("name", list(CHANGES))
def test_killed_at_every_write_point(
    prepared: Path, tmp_path: Path, clock: FixedClock, permit_for: PermitFor, name: str
) -> None:
    found = set()
    for at in range(1, 100):
        place = tmp_path / f"at-{at}"
        shutil.copytree(prepared, place)
        here = FixedClock(clock.now())
        killed = _killed(place, CHANGES[name], at, permit_for, here)
        found.add(repr(_whole(place, name, here, permit_for)))
        shutil.rmtree(place)
        if not killed:
            break
    assert at > 4
    assert len(found) == 2, "the old one or the new one"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("name", list(CHANGES))
def test_a_full_disk_at_every_write_point(
    prepared: Path, tmp_path: Path, clock: FixedClock, permit_for: PermitFor, name: str, code: int
) -> None:
    def full() -> None:
        raise OSError(code, "full")

    for at in range(1, 100):
        place = tmp_path / f"full-{at}"
        shutil.copytree(prepared, place)
        here = FixedClock(clock.now())
        with _open(place, here) as vault:
            restore = _counting(at, full)
            try:
                CHANGES[name](vault, permit_for, here)
            except (CarelakeError, OSError) as error:
                failed: BaseException | None = error
            else:
                failed = None
            finally:
                restore()
            assert (
                vault.objects.get(permit_for(*GRANTS, expires=here.now() + timedelta(1)), "landing", "a") == b"kept"
            )
        _whole(place, name, here, permit_for)
        shutil.rmtree(place)
        if failed is None:
            break
        if isinstance(failed, CarelakeError):
            assert isinstance(failed, Unavailable)
            assert failed.code == "vault.disk_full"
    assert at > 4
