"""A model version as files: no pickle, each named in a signed statement, and all checked before any is read.

    NAME/DIGEST/model.json      everything of the model that is plain numbers
    NAME/DIGEST/model.txt       the trees, LightGBM text, where it has some
    NAME/DIGEST/metrics.json    how it did beside its baselines
    NAME/DIGEST/card.json       the model card, SageMaker's sections
    NAME/DIGEST/card.html       the same for people
    NAME/DIGEST/baseline.json   what its inputs and risks looked like in training, for the monitor
    NAME/DIGEST/manifest.json   whose it is, and the SHA-256 of each; DIGEST is the SHA-256 of this file
    NAME/DIGEST/manifest.sig    EC P-256 signature over all of them (`models.signature`), by the account's key

Beside these a version may have others of the same kinds of file, for example ``model.onnx`` with ``parity.json``
(`models.onnx`); whatever it has is named and signed. All lie in the zone ``models``. The same rows and the same
libraries give the same digest.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from carelake.core import canonical, nouns
from carelake.core.errors import Corrupt, Invalid, NotFound, Refused
from carelake.core.permit import Permit
from carelake.core.shapes import decodable
from carelake.models import signature
from carelake.models.scorer import Scorer, read
from carelake.vault.workspace import Vault

__all__ = [
    "FILES",
    "MANIFEST",
    "REQUIRED",
    "SIGNATURE",
    "Manifest",
    "ModelFiles",
    "kind_of",
    "load",
    "object_name",
    "own_file",
    "pack",
    "refuse_unsafe",
    "unopened",
    "write",
]

REQUIRED = ("baseline.json", "card.html", "card.json", "metrics.json", "model.json")
FILES = (*REQUIRED, "model.txt")
MANIFEST, SIGNATURE = "manifest.json", "manifest.sig"
_ZONE, _PURPOSE = "models", "models"
_MAX_FILE = 64 * 1024 * 1024
_MAX_FILES = 32
_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")
_FILE = re.compile(r"[a-z][a-z0-9-]{0,40}\.(txt|json|html|onnx|safetensors)")
# How each file starts. No pickle, and no archive that could hold one (zip, gzip, numpy), starts so.
_STARTS = {".txt": b"tree\n", ".json": b"{", ".html": b"<!doctype html>", ".onnx": b"\x08"}


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What belongs to a model version.

    Attributes:
        files: SHA-256 in hex by file name.
        format: 1 was signed over the manifest alone.
    """

    name: str
    account: str
    training_set: str
    files: dict[str, str]
    format: int = 1


@dataclass(frozen=True)
class ModelFiles:
    """A model version whose signature, digests and format hold.

    Attributes:
        extra: files beside those that every version has, by name, as bytes.
    """

    ref: str
    manifest: Manifest
    scorer: Scorer
    metrics: dict[str, Any]
    card: dict[str, Any]
    card_html: str
    baseline: dict[str, Any]
    extra: Mapping[str, bytes] = field(default_factory=dict)
    raw: Mapping[str, bytes] = field(default_factory=dict, repr=False)


def pack(
    scorer: Scorer, metrics: Mapping[str, Any], card: Mapping[str, Any], html: str, baseline: bytes
) -> dict[str, bytes]:
    """The files of a model version, by name. ``baseline`` is made by `monitor.baseline`."""
    return {
        **scorer.files(),
        "metrics.json": canonical.dump(dict(metrics)),
        "card.json": canonical.dump(dict(card)),
        "card.html": html.encode(),
        "baseline.json": baseline,
    }


def write(permit: Permit, vault: Vault, name: str, training_set: str, files: Mapping[str, bytes]) -> str:
    """Store and sign the files; needs the grants ``models:write`` and ``models:read``.

    Returns:
        The ref, ``model:DIGEST``.

    Raises:
        Invalid: ``models.name``, ``models.files`` (one of `REQUIRED` is missing, or one too many or too large).
        Refused: ``models.not_text``: a pickle, for example.
    """
    if not _NAME.fullmatch(name):
        raise Invalid("models.name", "A model's name is lower-case letters, digits and dashes, 63 at most.")
    if not _fit(files) or max(map(len, files.values())) > _MAX_FILE:
        raise Invalid(
            "models.files",
            f"A model version has the files {', '.join(REQUIRED)} and others of their kinds, each of bounded size.",
        )
    for file, data in files.items():
        refuse_unsafe(file, data)
    digests = {file: hashlib.sha256(data).hexdigest() for file, data in sorted(files.items())}
    manifest = canonical.dump(msgspec.to_builtins(Manifest(name, permit.account, training_set, digests, 2)))
    ref = nouns.ref("model", manifest)
    folder = _folder(name, ref)
    for file, data in files.items():
        vault.objects.put(permit, _ZONE, folder + file, data)
    # The signature comes last: a folder that was interrupted is unsigned, and is refused.
    vault.objects.put(permit, _ZONE, folder + MANIFEST, manifest)
    digests[MANIFEST] = hashlib.sha256(manifest).hexdigest()
    vault.objects.put(permit, _ZONE, folder + SIGNATURE, _signed(permit, vault, name, digests))
    return ref


def _signed(permit: Permit, vault: Vault, name: str, digests: Mapping[str, str]) -> bytes:
    said = signature.statement(name, digests)
    mark = vault.keyring.sign(permit, _PURPOSE, signature.pae(signature.IN_TOTO, said))
    pem = vault.keyring.public_key_pem(permit.account, _PURPOSE)
    return signature.envelope(signature.IN_TOTO, said, mark, pem)


def load(
    permit: Permit,
    vault: Vault,
    name: str,
    ref: str,
    *,
    boxed: Callable[[Mapping[str, str]], Scorer] | None = None,
) -> ModelFiles:
    """Read a model version; needs the grant ``models:read``.

    Args:
        boxed: makes what scores out of the SHA-256 of the model's own files, by name: they are not opened here then,
            and whoever opens them holds them to these digests, which the signature covers.

    Raises:
        NotFound: ``models.no_such_version``.
        Refused: ``models.unsigned``, ``models.not_text``, ``models.unexpected_file``.
        Corrupt: ``models.altered`` (``facts['file']`` names it), ``models.format``.
    """
    if nouns.kind_of(ref) != "model" or not _NAME.fullmatch(name):
        raise Invalid("models.name", "Expected a model's name and its ref, model:DIGEST.")
    found, digests = _read_all(permit, vault, _folder(name, ref), closed=boxed is not None)
    manifest = _checked_manifest(permit, vault, ref, found, digests)
    if manifest.name != name or manifest.account != permit.account or not _fit(manifest.files):
        raise _altered(MANIFEST)
    for file, digest in manifest.files.items():
        if digests.get(file) != digest:
            raise _altered(file)
    if stranger := set(digests) - {*manifest.files, MANIFEST, SIGNATURE}:
        raise _unexpected(min(stranger))
    own = {file: digest for file, digest in digests.items() if own_file(file)}
    return ModelFiles(
        ref,
        manifest,
        _scorer({file: found[file] for file in own}) if boxed is None else boxed(own),
        _json(found, "metrics.json"),
        _json(found, "card.json"),
        _text(found, "card.html"),
        _json(found, "baseline.json"),
        {file: found[file] for file in manifest.files if file not in FILES and file in found},
        found,
    )


def unopened(kept: dict[str, str], found: Mapping[str, str]) -> Any:
    """For `load`: keeps the digests of what was left closed, and is no scorer."""
    kept.update(found)


def own_file(file: str) -> bool:
    """Whether a file is one of those that risks are worked out of, and not about them."""
    return file.startswith("model") and file != "model.onnx"


def object_name(name: str, ref: str, file: str) -> str:
    """What a file of a version is called in the zone ``models``."""
    return _folder(name, ref) + file


def kind_of(files: ModelFiles) -> str:
    """The kind of model that ``model.json`` says it is."""
    return str(_json(files.raw, "model.json").get("kind", "risk"))


def _fit(files: Mapping[str, Any]) -> bool:
    named = all(_FILE.fullmatch(file) and file != MANIFEST for file in files)
    return named and set(REQUIRED) <= set(files) and len(files) <= _MAX_FILES


def _folder(name: str, ref: str) -> str:
    return f"{name}/{ref.partition(':')[2]}/"


def _altered(file: str) -> Corrupt:
    return Corrupt(
        "models.altered",
        f"The model file {file} is not the one that was signed; restore it, and look into who changed it.",
        file=file,
    )


def _unexpected(file: str) -> Refused:
    told = file if _FILE.fullmatch(file) else ""
    return Refused(
        "models.unexpected_file",
        "A file lies beside the model that does not belong to it.",
        **({"file": told} if told else {}),
    )


def refuse_unsafe(file: str, data: bytes) -> None:
    """Let pass what begins as its kind of file does.

    Raises:
        Refused: ``models.not_text``.
    """
    kind = file[file.rindex(".") :]
    # A safetensors file begins with the length of its header, in eight bytes, and the header is JSON.
    starts = data[8:9] == b"{" and data[4:8] == bytes(4) if kind == ".safetensors" else data.startswith(_STARTS[kind])
    if not starts:
        raise Refused(
            "models.not_text",
            f"{file} does not start as text of its kind does; a pickle or archive may run code, so it is not read.",
            file=file,
        )


def _read_all(permit: Permit, vault: Vault, folder: str, *, closed: bool) -> tuple[dict[str, bytes], dict[str, str]]:
    """Files, and the digest of each.

    Args:
        closed: leave the model itself unread: of those files the digest is what the vault entered for them.
    """
    found: dict[str, bytes] = {}
    digests: dict[str, str] = {}
    for stored in vault.objects.list(permit, _ZONE, folder):
        file = stored.name.removeprefix(folder)
        if file not in (MANIFEST, SIGNATURE) and not _FILE.fullmatch(file):
            raise _unexpected(file)
        if stored.size > _MAX_FILE or len(digests) > _MAX_FILES + 2:
            raise _altered(file)
        if closed and file.startswith("model"):
            digests[file] = stored.sha256
            continue
        found[file] = vault.objects.get(permit, _ZONE, stored.name)
        digests[file] = hashlib.sha256(found[file]).hexdigest()
        if file != SIGNATURE:
            refuse_unsafe(file, found[file])
    if not digests:
        raise NotFound("models.no_such_version", "No model version of that name and ref is stored in this account.")
    return found, digests


def _checked_manifest(
    permit: Permit, vault: Vault, ref: str, found: Mapping[str, bytes], digests: Mapping[str, str]
) -> Manifest:
    if MANIFEST not in found or SIGNATURE not in found:
        raise Refused("models.unsigned", "The model version is not signed, so it is not read; register it again.")
    manifest, mark = found[MANIFEST], found[SIGNATURE]

    def by_us(data: bytes, signed: bytes) -> bool:
        return vault.keyring.verify(data, signed, account=permit.account, purpose=_PURPOSE)

    if mark.startswith(b"{"):
        _check_statement(signature.opened(mark, signature.IN_TOTO, by_us), digests)
    elif not by_us(manifest, mark):  # format 1
        raise _altered(MANIFEST)
    if nouns.ref("model", manifest) != ref:
        raise _altered(MANIFEST)
    try:
        return msgspec.json.decode(manifest, type=decodable(Manifest))
    except (msgspec.MsgspecError, RecursionError):
        raise _altered(MANIFEST) from None


def _check_statement(payload: bytes | None, found: Mapping[str, str]) -> None:
    digests = signature.digests_of(payload) if payload is not None else None
    if digests is None:
        raise _altered(MANIFEST)
    for file, digest in digests.items():
        if found.get(file) != digest:
            raise _altered(file)
    if stranger := set(found) - {*digests, SIGNATURE}:
        raise _unexpected(min(stranger))


def _scorer(files: Mapping[str, bytes]) -> Scorer:
    try:
        return read(files)
    except RecursionError:
        raise Corrupt(
            "models.format", "model.json is nested too deeply to be a model's; register it again."
        ) from None


def _json(found: Mapping[str, bytes], file: str) -> dict[str, Any]:
    """Plain floats, not exact decimals: these are measurements, and go into arrays."""
    try:
        return msgspec.json.decode(found[file], type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError):
        raise Corrupt("models.format", f"{file} is not a JSON object; register the model again.") from None


def _text(found: Mapping[str, bytes], file: str) -> str:
    try:
        return found[file].decode()
    except UnicodeDecodeError:
        raise Corrupt("models.format", f"{file} is not UTF-8; register the model again.") from None
