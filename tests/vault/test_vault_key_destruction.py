"""Destruction: counted first, undone until it is due, then for good, whatever copy is put back."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import select

from carelake.core.clock import FixedClock
from carelake.core.errors import CarelakeError, Conflict, Corrupt, Gone, Invalid, Refused
from carelake.core.ids import RandomIds
from carelake.core.permit import Permit
from carelake.vault import destruction, rotation
from carelake.vault.forgotten import Forgotten, erase_listed
from carelake.vault.key_listing import impact
from carelake.vault.tables import forgotten_patient, patient_key
from carelake.vault.workspace import Vault

PermitFor = Callable[..., Permit]
ALL = ("landing:read", "landing:write", "lake:read", "lake:write", "rows:read", "rows:write", "rows:erase")
KEYS = ("keys:read", "keys:write", "keys:destroy")


def again(vault: Vault, clock: FixedClock, root: Path | None = None, key_dir: Path | None = None) -> Vault:
    keys = key_dir or vault.root.parent / "keys"
    return Vault.open(root or vault.root, settings=vault.settings, key_dir=keys, clock=clock, ids=RandomIds())


def doom(vault: Vault, permit_for: PermitFor, clock: FixedClock, key: str, *, wait: bool = True) -> None:
    account = key.partition("/")[0]
    destruction.ask(permit_for(*KEYS, account=account), vault.keyring, clock, key, days=7)
    other = permit_for(*KEYS, account=account, principal="other")
    destruction.confirm(other, vault.keyring, clock, key)
    if wait:
        clock.move(days=7)
        assert destruction.destroy_due(vault.keyring, clock)


def sealed(vault: Vault, permit: Permit, owner: str) -> bytes:
    with vault.database.transaction(permit) as tx:
        return vault.sealer.seal(permit, tx, owner, b"c", owner.encode() + b"!")


def opened(vault: Vault, permit: Permit, owner: str, body: bytes) -> bytes:
    with vault.database.reading(permit) as tx:
        return vault.sealer.open(permit, tx, owner, b"c", body)


def code_of(call: Callable[[], object]) -> str:
    with pytest.raises(CarelakeError) as caught:
        call()
    return caught.value.code


def test_what_would_be_lost_is_counted_first(vault: Vault, permit_for: PermitFor, clock: FixedClock) -> None:
    permit = permit_for(*ALL, *KEYS)
    for name in ("a", "b", "c"):
        vault.objects.put(permit, "landing", name, b"x")
    for owner in ("p1", "p2"):
        sealed(vault, permit, owner)
    clock.move(minutes=1)
    rotation.rotate(permit, vault.keyring, clock, "production", below=True)
    clock.move(minutes=1)
    vault.objects.put(permit, "landing", "d", b"x")
    sealed(vault, permit, "p3")
    counted = {
        key: (found.objects, found.patients, found.total)
        for key in ("production/landing", "production/landing/v1", "production/landing/v2", "production/patient/v1")
        if (found := impact(permit, vault.keyring, vault.database, clock, key))
    }
    assert counted == {
        "production/landing": ({"production/landing": 4}, {}, 4),
        "production/landing/v1": ({"production/landing": 3}, {}, 3),
        "production/landing/v2": ({"production/landing": 1}, {}, 1),
        "production/patient/v1": ({}, {"production": 2}, 2),
    }
    whole = impact(permit, vault.keyring, vault.database, clock, "production")
    assert (whole.objects["production/landing"], whole.patients) == (4, {"production": 3})
    assert "production/reference/v1" in whole.keys
    with pytest.raises(Refused):
        impact(permit_for("rows:read"), vault.keyring, vault.database, clock, "production")


def test_the_waiting_period_and_its_words(vault: Vault, permit_for: PermitFor, clock: FixedClock) -> None:
    ann, bob = permit_for(*KEYS), permit_for(*KEYS, principal="bob")
    keyring = vault.keyring
    for days in (0, 6, 31):
        with pytest.raises(Invalid):
            destruction.ask(ann, keyring, clock, "production/lake", days=days)
    assert code_of(lambda: destruction.confirm(bob, keyring, clock, "production/lake")) == "vault.key_not_pending"
    assert code_of(lambda: destruction.cancel(bob, keyring, clock, "production/lake")) == "vault.key_not_pending"
    destruction.ask(ann, keyring, clock, "production/lake", days=10)
    with pytest.raises(Conflict):
        destruction.ask(bob, keyring, clock, "production/lake", days=10)
    clock.move(minutes=30)
    found = destruction.confirm(bob, keyring, clock, "production/lake")
    assert (found.asked_by, found.confirmed_by, found.due) == ("tester", "bob", "2026-01-12T03:34:05.000Z")
    assert destruction.pending(keyring.current().file) == [found]
    assert code_of(lambda: destruction.confirm(bob, keyring, clock, "production/lake")) == "vault.key_pending"
    assert code_of(lambda: keyring.inner("production/lake")) == "vault.key_disabled"
    destruction.cancel(ann, keyring, clock, "production/lake")
    keyring.inner("production/lake")
    clock.move(days=20)
    assert destruction.destroy_due(keyring, clock) == ()


def test_what_is_not_destroyed(vault: Vault, permit_for: PermitFor, clock: FixedClock) -> None:
    permit, security = permit_for(*KEYS), permit_for(*KEYS, account="security")
    keyring = vault.keyring
    assert (
        code_of(lambda: destruction.ask(permit, keyring, clock, "production/lake/v1", days=7)) == "vault.key_active"
    )
    for who, key in ((permit, "production/reference"), (security, "security/sign-tokens")):
        assert code_of(lambda w=who, k=key: destruction.ask(w, keyring, clock, k, days=7)) == "vault.key_kept"
    doom(vault, permit_for, clock, "production/lake")
    late = permit_for(*KEYS)
    assert code_of(lambda: destruction.ask(late, keyring, clock, "production/lake", days=7)) == "vault.key_is_gone"
    assert code_of(lambda: destruction.disable(late, keyring, clock, "production/lake/v1")) == "vault.key_is_gone"


def test_an_account_goes_with_all_below_it(vault: Vault, permit_for: PermitFor, clock: FixedClock) -> None:
    permit = permit_for(*ALL, account="research")
    vault.objects.put(permit, "landing", "a", b"x")
    body = sealed(vault, permit, "p1")
    doom(vault, permit_for, clock, "research")
    late, mine = permit_for(*ALL, account="research"), permit_for(*ALL)
    assert code_of(lambda: vault.objects.get(late, "landing", "a")) == "vault.key_destroyed"
    assert code_of(lambda: opened(vault, late, "p1", body)) == "vault.key_destroyed"
    assert code_of(lambda: vault.keyring.reference(late, "x", b"")) == "vault.key_destroyed"
    vault.objects.put(mine, "landing", "a", b"x")
    file = (vault.root / "keyring.json").read_text()
    assert '"state": "destroyed"' in file
    assert {entry.wrapped for entry in vault.keyring.current().file.keys if entry.name.startswith("research")} == {
        b""
    }


def test_a_patient_can_be_kept_again_after_the_wrapping_key_went(
    vault: Vault, permit_for: PermitFor, clock: FixedClock
) -> None:
    body = sealed(vault, permit_for(*ALL), "p1")
    doom(vault, permit_for, clock, "production/patient")
    late = permit_for(*ALL, *KEYS)
    assert code_of(lambda: sealed(vault, late, "p1")) == "vault.key_destroyed"
    rotation.rotate(late, vault.keyring, clock, "production/patient")
    new = sealed(vault, late, "p1")
    with again(vault, clock) as second:
        for each in (vault, second):
            assert opened(each, late, "p1", new) == b"p1!"
            assert code_of(lambda e=each: opened(e, late, "p1", body)) == "vault.key_destroyed"


def test_verify_takes_destroyed_for_settled_and_disabled_for_unread(
    vault: Vault, permit_for: PermitFor, clock: FixedClock
) -> None:
    permit = permit_for(*ALL, *KEYS)
    vault.objects.put(permit, "landing", "a", b"x", tags={"t": "1"})
    vault.objects.put(permit, "lake", "b", b"y")
    destruction.disable(permit, vault.keyring, clock, "production/lake")
    doom(vault, permit_for, clock, "production/landing")
    (fault,) = vault.objects.verify(permit_for("vault:verify"))
    assert (fault.kind, fault.zone) == ("unread", "lake")
    late = permit_for(*ALL, *KEYS)
    rotation.rotate(late, vault.keyring, clock, "production/landing")
    (told,) = vault.objects.list(late, "landing")
    assert not told.tags


@pytest.mark.parametrize("with_list", [True, False], ids=["list", "no list"])
def test_an_old_copy_of_all_files_does_not_bring_it_back(
    vault: Vault, permit_for: PermitFor, clock: FixedClock, tmp_path: Path, *, with_list: bool
) -> None:
    permit = permit_for(*ALL)
    vault.objects.put(permit, "landing", "a", b"x")
    body, kept = sealed(vault, permit, "p1"), sealed(vault, permit, "p2")
    vault.close()
    shutil.copytree(vault.root, tmp_path / "copy")
    with again(vault, clock) as live:
        clock.move(minutes=1)
        with live.database.transaction(permit) as tx:
            live.sealer.forget(permit, tx, "p1")
        doom(live, permit_for, clock, "production/landing")
    if not with_list:
        # Without it nothing is known of what came after: that is what the list is for.
        live.forgotten.path.unlink()
    late = permit_for(*ALL)
    with again(vault, clock, tmp_path / "copy") as old:
        if with_list:
            assert code_of(lambda: old.objects.get(late, "landing", "a")) == "vault.key_destroyed"
            assert code_of(lambda: opened(old, late, "p1", body)) == "vault.erased"
            assert [notice.kind for notice in old.keyring.take_notices()] == ["destroyed", "put_back", "erased_again"]
        else:
            assert old.objects.get(late, "landing", "a") == b"x"
        assert opened(old, late, "p2", kept) == b"p2!"
    with again(vault, clock) as live:
        assert code_of(lambda: live.objects.get(late, "landing", "a")) == "vault.key_destroyed"
        assert live.forgotten.path.exists()


def test_who_came_back_after_an_erasure_stays(vault: Vault, permit_for: PermitFor, clock: FixedClock) -> None:
    permit = permit_for(*ALL)
    sealed(vault, permit, "p1")
    with vault.database.transaction(permit) as tx:
        vault.sealer.forget(permit, tx, "p1")
    new = sealed(vault, permit, "p1")
    with again(vault, clock) as second:
        assert opened(second, permit, "p1", new) == b"p1!"
        assert second.keyring.take_notices() == []


def test_an_erasure_that_the_list_lacks_is_added_when_it_opens(
    vault: Vault, permit_for: PermitFor, clock: FixedClock
) -> None:
    permit = permit_for(*ALL)
    sealed(vault, permit, "p1")
    with vault.database.transaction(permit) as tx:
        vault.sealer.forget(permit, tx, "p1")
    before = vault.forgotten.path.read_bytes()
    vault.forgotten.path.unlink()  # as a kill between the commit and the append leaves it
    with again(vault, clock):
        assert vault.forgotten.path.read_bytes() == before
    assert b"p1" not in before


def test_a_restore_replays_in_its_own_transaction(vault: Vault, permit_for: PermitFor, clock: FixedClock) -> None:
    permit = permit_for(*ALL)
    sealed(vault, permit, "p1")
    sealed(vault, permit, "p2")
    with vault.database.transaction(permit) as tx:
        rows = [dict(row) for row in tx.execute(select(patient_key)).mappings()]
        vault.sealer.forget(permit, tx, "p1")
    with vault.database.transaction(permit) as tx:  # an older database, as a backup has it
        tx.execute(forgotten_patient.delete())
        tx.execute(patient_key.delete())
        tx.execute(patient_key.insert(), rows)
    with vault.database.transaction(permit) as tx:
        assert erase_listed(tx, vault.forgotten) == 1
        assert erase_listed(tx, vault.forgotten) == 0
        assert list(tx.scalars(select(patient_key.c.patient))) == ["p2"]


def test_an_erasure_goes_on_where_the_key_above_is_disabled(
    vault: Vault, permit_for: PermitFor, clock: FixedClock
) -> None:
    permit = permit_for(*ALL, *KEYS)
    body = sealed(vault, permit, "p1")
    destruction.disable(permit, vault.keyring, clock, "production/patient")
    with vault.database.transaction(permit) as tx:
        assert vault.sealer.forget(permit, tx, "p1") == 1
    destruction.enable(permit, vault.keyring, clock, "production/patient")
    with pytest.raises(Gone):
        opened(vault, permit, "p1", body)


def test_another_key_of_the_same_label_in_another_copy_stays(
    vault: Vault, permit_for: PermitFor, clock: FixedClock, tmp_path: Path
) -> None:
    vault.close()
    shutil.copytree(vault.root, tmp_path / "copy")
    with again(vault, clock) as live, again(vault, clock, tmp_path / "copy") as copy:
        for each in (live, copy):
            rotation.rotate(permit_for(*KEYS), each.keyring, clock, "production/landing")
        live.objects.put(permit_for(*ALL), "landing", "a", b"x")
        rotation.rotate(permit_for(*KEYS), copy.keyring, clock, "production/landing")
        doom(copy, permit_for, clock, "production/landing/v2")
    with again(vault, clock) as live:
        assert live.objects.get(permit_for(*ALL), "landing", "a") == b"x"
    with again(vault, clock, tmp_path / "copy") as copy:
        assert code_of(lambda: copy.keyring.inner("production/landing", 2)) == "vault.key_destroyed"


def test_lists_of_two_places_are_merged(
    vault: Vault, permit_for: PermitFor, clock: FixedClock, tmp_path: Path
) -> None:
    doom(vault, permit_for, clock, "production/lake")
    elsewhere = Forgotten(tmp_path / "elsewhere", vault.forgotten.workspace, vault.forgotten.secret)
    data = vault.forgotten.path.read_bytes()
    count = len(vault.forgotten.lines())
    assert elsewhere.merge(data) == count
    assert elsewhere.merge(data) == 0
    elsewhere.note_patient("1" * 32, "production", "2" * 64, "2026-01-02T03:04:05.000Z")
    assert vault.forgotten.merge(elsewhere.path.read_bytes()) == 1
    assert [line.kind for line in vault.forgotten.lines()][-1] == "patient"
    with pytest.raises(Corrupt):
        Forgotten(tmp_path / "elsewhere", "other", vault.forgotten.secret).merge(data)
