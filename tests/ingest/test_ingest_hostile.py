"""Hostile and broken input: a refusal with its line and reason, the good lines kept, and never a traceback."""

from __future__ import annotations

import gzip
import json
import os
import zlib
from collections.abc import Callable
from typing import Any

import pytest

Line = Callable[..., str]


def lines(*texts: str | bytes) -> bytes:
    return b"".join((t if isinstance(t, bytes) else t.encode()) + b"\n" for t in texts)


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (b'{"resourceType":"Patient","id":"x"', "core.json"),
        (b"not json", "core.json"),
        (b"[1,2]", "ingest.not_an_object"),
        (b'"text"', "ingest.not_an_object"),
        (b"null", "ingest.not_an_object"),
        (b'{"resourceType":"Patient","id":"x","multipleBirthInteger":NaN}', "core.json"),
        (b'{"resourceType":"Patient","id":"x","multipleBirthInteger":Infinity}', "core.json"),
        (
            b'{"resourceType":"Observation","id":"x","valueQuantity":{"value":1e999999999999999999999}}',
            "core.json",
        ),
        (b'{"resourceType":"Patient","id":"x","name":[{"family":"\xff\xfe"}]}', "core.utf8"),
        (b'{"resourceType":"Patient","id":"x","name":[{"family":"\\ud800"}]}', "core.json"),
        (b'{"resourceType":"Patient","id":"x","extension":' + b"[" * 10_000 + b"]" * 10_000 + b"}", "core.depth"),
        (b'{"resourceType":"Patient","id":"x","extension":' + b"[" * 200 + b"]" * 200 + b"}", "fhir."),
        (b'{"resourceType":"Starship","id":"x"}', "ingest.unknown_type"),
        (b'{"resourceType":7}', "ingest.no_type"),
        (b'{"id":"x"}', "ingest.no_type"),
        (b'{"resourceType":"Patient","id":"../../etc/passwd"}', "fhir."),
        (b'{"resourceType":"Patient","id":"' + b"x" * 65 + b'"}', "fhir."),
        (b'{"resourceType":"Patient","id":7}', "fhir."),
        (b'{"resourceType":"Patient","id":"x","gender":["male"]}', "fhir."),
        (b'{"resourceType":"Patient","id":"x","name":"Smith"}', "fhir."),
        (b'{"resourceType":"Patient","id":"x","colour":"red"}', "fhir."),
        (b"\x00\x01\x02", "core.json"),
    ],
)
def test_a_bad_line_is_refused_with_its_number_and_the_others_are_kept(
    bench: Any, patient: Line, bad: bytes, code: str
) -> None:
    told = bench.read(bench.file("a.ndjson", lines(patient("p1"), "", bad, patient("p2"))))
    assert told.ids == ["Patient/p1", "Patient/p2"]
    assert [one.line for one in told.rejected] == [3]
    assert told.rejected[0].code.startswith(code)
    assert [one.line for one in told.parsed] == [1, 4]


def test_no_refusal_repeats_the_value(bench: Any, patient: Line) -> None:
    planted = "Zebrowski-Canary"
    bad = [
        '{"resourceType":"Patient","id":"x","name":[{"family":"CANARY"},7]}',
        '{"resourceType":"Patient","id":"x","CANARY":1}',
        '{"resourceType":"CANARY"}',
        '{"resourceType":"Patient","id":"CANARY CANARY"}',
        '{"resourceType":"Patient","gender":"CANARY"}',
        '{"resourceType":"Patient","birthDate":"CANARY"}',
        '{"resourceType":"Patient",CANARY}',
    ]
    told = bench.read(bench.file("a.ndjson", lines(patient(), *(text.replace("CANARY", planted) for text in bad))))
    assert len(told.rejected) == len(bad)
    assert planted not in repr(told.rejected)


def test_a_line_past_the_limit_is_skipped_and_not_held(bench_with: Any, patient: Line) -> None:
    bench = bench_with(max_line_bytes=3_000_000)
    long = patient("long", text={"status": "generated", "div": "x" * 8_000_000})
    told = bench.read(bench.file("a.ndjson", lines(patient("p1"), long, patient("p2"))))
    assert told.ids == ["Patient/p1", "Patient/p2"]
    assert told.reasons == [(2, "ingest.line_too_long")]
    assert told.rejected[0].length == len(long)


def test_a_long_first_line(bench_with: Any, patient: Line) -> None:
    bench = bench_with(max_line_bytes=100_000, max_document_bytes=200_000)
    long = patient("long", text={"status": "generated", "div": "x" * 1_000_000})
    told = bench.read(bench.file("a.json", lines(long, patient("p2"))))
    assert told.ids == ["Patient/p2"]
    assert told.reasons == [(1, "ingest.line_too_long")]


def test_truncated_gzip_keeps_the_good_lines(bench: Any, patient: Line) -> None:
    texts = [patient(f"p{i}", language=os.urandom(40).hex()[:8]) for i in range(2000)]
    packed = gzip.compress(lines(*texts))
    told = bench.read(bench.file("a.ndjson.gz", packed[: len(packed) // 2]))
    assert len(told.parsed) > 100
    assert told.ids == [f"Patient/p{i}" for i in range(len(told.parsed))]
    assert told.reasons == [(len(told.parsed) + 1, "ingest.truncated")]


def test_corrupt_gzip_keeps_the_good_lines(bench: Any, patient: Line) -> None:
    texts = [patient(f"p{i}") for i in range(3000)]
    packed = bytearray(gzip.compress(lines(*texts)))
    packed[-8] ^= 0xFF
    told = bench.read(bench.file("a.ndjson.gz", bytes(packed)))
    assert len(told.parsed) == 3000
    assert told.reasons == [(3001, "ingest.gzip")]


def test_a_gzip_bomb_is_stopped(bench_with: Any, patient: Line) -> None:
    bench = bench_with(max_ratio=50)
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    packed = packer.compress(lines(patient("p1")))
    packed += b"".join(packer.compress(b" " * (1 << 20)) for _ in range(100)) + packer.flush()
    told = bench.read(bench.file("bomb.ndjson.gz", packed))
    assert told.ids == ["Patient/p1"]
    assert told.reasons == [(2, "ingest.bomb")]


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("a.json", b"", "ingest.empty"),
        ("a.ndjson", b"\n\n  \r\n", "ingest.empty"),
        ("a.json", b"\xef\xbb\xbf", "ingest.empty"),
        ("a.json.gz", gzip.compress(b"", mtime=0), "ingest.empty"),
        ("a.json", b"<Patient xmlns='http://hl7.org/fhir'/>\n\n</Patient>", "ingest.not_json"),
        ("a.json", os.urandom(4096).replace(b"{", b"("), "ingest.not_json"),
        ("a.json", "{}".encode("utf-16"), "ingest.encoding"),
        ("a.json.gz", b"\x1f\x8b", "ingest.truncated"),
        ("a.json.gz", b"\x1f\x8bjunk", "ingest.gzip"),
        ("a.json", b"{\n", "ingest.broken_off"),
        ("a.json", b'{"resourceType":"Bundle","type":"batch"}', "ingest.bundle"),
        ("a.json", b'{"resourceType":"Bundle","type":"batch","entry":[]}', "ingest.empty_bundle"),
        ("a.json", b'{"resourceType":"Bundle","type":"batch","entry":{}}', "ingest.bundle"),
    ],
)
def test_a_file_without_anything_to_keep_is_one_refusal(bench: Any, name: str, content: bytes, code: str) -> None:
    told = bench.read(bench.file(name, content))
    assert told.parsed == []
    assert told.reasons == [(1 if code != "ingest.broken_off" else 2, code)]


def test_an_unreadable_file_is_a_refusal(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = bench.file("a.ndjson", "{}")

    def denied(*_: object, **__: object) -> None:
        raise PermissionError

    monkeypatch.setattr("carelake.ingest.sources.open", denied, raising=False)
    assert bench.read(path).reasons == [(1, "ingest.unreadable")]
    assert bench.read(path).reasons == [(1, "ingest.unreadable")]
    assert len(bench.quarantine()) == 1


def test_a_broken_document_tells_the_line(bench: Any) -> None:
    text = '{\n "resourceType": "Patient",\n "id": "x",\n "active": tru\n}\n'
    assert bench.read(bench.file("a.json", text)).reasons == [(4, "core.json")]


def test_good_entries_before_a_break_are_kept(bench: Any, bundle: Any) -> None:
    text = bundle(*({"resourceType": "Patient", "id": f"p{i}"} for i in range(5)))
    cut = text.index('"p3"')
    told = bench.read(bench.file("a.json", text[:cut]))
    assert told.ids == ["Patient/p0", "Patient/p1", "Patient/p2"]
    assert [one.code for one in told.rejected] == ["ingest.broken_off"]
    told = bench.read(bench.file("b.json.gz", gzip.compress(text.encode())[:-20]))
    assert [one.code for one in told.rejected] == ["ingest.truncated"]


def test_duplicate_ids_in_one_bundle(bench: Any, bundle: Any) -> None:
    first = {"resourceType": "Patient", "id": "same", "gender": "male"}
    other = {"resourceType": "Patient", "id": "same", "gender": "female"}
    told = bench.read(bench.file("a.json", bundle(first, first, other, {"resourceType": "Group", "id": "same"})))
    assert told.ids[:2] == ["Patient/same", "Patient/same"]
    assert told.rejected[0].code == "ingest.duplicate_in_bundle"
    assert told.rejected[0].position == 2


def test_entries_that_are_no_resources(bench: Any) -> None:
    entries = [
        {"resource": {"resourceType": "Patient", "id": "ok"}},
        {"request": {"method": "DELETE", "url": "Patient/1"}},
        {"fullUrl": "urn:uuid:1"},
        7,
        None,
        {"resource": 7},
        {"resource": None},
        {"resource": [1]},
    ]
    text = json.dumps({"resourceType": "Bundle", "type": "batch", "entry": entries}, indent=0)
    told = bench.read(bench.file("a.json", text))
    assert told.ids == ["Patient/ok"]
    assert [one.code for one in told.rejected] == [
        "ingest.method",
        "ingest.no_resource",
        "ingest.entry",
        "ingest.entry",
        "ingest.not_an_object",
        "ingest.no_resource",
        "ingest.not_an_object",
    ]
    assert told.rejected[0].path == "Bundle.entry[1]"


def test_names_that_try_tricks_leave_no_trace(bench: Any, patient: Line) -> None:
    path = bench.file("Zebrowski ; rm -rf \n$(x)'\".ndjson", patient())
    assert bench.read(path).ids == ["Patient/p1"]
    names = [entry.name for entry in (bench.root / "w").rglob("*")]
    assert not [name for name in names if "Zebrowski" in name]
