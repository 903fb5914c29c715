"""What a landing holds: lines of resources, one document, or nothing that can be read. Told by content.

A file's ending only tips the balance where the content can be both: a document whose first line is broken off, or
lines of which the first is damaged.
"""

from __future__ import annotations

from typing import Any, BinaryIO, Literal

import msgspec

from carelake.core.shapes import decodable
from carelake.ingest.bundles import Sheet
from carelake.ingest.lines import Line, lines

__all__ = ["HELD", "SAMPLE", "Shape", "shape"]

HELD = 32 << 20
"""Bundles beyond this are streamed: taken apart, a document is several times its size in memory."""

SAMPLE = 1 << 20
"""Bytes after the first line that are looked at for whole resources."""

_GLANCE = 1 << 14

Shape = Literal["lines", "document", "empty", "foreign", "utf-16"]


class _Head(msgspec.Struct):
    resource_type: Any = msgspec.field(default=None, name="resourceType")


_head = msgspec.json.Decoder(decodable(_Head))
_sheet = msgspec.json.Decoder(decodable(Sheet))


def shape(stream: BinaryIO, *, size: int, max_line: int, max_document: int, named_lines: bool) -> Shape:
    """The shape of a landing.

    Args:
        size: bytes of content.
        max_line, max_document: what is held in memory at most (`core.settings.IngestSettings`).
        named_lines: whether the source's ending says that each line is a resource.
    """
    stream.seek(0)
    start = stream.read(4)
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    found = lines(stream, max_line, block_size=_GLANCE)
    first = next(found, None)
    if first is None:
        return "empty"
    if next(found, None) is None:
        return "document" if _opens(first, stream) else "foreign"
    if _whole(first.data):
        return "lines"
    # The dearer look first where the name speaks for it.
    if named_lines and _has_resource(stream, first.next, max_line):
        return "lines"
    if size <= max_document and _parses(stream):
        return "document"
    if not named_lines and _has_resource(stream, first.next, max_line):
        return "lines"
    return "document" if _opens(first, stream) else "foreign"


def _opens(first: Line, stream: BinaryIO) -> bool:
    if first.data:
        return first.data.startswith(b"{")
    stream.seek(first.offset)
    return stream.read(64).lstrip(b"\xef\xbb\xbf \t\r").startswith(b"{")


def _whole(data: bytes) -> bool:
    return data.startswith(b"{") and _try(_head, data) is not None


def _has_resource(stream: BinaryIO, offset: int, max_line: int) -> bool:
    """Whether a line of the sample is a whole resource on its own."""
    for line in lines(stream, max_line, offset=offset):
        if line.data.startswith(b"{") and b'"resourceType"' in line.data:
            head = _try(_head, line.data)
            if head is not None and isinstance(head.resource_type, str):
                return True
        if line.next - offset > SAMPLE:
            break
    return False


def _parses(stream: BinaryIO) -> bool:
    stream.seek(0)
    return _try(_sheet, stream.read().removeprefix(b"\xef\xbb\xbf")) is not None


def _try(decoder: msgspec.json.Decoder[Any], data: bytes) -> Any:
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ArithmeticError):
        return None
