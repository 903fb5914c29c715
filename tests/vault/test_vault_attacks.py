"""What an attacker with the disk, or without the right permit, gets: an error, and a fault in `verify`."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from carelake.core.clock import FixedClock
from carelake.core.errors import CarelakeError, Corrupt, Invalid, NotFound, Refused, Unavailable
from carelake.core.ids import RandomIds
from carelake.core.permit import Permit
from carelake.core.settings import Settings
from carelake.vault.chunks import CHUNK_BYTES, HEADER_BYTES
from carelake.vault.workspace import Vault

PermitFor = Callable[..., Permit]
GRANTS = ("landing:read", "landing:write", "lake:read", "lake:write", "clinical:write", "rows:read", "rows:write")


def path_to(vault: Vault, account: str, zone: str) -> Path:
    (path,) = (each for each in (vault.root / "vault" / account / zone).rglob("*") if each.is_file())
    return path


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_a_flipped_byte_anywhere_in_a_small_object_is_found(vault: Vault, permit_for: PermitFor) -> None:
    permit = permit_for(*GRANTS)
    vault.objects.put(permit, "landing", "a", b"hello")
    path = path_to(vault, "production", "landing")
    good = path.read_bytes()
    for at in range(len(good)):
        flip(path, at)
        with pytest.raises(Corrupt) as caught:
            vault.objects.get(permit, "landing", "a")
        assert caught.value.code in ("vault.altered", "vault.key_version"), at
        path.write_bytes(good)
    assert vault.objects.get(permit, "landing", "a") == b"hello"


@pytest.mark.parametrize("at", [HEADER_BYTES + 5, HEADER_BYTES + CHUNK_BYTES + 2, -1, -20])
def test_verify_names_a_flipped_byte_and_other_chunks_still_read(
    vault: Vault, permit_for: PermitFor, at: int
) -> None:
    permit = permit_for(*GRANTS)
    vault.objects.put(permit, "lake", "whole", b"fine")
    vault.objects.put(permit, "landing", "a", bytes(2 * CHUNK_BYTES + 100))
    flip(path_to(vault, "production", "landing"), at)
    (fault,) = vault.objects.verify(permit_for("vault:verify", account="security"))
    assert (fault.kind, fault.zone, fault.name, fault.account) == ("altered", "landing", "a", "production")
    with vault.objects.open(permit, "landing", "a") as file:
        file.seek(0 if at < 0 else 2 * CHUNK_BYTES)
        assert file.read(50) == bytes(50)
        file.seek(0)
        with pytest.raises(Corrupt):
            file.read()


@pytest.mark.parametrize("cut", [1, 16, 17, CHUNK_BYTES, CHUNK_BYTES + 16, CHUNK_BYTES + 200])
def test_a_cut_or_lengthened_object_is_found(vault: Vault, permit_for: PermitFor, cut: int) -> None:
    permit = permit_for(*GRANTS)
    vault.objects.put(permit, "landing", "a", bytes(CHUNK_BYTES + 100))
    path = path_to(vault, "production", "landing")
    good = path.read_bytes()
    for bad in (good[:-cut], good + bytes(cut), b""):
        path.write_bytes(bad)
        with pytest.raises(Corrupt):
            vault.objects.get(permit, "landing", "a")
        assert [fault.kind for fault in vault.objects.verify(permit_for("vault:verify"))] == ["altered"]


def test_swapped_chunks_are_found(vault: Vault, permit_for: PermitFor) -> None:
    permit = permit_for(*GRANTS)
    vault.objects.put(permit, "landing", "a", bytes(2 * CHUNK_BYTES + 1))
    path = path_to(vault, "production", "landing")
    data = path.read_bytes()
    stored = CHUNK_BYTES + 16
    one, two = data[HEADER_BYTES:][:stored], data[HEADER_BYTES + stored :][:stored]
    path.write_bytes(data[:HEADER_BYTES] + two + one + data[HEADER_BYTES + 2 * stored :])
    with pytest.raises(Corrupt):
        vault.objects.get(permit, "landing", "a")


@pytest.mark.parametrize(
    "there",
    [("production", "landing", "b"), ("production", "lake", "a"), ("research", "landing", "a")],
    ids=["name", "zone", "account"],
)
def test_swapped_files_are_found(vault: Vault, permit_for: PermitFor, there: tuple[str, str, str]) -> None:
    account, zone, name = there
    vault.objects.put(permit_for(*GRANTS), "landing", "a", b"mine")
    mine = path_to(vault, "production", "landing")
    vault.objects.put(permit_for(*GRANTS, account=account), zone, name, b"ours")
    other = next(
        path for path in (vault.root / "vault" / account / zone).rglob("*") if path.is_file() and path != mine
    )
    keep, take = mine.read_bytes(), other.read_bytes()
    mine.write_bytes(take)
    other.write_bytes(keep)
    with pytest.raises(Corrupt):
        vault.objects.get(permit_for(*GRANTS), "landing", "a")
    assert len(list(vault.objects.verify(permit_for("vault:verify")))) == 2


def test_an_older_version_put_back_is_found(vault: Vault, permit_for: PermitFor) -> None:
    permit = permit_for(*GRANTS)
    vault.objects.put(permit, "landing", "a", b"old!")
    old = path_to(vault, "production", "landing")
    vault.objects.put(permit, "landing", "a", b"new!")
    (new,) = (p for p in (vault.root / "vault/production/landing").rglob("*") if p.is_file() and p != old)
    new.write_bytes(old.read_bytes())
    with pytest.raises(Corrupt):
        vault.objects.get(permit, "landing", "a")


def test_a_missing_file_and_a_link_are_found(vault: Vault, permit_for: PermitFor, tmp_path: Path) -> None:
    permit = permit_for(*GRANTS)
    vault.objects.put(permit, "landing", "a", b"x")
    path = path_to(vault, "production", "landing")
    moved = path.rename(tmp_path / "moved")
    with pytest.raises(Corrupt, match="missing"):
        vault.objects.get(permit, "landing", "a")
    assert [fault.kind for fault in vault.objects.verify(permit_for("vault:verify"))] == ["missing"]
    path.symlink_to(moved)
    assert [fault.kind for fault in vault.objects.verify(permit_for("vault:verify"))] == ["missing"]


def test_errors_and_reprs_hold_no_name(vault: Vault, permit_for: PermitFor) -> None:
    permit = permit_for(*GRANTS)
    told = vault.objects.put(permit, "landing", "Zebulon Canary", b"x", tags={"file": "Zebulon"})
    path_to(vault, "production", "landing").unlink()
    said = [repr(told)]
    for call in (
        lambda: vault.objects.get(permit, "landing", "Zebulon Canary"),
        lambda: vault.objects.get(permit, "landing", "Zebulon Other"),
        lambda: vault.objects.put(permit, "landing", "Zebulon\0", b""),
    ):
        with pytest.raises(CarelakeError) as caught:
            call()
        said += [caught.value.message, repr(caught.value.facts)]
    assert not [text for text in said if "Zebulon" in text]


# -- permits ------------------------------------------------------------------------------------------------------


def calls(vault: Vault, permit: Permit) -> list[Callable[[], Any]]:
    """Every door of the vault that takes a permit."""

    def enter(context: Any) -> None:
        with context:
            pass

    return [
        lambda: vault.objects.put(permit, "landing", "a", b""),
        lambda: vault.objects.create(permit, "landing", "a"),
        lambda: vault.objects.get(permit, "landing", "a"),
        lambda: vault.objects.open(permit, "landing", "a"),
        lambda: vault.objects.stat(permit, "landing", "a"),
        lambda: vault.objects.list(permit, "landing"),
        lambda: vault.objects.any(permit, "landing", "a"),
        lambda: vault.objects.delete(permit, "landing", "a"),
        lambda: vault.objects.verify(permit),
        lambda: enter(vault.database.transaction(permit)),
        lambda: enter(vault.database.reading(permit)),
        lambda: vault.database.engine_for(permit),
        lambda: vault.keyring.reference(permit, "resource", b"x"),
        lambda: vault.keyring.sign(permit, "models", b"x"),
        lambda: vault.sealer.seal(permit, None, "p", b"", b""),  # type: ignore[arg-type]
        lambda: vault.sealer.open(permit, None, "p", b"", b""),  # type: ignore[arg-type]
        lambda: vault.sealer.forget(permit, None, "p"),  # type: ignore[arg-type]
    ]


ALL = (*GRANTS, "vault:verify", "models:write", "rows:erase")


def test_forged_and_expired_permits_open_nothing(vault: Vault, permit_for: PermitFor, clock: FixedClock) -> None:
    good = permit_for(*ALL)
    stale = permit_for(*ALL, expires=clock.now())
    forged = [
        replace(permit_for("lake:read"), grants=frozenset(ALL)),
        replace(good, account="research"),
        replace(good, expires=clock.now() + timedelta(days=9)),
        replace(good, seal=b""),
        object(),
    ]
    for bad in [stale, permit_for(), *forged]:
        for call in calls(vault, bad):  # type: ignore[arg-type]
            # What is no permit at all may also fail for want of an account; either way nothing is opened.
            with pytest.raises((Refused, AttributeError) if bad is forged[-1] else Refused):
                call()


def test_a_permit_opens_only_what_it_grants(vault: Vault, permit_for: PermitFor) -> None:
    wrong = permit_for("features:read", "features:write")
    for call in calls(vault, wrong):
        if "reference" in call.__code__.co_names:
            continue  # any genuine permit may name things
        with pytest.raises(Refused) as caught:
            call()
        assert caught.value.code == "permit.grant"
    assert not (vault.root / "vault" / "production" / "landing").exists()


def test_another_account_sees_nothing(vault: Vault, permit_for: PermitFor) -> None:
    told = vault.objects.put(permit_for(*GRANTS), "landing", "a", b"x")
    other = permit_for(*GRANTS, account="research")
    assert vault.objects.list(other, "landing") == []
    for version in (None, told.version):
        with pytest.raises(NotFound):
            vault.objects.get(other, "landing", "a", version)
    with pytest.raises(NotFound):
        vault.objects.delete(other, "landing", "a")
    mine, theirs = (vault.keyring.reference(p, "resource", b"x") for p in (permit_for(*GRANTS), other))
    assert mine != theirs


def test_a_permit_that_expires_while_writing_commits_nothing(
    vault: Vault, permit_for: PermitFor, clock: FixedClock
) -> None:
    permit = permit_for(*GRANTS)
    writer = vault.objects.create(permit, "lake", "a")
    writer.write(b"x")
    clock.move(hours=2)
    with pytest.raises(Refused, match="expired"):
        writer.close()
    assert vault.objects.list(permit_for(*GRANTS), "lake") == []


def test_key_use_is_noted_once_per_permit(vault: Vault, permit_for: PermitFor) -> None:
    permit = permit_for(*GRANTS)
    for _ in range(3):
        vault.objects.put(permit, "lake", "a", b"x")
        vault.objects.get(permit, "lake", "a")
    assert permit.log.keys == ["production/lake/v1"]  # type: ignore[attr-defined]


# -- the root key -------------------------------------------------------------------------------------------------


def reopened(vault: Vault, clock: FixedClock, root: Path, key_dir: Path, **more: Any) -> Vault:
    return Vault.open(root, settings=vault.settings, key_dir=key_dir, clock=clock, ids=RandomIds(), **more)


def test_a_copied_workspace_without_its_key_refuses_with_a_sentence(
    vault: Vault, clock: FixedClock, tmp_path: Path
) -> None:
    shutil.copytree(vault.root, tmp_path / "copy")
    with pytest.raises(Unavailable) as caught:
        reopened(vault, clock, tmp_path / "copy", tmp_path / "elsewhere")
    assert caught.value.code == "vault.root_key_missing"
    assert str(tmp_path / "elsewhere" / "w1.key") in caught.value.message
    with reopened(vault, clock, tmp_path / "copy", tmp_path / "keys"):
        pass


def test_a_wrong_or_broken_key_is_said(vault: Vault, clock: FixedClock, tmp_path: Path) -> None:
    path = tmp_path / "keys" / "w1.key"
    assert path.stat().st_mode & 0o777 == 0o600
    for text, code in (("00" * 32, "vault.wrong_key"), ("abc", "vault.root_key"), ("", "vault.root_key")):
        path.write_text(text)
        with pytest.raises(Corrupt) as caught:
            reopened(vault, clock, vault.root, tmp_path / "keys")
        assert caught.value.code == code


def test_an_altered_key_ring_is_found(vault: Vault, clock: FixedClock, tmp_path: Path) -> None:
    path = vault.root / "keyring.json"
    good = path.read_text()
    for old, new in (
        ('"retired"', ""),
        ('"active"', '"retired"'),
        ('"version": 1', '"version": 2'),
        ("production/lake", "production/laqe"),
    ):
        if old in good:
            path.write_text(good.replace(old, new, 1))
            with pytest.raises(Corrupt):
                reopened(vault, clock, vault.root, tmp_path / "keys")
    path.write_text("{")
    with pytest.raises(Corrupt):
        reopened(vault, clock, vault.root, tmp_path / "keys")
    path.unlink()
    with pytest.raises(Unavailable, match="key ring is lost"):
        reopened(vault, clock, vault.root, tmp_path / "keys")


def test_nothing_secret_stands_in_the_key_ring_or_the_workspace(vault: Vault, tmp_path: Path) -> None:
    root = bytes.fromhex((tmp_path / "keys" / "w1.key").read_text().strip())
    database = vault.keyring.database_key()
    for path in (each for each in vault.root.rglob("*") if each.is_file() and each.name != "carelake.db"):
        data = path.read_bytes()
        for secret in (root, database):
            assert secret not in data
            assert secret.hex().encode() not in data


def test_a_root_key_is_never_replaced_nor_kept_inside(clock: FixedClock, vault: Vault, tmp_path: Path) -> None:
    def create(root: Path, key_dir: Path, workspace: str = "w1") -> Vault:
        settings = Settings(workspace=workspace)
        return Vault.create(root, settings=settings, key_dir=key_dir, clock=clock, ids=RandomIds())

    with pytest.raises(CarelakeError, match="already"):
        create(tmp_path / "other", tmp_path / "keys")
    with pytest.raises(CarelakeError, match="already"):
        create(vault.root, tmp_path / "keys2")
    for key_dir in (tmp_path / "new", tmp_path / "new" / "keys", tmp_path / "x" / ".." / "new" / "k"):
        with pytest.raises(Invalid, match="inside"):
            create(tmp_path / "new", key_dir)
    for workspace in ("", "../w1", "a/b", "x" * 65, ".."):
        with pytest.raises(Invalid, match="workspace id"):
            create(tmp_path / "new", tmp_path / "keys", workspace)


def test_a_passphrase_workspace(clock: FixedClock, tmp_path: Path) -> None:
    said: dict[str, Any] = {
        "settings": Settings(workspace="w2"),
        "key_dir": tmp_path / "keys",
        "clock": clock,
        "ids": RandomIds(),
    }
    with pytest.raises(Invalid, match="short"):
        Vault.create(tmp_path / "w", passphrase="short", **said)
    Vault.create(tmp_path / "w", passphrase="a long enough one", **said).close()
    assert not (tmp_path / "keys").exists()
    Vault.open(tmp_path / "w", passphrase="a long enough one", **said).close()
    with pytest.raises(Corrupt) as caught:
        Vault.open(tmp_path / "w", passphrase="another long one", **said)
    assert caught.value.code == "vault.wrong_key"
    with pytest.raises(Unavailable, match="CARELAKE_PASSPHRASE"):
        Vault.open(tmp_path / "w", **said)


def test_the_head_lies_outside(vault: Vault, tmp_path: Path) -> None:
    assert vault.read_head() is None
    vault.write_head(b"one")
    vault.write_head(b"two")
    assert vault.read_head() == b"two"
    assert sorted(path.name for path in (tmp_path / "keys").iterdir()) == ["w1.head", "w1.key"]
