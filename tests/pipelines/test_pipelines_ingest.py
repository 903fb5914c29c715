"""The recipe of ingest: nothing lost, nothing twice, the same whatever the workers, and after any kill."""

from __future__ import annotations

import gzip
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import util
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from carelake.ingest import Quarantine
from carelake.pipelines.ingest import IngestReport
from carelake.store import Resources

_CHILD = Path(__file__).with_name("ingest_child.py")
_spec = util.spec_from_file_location("ingest_child", _CHILD)
assert _spec
assert _spec.loader
child = util.module_from_spec(_spec)
_spec.loader.exec_module(child)

INDEXES = ("ix_owner", "ix_token", "ix_string", "ix_date", "ix_quantity", "ix_reference", "ix_uri", "resource")


def sources(folder: Path, *, count: int = 1500) -> Path:
    """Lines, a packed Bundle, and refusals; ids that come again with other bodies, within files and across."""
    rng = random.Random(11)
    folder.mkdir()
    names = ["Ann", "Bob", "Cyd"]

    def person(key: str) -> dict[str, Any]:
        return {"resourceType": "Patient", "id": key, "name": [{"family": rng.choice(names)}], "gender": "male"}

    for number in range(3):
        lines = [json.dumps(person(f"p{rng.randrange(count)}")) for _ in range(count)]
        lines[7] = "broken"
        lines[count // 2] = '{"resourceType":"Patient","nonsense":1}'
        (folder / f"{number}.ndjson").write_text("\n".join(lines))
    entries: list[dict[str, Any]] = [
        {"fullUrl": f"urn:uuid:{i}", "resource": {**person(f"b{i}"), "link": []}} for i in range(5)
    ]
    for i in range(count):
        visit = {"resourceType": "Encounter", "status": "finished", "class": {"code": "AMB"}}
        patient = {"reference": f"urn:uuid:{i % 7}"}
        entries.append({"fullUrl": f"urn:uuid:e{i}", "resource": {**visit, "subject": patient}})
    for entry in entries[:5]:
        del entry["resource"]["link"]
    bundle = json.dumps({"resourceType": "Bundle", "type": "transaction", "entry": entries}, indent=1)
    (folder / "z.json.gz").write_bytes(gzip.compress(bundle.encode(), 1))
    return folder


@contextmanager
def opened(root: Path, workers: int = 0) -> Iterator[tuple[Any, Any]]:
    root.mkdir(exist_ok=True)
    vault, permit = child.workspace(root, workers)
    try:
        yield vault, permit
    finally:
        vault.close()


def state(vault: Any, permit: Any) -> dict[str, Any]:
    """Everything that a reader of the record can see, with nothing that may differ between two runs."""
    record = Resources(vault)
    feed = record.changes(permit, 0, 100_000)
    with vault.database.reading(permit) as tx:
        symbols = dict(tx.exec_driver_sql("SELECT key, space || '/' || text FROM symbol").all())
        columns = {name: list(tx.exec_driver_sql(f"SELECT * FROM {name} LIMIT 0").keys()) for name in INDEXES}
        rows = {name: [tuple(row) for row in tx.exec_driver_sql(f"SELECT * FROM {name}")] for name in INDEXES}
        landings = tx.exec_driver_sql("SELECT size, format, state, entries FROM landing ORDER BY size").all()
    named = {"owner", "kind", "param", "system", "type"}
    return {
        "feed": [(c.seq, c.type, c.id, c.version, c.owner, c.body) for c in feed],
        "landings": [tuple(row) for row in landings],
        "quarantine": [
            (q.line, q.position, q.offset, q.code) for q in Quarantine(vault.database, vault.clock).list(permit)
        ],
        "index": {
            name: sorted(
                tuple(
                    _text(symbols, v) if c in named else v
                    for c, v in zip(columns[name], row, strict=True)
                    if c != "digest"
                )
                for row in found
            )
            for name, found in rows.items()
        },
    }


def _text(symbols: dict[int, str], key: int) -> str:
    """A symbol's text; the space of a parameter names a symbol in turn."""
    space, _, text = symbols.get(key, "/").partition("/")
    word, _, inner = space.partition(":")
    return f"{word}:{_text(symbols, int(inner))}/{text}" if word == "param" else f"{space}/{text}"


def sound(report: IngestReport) -> bool:
    parts = [[r.read, r.stored, r.unchanged, r.quarantined] for r in report.landings]
    whole = [report.read, report.stored, report.unchanged, report.quarantined]
    sums = [sum(column) for column in zip(*parts, strict=True)]
    return sums == whole and report.read == report.stored + report.unchanged + report.quarantined


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sources(tmp_path_factory.mktemp("sources") / "in")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> dict[str, Any]:
    with opened(tmp_path_factory.mktemp("undisturbed") / "r") as (vault, permit):
        report = child.run(vault, permit, folder)
        assert sound(report)
        assert (report.read, report.quarantined) == (3 * 1500 + 1505, 6)
        found = state(vault, permit)
        again = child.run(vault, permit, folder)
        assert sound(again)
        assert (again.read, again.stored, again.quarantined) == (report.read, 0, report.quarantined)
        assert [one.quarantined for one in again.landings] == [one.quarantined for one in report.landings]
        assert state(vault, permit) == found
        return found


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(
    tmp_path: Path, folder: Path, undisturbed: dict[str, Any], workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("carelake.ingest.reader._SMALL", 0)
    with opened(tmp_path / "r", workers) as (vault, permit):
        child.run(vault, permit, folder)
        assert state(vault, permit) == undisturbed


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_killed_at_any_moment_it_goes_on(
    tmp_path: Path, folder: Path, undisturbed: dict[str, Any], seed: int
) -> None:
    rng = random.Random(seed)
    for _ in range(40):
        if _killed(tmp_path / "r", folder, after=rng.uniform(0.0, 0.5), workers=seed % 2):
            break
    with opened(tmp_path / "r") as (vault, permit):
        report = child.run(vault, permit, folder)
        assert sound(report)
        assert state(vault, permit) == undisturbed
        with vault.database.reading(permit) as tx:
            assert tx.exec_driver_sql("SELECT count(*) FROM object_version").scalar() == 4


def _killed(root: Path, folder: Path, *, after: float, workers: int) -> bool:
    """Run until killed; whether it was done before."""
    command = [sys.executable, str(_CHILD), str(root), str(folder), str(workers)]
    root.mkdir(exist_ok=True)
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        time.sleep(after)
        process.send_signal(signal.SIGKILL)
        return process.wait() == 0


def test_a_source_that_fails_half_way_is_told(tmp_path: Path) -> None:
    good = '{"resourceType":"Patient","id":"a"}\n'
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.ndjson").write_text(good + "bad\n" + good)
    (folder / "b.ndjson").write_text("")
    (folder / "c.txt").write_text("")
    with opened(tmp_path / "r") as (vault, permit):
        report = child.run(vault, permit, folder)
        assert (report.read, report.stored, report.unchanged, report.quarantined) == (4, 1, 1, 2)
        assert sound(report)
        assert permit.log.counts["quarantined"] == 2
        rows = Quarantine(vault.database, vault.clock).list(permit)
        assert [(Path(row.source).name, row.line, row.code) for row in rows] == [
            ("a.ndjson", 2, "core.json"),
            ("b.ndjson", 1, "ingest.empty"),
        ]
        with vault.database.reading(permit) as tx:
            events = tx.exec_driver_sql("SELECT type, data FROM event").all()
        assert [tuple(event) for event in events] == [("carelake.record.changed", '{"landings":2,"stored":1}')]


pieces = st.one_of(
    st.builds(lambda key: json.dumps({"resourceType": "Patient", "id": key}).encode(), st.text("ab1-.~", max_size=4)),
    st.sampled_from([b"\n", b"\r\n", b"{", b"}", b"[", b'"', b"\xff", b'{"resourceType":"Bundle","entry":[', b"]}"]),
    st.binary(max_size=10),
)


@given(st.lists(st.lists(pieces, max_size=9).map(b"".join), min_size=1, max_size=3), st.booleans())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_read_is_accounted_for(desk: tuple[Any, Any, Path], contents: list[bytes], packed: bool) -> None:
    vault, permit, folder = desk
    for old in folder.iterdir():
        old.unlink()
    for number, content in enumerate(contents):
        (folder / f"{number}.json").write_bytes(gzip.compress(content) if packed else content)
    before = len(Quarantine(vault.database, vault.clock).list(permit))
    first = child.run(vault, permit, folder)
    assert sound(first)
    assert first.read >= len(contents)
    kept = len(Quarantine(vault.database, vault.clock).list(permit)) - before
    # Of contents that were read before, in this run or another, the refusals are told and not kept again.
    assert kept <= first.quarantined
    second = child.run(vault, permit, folder)
    assert sound(second)
    assert (second.read, second.stored, second.quarantined) == (first.read, 0, first.quarantined)
    assert len(Quarantine(vault.database, vault.clock).list(permit)) == before + kept


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[tuple[Any, Any, Path]]:
    (tmp_path / "in").mkdir()
    with opened(tmp_path / "r") as (vault, permit):
        yield vault, permit, tmp_path / "in"


def test_versions_lead_to_their_bytes(tmp_path: Path, folder: Path, undisturbed: dict[str, Any]) -> None:
    from carelake.audit.nouns import Nouns

    with opened(tmp_path / "r") as (vault, permit):
        child.run(vault, permit, folder)
        record = Resources(vault)
        nouns = Nouns(vault.clock)
        for change in record.changes(permit, 0, 10_000)[::301]:
            with vault.database.reading(permit) as tx:
                chain = nouns.lineage(tx, change.ref, {"resource": record.resolver(permit)}, account=permit.account)
            version, landing = chain
            with vault.objects.open(permit, "landing", landing.body["object"]) as stream:
                stream.seek(version.body["offset"])
                text = json.loads(stream.read(version.body["length"]))
            assert text.get("id", change.id) == change.id
            assert text["resourceType"] == change.type


@pytest.mark.slow
def test_the_synthea_set_is_read_whole(tmp_path: Path, shared_data: Path) -> None:
    with opened(tmp_path / "r", workers=2) as (vault, permit):
        first = child.run(vault, permit, shared_data / "synthea-r4")
        assert sound(first)
        assert (len(first.landings), first.quarantined, first.skipped) == (167, 0, 1)
        second = child.run(vault, permit, shared_data / "synthea-r4")
        assert sound(second)
        assert (second.read, second.stored, second.quarantined) == (first.read, 0, 0)
        record = Resources(vault)
        assert not any(b'"reference":"urn:' in change.body for change in record.changes(permit, 0, 100_000))
