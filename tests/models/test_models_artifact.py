"""A model version is read back to the last bit, or refused by name of what is wrong with it."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable

import numpy as np
import pytest

from carelake.core.errors import CarelakeError, Corrupt, Invalid, NotFound, Refused
from carelake.models import artifact
from carelake.models.scorer import Scorer
from carelake.vault.workspace import Vault

TRAINING_SET = "trainingset:" + "0" * 64
GRANTS = ("models:read", "models:write", "rows:read", "rows:write")


@pytest.fixture
def permit(permit_for: Callable) -> object:
    return permit_for(*GRANTS)


@pytest.fixture
def ref(permit, vault: Vault, files: dict[str, bytes]) -> str:
    return artifact.write(permit, vault, "readmission", TRAINING_SET, files)


def _path(ref: str, file: str) -> str:
    return f"readmission/{ref.partition(':')[2]}/{file}"


def test_it_is_read_back_to_the_last_bit(permit, vault: Vault, ref: str, scorer: Scorer, cohort: tuple) -> None:
    x = cohort[0].x[:2_000]
    found = artifact.load(permit, vault, "readmission", ref)
    assert np.array_equal(found.scorer.risk(x), scorer.risk(x))
    assert found.scorer.description == scorer.description
    assert found.metrics["reason"] is None
    assert found.card_html.startswith("<!doctype html>")
    assert found.baseline == {"rows": 1}


def test_the_same_files_have_the_same_ref(permit, vault: Vault, ref: str, files: dict[str, bytes]) -> None:
    assert artifact.write(permit, vault, "readmission", TRAINING_SET, files) == ref
    assert artifact.write(permit, vault, "other", TRAINING_SET, files) != ref


@pytest.mark.parametrize("file", [*artifact.FILES, "manifest.json", "manifest.sig"])
def test_one_flipped_byte_in_any_file_is_named(permit, vault: Vault, ref: str, file: str) -> None:
    data = bytearray(vault.objects.get(permit, "models", _path(ref, file)))
    data[len(data) // 2] ^= 1
    vault.objects.put(permit, "models", _path(ref, file), bytes(data))
    with pytest.raises(Corrupt) as caught:
        artifact.load(permit, vault, "readmission", ref)
    assert caught.value.code == "models.altered"
    assert caught.value.facts["file"] == ("manifest.json" if file == "manifest.sig" else file)


@pytest.mark.parametrize(
    ("file", "kind", "code"),
    [
        ("manifest.sig", Refused, "models.unsigned"),
        ("manifest.json", Refused, "models.unsigned"),
        ("model.txt", Corrupt, "models.altered"),
    ],
)
def test_a_missing_file_is_not_passed_over(permit, vault: Vault, ref: str, file: str, kind: type, code: str) -> None:
    vault.objects.delete(permit, "models", _path(ref, file))
    with pytest.raises(kind) as caught:
        artifact.load(permit, vault, "readmission", ref)
    assert caught.value.code == code


def test_a_manifest_that_was_made_anew_without_the_key_is_refused(permit, vault: Vault, ref: str) -> None:
    # Whoever can write files but cannot sign changes the model, and the manifest with it.
    text = vault.objects.get(permit, "models", _path(ref, "model.txt")) + b"\n"
    manifest = vault.objects.get(permit, "models", _path(ref, "manifest.json"))
    old = hashlib.sha256(text[:-1]).hexdigest().encode()
    vault.objects.put(permit, "models", _path(ref, "model.txt"), text)
    forged = manifest.replace(old, hashlib.sha256(text).hexdigest().encode())
    vault.objects.put(permit, "models", _path(ref, "manifest.json"), forged)
    with pytest.raises(Corrupt) as caught:
        artifact.load(permit, vault, "readmission", ref)
    assert caught.value.code == "models.altered"


def _pickles() -> list[bytes]:
    return [pickle.dumps({"a": Scorer}, protocol) for protocol in range(6)]


@pytest.mark.parametrize("data", [*_pickles(), b"PK\x03\x04zip", b"\x1f\x8bgzip", b"\x93NUMPY"])
def test_pickles_and_their_containers_are_refused_both_ways(
    permit, vault: Vault, ref: str, files: dict[str, bytes], data: bytes
) -> None:
    with pytest.raises(Refused, match="archive"):
        artifact.write(permit, vault, "readmission", TRAINING_SET, {**files, "model.txt": data})
    vault.objects.put(permit, "models", _path(ref, "model.txt"), data)
    with pytest.raises(Refused) as caught:
        artifact.load(permit, vault, "readmission", ref)
    assert caught.value.code == "models.not_text"


def test_a_stranger_beside_the_model_is_refused(permit, vault: Vault, ref: str) -> None:
    vault.objects.put(permit, "models", _path(ref, "model.pkl"), b"anything")
    with pytest.raises(Refused) as caught:
        artifact.load(permit, vault, "readmission", ref)
    assert caught.value.code == "models.unexpected_file"


def test_a_signed_but_unsound_model_is_refused(permit, vault: Vault, files: dict[str, bytes]) -> None:
    for file, data in (("model.txt", b"tree\n"), ("model.json", b'{"names":[]}'), ("baseline.json", b"{]")):
        ref = artifact.write(permit, vault, "readmission", TRAINING_SET, {**files, file: data})
        with pytest.raises(Corrupt) as caught:
            artifact.load(permit, vault, "readmission", ref)
        assert caught.value.code == "models.format"


def test_another_account_and_another_name_find_nothing(permit_for: Callable, vault: Vault, ref: str) -> None:
    research = permit_for(*GRANTS, account="research")
    for who, name in ((research, "readmission"), (permit_for(*GRANTS), "another")):
        with pytest.raises(NotFound):
            artifact.load(who, vault, name, ref)


def test_names_files_and_grants_are_checked(permit_for: Callable, permit, vault: Vault, files: dict) -> None:
    for name in ("../up", "Up", "a/b", ""):
        with pytest.raises(Invalid):
            artifact.write(permit, vault, name, TRAINING_SET, files)
    with pytest.raises(Invalid):
        artifact.write(permit, vault, "readmission", TRAINING_SET, {**files, "model.pkl": b""})
    with pytest.raises(CarelakeError, match="models:write"):
        artifact.write(permit_for("models:read"), vault, "readmission", TRAINING_SET, files)
