"""What ``_text`` and ``_content`` look for (https://hl7.org/fhir/R4/search.html#content).

any  = all ("OR" all)*
all  = one ("AND"? one)*
one  = WORD | "(" any ")"
"""

from __future__ import annotations

import re

from carelake.fhir.search.values import words

__all__ = ["alternatives"]

MAX_ALTERNATIVES = 100
MAX_WORDS = 50
_MAX_DEPTH = 10
_TOKENS = re.compile(r"[()]|[^\s()]+").findall
_OPERATORS = frozenset({"AND", "OR", "NOT"})

_Words = tuple[str, ...]


def alternatives(text: str) -> list[_Words]:
    """Folded words that must all occur, once for each alternative.

    Raises:
        ValueError: the text says nothing, or says it wrongly; the message tells what is expected.
    """
    signs = [sign.upper() if sign.upper() in _OPERATORS else sign for sign in _TOKENS(text)]
    if '"' in text or "NOT" in signs:
        raise ValueError("words, AND, OR and parentheses; phrases and NOT are not offered")
    if len(signs) > MAX_WORDS * 4:
        raise ValueError(f"at most {MAX_WORDS} words")
    reader = _Reader(signs)
    found = reader.any(0)
    if reader.sign:
        raise ValueError("parentheses in pairs")
    return list(dict.fromkeys(found))


class _Reader:
    def __init__(self, signs: list[str]) -> None:
        self._signs = signs
        self._at = 0

    @property
    def sign(self) -> str:
        """The next one, "" at the end."""
        return self._signs[self._at] if self._at < len(self._signs) else ""

    def any(self, depth: int) -> list[_Words]:
        if depth > _MAX_DEPTH:
            raise ValueError(f"parentheses at most {_MAX_DEPTH} deep")
        found = self._all(depth)
        while self.sign == "OR":
            self._at += 1
            found = found + self._all(depth)
        return _bounded(found)

    def _all(self, depth: int) -> list[_Words]:
        found = self._one(depth)
        while self.sign not in ("", "OR", ")"):
            if self.sign == "AND":
                self._at += 1
            more = self._one(depth)
            _bounded(found, len(more))
            found = [tuple(dict.fromkeys((*left, *right))) for left in found for right in more]
        return found

    def _one(self, depth: int) -> list[_Words]:
        sign = self.sign
        self._at += 1
        if sign == "(":
            inner = self.any(depth + 1)
            if self.sign != ")":
                raise ValueError("parentheses in pairs")
            self._at += 1
            return inner
        found = tuple(words(sign))
        if sign in _OPERATORS or not found:
            raise ValueError("words with AND or OR between them")
        return [found]


def _bounded(found: list[_Words], times: int = 1) -> list[_Words]:
    if len(found) * times > MAX_ALTERNATIVES:
        raise ValueError(f"at most {MAX_ALTERNATIVES} ways to be met")
    return found
