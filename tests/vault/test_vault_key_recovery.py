"""The recovery kit, and the key ring of release 0.1.0."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from carelake.core.clock import FixedClock
from carelake.core.errors import CarelakeError, Conflict, Corrupt, Invalid, Refused, Unavailable
from carelake.core.ids import RandomIds
from carelake.core.permit import Permit
from carelake.core.settings import Settings
from carelake.vault import recovery, reroot, rotation
from carelake.vault.keyring import Keyring
from carelake.vault.recovery import write_shares
from carelake.vault.ring import read_ring
from carelake.vault.roots import KeyFileRoot, Roots
from carelake.vault.workspace import Vault

PermitFor = Callable[..., Permit]
RELEASED = Path(__file__).parent / "released"
GRANTS = ("landing:read", "landing:write", "rows:read", "rows:write")


@pytest.fixture
def admin(permit_for: PermitFor) -> Permit:
    return permit_for("keys:write", account="security")


def restored(vault: Vault, clock: FixedClock, shares: list[str] | tuple[str, ...], key_dir: Path) -> Path:
    path = vault.root / "keyring.json"
    return recovery.restore(path, workspace="w1", key_dir=key_dir, shares=shares, clock=clock)


def test_any_three_of_five_restore_the_workspace(
    vault: Vault, admin: Permit, permit_for: PermitFor, clock: FixedClock, tmp_path: Path
) -> None:
    permit = permit_for(*GRANTS)
    vault.objects.put(permit, "landing", "a", b"x")
    kit = recovery.make(admin, vault.keyring, clock, shares=5, threshold=3)
    assert admin.log.counts == {"kits": 1, "kit_shares": 5, "kit_threshold": 3}  # type: ignore[attr-defined]
    files = recovery.write_shares(kit, tmp_path / "kit")
    assert [path.stat().st_mode & 0o777 for path in files] == [0o600] * 5
    told = [recovery.words_of(path) for path in files]
    assert [len(words.split()) for words in told] == [33] * 5
    assert told[0] not in repr(kit)
    vault.close()
    for number, few in enumerate(combinations(told, 3)):
        keys = tmp_path / f"new-{number}"
        assert restored(vault, clock, few, keys) == keys / "w1.key"
        said: dict[str, Any] = {"settings": vault.settings, "key_dir": keys, "clock": clock, "ids": RandomIds()}
        with Vault.open(vault.root, **said) as again:
            assert again.objects.get(permit, "landing", "a") == b"x"
    with pytest.raises(Conflict):
        recovery.write_shares(kit, tmp_path / "kit")


def test_wrong_and_too_few_shares_are_said(vault: Vault, admin: Permit, clock: FixedClock, tmp_path: Path) -> None:
    one = recovery.make(admin, vault.keyring, clock, shares=5, threshold=3).shares
    two = recovery.make(admin, vault.keyring, clock, shares=5, threshold=3).shares
    words = one[2].split()
    words[20] = "academic" if words[20] != "academic" else "acid"
    keys = tmp_path / "new"
    for shares, match in (
        ((), "0 different shares"),
        (one[:2], "2 different shares were given, 3 are needed"),
        ((one[0], one[0], one[0]), "1 different shares"),
        ((one[0], one[1], " ".join(words)), "Share 3 of those given"),
        ((one[0], one[1], "these are no words"), "Share 3"),
        ((one[0], one[1], two[2]), "different kits"),
    ):
        with pytest.raises(Invalid, match=match) as caught:
            restored(vault, clock, list(shares), keys)
        assert not set(words[:4]) & set(caught.value.message.split())
    assert not keys.exists()
    restored(vault, clock, [share.upper() for share in (*one[:3], one[0])], keys)


def test_a_kit_is_of_one_root_key(vault: Vault, admin: Permit, clock: FixedClock, tmp_path: Path) -> None:
    kit = recovery.make(admin, vault.keyring, clock, shares=3, threshold=2)
    reroot.move(admin, vault.keyring, clock, KeyFileRoot(tmp_path / "keys", "w1"), keep_old=False)
    with pytest.raises(Corrupt, match="before the root key was changed"):
        restored(vault, clock, list(kit.shares), tmp_path / "new")
    other = Settings("w2")
    said: dict[str, Any] = {"key_dir": tmp_path / "keys", "clock": clock, "ids": RandomIds()}
    with Vault.create(tmp_path / "other", settings=other, **said) as second:
        foreign = recovery.make(admin, second.keyring, clock, shares=3, threshold=2)
    with pytest.raises(Corrupt, match="another workspace"):
        restored(vault, clock, list(foreign.shares), tmp_path / "new")


def test_a_kit_opens_a_workspace_whose_provider_is_lost(
    admin: Permit, permit_for: PermitFor, clock: FixedClock, tmp_path: Path
) -> None:
    said: dict[str, Any] = {"settings": Settings("w1"), "clock": clock, "ids": RandomIds()}
    with Vault.create(tmp_path / "ws", key_dir=tmp_path / "k", passphrase="a long enough one", **said) as vault:
        vault.objects.put(permit_for(*GRANTS), "landing", "a", b"x")
        kit = recovery.make(admin, vault.keyring, clock, shares=3, threshold=2)
    restored(vault, clock, list(kit.shares[1:]), tmp_path / "new")
    with Vault.open(tmp_path / "ws", key_dir=tmp_path / "new", **said) as again:
        assert again.objects.get(permit_for(*GRANTS), "landing", "a") == b"x"
        assert again.keyring.current().file.root.provider == "file"


def test_bounds_and_grants(vault: Vault, admin: Permit, permit_for: PermitFor, clock: FixedClock) -> None:
    for shares, threshold in ((1, 1), (5, 1), (3, 4), (17, 3)):
        with pytest.raises(Invalid):
            recovery.make(admin, vault.keyring, clock, shares=shares, threshold=threshold)
    for permit in (permit_for("keys:read", account="security"), permit_for("keys:write")):
        with pytest.raises(Refused):
            recovery.make(permit, vault.keyring, clock, shares=3, threshold=2)


def test_no_kit_is_recorded_that_nobody_has(
    vault: Vault, admin: Permit, clock: FixedClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, there = tmp_path / "file", tmp_path / "there"
    file.write_bytes(b"")
    there.mkdir()
    (there / "share-3-of-3.txt").write_text("another kit")
    before = (vault.root / "keyring.json").read_bytes()
    for folder, code in ((file, "vault.kit_folder"), (file / "in", "vault.kit_folder"), (there, "vault.kit_exists")):
        with pytest.raises(CarelakeError) as caught:
            recovery.make(
                admin, vault.keyring, clock, shares=3, threshold=2, keep=partial(write_shares, folder=folder)
            )
        assert caught.value.code == code
    assert [path.name for path in there.iterdir()] == ["share-3-of-3.txt"], "all shares or none"
    assert (vault.root / "keyring.json").read_bytes() == before
    assert vault.keyring.current().file.kit is None


# -- release 0.1.0 ------------------------------------------------------------------------------------------------


@pytest.fixture
def released(tmp_path: Path) -> tuple[Path, Path]:
    """A key ring that 0.1.0 wrote, and its key folder."""
    keys = tmp_path / "keys"
    keys.mkdir()
    shutil.copy(RELEASED / "keyring-1.root", keys / "released.key")
    shutil.copy(RELEASED / "keyring-1.json", tmp_path / "keyring.json")
    return tmp_path / "keyring.json", keys


def _open(path: Path, keys: Path, clock: FixedClock) -> Keyring:
    choose = Roots("released", keys, None)
    return Keyring.open(path, workspace="released", chooser=choose, key_dir=keys, clock=clock)


def test_a_released_ring_opens_and_is_left_as_it_is(released: tuple[Path, Path], clock: FixedClock) -> None:
    path, keys = released
    before = path.read_bytes()
    ring = _open(path, keys, clock)
    assert ring.database_key().hex() == (RELEASED / "keyring-1.database").read_text().strip()
    signature = bytes.fromhex((RELEASED / "keyring-1.signature").read_text())
    assert ring.verify(b"a line of 0.1.0", signature, account="security", purpose="trail")
    assert path.read_bytes() == before
    assert sorted(each.name for each in keys.iterdir()) == ["released.key"]


def test_a_released_ring_becomes_format_2_at_the_first_change(
    released: tuple[Path, Path], permit_for: PermitFor, clock: FixedClock
) -> None:
    path, keys = released
    ring = _open(path, keys, clock)
    old = ring.inner("production/lake").secret
    rotation.rotate(permit_for("keys:write"), ring, clock, "production", below=True)
    security = permit_for("keys:write", account="security")
    reroot.move(security, ring, clock, KeyFileRoot(keys, "released"), keep_old=False)
    assert json.loads(path.read_text())["format"] == 2
    again = _open(path, keys, clock)
    assert again.inner("production/lake", 1).secret == old
    assert again.inner("production/lake").version == 2
    signature = bytes.fromhex((RELEASED / "keyring-1.signature").read_text())
    assert again.verify(b"a line of 0.1.0", signature, account="security", purpose="trail")
    assert read_ring(path).file.root.version == 2


def test_an_altered_released_ring_is_found(released: tuple[Path, Path], clock: FixedClock) -> None:
    path, keys = released
    text = path.read_text()
    for old, new in (
        ('"active"', '"retired"'),
        ("production/lake", "production/laqe"),
        ('"format": 1', '"format": 3'),
    ):
        path.write_text(text.replace(old, new, 1))
        with pytest.raises(CarelakeError) as caught:
            _open(path, keys, clock)
        assert caught.value.code in ("vault.keyring", "vault.format")
    path.write_text(text)
    (keys / "released.key").unlink()
    with pytest.raises(Unavailable):
        _open(path, keys, clock)
