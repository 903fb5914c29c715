"""Bodies of versions: sealed with what they belong to, packed, and opened again."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec
import zstandard

from carelake.core import canonical
from carelake.core.clock import iso
from carelake.core.errors import Corrupt

__all__ = ["Shown", "context", "moment", "pack", "shown", "told", "unpack", "with_meta"]

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
    return told(canonical.load(text), version, updated)


def told(resource: dict[str, Any], version: int, updated: int) -> dict[str, Any]:
    """As `with_meta`, of a resource that is parsed; it is not changed."""
    meta = {**resource.get("meta", {}), "versionId": str(version), "lastUpdated": iso(moment(updated))}
    # meta stands where people expect it, after the id.
    head: dict[str, Any] = {name: resource[name] for name in ("resourceType", "id") if name in resource}
    return {**head, "meta": meta, **{name: value for name, value in resource.items() if name not in (*head, "meta")}}


class Shown(NamedTuple):
    """One version as it is answered.

    Attributes:
        text: JSON, with the record's own ``meta``.
    """

    text: bytes
    version: int
    updated: datetime


_members = msgspec.json.Decoder(dict[str, msgspec.Raw])


def shown(text: bytes, version: int, updated: int) -> Shown:
    """As `with_meta`, as text: of what stands outside ``meta`` nothing is parsed but where it ends."""
    when = moment(updated)
    try:
        found = _members.decode(text)
        meta: dict[str, Any] = dict(_members.decode(found["meta"])) if "meta" in found else {}
    except (msgspec.DecodeError, RecursionError):
        raise Corrupt("store.body", "A stored body is no JSON object; restore it from a backup.") from None
    meta["versionId"], meta["lastUpdated"] = str(version), iso(when)
    head: dict[str, Any] = {name: found.pop(name) for name in ("resourceType", "id") if name in found}
    head["meta"] = meta
    found.pop("meta", None)
    return Shown(msgspec.json.encode({**head, **found}), version, when)
