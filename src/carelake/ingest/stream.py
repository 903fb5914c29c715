"""A Bundle read in blocks: for documents too large to hold, and for those that break off or are damaged.

It follows strings and brackets only; each entry is checked when it is parsed. What it has given out before a break is
whole, so the good entries of a damaged file are kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO

import msgspec

from carelake.ingest.bundles import Located
from carelake.ingest.keys import DUPLICATE

__all__ = ["BundleStream"]

_BLOCK = 1 << 20
_PIECE = 8 << 20
_STRING = rb'"[^"\\]*(?:\\.[^"\\]*)*"'
# Up to the next bracket outside of strings; possessive, so that a block's end is found in one go.
_TO_BRACKET = re.compile(rb'(?:[^"{}\[\]]++|"[^"\\]*+(?:\\.[^"\\]*+)*+")*+[{}\[\]]', re.DOTALL)
# A quote that opens no whole string is a token too: the block ends inside of a string.
_OUTER = re.compile(_STRING + rb'|[{}\[\],:]|"|[^\s{}\[\],:"]+', re.DOTALL)
_GAP = re.compile(rb"[\s,]*")
_SCALAR = re.compile(rb'[^\s,\]{}\["]+')


class _BreakError(Exception):
    def __init__(self, code: str, message: str) -> None:
        self.code, self.message = code, message


class BundleStream:
    """Elements of ``Bundle.entry`` one by one.

    Attributes, as far as it has been read:
        resource_type, kind: ``resourceType`` and ``type`` of the document, "" until they are met.
        broken: (code, message) where the document is no JSON, else None.
        offset, line: of the place that was reached.
    """

    def __init__(self, stream: BinaryIO, limit: int) -> None:
        self._stream = stream
        self._limit = limit
        self._buffer = bytearray()
        self._base = 0
        self._at = 0
        self._counted = 0
        self._line = 1
        self.resource_type = ""
        self.kind = ""
        self.broken: tuple[str, str] | None = None

    @property
    def offset(self) -> int:
        return self._base + self._at

    @property
    def line(self) -> int:
        return self._line_at(self._at)

    def __iter__(self) -> Iterator[Located]:
        self._stream.seek(0)
        try:
            if self._fill() and self._buffer.startswith(b"\xef\xbb\xbf"):
                self._at = 3
            yield from self._document()
        except _BreakError as broken:
            self.broken = (broken.code, broken.message)
        # Whoever asks for the kind or the place afterwards must not keep a large entry in memory by it.
        self._let_go(self._at)
        self._buffer = bytearray()

    # -- the outer object -----------------------------------------------------------------------------------------

    def _document(self) -> Iterator[Located]:
        if self._next() != b"{":
            raise _BreakError("ingest.not_json", "The file does not hold a JSON object; expected FHIR R4.")
        met = False
        while (key := self._next()) != b"}":
            if key == b",":
                continue
            if met and key == b'"entry"':
                raise _BreakError(*DUPLICATE)
            met = met or key == b'"entry"'
            if not key.startswith(b'"') or self._next() != b":":
                raise _malformed()
            value = self._next()
            if key == b'"entry"' and value == b"[":
                yield from self._elements()
            elif value in (b"{", b"["):
                self._skip()
            else:
                self._note(key, value)
        if self._token() is not None:
            raise _BreakError("core.json", "There is more text after the end of the document.")

    def _note(self, key: bytes, value: bytes) -> None:
        try:
            text = msgspec.json.decode(value)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise _malformed() from None
        if isinstance(text, str) and key == b'"type"':
            self.kind = text
        elif isinstance(text, str) and key == b'"resourceType"':
            self.resource_type = text

    def _elements(self) -> Iterator[Located]:
        while True:
            self._gap()
            start = self._at
            head = bytes(self._buffer[start : start + 1])
            if head == b"]":
                self._at += 1
                return
            if head in (b"{", b"["):
                self._at += 1
                start = self._skip(start)
            else:
                scalar = _SCALAR.match(self._buffer, start)
                if scalar is None or scalar.end() == len(self._buffer):
                    raise _malformed()
                self._at = scalar.end()
            with memoryview(self._buffer) as held:
                text = bytes(held[start : self._at])
            yield Located(text, self._base + start, self._line_at(start))

    def _skip(self, start: int | None = None) -> int:
        """Go past the object or array that has just been entered; its start in the buffer, which may have moved."""
        depth = 1
        while True:
            while found := _TO_BRACKET.match(self._buffer, self._at):
                self._at = found.end()
                depth += 1 if self._buffer[self._at - 1] in _OPENING else -1
                if not depth:
                    return start or 0
            if not self._more(self._at if start is None else start):
                raise _broken_off()
            start = None if start is None else 0

    # -- tokens ---------------------------------------------------------------------------------------------------

    def _next(self) -> bytes:
        token = self._token()
        if token is None:
            raise _broken_off()
        return token

    def _token(self) -> bytes | None:
        """The next token of the outer object; None at the end."""
        while True:
            found = _OUTER.search(self._buffer, self._at)
            self._at = found.start() if found else len(self._buffer)
            # A text or number at the very end may go on in the next block; a lone quote does.
            if found and (found.end() < len(self._buffer) or found[0] in _SIGNS) and found[0] != b'"':
                break
            if not self._more(self._at):
                if found is None:
                    return None
                if found[0] == b'"':
                    raise _broken_off()
                found = _OUTER.search(self._buffer, self._at)
                assert found is not None
                break
        self._at = found.end()
        return found[0]

    def _gap(self) -> None:
        while True:
            gap = _GAP.match(self._buffer, self._at)
            self._at = gap.end() if gap else self._at
            if self._at < len(self._buffer):
                # A scalar must be whole.
                if self._buffer[self._at] in _BRACKETS or _ends(self._buffer, self._at):
                    return
                if not self._more(self._at):
                    return
            elif not self._more(self._at):
                raise _broken_off()

    # -- the buffer -----------------------------------------------------------------------------------------------

    def _more(self, keep: int) -> bool:
        """Read on, letting go of what is before ``keep``; False at the end."""
        if len(self._buffer) - keep > self._limit:
            raise _BreakError(
                "ingest.entry_too_large", "An entry is larger than ingest.max_document_bytes; the rest was not read."
            )
        self._let_go(keep)
        return self._fill()

    def _let_go(self, keep: int) -> None:
        self._line = self._line_at(keep)
        self._counted = 0
        del self._buffer[:keep]
        self._base += keep
        self._at -= keep

    def _fill(self) -> bool:
        # As much again as is held: what is looked through twice stays in proportion. Never far beyond the limit.
        # It grows where it is, a little at a time: old, new and both together would be twice the document in memory.
        held = len(self._buffer)
        left = max(_BLOCK, min(held, self._limit - held + 1))
        while left and (block := self._stream.read(min(left, _PIECE))):
            self._buffer += block
            left -= len(block)
        return len(self._buffer) > held

    def _line_at(self, at: int) -> int:
        self._line += self._buffer.count(b"\n", self._counted, at)
        self._counted = max(at, self._counted)
        return self._line


_OPENING = b"{["
_BRACKETS = b"{[]"
_SIGNS = (b"{", b"}", b"[", b"]", b",", b":")


def _ends(buffer: bytearray, at: int) -> bool:
    scalar = _SCALAR.match(buffer, at)
    return scalar is None or scalar.end() < len(buffer)


def _broken_off() -> _BreakError:
    return _BreakError("ingest.broken_off", "The document ends in the middle; what came whole before it was kept.")


def _malformed() -> _BreakError:
    return _BreakError("core.json", "The text is not valid JSON.")
