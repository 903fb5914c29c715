"""Segments: runs of acts, signed, in the locked ``audit`` zone (decisions D3 and 0024).

A segment is text: one header line, then one line of canonical JSON per act, then the signature in hex.

    header  {"acts","at","fence","first","format","key","last","number","previous","root","tree","workspace"}
    root      Merkle root over the act lines (RFC 6962 section 2.1: leaf 0x00, node 0x01)
    tree      Merkle root over the header lines of all segments before
    previous  SHA-256 of the previous segment's header line, 64 zeros for the first
    key       version of the trail's signing key; fence: the election that its sealer won
    at        when it was sealed; never before an act in it, nor before the segment before it
    signature last line: ECDSA P-256/SHA-256 over the header line

Format 1 has no ``fence``, ``key`` and ``tree``; its key is version 1.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import msgspec

from carelake.audit import merkle
from carelake.core import canonical
from carelake.core.clock import instant
from carelake.core.errors import CarelakeError

__all__ = ["FORMAT", "GENESIS", "Sealable", "Segment", "header_of", "merkle_root", "object_name", "parse", "spans"]

FORMAT = 2
GENESIS = "0" * 64

_SPAN = timedelta(seconds=1)
_SOME = 1000


class Sealable(msgspec.Struct, frozen=True):
    """An act as it will be sealed.

    Attributes:
        leaf: the hash of its line as a leaf, where that was made already.
    """

    seq: int
    at: str
    line: bytes
    leaf: bytes = b""


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

    @property
    def key(self) -> int:
        """Version of the key that signed it; 0 for what is no version."""
        version = self.header.get("key", 1)
        return version if isinstance(version, int) else 0

    def data(self) -> bytes:
        """The segment's text as stored."""
        return b"\n".join([self.header_line, *self.lines, self.signature.hex().encode()]) + b"\n"


def object_name(number: int) -> str:
    """What a segment is called in the zone."""
    return f"segments/{number:012d}"


def merkle_root(lines: Sequence[bytes]) -> str:
    """Root hash of the lines as leaves, in hex."""
    return merkle.root(lines).hex()


def spans(
    acts: Sequence[Sealable], most: int, rest: Callable[[], None] = lambda: None
) -> Iterator[Sequence[Sealable]]:
    """Cut a run of acts into segments: at most a second by the acts' times, and at most ``most`` acts.

    Time is what the run had reached: an act whose clock was behind does not make its segment longer. After some acts
    each it rests.
    """
    start, end, reached = 0, "", ""
    for number, one in enumerate(acts):
        if number % _SOME == _SOME - 1:
            rest()
        reached = max(reached, one.at)
        if number - start >= most or (end and reached > end):
            yield acts[start:number]
            start, end = number, ""
        if not end:
            end = _later(reached)
    if start < len(acts):
        yield acts[start:]


def _later(at: str) -> str:
    moment = instant(at) + _SPAN
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def header_of(
    acts: Sequence[Sealable],
    *,
    workspace: str,
    number: int,
    previous: str,
    tree: str,
    fence: int,
    at: str,
    rest: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """The header of a new segment, but for the key's version; ``at`` is raised to the latest of its acts.

    Args:
        rest: called now and then, where there are many acts.
    """
    return {
        "format": FORMAT,
        "workspace": workspace,
        "number": number,
        "previous": previous,
        "tree": tree,
        "first": acts[0].seq,
        "last": acts[-1].seq,
        "acts": len(acts),
        "root": merkle.root_of([one.leaf or merkle.leaf_hash(one.line) for one in acts], rest).hex(),
        "fence": fence,
        "at": max(at, max(one.at for one in acts)),
    }


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
