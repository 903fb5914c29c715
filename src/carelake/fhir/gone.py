"""What is being erased, and where a text names it: resources by type and id, and identifiers of patients.

A text names a resource by ``Type/id``, whatever stands around it, or by its id alone where that is so long that it
can be nobody else's (a uuid). Identifiers count where a Reference says them
(https://hl7.org/fhir/R4/references.html#logical).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

__all__ = ["LONG", "Gone"]

LONG = 16
"""Characters from which on an id names its resource without the type."""

_TOKEN = re.compile(rb"[A-Z][A-Za-z]{2,30}/[A-Za-z0-9.\-]{1,64}|[A-Za-z0-9][A-Za-z0-9.\-]{15,63}")
_LONG_ID = re.compile(rb"[A-Za-z0-9][A-Za-z0-9.\-]{15,63}")
_QUOTED = re.compile(rb'"([A-Z][A-Za-z]{2,30}/[A-Za-z0-9.\-]{1,64})(?:/_history/[A-Za-z0-9.\-]{1,64})?"')
_VALUE = re.compile(rb'"value"\s*:\s*"([^"\\]{1,256})"')
_TEXT = re.compile(_TOKEN.pattern.decode())
_LONGEST = 64
_PAGE = 256
_IN_IDS = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-")
_RUNS = bytes(code if code in _IN_IDS else 32 for code in range(256))
"""Turns all that no id has into spaces: what is left between two is an id, or a word."""
_REFERENCE = re.compile(r"([A-Z][A-Za-z]{2,30})/([A-Za-z0-9.\-]{1,64})(/_history/[A-Za-z0-9.\-]{1,64})?")


class Gone:
    """Resources that are erased.

    Args:
        resources: ``Type/id`` of each.
        identifiers: (system, value) of the patients among them.
    """

    def __init__(self, resources: Iterable[str] = (), identifiers: Iterable[tuple[str, str]] = ()) -> None:
        self.resources: set[str] = set()
        self.identifiers: set[tuple[str, str]] = set()
        self._tokens: set[bytes] = set()
        self._long_ids: set[bytes] = set()
        self._values: set[bytes] = set()
        self._ids: set[bytes] = set()
        self.add(resources, identifiers)

    def add(self, resources: Iterable[str], identifiers: Iterable[tuple[str, str]] = ()) -> None:
        """Count more among them."""
        for name in resources:
            self.resources.add(name)
            self._tokens.add(name.encode())
            key = name.partition("/")[2].encode()
            self._ids.add(key)
            if len(key) >= LONG:
                self._tokens.add(key)
                self._long_ids.add(key)
        for system, value in identifiers:
            if value:
                self.identifiers.add((system, value))
                self._values.add(value.encode())

    def named_in(self, text: bytes) -> bool:
        """Whether the text names any of them by type and id, or by a long id."""
        return not self._tokens.isdisjoint(_TOKEN.findall(text))

    def in_path(self, path: bytes) -> bool:
        """Whether the name of a file names one: an id may stand before its ending."""
        if self.named_in(path):
            return True
        for run in path.translate(_RUNS).split():
            parts = run.split(b".")
            heads = (b".".join(parts[:end]) for end in range(1, len(parts)))
            if not self._long_ids.isdisjoint((*parts, *heads)):
                return True
        return False

    def told_in(self, text: bytes) -> bool:
        """Whether JSON, or any text, names one so that nobody else can be meant: by a long id, or quoted."""
        if not self._long_ids.isdisjoint(_LONG_ID.findall(text)):
            return True
        return not self._tokens.isdisjoint(_QUOTED.findall(text))

    def has_id(self, key: str) -> bool:
        """Whether one of them, of whatever type, has this id."""
        return key.encode() in self._ids

    def may_be_in(self, texts: Sequence[bytes]) -> list[int]:
        """Positions of the texts that are worth to be parsed: an id stands in them, or the value of an identifier.

        Every text that `named_in` tells of is among them. Many are looked at together, which takes a third of the
        time that each would take alone: nearly none of them names anybody.
        """
        pages = range(0, len(texts), _PAGE)
        return [at for start in pages for at in self._among(texts, start, min(start + _PAGE, len(texts)))]

    def _among(self, texts: Sequence[bytes], start: int, end: int) -> Iterator[int]:
        if start < end and self._stands_in(texts[start:end]):
            if end - start == 1:
                yield start
                return
            half = (start + end) // 2
            yield from self._among(texts, start, half)
            yield from self._among(texts, half, end)

    def _stands_in(self, texts: Sequence[bytes]) -> bool:
        runs = set(b"\n".join(texts).translate(_RUNS).split())
        if not self._ids.isdisjoint(runs):
            return True
        if any(self._begins(run) for run in runs if len(run) > _LONGEST or run[0] in b".-"):
            return True
        told = [text for text in texts if b'"identifier"' in text] if self._values else []
        return bool(told) and not self._values.isdisjoint(_VALUE.findall(b"\n".join(told)))

    def _begins(self, run: bytes) -> bool:
        """Whether `_TOKEN` would find one of their ids in what is longer than an id can be, or begins otherwise."""
        parts = [run[:_LONGEST], *_LONG_ID.findall(run), *_LONG_ID.findall(run[_LONGEST:])]
        return not self._ids.isdisjoint(parts)

    def places(self, text: bytes) -> Iterator[tuple[int, int]]:
        """Where the text names one: start and end of the id."""
        for found in _TOKEN.finditer(text):
            token = found[0]
            if token in self._tokens:
                yield found.start() + token.rfind(b"/") + 1, found.end()

    def masked(self, text: str, instead: str = "erased") -> str:
        """The text with each of them replaced; one of a short id only where it is the whole text."""
        if len(text) < LONG and "/" not in text:
            return text
        whole = _REFERENCE.fullmatch(text)
        if whole is not None and f"{whole[1]}/{whole[2]}" in self.resources:
            return instead
        return _TEXT.sub(lambda found: instead if self._sure(found[0]) else found[0], text)

    def _sure(self, token: str) -> bool:
        return token.encode() in self._tokens and len(token.rpartition("/")[2]) >= LONG

    def refers(self, reference: Any) -> bool:
        """Whether a Reference points to one of them, by its text or by an identifier."""
        text = reference.get("reference")
        if isinstance(text, str):
            match = _REFERENCE.fullmatch(text)
            if match:
                return f"{match[1]}/{match[2]}" in self.resources
            if self.named_in(text.encode()) and self._long(text):
                return True
        told = reference.get("identifier")
        if not isinstance(told, dict):
            return False
        return (str(told.get("system", "")), str(told.get("value", ""))) in self.identifiers

    def _long(self, text: str) -> bool:
        """Whether an address names one by a long id: a short one may be another server's."""
        return any(len(found[0].rpartition("/")[2]) >= LONG for found in _TEXT.finditer(text))
