"""Lines of NDJSON out of stored bodies: the record's own ``meta`` is spliced into the bytes, nothing else is read.

A ``"meta":`` in a body can be another one's than the resource's own only where resources lie inside of it
(``contained``, a Bundle, Parameters), and no text looks like it, since its quotes would be escaped. Whatever the
bytes do not tell for sure is parsed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from carelake.core import canonical
from carelake.core.clock import iso
from carelake.fhir.query import Query
from carelake.store import bodies
from carelake.store.rows import Version
from carelake.store.search.answers import shown

__all__ = ["Liner", "spliced"]

_META = b'"meta":{'
_CONTAINED = b'"contained":'
_NESTING = frozenset({"Bundle", "Parameters"})
_TEXT = rb'"(?:[^"\\]++|\\.)*+"'
_INNER = rb'\{(?:[^{}"]++|' + _TEXT + rb")*+\}"
_WHOLE = re.compile(rb'(\{(?:[^{}"]++|' + _TEXT + rb"|" + _INNER + rb")*+\})", re.DOTALL)
"""An object whose objects hold none."""
_MOST_KNOWN = 2000

_Halves = tuple[bytes, bytes]


class Liner:
    """Makes lines of versions.

    Args:
        elements: type -> names of outermost elements that are wanted, "" -> those of every type; empty for all.
    """

    def __init__(self, elements: Mapping[str, tuple[str, ...]] | None = None) -> None:
        self._elements = dict(elements or {})
        self._known: dict[bytes, _Halves] = {}
        self._times: dict[int, bytes] = {}

    def line(self, kind: str, key: str, version: int, updated: int, text: bytes) -> bytes:
        """One version as it is exported, with its line end."""
        wanted = self._elements and (*self._elements.get("", ()), *self._elements.get(kind, ()))
        if wanted:
            return self._part(kind, key, version, updated, text, wanted)
        when = self._times.get(updated)
        if when is None:
            if len(self._times) > _MOST_KNOWN:
                self._times.clear()
            when = self._times[updated] = iso(bodies.moment(updated)).encode()
        return spliced(kind, text, version, when, self._known)

    @staticmethod
    def _part(kind: str, key: str, version: int, updated: int, text: bytes, wanted: tuple[str, ...]) -> bytes:
        one = Version(0, 0, kind, key, version, False, 0, "", updated, b"", text, False)
        (found,) = shown([one], Query((kind,), elements=wanted))
        return msgspec.json.encode(found.raw) + b"\n"


def spliced(kind: str, text: bytes, version: int, when: bytes, known: dict[bytes, _Halves]) -> bytes:
    """A body with the record's own ``versionId`` and ``lastUpdated``, as a line.

    Args:
        when: FHIR instant.
        known: halves of what stands in ``meta`` elsewhere, by its bytes; remembered here.
    """
    if kind in _NESTING or _CONTAINED in text:
        return _parsed(text, version, when)
    at = text.find(_META)
    if at < 0:
        return b'{"meta":{"lastUpdated":"%b","versionId":"%d"},%b\n' % (when, version, text[1:])
    found = _WHOLE.match(text, at + len(_META) - 1)
    if found is None:
        return _parsed(text, version, when)
    inner = found[1]
    halves = known.get(inner)
    if halves is None:
        if len(known) > _MOST_KNOWN:
            known.clear()
        halves = known[inner] = _halves(inner)
    before, after = halves
    return b'%b"meta":{%b"lastUpdated":"%b",%b"versionId":"%d"}%b\n' % (
        text[:at],
        before,
        when,
        after,
        version,
        text[found.end() :],
    )


def _halves(meta: bytes) -> _Halves:
    """What stands before ``lastUpdated`` and what between it and ``versionId``, each with the comma after it."""
    told = canonical.load(meta)
    before = {name: value for name, value in told.items() if name < "lastUpdated"}
    after = {name: value for name, value in told.items() if name > "lastUpdated" and name != "versionId"}
    return _bare(before), _bare(after)


def _bare(values: dict[str, object]) -> bytes:
    return canonical.dump(values)[1:-1] + b"," if values else b""


def _parsed(text: bytes, version: int, when: bytes) -> bytes:
    resource = canonical.load(text)
    meta = {**resource.get("meta", {}), "versionId": str(version), "lastUpdated": when.decode()}
    return canonical.dump({**resource, "meta": meta}) + b"\n"
