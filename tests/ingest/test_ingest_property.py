"""Whatever the bytes are, every entry ends as parsed or refused, with ranges that lie within the landing."""

from __future__ import annotations

import gzip
import io
import json
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from carelake.core.records import Parsed
from carelake.core.settings import IngestSettings
from carelake.ingest.batches import Mark, group
from carelake.ingest.entries import entries_of
from carelake.ingest.inflate import Content
from carelake.ingest.landing import Landing
from carelake.ingest.lines import lines
from carelake.ingest.parse import Parser
from carelake.ingest.shape import shape
from carelake.ingest.stream import BundleStream

BOUNDS = IngestSettings(workers=0, max_line_bytes=400, max_document_bytes=2000)

good = st.builds(
    lambda key, sex: json.dumps({"resourceType": "Patient", "id": key, "gender": sex}).encode(),
    st.text("abc123", min_size=1, max_size=5),
    st.sampled_from(["male", "female", "purple"]),
)
bundles = st.builds(
    lambda entries, indent: json.dumps(
        {"resourceType": "Bundle", "type": "batch", "entry": entries}, indent=indent
    ).encode(),
    st.lists(
        st.fixed_dictionaries(
            {}, optional={"fullUrl": st.text(max_size=9), "resource": good.map(json.loads), "request": st.none()}
        ),
        max_size=6,
    ),
    st.sampled_from([None, 0, 2]),
)
pieces = st.one_of(
    good,
    bundles,
    st.binary(max_size=40),
    st.sampled_from([b"\n", b"\r\n", b"{", b"}", b"[", b'"', b",", b"\xef\xbb\xbf", b"\\", b"null", b" " * 500]),
)
content = st.lists(pieces, max_size=12).map(b"".join)


def read(data: bytes, *, named_lines: bool = False, bounds: IngestSettings = BOUNDS) -> list[Any]:
    source = Content(io.BytesIO(data), 250)
    whole = b"".join(source)
    kind = shape(
        io.BytesIO(whole),
        size=len(whole),
        max_line=bounds.max_line_bytes,
        max_document=bounds.max_document_bytes,
        named_lines=named_lines,
    )
    landing = Landing("l", "landing:0", "00", "s", "o", len(whole), kind, source.fault, False, Mark())
    parser = Parser(bounds.max_depth)
    records: list[Any] = []
    for batch in group("00", entries_of(io.BytesIO(whole), landing, bounds)):
        outcome = list(parser.parse(batch).items())
        assert len(outcome) == len(batch.entries)
        records += outcome
    for record in records:
        assert 0 <= record.offset <= len(whole)
        assert record.length >= 0
        assert record.offset + record.length <= len(whole)
        assert record.line == 1 + whole.count(b"\n", 0, record.offset) or not isinstance(record, Parsed)
        if isinstance(record, Parsed):
            text = json.loads(whole[record.offset : record.offset + record.length])
            assert text["resourceType"] == record.type
    return records


@given(content, st.booleans(), st.booleans())
@example(b'{"resourceType":"Bundle","entry":[{"resource":{"resourceType":"Patient"}}', False, False)
@example(b'{\n"resourceType":"Patient"\n}\n{"resourceType":"Patient"}', False, False)
@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_arbitrary_bytes_never_crash(data: bytes, named_lines: bool, packed: bool) -> None:
    records = read(gzip.compress(data) if packed else data, named_lines=named_lines)
    # Nothing is silent: whatever the file is, something is said about it.
    assert records


@given(st.binary(max_size=300))
def test_arbitrary_gzip_never_crashes(data: bytes) -> None:
    source = Content(io.BytesIO(b"\x1f\x8b" + data), 250)
    assert b"".join(source) is not None


@given(st.lists(good, min_size=1, max_size=8), st.data())
def test_any_cut_of_a_gzip_file_keeps_its_whole_lines(texts: list[bytes], data: st.DataObject) -> None:
    plain = b"".join(text + b"\n" for text in texts)
    packed = gzip.compress(plain, 0)
    cut = data.draw(st.integers(0, len(packed) - 1))
    records = read(packed[:cut], named_lines=True)
    held = b"".join(Content(io.BytesIO(packed[:cut]), 250))
    # What is left without a newline may be whole by chance.
    whole = held.count(b"\n") + (held.rpartition(b"\n")[2] in texts)
    said = [record for record in records if not getattr(record, "code", "").startswith("ingest.")]
    assert len(said) == whole


@given(content, st.integers(1, 60))
def test_lines_are_what_split_gives(data: bytes, limit: int) -> None:
    while data.startswith(b"\xef\xbb\xbf"):
        data = data[3:]
    found = [(line.number, line.data) for line in lines(io.BytesIO(data), limit)]
    wanted = []
    for number, text in enumerate(data.split(b"\n"), 1):
        bare = text.strip(b" \t\r")
        if len(text) > limit:
            wanted.append((number, b""))
        elif bare:
            wanted.append((number, bare))
    assert found == wanted


@given(bundles.filter(lambda text: b'"entry": []' not in text), st.integers(1, 50))
def test_the_stream_of_a_bundle_is_its_entries(text: bytes, block: int) -> None:
    class Slow(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return super().read(min(block, size) if size and size > 0 else block)

    walk = BundleStream(Slow(text), 10_000)
    found = list(walk)
    assert walk.broken is None
    assert (walk.resource_type, walk.kind) == ("Bundle", "batch")
    assert [json.loads(one.raw) for one in found] == json.loads(text)["entry"]
    for one in found:
        assert text[one.offset : one.offset + len(one.raw)] == one.raw
        assert one.line == 1 + text.count(b"\n", 0, one.offset)
