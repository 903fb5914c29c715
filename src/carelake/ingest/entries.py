"""Entries of a landing in order, by its shape; what cannot be an entry is refused with its line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO

from carelake.core import canonical
from carelake.core.errors import Invalid
from carelake.core.records import Rejected
from carelake.core.settings import IngestSettings
from carelake.ingest import bundles
from carelake.ingest.batches import Entry
from carelake.ingest.keys import DUPLICATE
from carelake.ingest.landing import Landing
from carelake.ingest.lines import Line, lines
from carelake.ingest.names import Names
from carelake.ingest.shape import HELD
from carelake.ingest.stream import BundleStream

__all__ = ["entries_of", "unreadable"]

_BOM = b"\xef\xbb\xbf"
_AT = re.compile(r"\(byte (\d+)\)")

_WHOLE = {
    "empty": ("ingest.empty", "The file holds nothing; expected FHIR JSON."),
    "foreign": ("ingest.not_json", "The file does not hold JSON objects; expected FHIR R4 as JSON or NDJSON."),
    "utf-16": ("ingest.encoding", "The file is UTF-16; expected UTF-8. Convert it and read it again."),
}

_FAULTS = {
    "ingest.truncated": "The file breaks off in the middle of its gzip data; what came whole before it was kept.",
    "ingest.gzip": "The gzip data are damaged from here on; what came whole before was kept.",
    "ingest.bomb": "The gzip data unpack to more than ingest.max_ratio allows; what came before was kept.",
    "ingest.unreadable": "The file could not be read; check its permissions and the disk.",
}


def entries_of(stream: BinaryIO, landing: Landing, bounds: IngestSettings) -> Iterator[Entry]:
    """Entries that are not committed yet; of a document all, since it is read as a whole."""
    if landing.format == "lines":
        yield from _of_lines(stream, landing, bounds)
    elif landing.format == "document":
        yield from _of_document(stream, landing, bounds)
    elif landing.fault:
        yield _fault(landing, offset=0, line=1, position=0)
    else:
        yield _refused(0, landing.size, 1, 0, *_WHOLE[landing.format])


def unreadable(landing: Landing) -> Entry:
    """The refusal of a source that has no landing."""
    return _fault(landing, offset=0, line=1, position=0)


def _refused(offset: int, length: int, line: int, position: int, code: str, message: str, path: str = "") -> Entry:
    record = Rejected(offset, length, line, position, path, code, message)
    return Entry(b"", offset, line, position, refused=record)


def _fault(landing: Landing, *, offset: int, line: int, position: int) -> Entry:
    return _refused(offset, landing.size - offset, line, position, landing.fault, _FAULTS[landing.fault])


def _of_lines(stream: BinaryIO, landing: Landing, bounds: IngestSettings) -> Iterator[Entry]:
    position, mark = landing.mark.entries, landing.mark
    end = (mark.offset, mark.line)
    for line in lines(stream, bounds.max_line_bytes, offset=mark.offset, number=mark.line):
        end = (line.next, line.number + line.ended)
        if landing.fault and not line.ended and not _is_whole(line.data):
            end = (line.offset, line.number)
            break
        for entry in _of_line(line, position, end):
            yield entry
            position += 1
    if landing.fault:
        yield _fault(landing, offset=end[0], line=end[1], position=position)


def _of_line(line: Line, position: int, after: tuple[int, int]) -> Iterator[Entry]:
    if not line.data:
        message = "The line is longer than ingest.max_line_bytes allows; raise it, or split the line."
        entry = _refused(line.offset, line.length, line.number, position, "ingest.line_too_long", message)
        entry.next = after
        yield entry
        return
    # A cheap look first: only a line that says Bundle somewhere can be one.
    sheet = bundles.read_sheet(line.data) if b'"Bundle"' in line.data else None
    if sheet is not None and sheet.is_bundle:
        yield from _of_bundle(line.data, sheet, line.offset, line.number, position, after)
    else:
        yield Entry(line.data, line.offset, line.number, position, next=after)


def _of_bundle(
    data: bytes, sheet: bundles.Sheet, offset: int, line: int, position: int, after: tuple[int, int]
) -> Iterator[Entry]:
    twice = bundles.repeats_entry(data)
    located = None if twice else bundles.locate(data, sheet.entry, offset, line)
    if located:
        kind = sheet.type if isinstance(sheet.type, str) else ""
        yield from bundles.entries(located, kind=kind, position=position, bundle=position + 1, after=after)
        return
    code, message = "ingest.empty_bundle", "The Bundle has no entries, so there is nothing to keep."
    if twice:
        code, message = DUPLICATE
    elif located is None:
        code, message = "ingest.bundle", "The Bundle has no entry array; expected Bundle.entry with resources."
    entry = _refused(offset, len(data), line, position, code, message, "Bundle.entry")
    entry.next = after
    yield entry


def _of_document(stream: BinaryIO, landing: Landing, bounds: IngestSettings) -> Iterator[Entry]:
    if landing.size > min(bounds.max_document_bytes, HELD):
        walk, names = _walk(stream, bounds)
        # A history's order is newest first, so it needs to be held whole, as does a single resource.
        if walk.resource_type == "Bundle" and walk.kind != "history":
            yield from _of_stream(stream, landing, bounds, names, whole=True)
            return
        if landing.size > bounds.max_document_bytes:
            message = "The document is larger than ingest.max_document_bytes and no Bundle that can be streamed."
            yield _refused(0, landing.size, 1, 0, "ingest.document_too_large", message)
            return
    yield from _of_held(stream, landing, bounds)


def _of_held(stream: BinaryIO, landing: Landing, bounds: IngestSettings) -> Iterator[Entry]:
    stream.seek(0)
    data = stream.read()
    start = len(_BOM) if data.startswith(_BOM) else 0
    bare = data[start:].strip(b" \t\r\n")
    offset = data.index(bare, start)
    line = 1 + data.count(b"\n", 0, offset)
    sheet = bundles.read_sheet(bare)
    if sheet is None:
        del data, bare
        walk, names = _walk(stream, bounds)
        is_bundle = walk.resource_type == "Bundle" and walk.kind != "history"
        yield from _of_stream(stream, landing, bounds, names if is_bundle else None, whole=False)
        return
    last = line + bare.count(b"\n")
    position = 0
    if sheet.is_bundle:
        for entry in _of_bundle(bare, sheet, offset, line, 0, (landing.size, last)):
            position += 1
            yield entry
    else:
        yield Entry(bare, offset, line, 0, next=(landing.size, last))
    if landing.fault:
        yield _fault(landing, offset=landing.size, line=last, position=position)


def _walk(stream: BinaryIO, bounds: IngestSettings) -> tuple[BundleStream, Names]:
    """The document gone through once: what it is, and what its ``urn:`` fullUrls stand for."""
    walk = BundleStream(stream, bounds.max_document_bytes)
    return walk, bundles.names(walk)


def _of_stream(
    stream: BinaryIO, landing: Landing, bounds: IngestSettings, names: Names | None, *, whole: bool
) -> Iterator[Entry]:
    """A Bundle's entries in bounded memory, and one refusal for what breaks.

    Args:
        names: from `_walk`; None where nothing can be saved.
        whole: nothing is known to be wrong with it.
    """
    walk = BundleStream(stream, bounds.max_document_bytes)
    count = refused = 0
    for entry in bundles.streamed(walk, names or Names(), after=(landing.size, 1)):
        if names is not None:
            count += 1
            refused += entry.refused is not None
            yield entry
    if landing.fault:
        yield _fault(landing, offset=walk.offset, line=walk.line, position=count)
    elif walk.broken:
        yield _refused(walk.offset, landing.size - walk.offset, walk.line, count, *walk.broken)
    elif not whole and not refused:
        yield _broken(stream, landing, count)
    elif not count:
        message = "The Bundle has no entries, so there is nothing to keep."
        yield _refused(0, landing.size, 1, 0, "ingest.empty_bundle", message, "Bundle.entry")


def _broken(stream: BinaryIO, landing: Landing, position: int) -> Entry:
    """The refusal of a document that holds together by its brackets and still is no JSON, with its line."""
    stream.seek(0)
    data = stream.read().removeprefix(_BOM)
    code, message = "core.json", "The text is not valid JSON."
    try:
        canonical.load(data)
    except Invalid as error:
        code, message = error.code, error.message
    except ArithmeticError:
        code, message = "ingest.number", "A number is beyond what can be represented."
    at = _AT.search(message)
    line = 1 + data.count(b"\n", 0, max(int(at[1]) - 1, 0) if at else 0)
    return _refused(0, landing.size, line, position, code, message)


def _is_whole(data: bytes) -> bool:
    return bundles.read_sheet(data) is not None
