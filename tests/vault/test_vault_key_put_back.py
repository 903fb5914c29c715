"""Older copies beside a clock that was wrong, a ring changed elsewhere, and a destruction that still waits."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from carelake.core.clock import FixedClock
from carelake.core.errors import CarelakeError, Corrupt
from carelake.core.ids import RandomIds
from carelake.core.permit import Permit
from carelake.vault import destruction, rotation
from carelake.vault.forgotten import erase_listed, forgotten_name
from carelake.vault.workspace import Vault

PermitFor = Callable[..., Permit]
ALL = ("lake:read", "lake:write", "rows:read", "rows:write", "rows:erase", "keys:read", "keys:write", "keys:destroy")


def again(vault: Vault, root: Path | None = None, keys: Path | None = None) -> Vault:
    said: dict[str, Any] = {"settings": vault.settings, "clock": vault.clock, "ids": RandomIds()}
    return Vault.open(root or vault.root, key_dir=keys or vault.head_folder, **said)


def sealed(vault: Vault, permit: Permit, owner: str) -> bytes:
    with vault.database.transaction(permit) as tx:
        return vault.sealer.seal(permit, tx, owner, b"c", b"told")


def code_of(vault: Vault, permit: Permit, owner: str, body: bytes) -> str:
    with vault.database.reading(permit) as tx:
        try:
            assert vault.sealer.open(permit, tx, owner, b"c", body) == b"told"
        except CarelakeError as error:
            return error.code
    return ""


def kinds(vault: Vault) -> list[str]:
    return [notice.kind for notice in vault.keyring.take_notices()]


def test_an_erasure_after_the_clock_was_set_back_holds_in_older_copies(
    vault: Vault, permit_for: PermitFor, clock: FixedClock, tmp_path: Path
) -> None:
    permit = permit_for(*ALL)
    body = sealed(vault, permit, "p1")
    vault.close()
    shutil.copytree(vault.root, tmp_path / "copy")
    clock.move(hours=-2)
    with again(vault) as live, live.database.transaction(permit) as tx:
        assert live.sealer.forget(permit, tx, "p1") == 1
    with again(vault, tmp_path / "copy") as copy:
        assert kinds(copy) == ["erased_again"]
        assert code_of(copy, permit, "p1", body) == "vault.erased"


@pytest.mark.parametrize("order", [1, -1])
def test_of_several_erasures_of_one_patient_the_latest_counts(
    vault: Vault, permit_for: PermitFor, order: int
) -> None:
    permit, listed = permit_for(*ALL), vault.forgotten
    body = sealed(vault, permit, "p1")
    name = forgotten_name(listed.secret, "production", "p1")
    for number, day in [(1, "01"), (2, "03")][::order]:
        listed.note_patient(f"{number:032x}", "production", name, f"2026-01-{day}T00:00:00.000Z")
    with vault.database.transaction(permit) as tx:
        assert erase_listed(tx, listed) == 2
    assert code_of(vault, permit, "p1", body) == "vault.erased"


def test_a_ring_as_new_as_the_newest_but_another_is_told(
    vault: Vault, permit_for: PermitFor, clock: FixedClock, tmp_path: Path
) -> None:
    permit = permit_for(*ALL)
    vault.objects.put(permit, "lake", "a", b"x")
    vault.close()
    shutil.copytree(vault.root, tmp_path / "copy")
    shutil.copytree(vault.head_folder, tmp_path / "keys2")
    with again(vault) as live:
        destruction.disable(permit, live.keyring, clock, "production/lake")
        newest = live.keyring.current().file.generation
    with again(vault, tmp_path / "copy", tmp_path / "keys2") as copy:
        rotation.rotate(permit, copy.keyring, clock, "production/models")
        assert copy.keyring.current().file.generation == newest
    with again(vault) as live:
        shutil.copy(tmp_path / "copy" / "keyring.json", live.root)
        with pytest.raises(Corrupt) as caught:  # while it is open
            live.objects.get(permit, "lake", "a")
        assert caught.value.code == "vault.keyring_put_back"
    with again(vault) as live:
        assert kinds(live) == ["put_back"]
        with pytest.raises(CarelakeError) as refused:
            live.objects.get(permit, "lake", "a")
        assert refused.value.code == "vault.key_disabled"
    with again(vault) as live:
        assert kinds(live) == []


def test_an_older_copy_that_is_opened_leaves_the_newest_ring_the_newest(
    vault: Vault, permit_for: PermitFor, clock: FixedClock, tmp_path: Path
) -> None:
    vault.close()
    shutil.copytree(vault.root, tmp_path / "copy")
    with again(vault) as live:
        destruction.disable(permit_for(*ALL), live.keyring, clock, "production/lake")
    for expected in (["put_back"], []):
        with again(vault, tmp_path / "copy") as copy:
            assert kinds(copy) == expected
        with again(vault) as live:
            assert kinds(live) == []


def test_a_key_disabled_while_patients_keys_are_read_is_not_cached(
    vault: Vault, permit_for: PermitFor, clock: FixedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    permit = permit_for(*ALL)
    body = sealed(vault, permit, "p1")
    rotation.rotate(permit, vault.keyring, clock, "production/patient")
    with again(vault) as reader, again(vault) as other:
        load = reader.sealer._load

        def slow(*words: Any) -> Any:
            found = load(*words)
            destruction.disable(permit, other.keyring, clock, "production/patient/v1")
            return found

        monkeypatch.setattr(reader.sealer, "_load", slow)
        assert code_of(reader, permit, "p1", body) == ""
        monkeypatch.setattr(reader.sealer, "_load", load)
        assert code_of(reader, permit, "p1", body) == "vault.key_disabled"


def test_a_destruction_is_done_where_an_older_ring_lacks_the_version(
    vault: Vault, permit_for: PermitFor, clock: FixedClock, tmp_path: Path
) -> None:
    permit, second = permit_for(*ALL), permit_for(*ALL, principal="second")
    shutil.copy(vault.root / "keyring.json", tmp_path / "old.json")
    rotation.rotate(permit, vault.keyring, clock, "production/lake")
    vault.objects.put(permit, "lake", "a", b"under v2")
    rotation.rotate(permit, vault.keyring, clock, "production/lake")
    destruction.ask(permit, vault.keyring, clock, "production/lake/v2", days=7)
    destruction.confirm(second, vault.keyring, clock, "production/lake/v2")
    vault.close()
    shutil.copy(vault.root / "keyring.json", tmp_path / "new.json")
    shutil.copy(tmp_path / "old.json", vault.root / "keyring.json")
    with again(vault) as old:
        assert kinds(old) == ["put_back"]
        # A version made by the older ring is another key of that name, and is not meant.
        rotation.rotate(permit, old.keyring, clock, "production/lake")
    clock.move(days=8)
    late = permit_for(*ALL)
    with again(vault) as old:
        assert destruction.pending(old.keyring.current().file) == []
        old.objects.put(late, "lake", "b", b"x")
        assert old.objects.get(late, "lake", "b") == b"x"
    again(vault).close()
    shutil.copy(tmp_path / "new.json", vault.root / "keyring.json")
    with again(vault) as new:
        assert kinds(new) == ["destroyed", "put_back"]
        with pytest.raises(CarelakeError) as caught:
            new.objects.get(late, "lake", "a")
        assert caught.value.code == "vault.key_destroyed"
