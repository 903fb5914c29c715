"""Lines and columns of a JSON text: of what an expression names, of a byte, of keys that are repeated.

Asked for only when something is wrong, so that a good text costs nothing. The text is read once more, and only what
lies on the way to the places asked for is looked into.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator

import msgspec

from carelake.fhir.issues import Issue

__all__ = ["located", "place", "repeated"]

_STEP = re.compile(r"\.(_?[A-Za-z][A-Za-z0-9]*)(?::[^.\[]*)?|\[(\d+)\]")
_STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL).match
_SPACE = re.compile(r"[ \t\r\n]*").match
_BREAK = re.compile("\r\n|\n|\r")
_SCALAR = re.compile(r"[^,\]}\s]*").match
_MARK = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]', re.DOTALL)
_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{},:]', re.DOTALL)
_SHOWABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,39}").fullmatch


class _Text:
    """A text with its lines."""

    def __init__(self, data: bytes | str) -> None:
        self.text = data if isinstance(data, str) else data.decode("utf-8", "replace")
        self._starts = [0, *(found.end() for found in _BREAK.finditer(self.text))]

    def at(self, position: int) -> tuple[int, int]:
        """Line and column of a character."""
        line = bisect_right(self._starts, min(position, max(len(self.text) - 1, 0)))
        return line, position - self._starts[line - 1] + 1


class _Wanted:
    """A place asked for, and those below it; ``position`` once it was met."""

    __slots__ = ("below", "position", "rank")

    def __init__(self) -> None:
        self.below: dict[str, _Wanted] = {}
        self.position = -1
        self.rank = 0

    def met(self, position: int, rank: int) -> None:
        """Keep the best: the element itself, else its ``_name``, else one type of a choice."""
        if rank > self.rank:
            self.position, self.rank = position, rank

    def named(self, key: str) -> tuple[_Wanted, int] | None:
        """What a member is to this, with the rank of its name."""
        if key in self.below:
            return self.below[key], 3
        bare = key.removeprefix("_")
        if bare in self.below:
            return self.below[bare], 2
        for name, found in self.below.items():
            if bare.startswith(name) and bare[len(name)].isupper():
                return found, 1
        return None


def _steps(expression: str) -> list[str]:
    return [found[1] or found[2] for found in _STEP.finditer(expression)]


def located(data: bytes | str, issues: Iterable[Issue], inside: str = "") -> list[Issue]:
    """The issues with their lines and columns. What is missing is where it is missing from.

    Args:
        data: the JSON text that was validated; it parses.
        inside: where in the text the resource stands, as an expression: ``Parameters.parameter[0].resource``.
    """
    listed = list(issues)
    if not listed:
        return []
    root, ways = _Wanted(), []
    for issue in listed:
        ways.append([root])
        for step in [*_steps(inside), *_steps(issue.expression)]:
            ways[-1].append(ways[-1][-1].below.setdefault(step, _Wanted()))
    text = _Text(data)
    start = _SPACE(text.text, 0).end()  # type: ignore[union-attr]
    root.met(start, 3)
    _look(text.text, start, root)
    return [_told(issue, text, way) for issue, way in zip(listed, ways, strict=True)]


def _told(issue: Issue, text: _Text, way: list[_Wanted]) -> Issue:
    met = [one.position for one in way if one.position >= 0]
    line, column = text.at(met[-1])
    return msgspec.structs.replace(issue, line=line, column=column)


def _look(text: str, at: int, wanted: _Wanted) -> int:
    """Go through the value at a character; the character after it."""
    if wanted.below and text[at] == "{":
        return _object(text, at, wanted)
    if wanted.below and text[at] == "[":
        return _array(text, at, wanted)
    return _past(text, at)


def _object(text: str, at: int, wanted: _Wanted) -> int:
    at = _space(text, at + 1)
    while text[at] != "}":
        start, at = at, _end(_STRING, text, at)
        key = text[start + 1 : at - 1]
        found = wanted.named(json.loads(f'"{key}"', strict=False) if "\\" in key else key)
        at = _space(text, _space(text, at) + 1)
        if found is None:
            at = _past(text, at)
        else:
            found[0].met(start, found[1])
            at = _look(text, at, found[0])
        at = _after(text, at)
    return at + 1


def _array(text: str, at: int, wanted: _Wanted) -> int:
    at, number = _space(text, at + 1), 0
    while text[at] != "]":
        found = wanted.below.get(str(number))
        if found is None:
            at = _past(text, at)
        else:
            found.met(at, 3)
            at = _look(text, at, found)
        at, number = _after(text, at), number + 1
    return at + 1


def _after(text: str, at: int) -> int:
    """Past a comma, where there is one."""
    at = _space(text, at)
    return _space(text, at + 1) if text[at] == "," else at


def _past(text: str, at: int) -> int:
    """The character after the value that begins here."""
    if text[at] == '"':
        return _end(_STRING, text, at)
    if text[at] not in "[{":
        return _end(_SCALAR, text, at)
    depth = 0
    for found in _MARK.finditer(text, at):
        mark = text[found.start()]
        depth += (mark in "[{") - (mark in "]}")
        if depth == 0:
            return found.end()
    return len(text)


def _space(text: str, at: int) -> int:
    return _end(_SPACE, text, at)


def _end(match: object, text: str, at: int) -> int:
    found = match(text, at)  # type: ignore[operator]
    return int(found.end())


def place(data: bytes | str, byte: int) -> tuple[int, int]:
    """Line and column of a byte; of where the text ends, for one beyond."""
    if isinstance(data, str):
        data = data.encode("utf-8", "replace")
    before = data[: max(byte, 0)].decode("utf-8", "replace")
    return _Text(data).at(len(before))


def repeated(data: bytes | str) -> Iterator[tuple[str, int, int]]:
    """Keys that come twice in one object: expression without the type, line and column of each later one.

    A name that does not look like an element's is left out of the expression: it may say anything.
    """
    text = _Text(data)
    frames: list[_Frame] = []
    previous = ""
    for found in _TOKEN.finditer(text.text):
        mark = found[0]
        frame = frames[-1] if frames else None
        if mark in "{[":
            frames.append(_Frame(mark == "{"))
        elif mark in "}]":
            frames.pop()
        elif mark == "," and frame is not None:
            frame.number += 1
        elif mark[0] == '"' and frame is not None and frame.keys is not None and previous in "{,":
            frame.key = json.loads(mark, strict=False)
            if frame.key in frame.keys:
                yield "".join(one.step for one in frames), *text.at(found.start())
            frame.keys.add(frame.key)
        previous = mark


class _Frame:
    __slots__ = ("key", "keys", "number")

    def __init__(self, named: bool) -> None:
        self.keys: set[str] | None = set() if named else None
        self.key = ""
        self.number = 0

    @property
    def step(self) -> str:
        if self.keys is None:
            return f"[{self.number}]"
        return f".{self.key}" if _SHOWABLE(self.key) else ""
