"""A version as a folder of its own: every file, its card as XML, its checklist and its approval, under one signature.

The signature is OpenSSF Model Signing's (``model_signing verify key DIR --signature DIR/manifest.sig --public_key
KEY.pem``), so who receives it needs nothing of ours to check it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from carelake.core.errors import Corrupt, Refused
from carelake.core.permit import Permit
from carelake.models import signature
from carelake.models.artifact import SIGNATURE, ModelFiles, refuse_unsafe
from carelake.vault.workspace import Vault

__all__ = ["MOST_BYTES", "MOST_FILES", "checked", "signed"]

MOST_FILES = 64
MOST_BYTES = 256 * 1024 * 1024
_PURPOSE = "models"
_CHECKED = (".json", ".txt", ".html", ".onnx", ".safetensors")


def signed(
    permit: Permit, vault: Vault, files: ModelFiles, folder: str, more: Mapping[str, bytes]
) -> dict[str, bytes]:
    """The files of a version with others beside them, and the signature over all; needs ``models:write``.

    Args:
        folder: the folder's name: verifiers compare it with the one that was signed.
    """
    every = {name: data for name, data in files.raw.items() if name != SIGNATURE} | dict(more)
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in every.items()}
    said = signature.statement(folder, digests)
    mark = vault.keyring.sign(permit, _PURPOSE, signature.pae(signature.IN_TOTO, said))
    pem = vault.keyring.public_key_pem(permit.account, _PURPOSE)
    return {**every, SIGNATURE: signature.envelope(signature.IN_TOTO, said, mark, pem)}


def checked(found: Mapping[str, bytes], check: signature.Check) -> dict[str, str]:
    """The SHA-256 of each file of a folder whose signature holds, and which holds these files and no other.

    Args:
        found: the folder's files by name.

    Raises:
        Refused: ``models.unsigned``, ``models.unexpected_file``, ``models.not_text``.
        Corrupt: ``models.altered``.
    """
    if SIGNATURE not in found:
        raise Refused("models.unsigned", f"The folder holds no {SIGNATURE}, so nothing in it is trusted.")
    payload = signature.opened(found[SIGNATURE], signature.IN_TOTO, check)
    digests = signature.digests_of(payload) if payload is not None else None
    if digests is None:
        raise Corrupt(
            "models.altered",
            "The signature does not hold for this key: another key's, or the statement was changed.",
            file=SIGNATURE,
        )
    for name, digest in digests.items():
        if name not in found or hashlib.sha256(found[name]).hexdigest() != digest:
            raise Corrupt("models.altered", "A file is not the one that was signed, or is gone.", file=name)
    if set(found) - {*digests, SIGNATURE}:
        raise Refused("models.unexpected_file", "A file lies in the folder that was not signed with it.")
    for name, data in found.items():
        if name != SIGNATURE and name.endswith(_CHECKED):
            refuse_unsafe(name, data)
    return digests
