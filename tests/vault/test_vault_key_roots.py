"""Where root keys come from: file, passphrase, the OS keyring, AWS KMS; and moving from one to another."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from carelake.core.clock import FixedClock
from carelake.core.errors import CarelakeError, Conflict, Corrupt, Invalid, Unavailable
from carelake.core.ids import RandomIds
from carelake.core.permit import Permit
from carelake.core.settings import Settings
from carelake.vault import reroot
from carelake.vault.ring import read_ring
from carelake.vault.roots import PROVIDERS, PassphraseRoot, Roots
from carelake.vault.workspace import Vault

PermitFor = Callable[..., Permit]
GRANTS = ("landing:read", "landing:write", "rows:read", "rows:write")
PASSPHRASE = "correct horse battery"


@pytest.fixture
def os_keyring(tmp_path: Path) -> Iterator[Any]:
    """A keyring in a file encrypted by a passphrase (Argon2id, AES-GCM), as one sets up where there is no desktop."""
    import keyring
    from keyrings.cryptfile.cryptfile import CryptFileKeyring

    before = keyring.get_keyring()
    backend = CryptFileKeyring()
    backend.time_cost, backend.memory_cost = 1, 8192  # its default takes a second for each question
    backend.file_path = str(tmp_path / "keyring.cfg")
    backend.keyring_key = "the keyring's own passphrase"
    keyring.set_keyring(backend)
    yield backend
    keyring.set_keyring(before)


@pytest.fixture
def kms(moto: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The id of a KMS key."""
    import boto3

    monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", moto)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    return str(boto3.client("kms").create_key()["KeyMetadata"]["KeyId"])


@pytest.fixture
def said(tmp_path: Path, clock: FixedClock) -> dict[str, Any]:
    return {"settings": Settings("w9"), "key_dir": tmp_path / "keys", "clock": clock, "ids": RandomIds()}


def round_trip(root: Path, permit: Permit, said: dict[str, Any], **made: Any) -> None:
    more = {"passphrase": made["passphrase"]} if "passphrase" in made else {}
    with Vault.create(root, **said, **made) as vault:
        vault.objects.put(permit, "landing", "a", b"x")
    with Vault.open(root, **said, **more) as vault:
        assert vault.objects.get(permit, "landing", "a") == b"x"


def test_the_os_keyring(tmp_path: Path, permit_for: PermitFor, said: dict[str, Any], os_keyring: Any) -> None:
    round_trip(tmp_path / "ws", permit_for(*GRANTS), said, provider="keyring")
    assert not (tmp_path / "keys").exists()
    key = os_keyring.get_password("carelake", "w9")
    assert len(key) == 64
    assert key not in (tmp_path / "keyring.cfg").read_text()
    with pytest.raises(Conflict):
        Vault.create(tmp_path / "other", **said, provider="keyring")
    os_keyring.delete_password("carelake", "w9")
    with pytest.raises(Unavailable, match="not in this user's keyring") as caught:
        Vault.open(tmp_path / "ws", **said)
    assert caught.value.code == "vault.root_key_missing"
    for text, error in (("00" * 32, Corrupt), ("nonsense", Corrupt)):
        os_keyring.set_password("carelake", "w9", text)
        with pytest.raises(error):
            Vault.open(tmp_path / "ws", **said)


def test_a_keyring_that_is_locked_or_keeps_nothing_is_said(
    tmp_path: Path, said: dict[str, Any], os_keyring: Any, permit_for: PermitFor
) -> None:
    import keyring
    from keyring.backends.fail import Keyring as Failing
    from keyring.backends.null import Keyring as Null
    from keyring.errors import KeyringLocked

    round_trip(tmp_path / "ws", permit_for(*GRANTS), said, provider="keyring")

    class Locked(type(os_keyring)):  # type: ignore[misc]
        def get_password(self, service: str, username: str) -> str:
            raise KeyringLocked("what it says is not for us to show")

    keyring.set_keyring(Locked())
    with pytest.raises(Unavailable, match="did not answer") as caught:
        Vault.open(tmp_path / "ws", **said)
    assert "not for us" not in caught.value.message
    for backend in (Failing(), Null()):
        keyring.set_keyring(backend)
        with pytest.raises(Unavailable, match="no keyring here that keeps secrets"):
            Vault.create(tmp_path / "new", **said, provider="keyring")


def test_aws_kms(tmp_path: Path, permit_for: PermitFor, said: dict[str, Any], kms: str) -> None:
    import boto3

    round_trip(tmp_path / "ws", permit_for(*GRANTS), said, provider="kms", kms_key=kms)
    assert not (tmp_path / "keys").exists()
    found = read_ring(tmp_path / "ws" / "keyring.json").file.root.kms
    assert found is not None
    assert found.key.endswith(kms)
    client = boto3.client("kms")
    with pytest.raises(client.exceptions.InvalidCiphertextException):  # bound to the workspace
        client.decrypt(CiphertextBlob=found.blob, EncryptionContext={"workspace": "w8"})
    # The server does not refuse disabled keys, as KMS does; a key that is not there is refused by both.
    httpx.post(f"{client.meta.endpoint_url}/moto-api/reset").raise_for_status()
    with pytest.raises(CarelakeError) as caught:
        Vault.open(tmp_path / "ws", **said)
    assert caught.value.code in ("vault.root_key_missing", "vault.wrong_key")


def test_kms_that_is_away_or_unknown_is_said(
    tmp_path: Path, said: dict[str, Any], kms: str, monkeypatch: pytest.MonkeyPatch, permit_for: PermitFor
) -> None:
    with pytest.raises(Invalid, match="--kms-key"):
        Vault.create(tmp_path / "none", **said, provider="kms")
    with pytest.raises(Unavailable, match="NotFoundException"):
        Vault.create(tmp_path / "none2", **said, provider="kms", kms_key="alias/nothing")
    round_trip(tmp_path / "ws", permit_for(*GRANTS), said, provider="kms", kms_key=kms)
    monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", "http://127.0.0.1:9")
    with pytest.raises(Unavailable, match="cannot be asked"):
        Vault.open(tmp_path / "ws", **said)


def test_an_unknown_provider_is_refused(tmp_path: Path, said: dict[str, Any]) -> None:
    with pytest.raises(Invalid) as caught:
        Vault.create(tmp_path / "ws", **said, provider="paper")
    assert all(name in caught.value.message for name in PROVIDERS)
    assert not (tmp_path / "ws" / "keyring.json").exists()


def test_the_root_moves_through_all_providers(
    tmp_path: Path, permit_for: PermitFor, said: dict[str, Any], clock: FixedClock, os_keyring: Any, kms: str
) -> None:
    permit, admin = permit_for(*GRANTS), permit_for("keys:write", account="security")
    root, keys = tmp_path / "ws", tmp_path / "keys"
    with Vault.create(root, **said) as vault:
        vault.objects.put(permit, "landing", "a", b"x")
    shutil.copytree(root, tmp_path / "old copy")
    passphrase: str | None = None
    for step, name in enumerate(("file", "keyring", "kms", "passphrase", "file"), start=2):
        opening = {**said, "passphrase": passphrase}
        with Vault.open(root, **opening) as vault, Vault.open(root, **opening) as beside:
            passphrase = PASSPHRASE if name == "passphrase" else None
            to = PassphraseRoot(PASSPHRASE) if passphrase else Roots("w9", keys, None).named(name, kms_key=kms)
            done = reroot.move(admin, vault.keyring, clock, to, keep_old=True)
            assert (done.provider, done.version) == (name, step)
            assert vault.objects.get(permit, "landing", "a") == b"x"
            if name != "passphrase":  # which the other one does not know
                assert beside.objects.get(permit, "landing", "a") == b"x"
        with Vault.open(root, **said, passphrase=passphrase) as vault:
            assert vault.objects.get(permit, "landing", "a") == b"x"
    assert sorted(path.name for path in keys.glob("*.key*")) == ["w9.key", "w9.key.2", "w9.key.6"]
    with Vault.open(tmp_path / "old copy", **said) as vault:
        assert vault.objects.get(permit, "landing", "a") == b"x"


def test_the_old_root_is_forgotten_when_told_to(
    tmp_path: Path, permit_for: PermitFor, said: dict[str, Any], clock: FixedClock
) -> None:
    root, keys = tmp_path / "ws", tmp_path / "keys"
    Vault.create(root, **said).close()
    shutil.copytree(root, tmp_path / "old copy")
    with Vault.open(root, **said) as vault:
        admin = permit_for("keys:write", account="security")
        reroot.move(admin, vault.keyring, clock, Roots("w9", keys, None).named("file"), keep_old=False)
    assert [path.name for path in keys.glob("*.key*")] == ["w9.key.2"]
    Vault.open(root, **said).close()
    with pytest.raises(Unavailable, match=r"w9\.key"):
        Vault.open(tmp_path / "old copy", **said)


def test_all_earlier_roots_are_forgotten(
    tmp_path: Path, permit_for: PermitFor, said: dict[str, Any], clock: FixedClock, os_keyring: Any
) -> None:
    root, keys = tmp_path / "ws", tmp_path / "keys"
    admin, roots = permit_for("keys:write", account="security"), Roots("w9", keys, None)
    with Vault.create(root, **said) as vault:
        shutil.copytree(root, tmp_path / "old copy")
        (keys / "w8.key").write_text("another workspace's")
        for to in ("file", "keyring", "keyring"):
            reroot.move(admin, vault.keyring, clock, roots.named(to), keep_old=True)
        done = reroot.move(admin, vault.keyring, clock, roots.named("keyring"), keep_old=False)
        assert (done.version, done.left) == (5, ("file/v1", "file/v2"))
        assert [n for n in range(3, 6) if os_keyring.get_password("carelake", f"w9.{n}")] == [5]
        done = reroot.move(admin, vault.keyring, clock, roots.named("file"), keep_old=False)
        assert (done.version, done.left) == (6, ())
        assert os_keyring.get_password("carelake", "w9.5") is None
        assert sorted(path.name for path in keys.glob("*.key*")) == ["w8.key", "w9.key.6"]
        reroot.move(admin, vault.keyring, clock, PassphraseRoot(PASSPHRASE), keep_old=True)
    with Vault.open(root, **said, passphrase=PASSPHRASE) as vault:
        done = reroot.move(admin, vault.keyring, clock, roots.named("file"), keep_old=False)
        assert done.left == ("passphrase/v7",)
    Vault.open(root, **said).close()
    with pytest.raises(Unavailable, match=r"w9\.key"):
        Vault.open(tmp_path / "old copy", **said)


def test_no_root_moves_without_its_grant(
    tmp_path: Path, permit_for: PermitFor, said: dict[str, Any], clock: FixedClock
) -> None:
    with Vault.create(tmp_path / "ws", **said) as vault:
        to = Roots("w9", tmp_path / "keys", None).named("file")
        for permit in (permit_for("keys:write"), permit_for("keys:read", account="security")):
            with pytest.raises(CarelakeError):
                reroot.move(permit, vault.keyring, clock, to, keep_old=True)
        assert [path.name for path in (tmp_path / "keys").glob("*.key*")] == ["w9.key"]


def test_representations_hold_no_passphrase() -> None:
    assert PASSPHRASE not in repr(PassphraseRoot(PASSPHRASE)) + repr(Roots("w", Path(), PASSPHRASE))
