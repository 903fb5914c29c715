"""A restored workspace beside the living one, with the same key folder: what one does, the other does not feel."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from carelake.core.errors import Conflict, Corrupt, Gone, Invalid, Refused
from carelake.core.ids import RandomIds
from carelake.core.settings import LifecycleRules, ObjectSettings, Settings
from carelake.vault import destruction, reroot
from carelake.vault.backup.opening import open_ring
from carelake.vault.backup.restore import begin
from carelake.vault.backup.ship import ship
from carelake.vault.roots import KeyFileRoot, other_copies, outside_name
from carelake.vault.workspace import Vault

ALL = ("vault:backup", "rows:read", "rows:write", "rows:erase", "landing:read", "landing:write", "vault:verify")


class Pair:
    """A workspace, and copies of it that were restored with its key folder."""

    def __init__(self, vault: Vault, folder: Path, permit: Any) -> None:
        self.vault, self.folder, self.permit = vault, folder, permit
        (vault.root / "carelake.toml").write_text('workspace = "w1"\n')

    @property
    def keys(self) -> Path:
        return self.vault.head_folder

    def backup(self) -> str:
        self.vault.clock.move(seconds=1)  # type: ignore[attr-defined]
        self.vault.write_head(b"")  # the trail is sealed before a backup
        done = ship(self.permit, self.vault, self.folder / "out", trail=lambda connection: {})
        return done.envelope.point

    def restore(self, name: str = "copy", point: str | None = None, **settings: Any) -> Settings:
        told: dict[str, Any] = {"root_keys": self.keys, "beside": self.keys, "passphrase": None}
        work = begin(
            self.folder / "out",
            self.folder / name,
            open_ring=lambda path, ws, copy: open_ring(path, ws, copy, clock=self.vault.clock, **told),
            point=point,
        )
        made = msgspec.structs.replace(self.vault.settings, copy=work.copy, **settings)
        work.assemble(made)
        more: dict[str, Any] = {"key_dir": self.keys, "clock": self.vault.clock, "ids": RandomIds()}
        with Vault(self.folder / name, settings=made, keyring=work.keyring, **more) as copy:
            work.fill(copy)
            work.replay(copy)
        work.finish(made)
        return made

    def open(self, settings: Settings, name: str = "copy", keys: Path | None = None) -> Vault:
        more: dict[str, Any] = {"key_dir": keys or self.keys, "clock": self.vault.clock, "ids": RandomIds()}
        return Vault.open(self.folder / name, settings=settings, **more)

    def outside(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.keys.iterdir()}


@pytest.fixture
def pair(vault: Any, tmp_path: Path, permit_for: Callable[..., Any]) -> Pair:
    return Pair(vault, tmp_path, permit_for(*ALL))


def destroy(vault: Vault, label: str) -> None:
    vault.keyring.change(lambda draft: draft.destroy(next(e for e in draft.file.keys if e.label == label)))


def destroyed(vault: Vault) -> set[str]:
    return {entry.label for entry in vault.keyring.current().file.keys if entry.state == "destroyed"}


def sealed(vault: Vault, permit: Any, *patients: str) -> dict[str, bytes]:
    with vault.database.transaction(permit) as tx:
        return {who: vault.sealer.seal(permit, tx, who, b"c", who.encode()) for who in patients}


def readable(vault: Vault, permit: Any, told: dict[str, bytes]) -> set[str]:
    found = set()
    with vault.database.transaction(permit) as tx:
        for who, data in told.items():
            try:
                vault.sealer.open(permit, tx, who, b"c", data)
                found.add(who)
            except Gone:
                pass
    return found


def forget(vault: Vault, permit: Any, patient: str) -> None:
    vault.clock.move(seconds=1)  # type: ignore[attr-defined]
    with vault.database.transaction(permit) as tx:
        assert vault.sealer.forget(permit, tx, patient) == 1


def test_what_happens_to_one_does_not_happen_to_the_other(pair: Pair) -> None:
    told = sealed(pair.vault, pair.permit, "p1", "p2", "p3")
    pair.backup()
    before = pair.outside()
    settings = pair.restore()
    assert {name: pair.outside()[name] for name in before} == before
    with pair.open(settings) as copy:
        forget(pair.vault, pair.permit, "p1")
        forget(copy, pair.permit, "p2")
        destroy(pair.vault, "research/lake/v1")
        destroy(copy, "research/models/v1")
    with pair.open(settings) as copy, pair.open(pair.vault.settings, "ws") as first:
        assert readable(copy, pair.permit, told) == {"p1", "p3"}
        assert readable(first, pair.permit, told) == {"p2", "p3"}
        assert destroyed(copy) == {"research/models/v1"}
        assert destroyed(first) == {"research/lake/v1"}
        assert copy.keyring.notices == first.keyring.notices == []


def test_what_was_done_before_the_restore_is_done_again(
    pair: Pair, permit_for: Callable[..., Any], clock: Any
) -> None:
    """Erasures, destructions and what was disabled: from the list of the original, which stays as it is."""
    told = sealed(pair.vault, pair.permit, "p1", "p2")
    old = pair.backup()
    forget(pair.vault, pair.permit, "p1")
    destroy(pair.vault, "research/lake/v1")
    admin = permit_for("keys:write", account="research")
    destruction.disable(admin, pair.vault.keyring, clock, "research/models")
    before = pair.outside()
    settings = pair.restore(point=old)
    assert {name: pair.outside()[name] for name in before} == before
    with pair.open(settings) as copy:
        assert readable(copy, pair.permit, told) == {"p2"}
        assert destroyed(copy) == {"research/lake/v1"}
        assert "research/models" in copy.keyring.current().file.holds
        destruction.enable(admin, copy.keyring, clock, "research/models")
    assert "research/models" in pair.vault.keyring.current().file.holds


def test_a_copy_of_a_copy_takes_its_own_list_along(pair: Pair) -> None:
    told = sealed(pair.vault, pair.permit, "p1", "p2")
    pair.backup()
    settings = pair.restore()
    with pair.open(settings) as copy:
        second = Pair(copy, pair.folder / "second", pair.permit)
        (copy.root / "carelake.toml").write_text(f'workspace = "w1"\ncopy = "{settings.copy}"\n')
        second.folder.mkdir()
        second.backup()
        forget(copy, pair.permit, "p1")
        again = second.restore()
    assert again.copy not in ("", settings.copy)
    with second.open(again) as grandchild:
        assert readable(grandchild, pair.permit, told) == {"p2"}
    text = (second.folder / "copy" / "carelake.toml").read_text()
    assert text == f'workspace = "w1"\ncopy = "{again.copy}"\n'


def test_a_copy_by_another_name_is_refused(pair: Pair, tmp_path: Path) -> None:
    """An old state must not escape the head and the list that it is held against."""
    told = sealed(pair.vault, pair.permit, "p1")
    pair.backup()
    kept = tmp_path / "kept"
    pair.vault.database.damaged()  # the WAL is whole
    shutil.copytree(pair.vault.root, kept)
    settings = pair.restore()
    forget(pair.vault, pair.permit, "p1")
    before = pair.outside()
    for name, wrong in (
        ("kept", settings.copy),
        ("kept", "0123456789abcdef"),
        ("copy", ""),
        ("copy", "f" * 16),
    ):
        with pytest.raises(Corrupt) as caught:
            pair.open(msgspec.structs.replace(settings, copy=wrong), name)
        assert caught.value.code == "vault.copy_mismatch"
    # With the copy's key ring as well, the rows tell.
    shutil.copy(pair.folder / "copy" / "keyring.json", kept / "keyring.json")
    with pytest.raises(Corrupt) as caught:
        pair.open(settings, "kept")
    assert caught.value.code == "vault.workspace_mismatch"
    assert pair.outside() == before
    assert told


def test_an_old_copy_in_a_key_folder_that_knows_another_one(pair: Pair, tmp_path: Path) -> None:
    """There is neither head nor list for it: what was erased since would come back."""
    pair.backup()
    kept, keys = tmp_path / "kept", tmp_path / "elsewhere"
    shutil.copytree(pair.vault.root, kept)
    settings = pair.restore()
    keys.mkdir()
    shutil.copy(pair.keys / "w1.key", keys)
    with pytest.raises(Corrupt, match=rf"w1\.{settings.copy}\.head"):
        pair.open(settings, "copy", keys)
    shutil.copy(pair.keys / f"w1.{settings.copy}.forgotten", keys)
    pair.open(settings, "copy", keys).close()
    for told, code in ((settings, "vault.copy_mismatch"), (pair.vault.settings, "vault.copy_unknown")):
        with pytest.raises(Corrupt) as caught:
            pair.open(told, "kept", keys)
        assert caught.value.code == code
    # Where nothing is known of any copy it opens, as ever.
    (keys / f"w1.{settings.copy}.forgotten").unlink()
    pair.open(pair.vault.settings, "kept", keys).close()


@pytest.mark.parametrize("wrong", ["../../etc/x", "A" * 16, "a" * 15, "a" * 17, "a" * 16 + "\n", "/", ".", "é" * 16])
def test_an_id_of_another_form_leads_nowhere(wrong: str) -> None:
    with pytest.raises(ValueError, match="16 lower-case hex digits"):
        Settings(workspace="w1", copy=wrong)
    with pytest.raises(Invalid):
        outside_name("w1", wrong)


def test_the_root_key_of_one_is_not_taken_from_the_other(pair: Pair, permit_for: Callable[..., Any]) -> None:
    pair.backup()
    settings = pair.restore()
    admin = permit_for("keys:write", account="security")
    provider, clock = KeyFileRoot(pair.keys, "w1"), pair.vault.clock
    with pytest.raises(Conflict) as caught:
        reroot.move(admin, pair.vault.keyring, clock, provider, keep_old=False)
    assert caught.value.code == "vault.root_shared"
    assert settings.copy in caught.value.message
    assert reroot.move(admin, pair.vault.keyring, clock, provider, keep_old=True).version == 2
    with pair.open(settings) as copy:
        with pytest.raises(Conflict):
            reroot.move(admin, copy.keyring, clock, provider, keep_old=False)
        assert reroot.move(admin, copy.keyring, clock, provider, keep_old=True).version == 3
    pair.open(settings).close()
    pair.open(pair.vault.settings, "ws").close()
    # Once the copy is gone for good, with its files, the old root key may go.
    for name in other_copies(pair.keys, "w1", ""):
        (pair.keys / name).unlink()
    assert reroot.move(admin, pair.vault.keyring, clock, provider, keep_old=False).version == 4


def test_colder_folders_outside_are_not_shared(pair: Pair, tmp_path: Path, permit_for: Callable[..., Any]) -> None:
    cold, clock = tmp_path / "cold", pair.vault.clock
    outside: dict[str, Any] = {
        "objects": ObjectSettings(inline_bytes=0, archive_folder=str(cold)),
        "lifecycle": {"landing": LifecycleRules(archive_days=1)},
    }
    ours = msgspec.structs.replace(pair.vault.settings, **outside)
    pair.permit = permit_for(*ALL, "landing:keep", expires=clock.now() + timedelta(days=9000))
    data = os.urandom(5000)
    with pair.open(ours, "ws") as pair.vault:
        pair.vault.objects.put(pair.permit, "landing", "a", data)
        clock.move(days=4000)  # type: ignore[attr-defined]
        assert pair.vault.objects.lifecycle.run(pair.permit, "landing").archived == 1
        pair.backup()
        settings = pair.restore(**outside)
        pair.vault.objects.put(pair.permit, "landing", "b", data)
        clock.move(days=4000)  # type: ignore[attr-defined]
        # Whatever is in the folder is old by now: what is not one's own would be set aside.
        assert pair.vault.objects.lifecycle.run(pair.permit, "landing").archived == 1
    files = sorted(path for path in cold.rglob("*") if path.is_file())
    assert [settings.copy_name in path.parts for path in files].count(True) == 1
    assert len(files) == 3
    for told, name, names in ((settings, "copy", ["a"]), (ours, "ws", ["a", "b"])):
        with pair.open(told, name) as one:
            assert one.objects.lifecycle.run(pair.permit, "landing").swept == 0
            assert [one.objects.get(pair.permit, "landing", each) for each in names] == [data] * len(names)
    assert sorted(path for path in cold.rglob("*") if path.is_file()) == files


def test_settings_keep_what_is_written_in_them(pair: Pair) -> None:
    text = '# ours\nworkspace = "w1" # it\ncopy = "0000000000000000"\nformat = 2\n\n[lake]\nthreads = 1 # [x]\n'
    (pair.vault.root / "carelake.toml").write_text(text)
    pair.backup()
    made = pair.restore()
    found = (pair.folder / "copy" / "carelake.toml").read_text()
    assert found == text.replace('copy = "0000000000000000"\n', "").replace(
        "format = 2\n\n", f'format = 2\ncopy = "{made.copy}"\n\n'
    )


def test_a_grant_is_needed_all_the_same(pair: Pair, permit_for: Callable[..., Any]) -> None:
    with pytest.raises(Refused):
        reroot.move(
            permit_for("rows:read"),
            pair.vault.keyring,
            pair.vault.clock,
            KeyFileRoot(pair.keys, "w1"),
            keep_old=False,
        )
