"""FHIR through the whole of ingest: what goes in comes out with every digit, and the levels of validation."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Iterator
from importlib import util
from pathlib import Path
from typing import Any

import msgspec
import pytest

from carelake.core import canonical
from carelake.ingest import Quarantine
from carelake.store import Resources

_CHILD = Path(__file__).with_name("ingest_child.py")
_spec = util.spec_from_file_location("ingest_child", _CHILD)
assert _spec
assert _spec.loader
child = util.module_from_spec(_spec)
_spec.loader.exec_module(child)


class Number(str):
    """A number as it is written."""


def canonical_text(text: bytes) -> str:
    """The canonical form, made in another way than carelake's: the oracle."""
    return written(json.loads(text, parse_float=Number, parse_int=Number))


def written(value: Any) -> str:
    if isinstance(value, Number):
        return str(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(k)}:{written(value[k])}" for k in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(written, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def official(shared_data: Path) -> Iterator[bytes]:
    with gzip.open(shared_data / "fhir-r4-examples" / "examples.ndjson.gz") as lines:
        yield from (line for line in lines if line.strip())


def guide(shared_data: Path) -> Iterator[bytes]:
    data = (shared_data / "us-core-6.1.0" / "us_core_610.tgz").read_bytes()
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        streams = [archive.extractfile(m) for m in archive if m.name.startswith("package/example/")]
        for stream in streams:
            if stream is not None and (text := stream.read()).lstrip().startswith(b"{"):
                yield msgspec.json.format(text, indent=-1)


def read_in(folder: Path, texts: list[bytes], **settings: Any) -> tuple[Any, Any]:
    """A workspace that has ingested one file of lines."""
    folder.mkdir()
    (folder / "all.ndjson").write_bytes(b"\n".join(text.strip() for text in texts) + b"\n")
    vault, permit = child.workspace(folder, 0)
    bounds = msgspec.structs.replace(vault.settings.ingest, **settings)
    vault.settings = msgspec.structs.replace(vault.settings, ingest=bounds)
    child.run(vault, permit, folder / "all.ndjson")
    return vault, permit


@pytest.mark.parametrize("source", [official, guide])
def test_every_example_comes_back_byte_for_byte(tmp_path: Path, shared_data: Path, source: Any) -> None:
    # Bundles are unpacked on the way, and links in them rewritten.
    texts = [text for text in source(shared_data) if json.loads(text)["resourceType"] != "Bundle"]
    vault, permit = read_in(tmp_path / "in", texts)
    try:
        given = {(r["resourceType"], r["id"]): text for text in texts if (r := json.loads(text))}
        found = {(c.type, c.id): c.body for c in Resources(vault).changes(permit, 0, 100_000)}
        refused = Quarantine(vault.database, vault.clock).list(permit, limit=100)
        assert len(found) + len(refused) == len(texts) > 150
        assert len(refused) <= 4  # the known gaps of tests/conformance
        decimals = 0
        for name, body in found.items():
            assert body.decode() == canonical_text(given[name]), name
            read = Resources(vault).read(permit, *name)
            meta = canonical.load(body).get("meta", {})
            del read["meta"]
            again = {**read, **({"meta": meta} if meta else {})}
            assert canonical.dump(again) == body
            decimals += body.count(b".0,") + body.count(b"0}")
        assert decimals > 20
    finally:
        vault.close()


GOOD = {"resourceType": "Patient", "id": "good", "gender": "male"}
RULE = {"resourceType": "Patient", "id": "rule", "contact": [{"gender": "male"}]}
NAME = {"resourceType": "Patient", "id": "name", "nickname": "x"}
ODD = {"resourceType": "Patient", "id": "odd", "name": "x", "birthDate": 5, "link": {"other": [None]}}
NONE = {"resourceType": "Starship", "id": "none"}
LEVELS = {
    "strict": {"good": "", "rule": "fhir.invariant", "name": "fhir.structure", "odd": "fhir.structure"},
    "structure": {"good": "", "rule": "", "name": "fhir.structure", "odd": "fhir.structure"},
    "minimal": {"good": "", "rule": "", "name": "", "odd": ""},
}


@pytest.mark.parametrize("level", LEVELS)
def test_levels_of_validation(tmp_path: Path, level: str) -> None:
    texts = [json.dumps(one).encode() for one in (GOOD, RULE, NAME, ODD, NONE)]
    vault, permit = read_in(tmp_path / "in", texts, validation=level)
    try:
        kept = {c.id for c in Resources(vault).changes(permit, 0, 100)}
        told = {one.line: one.code for one in Quarantine(vault.database, vault.clock).list(permit, limit=100)}
    finally:
        vault.close()
    assert told.pop(5) == "ingest.unknown_type"
    names = dict(enumerate(("good", "rule", "name", "odd"), 1))
    wanted = LEVELS[level]
    if level == "minimal" and told:
        assert set(told.values()) == {"ingest.no_index"}
        kept.update(names[line] for line in told)
        told = {}
    assert {names[line]: code for line, code in told.items()} == {k: v for k, v in wanted.items() if v}
    assert kept == {name for name, code in wanted.items() if not code}
