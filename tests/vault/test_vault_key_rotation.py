"""Rotation, holds and policies: old versions read, new ones write, every process sees it at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from carelake.core.clock import FixedClock
from carelake.core.errors import CarelakeError, Conflict, Corrupt, Gone, Invalid, NotFound, Refused
from carelake.core.ids import RandomIds
from carelake.core.permit import Permit
from carelake.core.settings import KeysSettings, Settings
from carelake.vault import destruction, rotation
from carelake.vault.key_listing import listing
from carelake.vault.places import ACCOUNTS
from carelake.vault.ring import KeyPolicy
from carelake.vault.workspace import Vault

PermitFor = Callable[..., Permit]
ALL = ("landing:read", "landing:write", "models:write", "rows:read", "rows:write", "keys:read", "keys:write")


@pytest.fixture
def permit(permit_for: PermitFor) -> Permit:
    return permit_for(*ALL)


def again(vault: Vault, clock: FixedClock) -> Vault:
    key_dir = vault.root.parent / "keys"
    return Vault.open(vault.root, settings=vault.settings, key_dir=key_dir, clock=clock, ids=RandomIds())


def rotate(vault: Vault, permit: Permit, name: str, **more: Any) -> list[rotation.Rotated]:
    return rotation.rotate(permit, vault.keyring, vault.clock, name, **more)


def sealed(vault: Vault, permit: Permit, owner: str) -> bytes:
    with vault.database.transaction(permit) as tx:
        return vault.sealer.seal(permit, tx, owner, b"c", owner.encode() + b"!")


def opened(vault: Vault, permit: Permit, owner: str, body: bytes) -> bytes:
    with vault.database.reading(permit) as tx:
        return vault.sealer.open(permit, tx, owner, b"c", body)


@pytest.mark.parametrize("name", ["production/landing", "production", "production/patient", "production/clinical"])
def test_what_was_sealed_before_opens_after(vault: Vault, permit: Permit, clock: FixedClock, name: str) -> None:
    vault.objects.put(permit, "landing", "a", b"old")
    bodies = {owner: sealed(vault, permit, owner) for owner in ("", "p1")}
    (done,) = rotate(vault, permit, name)
    assert (done.key, done.version) == (name, 2)
    vault.objects.put(permit, "landing", "b", b"new")
    bodies2 = {owner: sealed(vault, permit, owner) for owner in ("", "p1", "p2")}
    rotate(vault, permit, name)
    with again(vault, clock) as second:
        for each in (vault, second):
            assert each.objects.get(permit, "landing", "a") == b"old"
            assert each.objects.get(permit, "landing", "b") == b"new"
            for told in (bodies, bodies2):
                for owner, body in told.items():
                    assert opened(each, permit, owner, body) == owner.encode() + b"!"


def test_an_account_rotates_with_what_is_below_it(vault: Vault, permit: Permit) -> None:
    before = vault.keyring.reference(permit, "x", b"1")
    done = {one.key: one for one in rotate(vault, permit, "production", below=True)}
    assert done["production"].rewrapped == 10
    assert "production/landing" in done
    assert "production/reference" not in done
    assert vault.keyring.reference(permit, "x", b"1") == before
    file = vault.keyring.current().file
    assert {entry.parent_version for entry in file.keys if entry.parent == "production"} == {2}
    assert {entry.version for entry in file.keys if entry.parent == "research"} == {1}


def test_signatures_outlive_rotation_and_the_private_half(
    vault: Vault, permit: Permit, permit_for: PermitFor, clock: FixedClock
) -> None:
    old = vault.keyring.sign(permit, "models", b"m")
    pem = vault.keyring.public_key_pem("production", "models")
    rotate(vault, permit, "production/sign-models")
    new = vault.keyring.sign(permit, "models", b"m")
    ask, confirm = permit_for("keys:destroy"), permit_for("keys:destroy", principal="other")
    destruction.ask(ask, vault.keyring, clock, "production/sign-models/v1", days=7)
    destruction.confirm(confirm, vault.keyring, clock, "production/sign-models/v1")
    clock.move(days=8)
    assert destruction.destroy_due(vault.keyring, clock) == ("production/sign-models/v1",)
    with again(vault, clock) as second:
        for signature in (old, new):
            assert second.keyring.verify(b"m", signature, account="production", purpose="models")
        assert second.keyring.verify(b"m", old, account="production", purpose="models", version=1)
        assert not second.keyring.verify(b"m", old, account="production", purpose="models", version=2)
        assert second.keyring.public_key_pem("production", "models", 1) == pem
        assert list(second.keyring.public_keys_pem("production", "models")) == [2, 1]


def test_the_trails_key_rotates(vault: Vault, permit_for: PermitFor) -> None:
    admin = permit_for("keys:write", account="security")
    old, token = vault.keyring.sign_trail(b"s"), vault.keyring.token_public_key()
    for name in ("security/sign-trail", "security/sign-tokens"):
        rotate(vault, admin, name)
    assert vault.keyring.verify(b"s", old, account="security", purpose="trail")
    assert vault.keyring.verify(b"s", vault.keyring.sign_trail(b"s"), account="security", purpose="trail")
    assert vault.keyring.token_public_key() != token


@pytest.mark.parametrize("name", ["production/reference", "security/database", "root"])
def test_some_keys_are_not_rotated_and_say_why(vault: Vault, permit_for: PermitFor, name: str) -> None:
    admin = permit_for("keys:write", account="production" if name.startswith("prod") else "security")
    before = vault.keyring.current().file
    with pytest.raises(Refused) as caught:
        rotate(vault, admin, name)
    assert caught.value.code == "vault.key_not_rotated"
    assert vault.keyring.current().file == before


def test_due_by_age(vault: Vault, permit_for: PermitFor, clock: FixedClock) -> None:
    settings = KeysSettings(account_max_age=0, zone_max_age=10, patient_max_age=20, signing_max_age=0)
    assert rotation.due(vault.keyring, clock, settings) == []
    clock.move(days=11)
    due = rotation.due(vault.keyring, clock, settings)
    assert due
    assert {name.partition("/")[2] for name in due} == {
        "audit", "clinical", "deidentified", "features", "lake", "landing", "models"
    }  # fmt: skip
    for account in ACCOUNTS:
        admin = permit_for("keys:write", account=account)
        for name in (name for name in due if name.startswith(account)):
            rotate(vault, admin, name)
    assert rotation.due(vault.keyring, clock, settings) == []
    clock.move(days=10)
    assert "production/patient" in rotation.due(vault.keyring, clock, settings)


def test_patients_keys_are_wrapped_anew_in_pages(
    vault: Vault, permit: Permit, clock: FixedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rotation, "_PAGE", 3)
    bodies = {f"p{n}": sealed(vault, permit, f"p{n}") for n in range(10)}
    assert rotation.rewrap(permit, vault.keyring, vault.database, clock) == 0
    rotate(vault, permit, "production/patient")
    assert rotation.waiting(vault.database, "production", 2) == 10
    assert rotation.rewrap(permit, vault.keyring, vault.database, clock) == 10
    assert rotation.waiting(vault.database, "production", 2) == 0
    assert rotation.rewrap(permit, vault.keyring, vault.database, clock) == 0
    with again(vault, clock) as second:
        for owner, body in bodies.items():
            assert opened(second, permit, owner, body) == owner.encode() + b"!"


# -- holds --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("held", ["production/landing", "production/landing/v1", "production"])
def test_a_disabled_key_is_used_by_nobody_at_once(vault: Vault, permit: Permit, clock: FixedClock, held: str) -> None:
    vault.objects.put(permit, "landing", "a", b"x")
    with again(vault, clock) as second:
        assert second.objects.get(permit, "landing", "a") == b"x"
        destruction.disable(permit, vault.keyring, clock, held)
        for each in (vault, second):
            for call in (
                lambda v=each: v.objects.get(permit, "landing", "a"),
                lambda v=each: v.objects.put(permit, "landing", "b", b""),
            ):
                with pytest.raises(Refused) as caught:
                    call()
                assert caught.value.code == "vault.key_disabled"
        destruction.enable(permit, second.keyring, clock, held)
        assert vault.objects.get(permit, "landing", "a") == b"x"
    with pytest.raises(Conflict):
        destruction.enable(permit, vault.keyring, clock, held)


def test_a_disabled_wrapping_key_blocks_cached_patients(vault: Vault, permit: Permit, clock: FixedClock) -> None:
    body = sealed(vault, permit, "p1")
    with again(vault, clock) as second:
        assert opened(second, permit, "p1", body) == b"p1!"
        rotate(vault, permit, "production/patient")
        new = sealed(vault, permit, "p2")
        destruction.disable(permit, vault.keyring, clock, "production/patient/v1")
        for each in (vault, second):
            with pytest.raises(Refused, match="disabled"):
                opened(each, permit, "p1", body)
            assert opened(each, permit, "p2", new) == b"p2!"
            with pytest.raises(Refused, match="disabled"):
                sealed(each, permit, "p1")
        destruction.enable(permit, vault.keyring, clock, "production/patient/v1")
        assert opened(second, permit, "p1", body) == b"p1!"


def test_a_disabled_version_of_the_zone_key_blocks_its_bodies_only(
    vault: Vault, permit: Permit, clock: FixedClock
) -> None:
    old = sealed(vault, permit, "")
    rotate(vault, permit, "production/clinical")
    new = sealed(vault, permit, "")
    destruction.disable(permit, vault.keyring, clock, "production/clinical/v1")
    assert opened(vault, permit, "", new) == b"!"
    with pytest.raises(Refused, match="disabled"):
        opened(vault, permit, "", old)


@pytest.mark.parametrize(
    "name", ["root", "security", "security/database", "security/audit", "security/reference", "security/sign-trail"]
)
def test_what_everything_leans_on_is_not_held_back(
    vault: Vault, permit_for: PermitFor, clock: FixedClock, name: str
) -> None:
    admin = permit_for("keys:write", "keys:destroy", account="security")
    for call in (
        lambda: destruction.disable(admin, vault.keyring, clock, name),
        lambda: destruction.ask(admin, vault.keyring, clock, name, days=7),
        lambda: destruction.set_policy(admin, vault.keyring, clock, name, KeyPolicy(("x",))),
    ):
        with pytest.raises(Refused) as caught:
            call()
        assert caught.value.code == "vault.key_kept"


def test_permits_of_other_accounts_and_grants_manage_nothing(
    vault: Vault, permit_for: PermitFor, clock: FixedClock
) -> None:
    before = vault.keyring.current().file
    for permit in (
        permit_for("keys:read", "rows:write"),
        permit_for("keys:write", "keys:destroy", account="research"),
    ):
        for call in (
            lambda p=permit: rotate(vault, p, "production/lake"),
            lambda p=permit: destruction.disable(p, vault.keyring, clock, "production/lake"),
            lambda p=permit: destruction.ask(p, vault.keyring, clock, "production/lake", days=7),
            lambda p=permit: destruction.set_policy(p, vault.keyring, clock, "production/lake", KeyPolicy(("x",))),
        ):
            with pytest.raises(Refused):
                call()
    assert vault.keyring.current().file == before


@pytest.mark.parametrize("name", ["production/nothing", "nobody/lake", "production/lake/v7"])
def test_unknown_keys_are_said(vault: Vault, permit: Permit, clock: FixedClock, name: str) -> None:
    with pytest.raises(NotFound):
        destruction.disable(permit, vault.keyring, clock, name)


@pytest.mark.parametrize("name", ["", "../x", "production/lake/v0", "production/lake/v1/v2", "Production", "a" * 300])
def test_names_are_of_one_form(vault: Vault, permit: Permit, clock: FixedClock, name: str) -> None:
    with pytest.raises((Invalid, NotFound)):
        destruction.disable(permit, vault.keyring, clock, name)


# -- policies -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "other"),
    [
        (KeyPolicy(actions=("record:read",)), {"action": "record:search"}),
        (KeyPolicy(purposes=("TREAT",)), {"purpose": "HOPERAT"}),
        (KeyPolicy(principals=("ann",)), {"principal": "bob"}),
    ],
)
@pytest.mark.parametrize("name", ["production/landing", "production"])
def test_a_policy_bounds_who_uses_a_key(
    vault: Vault, permit_for: PermitFor, clock: FixedClock, policy: KeyPolicy, other: dict[str, str], name: str
) -> None:
    admin = permit_for("keys:write")
    fit = permit_for(*ALL, action="record:read", purpose="TREAT", principal="ann")
    vault.objects.put(fit, "landing", "a", b"x")
    destruction.set_policy(admin, vault.keyring, clock, name, policy)
    with again(vault, clock) as second:
        assert second.objects.get(fit, "landing", "a") == b"x"
        said = {"action": "record:read", "purpose": "TREAT", "principal": "ann", **other}
        with pytest.raises(Refused) as caught:
            second.objects.get(permit_for(*ALL, **said), "landing", "a")
        assert caught.value.code == "vault.key_policy"
        destruction.set_policy(admin, vault.keyring, clock, name, KeyPolicy())
        assert second.objects.get(permit_for(*ALL, **said), "landing", "a") == b"x"
    assert vault.keyring.current().file.policies == {}


# -- several processes --------------------------------------------------------------------------------------------


def test_rotations_at_once_serialise(vault: Vault, permit: Permit, clock: FixedClock) -> None:
    vault.objects.put(permit, "landing", "a", b"x")
    others = [again(vault, clock) for _ in range(4)]
    failed: list[BaseException] = []

    def work(each: Vault) -> None:
        try:
            for _ in range(5):
                rotate(each, permit, "production/landing")
        except BaseException as error:  # told below
            failed.append(error)

    threads = [Thread(target=work, args=(each,)) for each in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    entries = vault.keyring.current().versions("production/landing")
    assert [entry.version for entry in entries] == list(range(1, 22))
    assert [entry.state for entry in entries] == ["retired"] * 20 + ["active"]
    assert vault.objects.get(permit, "landing", "a") == b"x"
    for each in others:
        each.close()


def test_an_older_ring_put_back_while_open_is_refused(vault: Vault, permit: Permit) -> None:
    path = vault.root / "keyring.json"
    old = path.read_bytes()
    rotate(vault, permit, "production/landing")
    newest = path.read_bytes()
    path.write_bytes(old)
    with pytest.raises(Corrupt) as caught:
        vault.objects.put(permit, "landing", "a", b"x")
    assert caught.value.code == "vault.keyring_put_back"
    path.write_bytes(newest)
    vault.objects.put(permit, "landing", "a", b"x")


def test_an_older_ring_put_back_is_told_and_enables_nothing(vault: Vault, permit: Permit, clock: FixedClock) -> None:
    vault.objects.put(permit, "landing", "a", b"x")
    path = vault.root / "keyring.json"
    old = path.read_bytes()
    destruction.disable(permit, vault.keyring, clock, "production/landing")
    vault.close()
    path.write_bytes(old)
    with again(vault, clock) as second:
        (notice,) = second.keyring.take_notices()
        assert (notice.kind, notice.generation, notice.newest) == ("put_back", 1, 2)
        with pytest.raises(Refused, match="disabled"):
            second.objects.get(permit, "landing", "a")
    with again(vault, clock) as third:
        assert third.keyring.take_notices() == []


def test_a_list_outside_that_was_altered_is_said(vault: Vault, permit: Permit, clock: FixedClock) -> None:
    rotate(vault, permit, "production/landing")
    path: Path = vault.forgotten.path
    text = path.read_text()
    vault.close()
    for bad in (text.replace('"generation":2', '"generation":9'), text + text, "{}\n" + text, text[1:]):
        path.write_text(bad)
        with pytest.raises(Corrupt) as caught:
            again(vault, clock)
        assert caught.value.code == "vault.forgotten"
    # A line that a kill cut short is no alteration.
    path.write_text(text + '{"n":2,"ki')
    with again(vault, clock) as second:
        rotate(second, permit, "production/landing")
    assert len(path.read_text().splitlines()) == 2


# -- listing ------------------------------------------------------------------------------------------------------


def test_the_listing_tells_states_and_no_secrets(
    vault: Vault, permit: Permit, permit_for: PermitFor, clock: FixedClock
) -> None:
    rotate(vault, permit, "production/lake")
    destruction.disable(permit, vault.keyring, clock, "production/features")
    clock.move(days=3)
    reader = permit_for("keys:read")
    found = {key.label: key for key in listing(reader, vault.keyring, clock, Settings("w1").keys)}
    assert found["production/lake/v1"].state == "retired"
    assert found["production/lake/v2"].state == "active"
    assert found["production/features/v1"].state == "disabled"
    assert (found["root/v1"].provider, found["root/v1"].age_days) == ("file", 3)
    text = repr(found) + repr(vault.keyring) + repr(vault.keyring.current()) + repr(vault.keyring.forgotten)
    key = vault.keyring.inner("production/lake")
    for secret in (key.secret, vault.keyring.current().root, vault.keyring.forgotten.secret):
        assert secret.hex() not in text
        assert repr(secret) not in text + repr(key)
    with pytest.raises(Refused):
        listing(permit_for("rows:read"), vault.keyring, clock, Settings("w1").keys)


def test_keys_stay_in_their_process(vault: Vault) -> None:
    import pickle

    for secret in (vault.keyring, vault.keyring.inner("production/lake")):
        with pytest.raises(TypeError):
            pickle.dumps(secret)


def test_a_destroyed_key_says_gone(vault: Vault, permit: Permit, permit_for: PermitFor, clock: FixedClock) -> None:
    vault.objects.put(permit, "landing", "a", b"x")
    destruction.ask(permit_for("keys:destroy"), vault.keyring, clock, "production/landing", days=7)
    with pytest.raises(Refused) as caught:
        destruction.confirm(permit_for("keys:destroy"), vault.keyring, clock, "production/landing")
    assert caught.value.code == "vault.key_two_persons"
    assert vault.objects.get(permit, "landing", "a") == b"x"
    destruction.confirm(permit_for("keys:destroy", principal="b"), vault.keyring, clock, "production/landing")
    with pytest.raises(Refused, match="awaits"):
        vault.objects.get(permit, "landing", "a")
    assert destruction.destroy_due(vault.keyring, clock) == ()
    clock.move(days=7)
    with again(vault, clock) as second:
        assert second.keyring.take_notices()[0].keys == ("production/landing/v1",)
        late = permit_for(*ALL)
        for each in (vault, second):
            with pytest.raises(Gone) as gone:
                each.objects.get(late, "landing", "a")
            assert gone.value.code == "vault.key_destroyed"
        rotate(second, late, "production/landing")
        second.objects.put(late, "landing", "b", b"y")
        assert vault.objects.get(late, "landing", "b") == b"y"
        with pytest.raises(CarelakeError):
            vault.objects.get(late, "landing", "a")
