"""The attestation document: the shape is that of Nitro Enclaves', what it tells is less, and it says so.

    module_id    which sandbox: its workspace, a random id
    timestamp    milliseconds since 1970 UTC
    digest       "SHA384", of the measurements
    pcrs         0: carelake's code in it, 1: every other file it runs, 2: its walls, 3: the model; 48 bytes each
    public_key   of the sandbox alone: X25519, 32 bytes; what is released can be opened by it only
    user_data    JSON: ``trust``, ``subject``
    nonce        what the key ring asked it to say

All measurements of a sandbox that can be looked into (debug) are zeros, as Nitro's are.
https://docs.aws.amazon.com/enclaves/latest/user/verify-root.html
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from carelake.core import canonical
from carelake.core.shapes import decodable
from carelake.vault.attested.cose import malformed

__all__ = ["PCRS", "TRUST", "ZERO", "Attested", "digest", "measured", "payload", "read"]

PCRS = ("PCR0", "PCR1", "PCR2", "PCR3")
TRUST = "process"
"""How far a document is to be trusted: a process of this host, as the same host measured it; no hardware says so."""

_BYTES, _KEY = 48, 32
ZERO = bytes(_BYTES).hex()
_FIELDS = {"module_id", "timestamp", "digest", "pcrs", "public_key", "user_data", "nonce"}
_ID = re.compile(r"[!-~]{1,128}")


class _Said(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    trust: str
    subject: str


class Attested(msgspec.Struct, frozen=True):
    """What a document says.

    Attributes:
        at: milliseconds since 1970 UTC.
        pcrs: measurements in hex, by `PCRS`.
        subject: ref of the endpoint that it runs for.
    """

    module: str
    at: int
    pcrs: dict[str, str]
    public_key: bytes
    trust: str
    subject: str
    nonce: bytes

    @property
    def debug(self) -> bool:
        """Whether somebody can look into it."""
        return any(one == ZERO for one in self.pcrs.values())


def measured(*parts: bytes) -> str:
    """One measurement, in hex."""
    return hashlib.sha384(b"".join(parts)).hexdigest()


def digest(document: bytes) -> str:
    """How acts name a document."""
    return hashlib.sha384(document).hexdigest()


def payload(said: Attested) -> dict[str, Any]:
    """As CBOR has it."""
    return {
        "module_id": said.module,
        "timestamp": said.at,
        "digest": "SHA384",
        "pcrs": {at: bytes.fromhex(said.pcrs[name]) for at, name in enumerate(PCRS)},
        "public_key": said.public_key,
        "user_data": canonical.dump({"trust": said.trust, "subject": said.subject}),
        "nonce": said.nonce,
    }


def read(found: Mapping[Any, Any]) -> Attested:
    """The payload of a document, each field of its type.

    Raises:
        Refused: ``vault.attestation_document``.
    """
    if set(found) != _FIELDS or found["digest"] != "SHA384":
        raise malformed("it has other fields than a document has")
    module, at, key, nonce = (found[name] for name in ("module_id", "timestamp", "public_key", "nonce"))
    if not isinstance(module, str) or not _ID.fullmatch(module) or type(at) is not int:
        raise malformed("its module_id or timestamp is none")
    if not isinstance(key, bytes) or len(key) != _KEY or not isinstance(nonce, bytes):
        raise malformed("its public_key or nonce is none")
    said = _user_data(found["user_data"])
    return Attested(module, at, _pcrs(found["pcrs"]), key, said.trust, said.subject, nonce)


def _pcrs(found: Any) -> dict[str, str]:
    if not isinstance(found, dict) or set(found) != set(range(len(PCRS))):
        raise malformed("it has other measurements than are asked for")
    if any(not isinstance(one, bytes) or len(one) != _BYTES for one in found.values()):
        raise malformed("a measurement has not 48 bytes")
    return {name: found[at].hex() for at, name in enumerate(PCRS)}


def _user_data(found: Any) -> _Said:
    try:
        return msgspec.json.decode(found if isinstance(found, bytes) else b"", type=decodable(_Said))
    except (msgspec.MsgspecError, RecursionError):
        raise malformed("its user_data is not what it has to say") from None
