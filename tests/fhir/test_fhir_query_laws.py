"""Laws of reading searches, over whatever comes."""

from __future__ import annotations

import contextlib
import string

from hypothesis import given, settings
from hypothesis import strategies as st

from carelake.core.errors import CarelakeError
from carelake.fhir.query import Query, StringValue, TokenValue, parse, parse_text
from carelake.fhir.query.texts import escape, split

TYPES = st.sampled_from(["Patient", "Observation", "Location", "Provenance", "ValueSet", "Group", "Nose", ""])
CODE_NAMES = (
    "name gender birthdate identifier subject patient organization target code url near code-value-quantity"
    " value-quantity general-practitioner _id _lastUpdated _list _text _tag _sort _count _elements _include"
    " _revinclude _summary _type _has _filter _format *"
)
MODIFIER_NAMES = (
    ": exact contains not missing text in not-in above below of-type identifier iterate Patient Observation Nose"
    " subject"
)
SAMPLES = (
    "2020 ge2020-02-30 1e400 1|2|3|km true Patient/1 Patient:link * a$1 -name,_id Observation:subject:Patient"
    " 9999-12-31T23:59:60+14:00 0001 ap9999 ap0001-01-01 0000 s|c|v lt-0.1 10000000000000000000000"
)
CODES = st.sampled_from(CODE_NAMES.split())
MODIFIERS = st.sampled_from(MODIFIER_NAMES.split())


def joined(parts: list[str], signs: list[str]) -> str:
    return "".join(part + sign for part, sign in zip(parts, signs, strict=False))


NAMES = st.one_of(
    st.text(max_size=12),
    st.builds(joined, st.lists(CODES | MODIFIERS, max_size=6), st.lists(st.sampled_from([":", ".", ""]), max_size=6)),
    st.builds("{}:{}".format, CODES, MODIFIERS),
    st.builds("{}.{}".format, CODES, CODES),
    st.builds("_has:{}:{}:{}".format, TYPES, CODES, CODES),
    CODES,
)
VALUES = st.one_of(
    st.text(max_size=20),
    st.text(alphabet="ab1.-+e|$,\\():* ", max_size=20),
    st.sampled_from([*SAMPLES.split(), "\ud800", "a\0b"]),
)
PAIRS = st.lists(st.tuples(NAMES, VALUES), max_size=5)


@settings(max_examples=600)
@given(TYPES, PAIRS, st.booleans(), st.none() | st.tuples(TYPES, VALUES))
def test_nothing_but_our_own_errors(
    kind: str, pairs: list[tuple[str, str]], lenient: bool, within: tuple[str, str] | None
) -> None:
    try:
        query = parse((kind,) if kind else (), pairs, lenient=lenient, compartment=within)
    except CarelakeError:
        return
    assert query.kinds() >= set(query.types)


@settings(max_examples=300)
@given(st.text(max_size=60) | st.text(alphabet="Patient?name=&%2:._|,\\/", max_size=40))
def test_any_text(text: str) -> None:
    with contextlib.suppress(CarelakeError):
        parse_text(text)


@settings(max_examples=400)
@given(TYPES, PAIRS, st.none() | st.tuples(TYPES, st.sampled_from(["1", "a-b.c"])))
def test_what_is_written_reads_the_same(
    kind: str, pairs: list[tuple[str, str]], within: tuple[str, str] | None
) -> None:
    try:
        query = parse((kind,) if kind else (), pairs, lenient=True, compartment=within)
    except CarelakeError:
        return
    again = parse_text(query.text())
    assert again == query
    assert again.compartment == query.compartment
    assert again.text() == query.text()


TEXTS = st.text(alphabet=string.printable + "\\,|$é", min_size=1, max_size=12)


@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=4))
def test_escapes_carry_every_text(tokens: list[tuple[str, str]]) -> None:
    value = ",".join(f"{escape(system)}|{escape(code)}" for system, code in tokens)
    assert values(parse("Patient", [("identifier", value)])) == [TokenValue(*token) for token in tokens]


@given(st.lists(TEXTS, min_size=1, max_size=4))
def test_escapes_in_strings(texts: list[str]) -> None:
    found = values(parse("Patient", [("name", ",".join(map(escape, texts)))]))
    assert [value.text for value in found if isinstance(value, StringValue)] == texts


@given(TEXTS, TEXTS)
def test_escapes_in_composites(left: str, right: str) -> None:
    (value,) = values(parse("Observation", [("code-value-concept", f"{escape(left)}${escape(right)}")]))
    assert [part.code for part in value.parts] == [left, right]  # type: ignore[attr-defined]


@given(st.text(alphabet="a\\,|", max_size=12))
def test_split_loses_nothing(text: str) -> None:
    assert ",".join(split(text, ",")) == text


def values(query: Query) -> list[object]:
    return list(query.conditions[0].values)
