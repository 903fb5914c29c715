"""Values of primitive types."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carelake.core.canonical import Lexeme, load
from carelake.fhir.primitives import coded, predicates

GOOD: dict[str, list[Any]] = {
    "base64Binary": ["AAAA", "QQ==", "QUI=", "QU JD\nREVG"],
    "boolean": [True, False],
    "canonical": ["http://a.test/x|1.0", "#local"],
    "code": ["final", "a b", "8302-2", "é"],
    "date": ["2020", "2020-02", "2020-02-29", "0001-01-01"],
    "dateTime": ["2020", "2020-02-29", "2020-02-29T00:00:00Z", "2020-02-29T23:59:60.123456789+14:00"],
    "decimal": [1, -1, 10**20, Decimal("1.10"), Lexeme("1e2"), 0.5, Decimal("-0.0")],
    "id": ["a", "A-1.b", "x" * 64],
    "instant": ["2020-02-29T00:00:00Z", "2020-02-29T00:00:00.001-05:00"],
    "integer": [0, -(2**31), 2**31 - 1],
    "markdown": ["# a\n\ttext"],
    "oid": ["urn:oid:1.2.840"],
    "positiveInt": [1, 2**31 - 1],
    "string": ["a", " ", "line\r\nline\ttab", "\u00a0", "\u200b", "漢字", "x" * 1048576],
    "time": ["00:00:00", "23:59:60.5"],
    "unsignedInt": [0],
    "uri": ["urn:x", "http://é.test/", "a"],
    "url": ["ftp://x.test"],
    "uuid": ["urn:uuid:c757873d-ec9a-4326-a141-556f43239520"],
    "xhtml": ["<div xmlns='http://www.w3.org/1999/xhtml'>a</div>", " <div><img src='x'/></div>\n"],
}
BAD: dict[str, list[Any]] = {
    "base64Binary": ["", "A", "AAA", "AA=A", "Aé==", "====", 1],
    "boolean": [0, 1, "true", None],
    "canonical": ["", "a b"],
    "code": ["", " a", "a ", "a  b", "a\x00", 1],
    "date": [
        "",
        "20",
        "2020-2",
        "2020-13",
        "2021-02-29",
        "2020-04-31",
        "2020-02-29T00:00:00Z",
        "0000",
        "20200101",
        2020,
    ],
    "dateTime": ["2020-01-01T00:00Z", "2020-01-01T00:00:00", "2020-01-01T24:00:00Z", "2020-02-30T00:00:00Z", "x"],
    "decimal": ["1", True, None, float("nan"), float("inf"), Decimal("NaN"), Decimal("Infinity")],
    "id": ["", "a_b", "a/b", "../x", "x" * 65, "a\n", 1],
    "instant": ["2020-02-29", "2020-02-29T00:00:00"],
    "integer": [2**31, -(2**31) - 1, Decimal("1.0"), 1.0, True, "1"],
    "markdown": [""],
    "oid": ["1.2.3", "urn:oid:3.1", "urn:oid:1.02"],
    "positiveInt": [0, -1, True],
    "string": ["", "a\x00", "\x1b[0m", 1, None, [], "x" * 1048577],
    "time": ["24:00:00", "1:00:00", "12:00"],
    "unsignedInt": [-1, Decimal("0")],
    "uri": ["", "a b", "a\n"],
    "url": [" "],
    "uuid": ["c757873d-ec9a-4326-a141-556f43239520", "urn:uuid:C757873D-EC9A-4326-A141-556F43239520"],
    "xhtml": ["", "text", "<div/>", "<div></div>", "<div> \n</div>", "<divan>a</divan>", "<div>a", 1],
}


@pytest.mark.parametrize(("kind", "value"), [(k, v) for k, values in GOOD.items() for v in values])
def test_good_values(kind: str, value: Any) -> None:
    assert predicates()[kind](value)


@pytest.mark.parametrize(("kind", "value"), [(k, v) for k, values in BAD.items() for v in values])
def test_bad_values(kind: str, value: Any) -> None:
    assert not predicates()[kind](value)


def test_every_type_is_tried() -> None:
    assert GOOD.keys() == BAD.keys() == predicates().keys()


def test_codes_of_a_list() -> None:
    assert coded(("a", "b"))("a")
    assert not coded(("a", "b"))("A")
    assert not coded(("a", "b"))(["a"])


@given(st.decimals(allow_nan=False, allow_infinity=False))
def test_every_decimal_of_json_is_a_decimal(value: Decimal) -> None:
    assert predicates()["decimal"](load(str(value)))


@given(st.text(max_size=40), st.sampled_from(sorted(GOOD)))
def test_no_text_makes_a_predicate_fail(text: str, kind: str) -> None:
    assert predicates()[kind](text) in (True, False)
