"""Ids, references and byte ranges of what comes in Bundles (decision D6)."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

from carelake.core.ids import derived_uuid
from carelake.ingest.names import Names, key_of

UUID = "urn:uuid:0C3151BD-1CBF-4D64-B04D-CD9187A4C6E0"


def visit(subject: str, **other: Any) -> dict[str, Any]:
    encounter = {"resourceType": "Encounter", "status": "finished", "class": {"code": "AMB"}}
    return {**encounter, "subject": {"reference": subject}, **other}


def test_urn_references_are_resolved_over_the_whole_bundle(bench: Any, bundle: Any, body: Any) -> None:
    text = bundle(
        ("urn:uuid:b", visit(UUID)),
        (UUID, {"resourceType": "Patient"}),
        ("urn:oid:1.2.3", {"resourceType": "Organization", "id": "org"}),
        ("urn:uuid:c", visit("urn:uuid:nowhere", serviceProvider={"reference": "urn:oid:1.2.3"})),
    )
    told = bench.read(bench.file("a.json", text))
    assert not told.rejected
    first, patient, _, second = told.parsed
    assert patient.id == UUID[9:].lower()
    assert body(first)["subject"]["reference"] == f"Patient/{patient.id}"
    assert first.owner == patient.id
    assert first.id == "b"
    assert body(second)["subject"]["reference"] == "urn:uuid:nowhere"
    assert body(second)["serviceProvider"]["reference"] == "Organization/org"


def test_ids_given_by_address_or_derived(bench: Any, bundle: Any) -> None:
    text = bundle(
        ("https://example.org/fhir/Patient/p9", {"resourceType": "Patient"}),
        ("https://example.org/fhir/Group/g9", {"resourceType": "Patient"}),
        {"resourceType": "Patient", "id": "given"},
    )
    path = bench.file("a.json", text)
    ids = [one.id for one in bench.read(path).parsed]
    assert ids[0] == "p9"
    assert ids[2] == "given"
    import hashlib

    assert ids[1] == derived_uuid(hashlib.sha256(path.read_bytes()).hexdigest(), "1")


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("pack", [False, True])
def test_ranges_and_lines_lead_to_the_resource(bench: Any, bundle: Any, indent: Any, pack: bool) -> None:
    text = bundle(*({"resourceType": "Patient", "id": f"p{i}"} for i in range(30)), indent=indent).encode()
    path = bench.file("a.json" + ".gz" * pack, gzip.compress(text) if pack else text)
    for one in bench.read(path).parsed:
        assert json.loads(text[one.offset : one.offset + one.length])["id"] == one.id
        assert one.line == 1 + text.count(b"\n", 0, one.offset)


def test_a_large_bundle_is_streamed_with_the_same_result(bench_with: Any, bundle: Any) -> None:
    entries = [
        (f"urn:uuid:{i}", visit(f"urn:uuid:{(i * 7) % 300}") if i else {"resourceType": "Patient"})
        for i in range(300)
    ]
    text = "\ufeff" + bundle(*entries)
    whole, streamed = bench_with(), bench_with(max_document_bytes=20_000)
    first, second = (b.read(b.file("a.json", text)) for b in (whole, streamed))
    assert len(first.parsed) == 300
    assert [(p.id, p.offset, p.length, p.line, p.body) for p in first.parsed] == [
        (p.id, p.offset, p.length, p.line, p.body) for p in second.parsed
    ]


def test_bundles_in_lines_and_lines_in_any_dress(bench: Any, bundle: Any, patient: Any) -> None:
    inner = bundle({"resourceType": "Patient", "id": "b1"}, {"resourceType": "Patient", "id": "b2"}, indent=None)
    text = "\ufeff" + "\r\n".join([patient("a"), "", inner, "  " + patient("c") + "\t"])
    told = bench.read(bench.file("x.ndjson", text))
    assert told.ids == ["Patient/a", "Patient/b1", "Patient/b2", "Patient/c"]
    assert [one.position for one in told.parsed] == [0, 1, 2, 3]
    assert [one.line for one in told.parsed] == [1, 3, 3, 4]
    for one in told.parsed:
        assert json.loads(text.encode()[one.offset : one.offset + one.length])["id"] == one.id


def test_a_history_is_read_from_its_end(bench: Any, bundle: Any) -> None:
    versions = [{"resourceType": "Patient", "id": "p", "active": bool(i % 2)} for i in range(4)]
    told = bench.read(bench.file("a.json", bundle(*versions, kind="history")))
    assert not told.rejected
    assert [one.position for one in told.parsed] == [3, 2, 1, 0]


@pytest.mark.parametrize("name", ["a.json", "a.ndjson", "a.bin"])
def test_the_shape_is_told_by_content(bench_with: Any, patient: Any, name: str) -> None:
    pretty = json.dumps(json.loads(patient("p1", contained=[{"resourceType": "Group", "id": "g"}])), indent=2)
    bench = bench_with()
    assert bench.read(bench.file(name, pretty)).ids == ["Patient/p1"] or "contained" in pretty
    lines = patient("p1") + "\n" + patient("p2")
    assert bench.read(bench.file("2" + name, lines)).ids == ["Patient/p1", "Patient/p2"]
    damaged = patient("p1")[:-5] + "\n" + patient("p2") + "\n" + patient("p3")
    told = bench.read(bench.file("3" + name, damaged))
    assert told.ids == ["Patient/p2", "Patient/p3"]
    assert told.reasons == [(1, "core.json")]


def test_names_are_found_however_they_are_kept() -> None:
    uuids = [derived_uuid(str(i)) for i in range(500)]
    names = Names()
    assert not names
    for number, uuid in enumerate(uuids):
        names.add(f"urn:uuid:{uuid}", ("Patient", "Group")[number % 2], uuid)
    names.add("urn:uuid:" + derived_uuid("x"), "Patient", "other")
    names.add("urn:oid:1.2", "Organization", "o")
    assert not names.linked
    for number in range(300):
        names.add(f"http://srv/fhir/Patient/p{number}", "Patient", f"p{number}")
    names.add("http://srv/fhir/Patient/x", "Patient", "y")
    assert names
    assert [names.get(f"urn:uuid:{uuid}") for uuid in uuids] == [
        f"{('Patient', 'Group')[number % 2]}/{uuid}" for number, uuid in enumerate(uuids)
    ]
    assert names.get("urn:uuid:" + derived_uuid("x")) == "Patient/other"
    assert names.get("urn:oid:1.2") == "Organization/o"
    assert names.get("urn:uuid:" + derived_uuid("nowhere")) is None
    assert names.get("urn:uuid:short") is None
    assert names.linked
    assert names.get("http://srv/fhir/Patient/p7") == "Patient/p7"
    assert names.get("http://other/fhir/Patient/p7") is None
    assert names.get("http://srv/fhir/Patient/x") == "Patient/y"
    assert names.get("urn:uuid:" + uuids[3]) == f"Group/{uuids[3]}"
    assert (key_of("URN:uuid:A"), key_of("http://srv/A")) == ("urn:uuid:a", "http://srv/A")


@pytest.mark.parametrize("bounds", [{}, {"max_document_bytes": 400}])
@pytest.mark.parametrize("kind", ["transaction", "collection", "searchset"])
def test_references_by_address_within_a_bundle(
    bench_with: Any, bundle: Any, body: Any, kind: str, bounds: dict[str, int]
) -> None:
    bench = bench_with(**bounds)
    base = "http://srv/fhir/"
    links = {
        base + "Patient/abs1": "Patient/abs1",
        base + "Patient/abs1/_history/3": "Patient/abs1/_history/3",
        base + "Patient/abs1/_history/": base + "Patient/abs1/_history/",
        base + "Patient/abs2": base + "Patient/abs2",
        base + "patient/abs1": base + "patient/abs1",
        "https://srv/fhir/Patient/abs1": "https://srv/fhir/Patient/abs1",
        "http://srv/names#7": "Patient/given",
        "Patient/abs1": "Patient/abs1",
    }
    text = bundle(
        (base + "Patient/abs1", {"resourceType": "Patient"}),
        ("http://srv/names#7", {"resourceType": "Patient", "id": "given"}),
        *((f"{base}Encounter/e{i}", visit(link)) for i, link in enumerate(links)),
        kind=kind,
    )
    # Some write every slash so.
    for form, name in ((text, "a.json"), (text.replace("/", "\\/"), "b.json")):
        told = bench.read(bench.file(name, form))
        assert not told.rejected
        assert [body(one)["subject"]["reference"] for one in told.parsed[2:]] == list(links.values())
    assert told.parsed[2].owner == "abs1"


def test_the_name_of_a_definition_stays(bench: Any, bundle: Any, body: Any) -> None:
    url = "http://srv/fhir/ValueSet/v"
    told = bench.read(
        bench.file("a.json", bundle((url, {"resourceType": "ValueSet", "status": "draft", "url": url})))
    )
    assert not told.rejected
    assert body(told.parsed[0])["url"] == url


@pytest.mark.parametrize("bounds", [{}, {"max_document_bytes": 300}])
def test_the_case_of_a_urn_does_not_count(bench_with: Any, bundle: Any, body: Any, bounds: dict[str, int]) -> None:
    bench = bench_with(**bounds)
    text = bundle(
        (UUID, {"resourceType": "Patient"}),
        *((f"urn:uuid:e{i}", visit(link)) for i, link in enumerate((UUID, UUID.lower(), UUID.upper()))),
        ("URN:UUID:F", {"resourceType": "Patient"}),
        ("urn:uuid:g", visit("urn:uuid:f")),
    )
    told = bench.read(bench.file("a.json", text))
    assert not told.rejected
    subjects = [body(one)["subject"]["reference"] for one in told.parsed if one.type == "Encounter"]
    assert subjects == [f"Patient/{UUID[9:].lower()}"] * 3 + ["Patient/f"]
