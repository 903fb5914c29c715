"""Bodies of versions: sealed with what they belong to, packed, and opened again."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import Any

import zstandard

from carelake.core import canonical
from carelake.core.clock import iso
from carelake.core.errors import Corrupt

__all__ = ["context", "moment", "pack", "unpack", "with_meta"]

_LEVEL = 3
_MAX_BODY = 1 << 30

_local = threading.local()


def context(kind: str, key: str, version: int) -> bytes:
    """What a body is sealed to: it cannot be passed off as another resource's or another version's."""
    return f"{kind}|{key}|{version}".encode()


def pack(text: bytes) -> bytes:
    """zstd, with the size written in."""
    packer = getattr(_local, "packer", None)
    if packer is None:
        packer = _local.packer = zstandard.ZstdCompressor(level=_LEVEL)
    packed: bytes = packer.compress(text)
    return packed


def unpack(packed: bytes) -> bytes:
    """The text back; `Corrupt` ``store.body`` when it is not what `pack` made."""
    unpacker = getattr(_local, "unpacker", None)
    if unpacker is None:
        unpacker = _local.unpacker = zstandard.ZstdDecompressor()
    try:
        if not 0 <= zstandard.frame_content_size(packed) <= _MAX_BODY:
            raise zstandard.ZstdError("size")
        text: bytes = unpacker.decompress(packed)
    except zstandard.ZstdError:
        raise Corrupt("store.body", "A stored body cannot be unpacked; restore it from a backup.") from None
    return text


def moment(micros: int) -> datetime:
    """The UTC time of microseconds since 1970."""
    return datetime.fromtimestamp(micros / 1_000_000, UTC)


def with_meta(text: bytes, version: int, updated: int) -> dict[str, Any]:
    """The resource as it is answered: ``meta.versionId`` and ``meta.lastUpdated`` are the record's own."""
    resource: dict[str, Any] = canonical.load(text)
    meta = {**resource.get("meta", {}), "versionId": str(version), "lastUpdated": iso(moment(updated))}
    # meta stands where people expect it, after the id.
    head: dict[str, Any] = {name: resource[name] for name in ("resourceType", "id") if name in resource}
    return {**head, "meta": meta, **{name: value for name, value in resource.items() if name not in (*head, "meta")}}
