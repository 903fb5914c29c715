"""Sealing: committed acts become signed segments in the locked ``audit`` zone (decision D3).

A segment is text: one header line, then one line of canonical JSON per act.

    header  {"acts","at","first","format","last","number","previous","root","workspace"}
    root    Merkle root over the act lines (RFC 6962 section 2.1: leaf 0x00, node 0x01)
    previous  SHA-256 of the previous segment's header line, 64 zeros for the first
    signature last line, hex of ECDSA P-256/SHA-256 over the header line

The head (number, digest, last act) is signed too and kept outside the workspace, so that a trail whose tail was cut
off, or an old database put back, does not verify.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from carelake.core import canonical
from carelake.core.errors import CarelakeError

__all__ = ["GENESIS", "Segment", "build", "merkle_root", "parse"]

GENESIS = "0" * 64


@dataclass(frozen=True, slots=True)
class Segment:
    """A sealed run of acts.

    Attributes:
        digest: SHA-256 of the header line; the next segment names it.
    """

    header: dict[str, Any]
    header_line: bytes
    lines: tuple[bytes, ...]
    signature: bytes

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.header_line).hexdigest()

    def data(self) -> bytes:
        """The segment's text as stored."""
        return b"\n".join([self.header_line, *self.lines, self.signature.hex().encode()]) + b"\n"


def merkle_root(lines: Sequence[bytes]) -> str:
    """Root hash of the lines as leaves (RFC 6962 section 2.1), in hex."""
    level = [hashlib.sha256(b"\x00" + line).digest() for line in lines] or [hashlib.sha256(b"").digest()]
    while len(level) > 1:
        pairs = [hashlib.sha256(b"\x01" + a + b).digest() for a, b in zip(level[::2], level[1::2], strict=False)]
        # RFC 6962 splits at powers of two; an odd last node moves up unchanged, which is the same tree.
        level = pairs + ([level[-1]] if len(level) % 2 else [])
    return level[0].hex()


def build(acts: Sequence[dict[str, Any]], *, workspace: str, number: int, previous: str, at: str) -> tuple[Any, ...]:
    """The header and lines of a new segment, not yet signed: ``(header, header_line, lines)``."""
    lines = tuple(canonical.dump(a) for a in acts)
    header = {
        "format": 1,
        "workspace": workspace,
        "number": number,
        "previous": previous,
        "first": acts[0]["seq"],
        "last": acts[-1]["seq"],
        "acts": len(acts),
        "root": merkle_root(lines),
        "at": at,
    }
    return header, canonical.dump(header), lines


def parse(data: bytes) -> Segment | None:
    """Read a stored segment; None when the text is not one."""
    parts = data.rstrip(b"\n").split(b"\n")
    if len(parts) < 3:
        return None
    try:
        header = canonical.load(parts[0])
        signature = bytes.fromhex(parts[-1].decode())
    except (CarelakeError, ValueError):
        return None
    return Segment(header, parts[0], tuple(parts[1:-1]), signature) if isinstance(header, dict) else None
