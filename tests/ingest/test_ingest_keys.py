"""A key that comes twice in one object: refused, wherever it is and however it is written; never a silent choice."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carelake.core import canonical
from carelake.ingest.keys import outer_repeats, quotes, repeats

CODE = "core.duplicate_key"
ENTRY = '{"resource":{"resourceType":"Patient","id":"%s"}}'


@pytest.mark.parametrize(
    "inside",
    [
        '"id":"a","gender":"male","gender":"female"',
        '"id":"a","gender" : "male", "gender":"male"',
        '"id":"a","id":"b"',
        '"id":"a","active":true,"active":false',
        '"id":"a","g\\u0065nder":"male","gender":"female"',
        '"id":"a","name":[{"family":"A","family":"B"}]',
        '"gender":"male","gender":"female"',
        '"id":"a","name":[{"text":"\\u0022:\\u0022"}],"active":true,"active":true',
        '"id":"a","resourceType":"Patient"',
    ],
)
def test_a_resource_with_a_repeated_key_is_refused(bench: Any, patient: Any, inside: str) -> None:
    text = '{"resourceType":"Patient",' + inside + "}"
    told = bench.read(bench.file("a.ndjson", text + "\n" + patient("p2")))
    assert told.ids == ["Patient/p2"]
    assert told.reasons == [(1, CODE)]
    assert "male" not in told.rejected[0].message
    # As an entry whose references are replaced, too.
    bundle = '{"resourceType":"Bundle","type":"batch","entry":[{"fullUrl":"urn:uuid:a","resource":%s},%s]}'
    told = bench.read(bench.file("b.json", bundle % (text, ENTRY % "p3")))
    assert told.ids == ["Patient/p3"]
    assert [code for _, code in told.reasons] == [CODE]


@pytest.mark.parametrize("bounds", [{}, {"max_document_bytes": 100}])
def test_an_entry_with_two_resources_is_refused(bench_with: Any, bounds: dict[str, int]) -> None:
    bench = bench_with(**bounds)
    one, other = (f'{{"resourceType":"Patient","id":"{key}"}}' for key in "ab")
    entries = [
        f'{{"resource":{one},"resource":{other}}}',
        f'{{"resource":{one},"resource":{one}}}',
        f'{{"resource":{one},"\\u0072esource":{other}}}',
        f'{{"fullUrl":"urn:uuid:a","resource":{one},"fullUrl":"urn:uuid:b"}}',
        ENTRY % "good",
    ]
    told = bench.read(
        bench.file("a.json", '{"resourceType":"Bundle","type":"batch","entry":[' + ",".join(entries) + "]}")
    )
    assert told.ids == ["Patient/good"]
    assert [code for _, code in told.reasons] == [CODE] * 4


@pytest.mark.parametrize("second", [ENTRY % "b", ENTRY % "a", ""])
def test_a_bundle_with_two_entry_arrays_is_refused(bench_with: Any, second: str) -> None:
    text = f'{{"resourceType":"Bundle","type":"batch","entry":[{ENTRY % "a"}],"entry":[{second}]}}'
    bench = bench_with()
    for name, content in (("a.json", text), ("b.ndjson", "\n" + text)):
        told = bench.read(bench.file(name, content))
        assert told.ids == []
        assert [code for _, code in told.reasons] == [CODE]
    streamed = bench_with(max_document_bytes=50)
    told = streamed.read(streamed.file("a.json", text))
    assert told.ids == ["Patient/a"]
    assert [code for _, code in told.reasons] == [CODE]


def test_keys_of_the_same_name_elsewhere_are_fine(bench: Any, bundle: Any) -> None:
    entries = [
        {
            "resourceType": "List",
            "status": "current",
            "mode": "working",
            "entry": [{"item": {"display": "resource"}}],
        },
        {"resourceType": "Patient", "name": [{"text": 'a "entry": "resource": \\u0022 b'}]},
    ]
    told = bench.read(bench.file("a.json", bundle(*entries)))
    assert (len(told.parsed), told.rejected) == (2, [])


@pytest.mark.parametrize("text", ["[" * 100_000, "{", '{"a":' * 100_000])
def test_what_cannot_be_told_counts_as_repeated(text: str) -> None:
    assert outer_repeats(text.encode(), {"a"})


values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text('a":\\/u02é\n')),
    lambda inner: st.lists(inner, max_size=3) | st.lists(st.tuples(st.text('ab"\\:'), inner), max_size=4).map(tuple),
    max_leaves=12,
)


def written(value: Any, ascii_only: bool, gap: str) -> str:
    """JSON in which a tuple of pairs is an object, repeated keys and all."""
    if isinstance(value, tuple):
        pairs = (f"{json.dumps(k, ensure_ascii=ascii_only)}{gap}:{written(v, ascii_only, gap)}" for k, v in value)
        return "{" + ",".join(pairs) + "}"
    if isinstance(value, list):
        return "[" + ",".join(written(one, ascii_only, gap) for one in value) + "]"
    if isinstance(value, str) and gap:
        # A quote as an escape: the canonical form has it otherwise.
        return '"' + "".join("\\u0022" if sign == '"' else json.dumps(sign)[1:-1] for sign in value) + '"'
    return json.dumps(value, ensure_ascii=ascii_only)


def doubled(value: Any) -> bool:
    if isinstance(value, tuple):
        return len({key for key, _ in value}) < len(value) or any(doubled(inner) for _, inner in value)
    return isinstance(value, list) and any(doubled(inner) for inner in value)


@given(values, st.booleans(), st.sampled_from(["", " "]))
def test_no_repeated_key_is_missed(value: Any, ascii_only: bool, gap: str) -> None:
    text = written(value, ascii_only, gap).encode()
    assert repeats(text) == doubled(value)
    same = quotes(text) == canonical.dump(canonical.load(text)).count(b'"')
    assert not (same and doubled(value))
    assert quotes(text) >= canonical.dump(canonical.load(text)).count(b'"')
