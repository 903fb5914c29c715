"""Keys that come twice in one JSON object, of which a parser keeps one and loses the other without a word.

RFC 8259 section 4 leaves open what they mean; a record must not choose between two genders.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Set

__all__ = ["DUPLICATE", "outer_repeats", "quotes", "repeats"]

DUPLICATE = ("core.duplicate_key", "An object names the same key twice; expected each once, so that nothing is lost.")

_Pairs = list[tuple[str, object]]


def quotes(text: bytes) -> int:
    """Quotes in a JSON text, as many as its canonical form has or more: more where a key is repeated, rarely else."""
    count = text.count(b'"')
    # A quote may be written so in a string; the canonical form has it as a quote.
    return count + text.count(b"\\u0022") if b"\\u" in text else count


def repeats(text: bytes) -> bool:
    """Whether any object in a JSON text names a key twice. Exact, and slow; for a text that parses."""
    found = False

    def note(pairs: _Pairs) -> None:
        nonlocal found
        found = found or _twice(pairs)

    _walk(text, note)
    return found


def outer_repeats(text: bytes, keys: Set[str]) -> bool:
    """As `repeats`, of some keys of the outermost object. Never raises: what cannot be told is a repetition."""
    found = False

    def note(pairs: _Pairs) -> None:
        # The outermost object is complete last.
        nonlocal found
        found = _twice([pair for pair in pairs if pair[0] in keys])

    try:
        _walk(text, note)
    except (ValueError, RecursionError):
        return True
    return found


def _twice(pairs: _Pairs) -> bool:
    return len({key for key, _ in pairs}) < len(pairs)


def _walk(text: bytes, note: Callable[[_Pairs], None]) -> None:
    # Numbers stay text: they may have more digits than Python converts. No tree is kept, since a note is None.
    json.loads(text.decode("utf-8", "replace"), object_pairs_hook=note, parse_int=str, parse_float=str, strict=False)
