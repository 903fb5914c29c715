"""A model version as files: no pickle, each named in a signed manifest, and all checked before any is read.

    NAME/DIGEST/model.txt       the trees, LightGBM text
    NAME/DIGEST/model.json      everything else of the model, plain numbers
    NAME/DIGEST/metrics.json    how it did beside its baselines
    NAME/DIGEST/card.json       the model card, SageMaker's sections
    NAME/DIGEST/card.html       the same for people
    NAME/DIGEST/baseline.json   what its inputs and risks looked like in training, for the monitor
    NAME/DIGEST/manifest.json   the SHA-256 of each; DIGEST is the SHA-256 of this file
    NAME/DIGEST/manifest.sig    EC P-256 signature over manifest.json with the account's key for models

All lie in the zone ``models``. The same rows and the same libraries give the same digest.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from carelake.core import canonical, nouns
from carelake.core.errors import Corrupt, Invalid, NotFound, Refused
from carelake.core.permit import Permit
from carelake.core.shapes import decodable
from carelake.models.scorer import Description, Scorer
from carelake.vault.workspace import Vault

__all__ = ["FILES", "Manifest", "ModelFiles", "load", "pack", "write"]

FILES = ("baseline.json", "card.html", "card.json", "metrics.json", "model.json", "model.txt")
_MANIFEST, _SIGNATURE = "manifest.json", "manifest.sig"
_ZONE, _PURPOSE = "models", "models"
_MAX_FILE = 64 * 1024 * 1024
_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")
# How each file starts. No pickle, and no archive that could hold one (zip, gzip, numpy), starts so.
_STARTS = {".txt": b"tree\n", ".json": b"{", ".html": b"<!doctype html>"}


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What belongs to a model version.

    Attributes:
        files: SHA-256 in hex by file name.
    """

    name: str
    account: str
    training_set: str
    files: dict[str, str]
    format: int = 1


@dataclass(frozen=True)
class ModelFiles:
    """A model version whose signature, digests and format hold."""

    ref: str
    manifest: Manifest
    scorer: Scorer
    metrics: dict[str, Any]
    card: dict[str, Any]
    card_html: str
    baseline: dict[str, Any]


def pack(
    scorer: Scorer, metrics: Mapping[str, Any], card: Mapping[str, Any], html: str, baseline: bytes
) -> dict[str, bytes]:
    """The files of a model version, by name. ``baseline`` is made by `monitor.baseline`."""
    return {
        "model.txt": scorer.text.encode(),
        "model.json": msgspec.json.encode(scorer.description),
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
        Invalid: ``models.name``, ``models.files`` (not exactly `FILES`, or too large).
        Refused: ``models.not_text``: a pickle, for example.
    """
    if not _NAME.fullmatch(name):
        raise Invalid("models.name", "A model's name is lower-case letters, digits and dashes, 63 at most.")
    if sorted(files) != list(FILES) or max(map(len, files.values())) > _MAX_FILE:
        raise Invalid("models.files", f"A model version is the files {', '.join(FILES)}, each of bounded size.")
    for file, data in files.items():
        _refuse_pickle(file, data)
    digests = {file: hashlib.sha256(data).hexdigest() for file, data in files.items()}
    manifest = canonical.dump(msgspec.to_builtins(Manifest(name, permit.account, training_set, digests)))
    ref = nouns.ref("model", manifest)
    folder = _folder(name, ref)
    for file, data in files.items():
        vault.objects.put(permit, _ZONE, folder + file, data)
    # The signature comes last: a folder that was interrupted is unsigned, and is refused.
    vault.objects.put(permit, _ZONE, folder + _MANIFEST, manifest)
    vault.objects.put(permit, _ZONE, folder + _SIGNATURE, vault.keyring.sign(permit, _PURPOSE, manifest))
    return ref


def load(permit: Permit, vault: Vault, name: str, ref: str) -> ModelFiles:
    """Read a model version; needs the grant ``models:read``.

    Raises:
        NotFound: ``models.no_such_version``.
        Refused: ``models.unsigned``, ``models.not_text``, ``models.unexpected_file``.
        Corrupt: ``models.altered`` (``facts['file']`` names it), ``models.format``.
    """
    if nouns.kind_of(ref) != "model" or not _NAME.fullmatch(name):
        raise Invalid("models.name", "Expected a model's name and its ref, model:DIGEST.")
    found = _read_all(permit, vault, _folder(name, ref))
    manifest = _checked_manifest(permit, vault, ref, found)
    if manifest.name != name or manifest.account != permit.account or sorted(manifest.files) != list(FILES):
        raise _altered(_MANIFEST)
    for file, digest in manifest.files.items():
        if file not in found or hashlib.sha256(found[file]).hexdigest() != digest:
            raise _altered(file)
    return ModelFiles(
        ref,
        manifest,
        _scorer(found),
        _json(found, "metrics.json"),
        _json(found, "card.json"),
        found["card.html"].decode(),
        _json(found, "baseline.json"),
    )


def _folder(name: str, ref: str) -> str:
    return f"{name}/{ref.partition(':')[2]}/"


def _altered(file: str) -> Corrupt:
    return Corrupt(
        "models.altered",
        f"The model file {file} is not the one that was signed; restore it, and look into who changed it.",
        file=file,
    )


def _refuse_pickle(file: str, data: bytes) -> None:
    if not data.startswith(_STARTS[file[file.rindex(".") :]]):
        raise Refused(
            "models.not_text",
            f"{file} does not start as text of its kind does; a pickle or archive may run code, so it is not read.",
            file=file,
        )


def _read_all(permit: Permit, vault: Vault, folder: str) -> dict[str, bytes]:
    found = {}
    for stored in vault.objects.list(permit, _ZONE, folder):
        file = stored.name.removeprefix(folder)
        if file not in (*FILES, _MANIFEST, _SIGNATURE):
            raise Refused("models.unexpected_file", "A file lies beside the model that does not belong to it.")
        if stored.size > _MAX_FILE:
            raise _altered(file)
        found[file] = vault.objects.get(permit, _ZONE, stored.name)
        if file != _SIGNATURE:
            _refuse_pickle(file, found[file])
    if not found:
        raise NotFound("models.no_such_version", "No model version of that name and ref is stored in this account.")
    return found


def _checked_manifest(permit: Permit, vault: Vault, ref: str, found: Mapping[str, bytes]) -> Manifest:
    if _MANIFEST not in found or _SIGNATURE not in found:
        raise Refused("models.unsigned", "The model version is not signed, so it is not read; register it again.")
    manifest = found[_MANIFEST]
    signed = vault.keyring.verify(manifest, found[_SIGNATURE], account=permit.account, purpose=_PURPOSE)
    if not signed or nouns.ref("model", manifest) != ref:
        raise _altered(_MANIFEST)
    try:
        return msgspec.json.decode(manifest, type=decodable(Manifest))
    except msgspec.MsgspecError:
        raise _altered(_MANIFEST) from None


def _scorer(found: Mapping[str, bytes]) -> Scorer:
    try:
        description = msgspec.json.decode(found["model.json"], type=decodable(Description))
        return Scorer(found["model.txt"].decode(), description)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise Corrupt("models.format", "model.json is not in this version's format; register it again.") from None


def _json(found: Mapping[str, bytes], file: str) -> dict[str, Any]:
    """Plain floats, not exact decimals: these are measurements, and go into arrays."""
    try:
        return msgspec.json.decode(found[file], type=dict[str, Any])
    except msgspec.MsgspecError:
        raise Corrupt("models.format", f"{file} is not a JSON object; register the model again.") from None
