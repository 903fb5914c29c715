"""What never loads: unsigned, altered, of the wrong form, too deep, too large, with a stranger beside it."""

from __future__ import annotations

import base64
import hashlib
import pickle
import re
from collections.abc import Callable

import msgspec
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from carelake.core import canonical, nouns
from carelake.core.errors import CarelakeError, Corrupt, Invalid, Refused
from carelake.models import artifact, boosting, bundle, signature
from carelake.models.scorer import Scorer, read
from carelake.vault.keyring import APPROVAL
from carelake.vault.workspace import Vault

TRAINING_SET = "trainingset:" + "0" * 64
GRANTS = ("models:read", "models:write", "rows:read", "rows:write")


@pytest.fixture
def permit(permit_for: Callable) -> object:
    return permit_for(*GRANTS)


@pytest.fixture
def ref(permit, vault: Vault, files: dict[str, bytes]) -> str:
    return artifact.write(permit, vault, "readmission", TRAINING_SET, files)


def path(ref: str, file: str) -> str:
    return f"readmission/{ref.partition(':')[2]}/{file}"


def code_of(act: Callable[[], object]) -> str:
    with pytest.raises(CarelakeError) as caught:
        act()
    return caught.value.code


def test_the_signature_is_dsse_over_every_file(permit, vault: Vault, ref: str, files: dict) -> None:
    sealed = vault.objects.get(permit, "models", path(ref, artifact.SIGNATURE))
    said = msgspec.json.decode(sealed)
    assert said["dsseEnvelope"]["payloadType"] == signature.IN_TOTO
    payload = base64.b64decode(said["dsseEnvelope"]["payload"])
    told = msgspec.json.decode(payload)
    assert told["subject"][0]["name"] == "readmission"
    assert set(signature.digests_of(payload)) == {*files, artifact.MANIFEST}
    pem = vault.keyring.public_key_pem("production", "models")
    assert said["verificationMaterial"]["publicKey"]["hint"] == hashlib.sha256(pem).hexdigest()
    # https://github.com/secure-systems-lab/dsse/blob/master/protocol.md, its own example
    wanted = b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    assert signature.pae("http://example.com/HelloWorld", b"hello world") == wanted
    assert signature.pae("application/vnd.carelake.approval+json", b"{}").startswith(APPROVAL)


def test_a_version_that_was_signed_before_statements_still_loads(permit, vault: Vault, files: dict) -> None:
    digests = {file: hashlib.sha256(data).hexdigest() for file, data in files.items()}
    old = artifact.Manifest("readmission", "production", TRAINING_SET, digests)
    manifest = canonical.dump(msgspec.to_builtins(old))
    ref = nouns.ref("model", manifest)
    for file, data in {**files, artifact.MANIFEST: manifest}.items():
        vault.objects.put(permit, "models", path(ref, file), data)
    vault.objects.put(permit, "models", path(ref, artifact.SIGNATURE), vault.keyring.sign(permit, "models", manifest))
    assert artifact.load(permit, vault, "readmission", ref).baseline == {"rows": 1}
    vault.objects.put(permit, "models", path(ref, "extra.json"), b"{}")
    assert code_of(lambda: artifact.load(permit, vault, "readmission", ref)) == "models.unexpected_file"


def test_a_signature_by_another_key_or_of_another_type_is_none(permit, vault: Vault, ref: str) -> None:
    said = msgspec.json.decode(vault.objects.get(permit, "models", path(ref, artifact.SIGNATURE)))
    payload = base64.b64decode(said["dsseEnvelope"]["payload"])
    stranger = ec.generate_private_key(ec.SECP256R1())
    mark = stranger.sign(signature.pae(signature.IN_TOTO, payload), ec.ECDSA(hashes.SHA256()))
    pem = vault.keyring.public_key_pem("production", "models")
    twice = {**said, "dsseEnvelope": {**said["dsseEnvelope"], "signatures": said["dsseEnvelope"]["signatures"] * 2}}
    other = {**said, "dsseEnvelope": {**said["dsseEnvelope"], "payloadType": "text/plain"}}
    bad = [signature.envelope(signature.IN_TOTO, payload, mark, pem)]
    bad += [canonical.dump(one) for one in (twice, other, {**said, "mediaType": "x"}, {**said, "more": 1})]
    bad += [b"{" * 100_000, b"{}", b"[]", b"{\xff", b"\x80\x04pickle"]
    for text in bad:
        vault.objects.put(permit, "models", path(ref, artifact.SIGNATURE), text)
        assert code_of(lambda: artifact.load(permit, vault, "readmission", ref)) == "models.altered"


def test_a_pickle_by_any_name_is_neither_written_nor_read(permit, vault: Vault, ref: str, files: dict) -> None:
    for file in ("model.txt", "model.json", "model.onnx", "weights.safetensors", "card.html"):
        for data in (pickle.dumps({"a": 1}), b"PK\x03\x04" + b"x" * 20, b""):
            with pytest.raises(Refused) as caught:
                artifact.write(permit, vault, "readmission", TRAINING_SET, {**files, file: data})
            assert caught.value.code == "models.not_text"
            vault.objects.put(permit, "models", path(ref, file), data)
            found = code_of(lambda: artifact.load(permit, vault, "readmission", ref))
            assert found in ("models.not_text", "models.altered")
        vault.objects.remove(permit, "models", path(ref, file))


def test_files_of_other_kinds_do_not_belong_to_a_version(permit, vault: Vault, files: dict) -> None:
    for name in ("model.pkl", "../up.json", "Model.json", "x.json.gz", "manifest.json", ""):
        with pytest.raises(Invalid):
            artifact.write(permit, vault, "readmission", TRAINING_SET, {**files, name: b"{}"})


def test_json_that_is_too_deep_ends_in_an_error_of_ours(permit, vault: Vault, files: dict) -> None:
    deep = b'{"a":' * 50_000 + b"1" + b"}" * 50_000
    for file in ("model.json", "metrics.json", "card.json", "baseline.json"):
        ref = artifact.write(permit, vault, "readmission", TRAINING_SET, {**files, file: deep})
        with pytest.raises(Corrupt) as caught:
            artifact.load(permit, vault, "readmission", ref)
        assert caught.value.code == "models.format"


def test_what_is_too_large_or_too_much_is_not_read(
    permit, vault: Vault, ref: str, files: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = {f"note-{number}.json": b"{}" for number in range(40)}
    with pytest.raises(Invalid):
        artifact.write(permit, vault, "readmission", TRAINING_SET, {**files, **many})
    monkeypatch.setattr(artifact, "_MAX_FILE", 1_000)
    assert code_of(lambda: artifact.load(permit, vault, "readmission", ref)) == "models.altered"
    with pytest.raises(Invalid):
        artifact.write(permit, vault, "readmission", TRAINING_SET, files)


def _sizes(text: str) -> str:
    return re.sub(r"(?m)^tree_sizes=\d+", "tree_sizes=9", text)


def test_sizes_that_lie_do_not_end_the_process(scorer: Scorer, cohort: tuple) -> None:
    x = cohort[0].x[:50]
    assert "tree_sizes=" in scorer.text
    changed = Scorer(_sizes(scorer.text), scorer.description)
    assert (changed.risk(x) == scorer.risk(x)).all()


@pytest.mark.parametrize(
    "change",
    [
        lambda text: re.sub(r"(?m)^decision_type=\d+", "decision_type=1", text, count=1),
        lambda text: re.sub(r"(?m)^decision_type=\d+", "decision_type=99", text, count=1),
        lambda text: re.sub(r"(?m)^(num_leaves=\d+)$", r"\1\nnum_leaves=900", text, count=1),
        lambda text: re.sub(r"(?m)^(num_cat=0)$", r"\1\ncat_boundaries=0 999999", text, count=1),
        lambda text: re.sub(r"(?m)^leaf_count=\d+ ", "leaf_count=", text, count=1),
        lambda text: re.sub(r"(?m)^internal_value=\S+ ", "internal_value=", text, count=1),
        lambda text: text.replace("\nTree=1\n", "\nTree=7\n", 1),
        lambda text: text.replace("\nTree=1\n", "\nend of trees\n\nTree=1\n", 1),
        lambda text: text.replace("max_feature_idx=19", "max_feature_idx=19\nmax_feature_idx=19", 1),
        lambda text: text[: len(text) // 2],
    ],
)
def test_text_that_its_reader_would_trust_is_checked_first(scorer: Scorer, change: Callable[[str], str]) -> None:
    text = change(scorer.text)
    assert text != scorer.text
    with pytest.raises(Corrupt) as caught:
        boosting.parse(text, len(scorer.names))
    assert caught.value.code == "models.format"


def test_a_model_of_an_unknown_kind_is_not_guessed_at(files: dict) -> None:
    said = {**msgspec.json.decode(files["model.json"]), "kind": "pickle"}
    with pytest.raises(Corrupt):
        read({"model.json": canonical.dump(said), "model.txt": files["model.txt"]})


# -- exported folders


@pytest.fixture
def folder(permit, vault: Vault, ref: str) -> dict[str, bytes]:
    loaded = artifact.load(permit, vault, "readmission", ref)
    return bundle.signed(permit, vault, loaded, "out", {"card.xml": b"<x/>", "approval.json": b"{}"})


def _check(vault: Vault) -> signature.Check:
    return lambda data, mark: vault.keyring.verify(data, mark, account="production", purpose="models")


def test_an_exported_folder_is_whole_or_refused(vault: Vault, folder: dict[str, bytes]) -> None:
    digests = bundle.checked(folder, _check(vault))
    assert set(digests) == set(folder) - {artifact.SIGNATURE}
    for name in folder:
        changed = {**folder, name: folder[name] + b" "}
        fewer = {other: data for other, data in folder.items() if other != name}
        if name == artifact.SIGNATURE:
            assert code_of(lambda fewer=fewer: bundle.checked(fewer, _check(vault))) == "models.unsigned"
            continue
        for bad in (changed, fewer):
            with pytest.raises(Corrupt) as caught:
                bundle.checked(bad, _check(vault))
            assert caught.value.facts["file"] == name
    with pytest.raises(Refused):
        bundle.checked({**folder, "model.pkl": b"x"}, _check(vault))
    with pytest.raises(Corrupt):
        bundle.checked(folder, lambda data, mark: False)
