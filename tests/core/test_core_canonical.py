"""Decision D7: numbers keep their digits; canonical JSON is one text per value."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carelake.core import canonical
from carelake.core.errors import Invalid

_LEXEMES = st.from_regex(r"-?(0|[1-9][0-9]{0,12})(\.[0-9]{1,12})?([eE][+-]?[0-9]{1,2})?", fullmatch=True)


@given(_LEXEMES.filter(lambda text: text != "-0"))
def test_a_number_is_written_as_it_came(text: str) -> None:
    assert canonical.dump(canonical.load(f'{{"v":{text}}}')) == f'{{"v":{text}}}'.encode()


def test_trailing_zeros_are_precision() -> None:
    assert canonical.load("1.10") == Decimal("1.1")
    assert canonical.dump([canonical.load("1.10"), canonical.load("1.1")]) == b"[1.10,1.1]"


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(_JSON)
def test_the_canonical_form_is_a_fixed_point_and_says_the_same(value: object) -> None:
    once = canonical.dump(value)
    assert canonical.dump(canonical.load(once)) == once
    assert json.loads(once) == value


def test_keys_are_sorted_and_nothing_is_padded() -> None:
    assert canonical.dump({"b": 1, "a": {"d": 2, "c": 3}}) == b'{"a":{"c":3,"d":2},"b":1}'


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (b'{"name": NaN}', "core.json"),
        (b'{"name": "\xff"}', "core.utf8"),
        (b"[" * 20_000 + b"]" * 20_000, "core.depth"),
        (b'{"name": "secret', "core.json"),
        (b"", "core.json"),
        (b'{"v": 1e99999999999999999999}', "core.json"),
        (b'{"a": 1} trailing', "core.json"),
    ],
)
def test_what_is_not_json_is_refused_by_code_without_its_text(text: bytes, code: str) -> None:
    with pytest.raises(Invalid) as caught:
        canonical.load(text)
    assert caught.value.code == code
    assert "secret" not in caught.value.message


def test_pretty_keeps_the_order_and_the_digits() -> None:
    assert canonical.dump_pretty({"b": canonical.load("1.50"), "a": canonical.load("1e2")}) == (
        '{\n  "b": 1.50,\n  "a": 1e2\n}'
    )
