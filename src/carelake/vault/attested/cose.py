"""COSE_Sign1 with ES256 (RFC 9052), as attestation documents of Nitro Enclaves have it (there with ES384).

CBOR is written and read by cbor2, signatures by `cryptography`; here is only what is put between the two.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from carelake.core.errors import Refused, Unavailable

__all__ = ["Signed", "as_der", "encode", "malformed", "read", "sign", "to_sign"]

_SIGN1, _ALGORITHM, _KEY_ID, _ES256 = 18, 1, 4, -7
_HALF = 32
_MOST = 64 * 1024


class Signed(NamedTuple):
    """A document that was read and not checked yet.

    Attributes:
        key: id of the key that signed, as the protected header names it.
        covered: the bytes that the signature is over.
        signature: r and s, 32 bytes each.
    """

    key: str
    payload: dict[Any, Any]
    covered: bytes
    signature: bytes


@cache
def _cbor() -> Any:
    try:
        import cbor2
    except ImportError:
        raise Unavailable(
            "vault.no_attestation",
            "Attestation needs a package that is not installed: pip install 'carelake[sandbox]'.",
        ) from None
    return cbor2


def encode(value: object) -> bytes:
    """CBOR in its canonical form."""
    found: bytes = _cbor().dumps(value, canonical=True)
    return found


def to_sign(protected: bytes, payload: bytes) -> bytes:
    """RFC 9052, section 4.4: the structure that is signed."""
    return encode(["Signature1", protected, b"", payload])


def sign(payload: dict[Any, Any], key: str, signer: Callable[[bytes], bytes]) -> bytes:
    """A document, signed.

    Args:
        key: id of the key. signer: answers an ECDSA signature of P-256 with SHA-256, in DER.
    """
    protected, body = encode({_ALGORITHM: _ES256, _KEY_ID: key.encode()}), encode(payload)
    r, s = decode_dss_signature(signer(to_sign(protected, body)))
    signature = r.to_bytes(_HALF, "big") + s.to_bytes(_HALF, "big")
    return encode(_cbor().CBORTag(_SIGN1, [protected, {}, body, signature]))


def as_der(signature: bytes) -> bytes:
    """r and s as DER."""
    r, s = (int.from_bytes(signature[at : at + _HALF], "big") for at in (0, _HALF))
    return encode_dss_signature(r, s)


def read(document: bytes) -> Signed:
    """Take a document apart; nothing of it is to be believed before its signature holds.

    Raises:
        Refused: ``vault.attestation_document``.
    """
    if len(document) > _MOST:
        raise malformed("it is too long")
    protected, payload, signature = _parts(document)
    header, body = _map(protected), _map(payload)
    key = header.get(_KEY_ID)
    if header.get(_ALGORITHM) != _ES256 or set(header) != {_ALGORITHM, _KEY_ID} or not isinstance(key, bytes):
        raise malformed("its protected header is not ES256 with a key's id")
    return Signed(key.decode("utf-8", "replace"), body, to_sign(protected, payload), signature)


def _parts(document: bytes) -> tuple[bytes, bytes, bytes]:
    tag = _loaded(document)
    if not isinstance(tag, _cbor().CBORTag) or tag.tag != _SIGN1 or not isinstance(tag.value, (list, tuple)):
        raise malformed("it is no COSE_Sign1")
    if len(tag.value) != 4 or tag.value[1] != {}:
        raise malformed("it is no COSE_Sign1, or has a header that is not signed")
    protected, _, payload, signature = tag.value
    if not all(isinstance(one, bytes) for one in (protected, payload, signature)) or len(signature) != 2 * _HALF:
        raise malformed("its parts are not bytes of their lengths")
    return protected, payload, signature


def _map(data: bytes) -> dict[Any, Any]:
    found = _loaded(data)
    # One meaning alone: what another reader could read otherwise (twice the same key) is refused.
    if not isinstance(found, dict) or encode(found) != data:
        raise malformed("a part is no canonical CBOR map")
    return found


def _loaded(data: bytes) -> Any:
    try:
        return _cbor().loads(data)
    except Exception:  # whatever the reader makes of bytes that are no CBOR, depth included
        raise malformed("it is no CBOR") from None


def malformed(what: str) -> Refused:
    """Of a document that is none."""
    return Refused("vault.attestation_document", f"The attestation document is refused: {what}.")
