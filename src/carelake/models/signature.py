"""Signatures as OpenSSF Model Signing writes them: DSSE over an in-toto statement, in a Sigstore bundle.

The statement names each file of a model with its SHA-256, so `model_signing verify key` checks what we exported, with
the account's public key (tests/models do). Approvals are signed in the same envelope, under a type of their own.

https://github.com/secure-systems-lab/dsse/blob/master/protocol.md
https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md
https://github.com/sigstore/model-transparency
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from carelake.core import canonical
from carelake.core.shapes import decodable

__all__ = ["IN_TOTO", "Bundle", "digests_of", "envelope", "key_hint", "opened", "pae", "statement"]

IN_TOTO = "application/vnd.in-toto+json"
_BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_STATEMENT = "https://in-toto.io/Statement/v1"
_PREDICATE = "https://model_signing/signature/v1.0"
_MAX = 1024 * 1024

Check = Callable[[bytes, bytes], bool]
"""Whether a signature (second) over bytes (first) is by a key that counts."""


class _Signature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    sig: bytes
    keyid: str = ""


class _Envelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    payload: bytes
    payload_type: str
    signatures: list[_Signature]


class _Key(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    hint: str = ""


class _Material(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    public_key: _Key
    tlog_entries: list[dict[str, str]] = []


class Bundle(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """A Sigstore bundle with one signature by a key, and no transparency log: the trail is ours."""

    media_type: str
    verification_material: _Material
    dsse_envelope: _Envelope


def pae(kind: str, payload: bytes) -> bytes:
    """What is signed: DSSE's pre-authentication encoding of a payload of that type."""
    return b" ".join([b"DSSEv1", str(len(kind)).encode(), kind.encode(), str(len(payload)).encode(), payload])


def key_hint(pem: bytes) -> str:
    """How a bundle tells which key: the SHA-256 of its PEM."""
    return hashlib.sha256(pem).hexdigest()


def statement(name: str, digests: Mapping[str, str]) -> bytes:
    """The in-toto statement over a model's files.

    Args:
        name: of the model, or of the folder that it lies in.
        digests: SHA-256 in hex by path.
    """
    resources = [{"algorithm": "sha256", "digest": digests[path], "name": path} for path in sorted(digests)]
    root = hashlib.sha256(b"".join(bytes.fromhex(one["digest"]) for one in resources)).hexdigest()
    how = {"method": "files", "hash_type": "sha256", "allow_symlinks": False, "ignore_paths": []}
    return canonical.dump(
        {
            "_type": _STATEMENT,
            "subject": [{"name": name, "digest": {"sha256": root}}],
            "predicateType": _PREDICATE,
            "predicate": {"serialization": how, "resources": resources},
        }
    )


def envelope(kind: str, payload: bytes, signature: bytes, pem: bytes) -> bytes:
    """The bundle around a payload that was signed by the key of which ``pem`` is the public half."""
    signed = _Envelope(payload, kind, [_Signature(signature)])
    return msgspec.json.encode(Bundle(_BUNDLE, _Material(_Key(key_hint(pem))), signed))


def opened(text: bytes, kind: str, check: Check) -> bytes | None:
    """The payload of a bundle, when its one signature holds and it is of that type; None for whatever else."""
    try:
        bundle = msgspec.json.decode(text, type=decodable(Bundle)) if len(text) <= _MAX else None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        bundle = None
    if bundle is None or bundle.media_type != _BUNDLE:
        return None
    told = bundle.dsse_envelope
    if told.payload_type != kind or len(told.signatures) != 1:
        return None
    return told.payload if check(pae(kind, told.payload), told.signatures[0].sig) else None


def digests_of(payload: bytes) -> dict[str, str] | None:
    """The SHA-256 of each path that a signed statement names; None when it is no statement of ours."""
    try:
        said: Any = msgspec.json.decode(payload)
        resources = said["predicate"]["resources"]
        found = {str(one["name"]): str(one["digest"]) for one in resources if one["algorithm"] == "sha256"}
    except (msgspec.MsgspecError, KeyError, TypeError, RecursionError):
        return None
    whole = said.get("_type") == _STATEMENT and said.get("predicateType") == _PREDICATE
    return found if whole and len(found) == len(resources) else None
