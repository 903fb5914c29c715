"""Bundles taken apart: each entry's resource with its byte range and line, ids and references settled (D6).

Bundle: https://hl7.org/fhir/R4/bundle.html; resolving references in it: section 2.36.4.1.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import msgspec

from carelake.core.records import Rejected
from carelake.core.shapes import decodable
from carelake.ingest.batches import Entry
from carelake.ingest.keys import DUPLICATE, outer_repeats
from carelake.ingest.names import Names, key_of

__all__ = ["Located", "Sheet", "entries", "locate", "names", "read_sheet", "repeats_entry", "streamed"]

_BETWEEN = re.compile(rb"[\s,]*")
_RESOURCE = re.compile(rb'"resource"\s*:\s*')
# Two patterns, since one for both cases is several times slower to search for.
_URN = re.compile(rb'"(urn:(?:uuid|oid|UUID|OID):[^"\\]*)"')
_LOUD_URN = re.compile(rb'"(URN:(?:uuid|oid|UUID|OID):[^"\\]*)"')
_LINK = re.compile(rb'"reference"\s*:\s*("[A-Za-z][A-Za-z0-9+.\-]*:[^"]*")')
_VERSION = re.compile(r"(.+?)(/_history/[A-Za-z0-9.\-]{1,64})")
_UUID = re.compile(r"(?i:urn:uuid):([A-Za-z0-9.\-]{1,64})")
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:.")
_NAME = re.compile(r"[A-Za-z]+/[A-Za-z0-9.\-]{1,64}")
_ENTRY = frozenset({"entry"})
_WRAPPER_KEYS = frozenset({"fullUrl", "resource", "request"})
_WRAPPER_QUOTED = tuple(f'"{key}"'.encode() for key in sorted(_WRAPPER_KEYS))
_READS = frozenset({"GET", "HEAD", "DELETE"})


class Sheet(msgspec.Struct):
    """The outer leaf of a JSON document; entries are not decoded yet."""

    resource_type: Any = msgspec.field(default=None, name="resourceType")
    type: Any = None
    entry: msgspec.Raw = msgspec.Raw()

    @property
    def is_bundle(self) -> bool:
        return bool(self.resource_type == "Bundle")


class _Wrapper(msgspec.Struct):
    full_url: Any = msgspec.field(default=None, name="fullUrl")
    resource: msgspec.Raw = msgspec.Raw()
    request: Any = None


class _Head(msgspec.Struct):
    resource_type: Any = msgspec.field(default=None, name="resourceType")
    id: Any = None


class Located(NamedTuple):
    """One element of ``Bundle.entry``: its text, and where it starts in the landing."""

    raw: bytes
    offset: int
    line: int


class _Opened(NamedTuple):
    resource: bytes
    offset: int
    line: int
    full_url: str
    type: str
    id: str
    refused: tuple[str, str] | None

    @property
    def named(self) -> bool:
        """Whether others may point to it by its fullUrl."""
        return bool(_ADDRESS.match(self.full_url) and _NAME.fullmatch(f"{self.type}/{self.id}"))


class _Links(NamedTuple):
    """What the fullUrls of a Bundle stand for. ``linked``: some of them are addresses, not ``urn:``."""

    names: Names | dict[str, str]
    linked: bool


_sheet = msgspec.json.Decoder(decodable(Sheet))
_list = msgspec.json.Decoder(list[msgspec.Raw])
_wrapper = msgspec.json.Decoder(decodable(_Wrapper))
_head = msgspec.json.Decoder(decodable(_Head))

_NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ArithmeticError)


def read_sheet(data: bytes) -> Sheet | None:
    """The outer leaf, or None where the text is not one JSON object."""
    try:
        return _sheet.decode(data)
    except _NOT_JSON:
        return None


def locate(data: bytes, entry: msgspec.Raw, offset: int, line: int) -> list[Located] | None:
    """The elements of ``Bundle.entry``, or None where it is not an array.

    Args:
        data: the document; ``entry`` is the raw value in it.
        offset, line: where the document starts in the landing.
    """
    try:
        raws = [bytes(raw) for raw in _list.decode(entry)]
    except _NOT_JSON:
        return None
    found = []
    at = seen = 0
    for raw in raws:
        start = _BETWEEN.match(data, at).end() if at else 0  # type: ignore[union-attr]
        if not data.startswith(raw, start):
            start = data.find(raw, at)
        line += data.count(b"\n", seen, start)
        found.append(Located(raw, offset + start, line))
        seen, at = start, start + len(raw)
    return found


def entries(
    located: Iterable[Located], *, kind: str, position: int, bundle: int, after: tuple[int, int]
) -> list[Entry]:
    """Entries ready to be parsed, in the Bundle's order; a history, whose order is newest first, in reverse.

    Args:
        kind: ``Bundle.type``.
        position: of the first entry in the source.
        bundle: number within which ids must be unique.
        after: offset and line where the reading goes on when the last entry is done.
    """
    opened = [_open(one) for one in located]
    mapping = {key_of(one.full_url): f"{one.type}/{one.id}" for one in opened if one.named}
    links = _Links(mapping, any(not url.startswith("urn:") for url in mapping))
    history = kind == "history"
    made = [_entry(one, index, position, 0 if history else bundle, links, after) for index, one in enumerate(opened)]
    return made[::-1] if history else made


def names(located: Iterable[Located]) -> Names:
    """What the fullUrls of a Bundle stand for."""
    found = Names()
    for one in located:
        opened = _open(one)
        if opened.named:
            found.add(key_of(opened.full_url), opened.type, opened.id)
    return found


def streamed(located: Iterable[Located], mapping: Names, *, after: tuple[int, int]) -> Iterator[Entry]:
    """As `entries`, of a Bundle that is not held and whose `names` are known."""
    links = _Links(mapping, mapping.linked)
    for index, one in enumerate(located):
        yield _entry(_open(one), index, 0, 1, links, after)


def _entry(opened: _Opened, index: int, position: int, bundle: int, links: _Links, after: tuple[int, int]) -> Entry:
    data, place = opened.resource, position + index
    refused = None
    if opened.refused:
        code, message = opened.refused
        refused = Rejected(opened.offset, len(data), opened.line, place, f"Bundle.entry[{index}]", code, message)
    mentioned = _mentioned(data, links) if links.names else {}
    return Entry(data, opened.offset, opened.line, place, opened.id, bundle, mentioned, after, refused)


def _mentioned(data: bytes, links: _Links) -> dict[str, str]:
    """What a resource's text says to point to other entries, as it says it, to ``Type/id``."""
    urns = set(_URN.findall(data))
    if b'"URN:' in data:
        urns.update(_LOUD_URN.findall(data))
    mentioned = {}
    for text in [urn.decode("utf-8", "replace") for urn in urns]:
        if found := links.names.get(key_of(text)):
            mentioned[text] = found
    if links.linked:
        for link in set(_LINK.findall(data)):
            text = _text(link)
            url, version = match.groups() if (match := _VERSION.fullmatch(text)) else (text, "")
            if found := links.names.get(key_of(url)):
                mentioned[text] = found + version
    return mentioned


def _text(string: bytes) -> str:
    """A JSON string's text; "" where it is none."""
    try:
        return str(msgspec.json.decode(string, type=str))
    except _NOT_JSON:
        return ""


def _open(one: Located) -> _Opened:
    try:
        wrapper = _wrapper.decode(one.raw)
    except _NOT_JSON:
        return _refuse(one, "ingest.entry", "The entry is not an object with a resource; expected a Bundle entry.")
    method = wrapper.request.get("method") if isinstance(wrapper.request, dict) else None
    if method in _READS:
        return _refuse(one, "ingest.method", "The entry asks for a read or a deletion; ingest takes only resources.")
    resource = bytes(wrapper.resource)
    if resource in (b"", b"null"):
        return _refuse(one, "ingest.no_resource", "The entry holds no resource; expected Bundle.entry.resource.")
    inside = _inside(one.raw, resource)
    if _repeats(one.raw, one.raw[:inside] + one.raw[inside + len(resource) :]):
        return _refuse(one, *DUPLICATE)
    url = wrapper.full_url if isinstance(wrapper.full_url, str) else ""
    kind, given = _names(resource)
    line = one.line + one.raw.count(b"\n", 0, inside)
    return _Opened(resource, one.offset + inside, line, url, kind, given or _id_of(url, kind), None)


def repeats_entry(data: bytes) -> bool:
    """Whether a Bundle, held whole, has two ``entry``, of which only one would be read."""
    # The resources may have keys of this name too.
    return data.count(b'"entry"') > 1 and outer_repeats(data, _ENTRY)


def _repeats(raw: bytes, bare: bytes) -> bool:
    """Whether an entry names one of its keys twice; ``bare`` is it without its resource, for a cheap look first."""
    suspect = b"\\u" in bare or any(bare.count(key) > 1 for key in _WRAPPER_QUOTED)
    return suspect and outer_repeats(raw, _WRAPPER_KEYS)


def _inside(raw: bytes, resource: bytes) -> int:
    key = _RESOURCE.search(raw)
    if key and raw.startswith(resource, key.end()):
        return key.end()
    return max(raw.find(resource), 0)


def _refuse(one: Located, code: str, message: str) -> _Opened:
    return _Opened(one.raw, one.offset, one.line, "", "", "", (code, message))


def _names(resource: bytes) -> tuple[str, str]:
    try:
        head = _head.decode(resource)
    except _NOT_JSON:
        return "", ""
    kind = head.resource_type if isinstance(head.resource_type, str) else ""
    return kind, head.id if isinstance(head.id, str) else ""


def _id_of(url: str, kind: str) -> str:
    """The id that a fullUrl tells of: a uuid, or the end of a RESTful address of the same type."""
    if match := _UUID.fullmatch(url):
        return match[1].lower()
    rest, _, last = url.rpartition("/")
    return last if kind and rest.rpartition("/")[2] == kind else ""
