"""Ranges of a landing are blanked: what stays is byte for byte what came, and lies where it lay."""

from __future__ import annotations

import hashlib
import io

from hypothesis import given, settings
from hypothesis import strategies as st

from carelake.ingest.blanking import BLOCK, copy, is_blank, joined, meets

SPANS = st.lists(st.tuples(st.integers(0, 80), st.integers(1, 20)).map(lambda one: (one[0], sum(one))), max_size=8)


@given(SPANS, st.integers(0, 100), st.integers(1, 20))
def test_meeting_is_having_a_byte_in_common(spans: list[tuple[int, int]], start: int, length: int) -> None:
    theirs = {at for a, b in spans for at in range(a, b)}
    assert meets(joined(spans), start, start + length) is not theirs.isdisjoint(range(start, start + length))


@given(st.lists(st.tuples(st.booleans(), st.integers(2, 30)), max_size=9))
@settings(deadline=None)
def test_the_rest_stays(pieces: list[tuple[bool, int]]) -> None:
    text, blanks = b"", []
    for number, (gone, length) in enumerate(pieces):
        entry = b"{" + (b"\n" * (length // 9) + b"x" * length)[: length - 2] + b"}"
        if gone:
            blanks.append((len(text), len(text) + len(entry)))
        text += entry + b"\n" * (number % 2)
    made, ranges = check(text, blanks)
    for start, end in blanks:
        assert is_blank(made[start:end]) or end - start == 2
    assert [(a, a + n) for a, n, digest in ranges if not digest] == blanks


def test_an_entry_of_many_blocks() -> None:
    entry = b"{" + b"a\n" * BLOCK + b"}"
    made, _ = check(b"before" + entry + b"after", [(6, 6 + len(entry))])
    assert is_blank(made[6 : 6 + len(entry)])


def check(text: bytes, blanks: list[tuple[int, int]]) -> tuple[bytes, list[tuple[int, int, str]]]:
    out = io.BytesIO()
    ranges = copy(io.BytesIO(text), len(text), blanks, set(), out.write)
    made = out.getvalue()
    assert len(made) == len(text)
    assert [at for at, byte in enumerate(made) if byte == 10] == [at for at, byte in enumerate(text) if byte == 10]
    assert sum(length for _, length, _ in ranges) == len(text)
    for at, length, digest in ranges:
        if digest:
            assert made[at : at + length] == text[at : at + length]
            assert digest == hashlib.sha256(text[at : at + length]).hexdigest()
    return made, ranges
