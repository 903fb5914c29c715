"""Patients are taken out of the record some at a time: no transaction is long, and nobody is left out."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from carelake.pipelines.erase_targets import pages


@given(st.lists(st.integers(0, 9_000), max_size=80))
def test_pages_hold_everybody_once_and_few_versions(sizes: list[int]) -> None:
    found = list(pages(sizes))
    assert [at for start, end in found for at in range(start, end)] == list(range(len(sizes)))
    for start, end in found:
        assert 0 < end - start <= 25
        assert sum(sizes[start:end]) <= 5_000 or end - start == 1
