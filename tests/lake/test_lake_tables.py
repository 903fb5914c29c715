"""Tables in buckets: what goes in comes back, in whatever files it lies; and old tables go on."""

from __future__ import annotations

import gzip
import tarfile
from collections import defaultdict
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from carelake.audit.nouns import Nouns
from carelake.core import canonical
from carelake.core.clock import FixedClock, instant
from carelake.core.errors import Gone, Invalid, NotFound
from carelake.core.permit import Permit
from carelake.core.settings import LakeSettings, Settings
from carelake.fhir import definitions
from carelake.lake import asof, query, rows
from carelake.lake.current import rows_of
from carelake.lake.engines.engine import connect
from carelake.lake.following import fresh, sync
from carelake.lake.iceberg import layout, rewriting
from carelake.lake.iceberg.catalog import VaultCatalog
from carelake.lake.iceberg.files import Files
from carelake.lake.schema import KEYS, of_arrow, table_schema
from carelake.lake.upkeep import maintain
from carelake.vault.workspace import Vault


def observation(name: str, **more: Any) -> dict[str, Any]:
    return {"resourceType": "Observation", "id": name, "status": "final", "code": {"text": "x"}, **more}


def back(permit: Permit, vault: Vault, snapshot: Any) -> dict[tuple[str, str], bytes]:
    """Every current resource of the lake as canonical JSON."""
    found = {}
    for kind in snapshot.body["tables"]:
        table = query.current(permit, vault, snapshot, kind)
        assert table is not None
        record = of_arrow(kind, table.schema)
        for one in rows.restore(kind, record, table):
            found[kind, one["id"]] = canonical.dump(one)
    return found


def data_files(permit: Permit, vault: Vault, kind: str = "Observation") -> list[Any]:
    table = VaultCatalog(vault, permit).load_table((permit.account, kind))
    return [task.file for task in table.scan().plan_files()]


@pytest.fixture
def small_buckets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flushes of any size go to buckets."""
    monkeypatch.setattr(sync, "ROWS_OF_A_BUCKET", 0)
    monkeypatch.setattr(maintain, "ROWS_OF_A_BUCKET", 0)


def fill(feed: Any, patients: int = 40) -> dict[tuple[str, str], bytes]:
    said = {}
    for number in range(patients):
        for turn in range(3):
            one = observation(f"o{number}-{turn}", effectiveDateTime=f"20{10 + turn}-03-01")
            feed.put(one, owner=f"p{number}" if number % 5 else "")
            said["Observation", one["id"]] = canonical.dump(one)
    return said


def test_large_flushes_lie_in_buckets_and_small_ones_in_the_tray(
    vault: Vault, permit: Permit, nouns: Nouns, feed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = fill(feed)
    with monkeypatch.context() as patched:
        patched.setattr(sync, "ROWS_OF_A_BUCKET", 5)
        sync.sync(permit, vault, feed, nouns)
    parts = [file.partition[0] for file in data_files(permit, vault)]
    assert None in parts
    assert len(parts) == len(set(parts)) > 10
    for file in data_files(permit, vault):
        owners = set(_read(permit, vault, file).column("patient").to_pylist())
        assert {_bucket(owner) for owner in owners} == {file.partition[0]}
        times = [time for time in _read(permit, vault, file).column("time").to_pylist() if time]
        assert times == sorted(times)
    feed.put(observation("late"), owner="p3")
    sync.sync(permit, vault, feed, nouns)
    assert sum(not len(file.partition) for file in data_files(permit, vault)) == 1
    snapshot = query.snapshot_of(permit, vault, nouns)
    assert back(permit, vault, snapshot) == {**said, ("Observation", "late"): canonical.dump(observation("late"))}
    mine = query.current(permit, vault, snapshot, "Observation", columns=["patient"], patient="p3")
    assert mine is not None
    assert sorted(mine.column("id").to_pylist()) == ["late", "o3-0", "o3-1", "o3-2"]


def _read(permit: Permit, vault: Vault, file: Any) -> pa.Table:
    snapshot = VaultCatalog(vault, permit).load_table((permit.account, "Observation")).current_snapshot()
    assert snapshot is not None
    return rows_of(permit, vault, "Observation", snapshot.snapshot_id).files.read(file)


def _bucket(owner: str | None) -> int | None:
    return layout.numbers(pa.chunked_array([pa.array([owner], pa.string())]), 16)[0].as_py()


def test_sql_reads_the_columns_that_it_needs_and_answers_as_if_it_had_all(
    vault: Vault, permit: Permit, nouns: Nouns, feed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(feed, 6)
    feed.put({"resourceType": "Patient", "id": "p1", "gender": "female"}, owner="p1")
    sync.sync(permit, vault, feed, nouns)
    snapshot = query.snapshot_of(permit, vault, nouns)
    read: list[set[str]] = []
    plain = Files.read

    def watched(self: Files, file: Any, columns: Any = None, *more: Any, **other: Any) -> pa.Table:
        read.append(set(columns))
        return plain(self, file, columns, *more, **other)

    for text, columns in (
        ("SELECT status, count(*) AS n FROM Observation GROUP BY status", {"status"}),
        ("SELECT count(*) AS n FROM observation WHERE PATIENT = 'p1'", {"patient"}),
        ("SELECT o.code_element.text AS t FROM Observation o ORDER BY o.id LIMIT 2", {"code_element", "id"}),
        ("SELECT p.gender, o.id FROM Patient p JOIN Observation o ON o.patient = p.id ORDER BY 2", None),
        ("SELECT * EXCLUDE (last_updated) FROM Patient", None),
        ("SELECT * FROM Observation LIMIT 0", None),
        ("SELECT * FROM Patient WHERE 1 = 0", None),
        ("SELECT count(*) AS n FROM Observation_history WHERE NOT deleted", {"deleted"}),
        ("SELECT o FROM Observation o ORDER BY id LIMIT 1", None),
        ("SELECT max(x.n) AS n FROM (SELECT count(*) AS n, patient FROM Observation GROUP BY ALL) x", {"patient"}),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(query, "_needed", lambda *_: None)
            wanted = query.sql(permit, vault, snapshot, text)
        with monkeypatch.context() as patched:
            patched.setattr(Files, "read", watched)
            read.clear()
            assert query.sql(permit, vault, snapshot, text).equals(wanted), text
        if columns is not None:
            assert set().union(*read) <= columns | {"n"}, text


def test_freshness_is_a_number_of_changes_and_of_seconds(
    vault: Vault, permit: Permit, nouns: Nouns, feed: Any, clock: FixedClock
) -> None:
    assert fresh.freshness(permit, vault, feed) == fresh.Freshness(0, 0.0, 0, "")
    feed.put(observation("o1"))
    made = sync.sync(permit, vault, feed, nouns)
    assert fresh.freshness(permit, vault, feed) == fresh.Freshness(0, 0.0, 1, made.snapshot_ref)
    feed.put(observation("o2"))
    feed.put(observation("o3"))
    told = fresh.freshness(permit, vault, feed)
    assert told.behind == 2
    assert told.seconds == (clock.now() - instant(feed.entries[1].last_updated)).total_seconds()
    assert fresh.of_accounts(permit, vault, feed) == {permit.account: told}


@pytest.mark.usefixtures("small_buckets")
def test_a_resource_that_moves_to_another_patient_leaves_the_first_one(
    vault: Vault, permit: Permit, nouns: Nouns, feed: Any
) -> None:
    feed.put(observation("o1"), owner="p1")
    sync.sync(permit, vault, feed, nouns)
    feed.put(observation("o1", status="amended"), owner="p2")
    sync.sync(permit, vault, feed, nouns)
    snapshot = query.snapshot_of(permit, vault, nouns)
    for owner, count in (("p1", 0), ("p2", 1)):
        table = query.current(permit, vault, snapshot, "Observation", patient=owner)
        assert table is not None
        assert len(table) == count


def test_history_and_the_deletes_feed(vault: Vault, permit: Permit, nouns: Nouns, feed: Any) -> None:
    feed.put(observation("o1"))
    feed.put({"resourceType": "Patient", "id": "p1"})
    feed.put(observation("o1", status="amended"))
    sync.sync(permit, vault, feed, nouns)
    feed.put(observation("o1"), deleted=True)
    feed.put({"resourceType": "Patient", "id": "p1"}, deleted=True)
    sync.sync(permit, vault, feed, nouns)
    snapshot = query.snapshot_of(permit, vault, nouns)
    versions = query.versions(permit, vault, snapshot, "Observation", columns=["version", "deleted", "replaced_seq"])
    assert versions is not None
    assert sorted(versions.to_pylist(), key=lambda row: row["version"]) == [
        {"version": 1, "deleted": False, "replaced_seq": None},
        {"version": 2, "deleted": False, "replaced_seq": 1},
        {"version": 3, "deleted": True, "replaced_seq": 3},
    ]
    assert back(permit, vault, snapshot) == {}
    gone = query.deletions(permit, vault, snapshot).select(["type", "id", "seq"]).to_pylist()
    assert gone == [{"type": "Observation", "id": "o1", "seq": 4}, {"type": "Patient", "id": "p1", "seq": 5}]
    assert len(query.deletions(permit, vault, snapshot, after=4)) == 1
    for statement, count in (("Observation_history", 3), ("Patient", 0), ("deletions", 2)):
        found = query.sql(permit, vault, snapshot, f"SELECT count(*) AS n FROM {statement}")
        assert found.to_pylist() == [{"n": count}]


def test_a_tray_of_few_rows_is_merged_and_stays_a_tray(vault: Vault, permit: Permit, nouns: Nouns, feed: Any) -> None:
    for number in range(5):
        feed.put(observation(f"o{number}"), owner=f"p{number}")
        sync.sync(permit, vault, feed, nouns)
    assert (maintain.maintain(permit, vault, nouns).merged, maintain.maintain(permit, vault, nouns).merged) == (5, 0)
    (file,) = data_files(permit, vault)
    assert not len(file.partition)
    assert len(back(permit, vault, query.snapshot_of(permit, vault, nouns))) == 5


def test_upkeep_merges_expires_and_removes_and_readers_keep_what_they_have(
    vault: Vault, permit: Permit, nouns: Nouns, feed: Any, clock: FixedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintain, "ROWS_OF_A_BUCKET", 0)
    said = {}
    for number in range(6):
        one = observation(f"o{number}")
        feed.put(one, owner=f"p{number % 3}")
        said["Observation", one["id"]] = canonical.dump(one)
        sync.sync(permit, vault, feed, nouns)
    before = query.snapshot_of(permit, vault, nouns)
    done = maintain.maintain(permit, vault, nouns)
    assert (done.merged, done.expired, done.removed) == (6, 0, 0)
    assert done.made == len({_bucket(f"p{n}") for n in range(3)}) == len(data_files(permit, vault))
    after = query.snapshot_of(permit, vault, nouns)
    assert after.ref == done.snapshot_ref != before.ref
    assert back(permit, vault, before) == back(permit, vault, after) == said
    assert maintain.maintain(permit, vault, nouns).merged == 0
    asof.tag(permit, vault, nouns, "kept", before)
    later = _later(permit, clock, days=8)
    assert maintain.maintain(later, vault, nouns).expired == 5
    assert maintain.maintain(later, vault, nouns).removed == 0  # a reader may be at them
    later = _later(permit, clock, hours=2)
    assert maintain.maintain(later, vault, nouns).removed >= 5
    assert maintain.maintain(later, vault, nouns).removed == 0
    assert back(later, vault, asof.as_of(later, vault, nouns, "kept")) == said
    assert back(later, vault, query.snapshot_of(later, vault, nouns)) == said
    asof.tag(later, vault, nouns, "kept", query.snapshot_of(later, vault, nouns))
    assert maintain.maintain(later, vault, nouns).expired == 1  # the tag moved on
    feed.put(observation("o1", status="amended"), owner="p1")
    sync.sync(later, vault, feed, nouns)
    assert len(back(later, vault, query.snapshot_of(later, vault, nouns))) == 6


def _later(permit: Permit, clock: FixedClock, **how: int) -> Permit:
    from carelake.core.permit import mint

    clock.move(**how)
    names = ("act", "principal", "account", "purpose", "action", "target", "grants", "scope", "log")
    return mint(**{name: getattr(permit, name) for name in names}, expires=clock.now() + timedelta(hours=1))


def test_as_of_by_ref_tag_day_and_instant(
    vault: Vault, permit: Permit, nouns: Nouns, feed: Any, clock: FixedClock
) -> None:
    feed.put(observation("o1"))
    first = sync.sync(permit, vault, feed, nouns).snapshot_ref
    clock.move(minutes=10)
    feed.put(observation("o2"))
    second = sync.sync(permit, vault, feed, nouns).snapshot_ref
    asof.tag(permit, vault, nouns, "one", asof.as_of(permit, vault, nouns, first))
    for said, wanted in (
        (None, second),
        (first, first),
        ("one", first),
        ("2026-01-02", second),
        ("2026-01-02T03:10:00Z", first),
    ):
        assert asof.as_of(permit, vault, nouns, said).ref == wanted
    text = "SELECT id, last_updated FROM Observation"
    answers = [query.sql(permit, vault, asof.as_of(permit, vault, nouns, first), text) for _ in range(2)]
    assert answers[0].equals(answers[1])
    assert answers[0].column("id").to_pylist() == ["o1"]
    asof.tag(permit, vault, nouns, "one", asof.as_of(permit, vault, nouns, second))
    assert asof.tags(permit, vault, nouns) == {"one": second}
    asof.tag(permit, vault, nouns, "one", asof.as_of(permit, vault, nouns, first))
    assert asof.tags(permit, vault, nouns) == {"one": first}
    for bad, error in (
        ("nothing", NotFound),
        ("2025-01-01", NotFound),
        ("25-1-1", Invalid),
        ("snapshot:no", NotFound),
    ):
        with pytest.raises(error):
            asof.as_of(permit, vault, nouns, bad)


def test_what_an_erasure_took_is_said(vault: Vault, permit: Permit, nouns: Nouns, feed: Any) -> None:
    from carelake.lake.upkeep import erase

    feed.put(observation("o1"), owner="p1")
    feed.put(observation("o2"), owner="p2")
    first = sync.sync(permit, vault, feed, nouns).snapshot_ref
    erase.erase(permit, vault, nouns, feed, erase.Leaving({"p1"}), mark="m")
    with pytest.raises(Gone, match="erased by law"):
        query.current(permit, vault, asof.as_of(permit, vault, nouns, first), "Observation")
    assert list(back(permit, vault, query.snapshot_of(permit, vault, nouns))) == [("Observation", "o2")]


def test_a_table_from_before_buckets_goes_on(
    vault: Vault, permit: Permit, nouns: Nouns, feed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed.put(observation("o1"))
    feed.put(observation("o1", status="amended"))
    feed.put(observation("o2"))
    old = _old_table(permit, vault, feed)
    table = VaultCatalog(vault, permit).load_table((permit.account, "Observation"))
    assert rewriting.is_old(table)
    assert sorted(rows_of(permit, vault, "Observation", old).current(["id"]).column("id").to_pylist()) == ["o1", "o2"]
    feed.put(observation("o2"), deleted=True)
    sync.sync(permit, vault, feed, nouns)
    now = query.current(permit, vault, query.snapshot_of(permit, vault, nouns), "Observation", columns=["status"])
    assert now is not None
    assert now.to_pylist() == [{"id": "o1", "status": "amended"}]
    was = rows_of(permit, vault, "Observation", old).current(["id", "status"])
    assert sorted(row["id"] for row in was.to_pylist()) == ["o1", "o2"]


def _old_table(permit: Permit, vault: Vault, feed: Any) -> int:
    """A table as the released version made it: no buckets, no ``replaced_seq``."""
    from carelake.lake.following.feeding import changes_table

    batch = changes_table(feed.entries)
    with connect() as connection:
        record = rows.occurs(connection, "Observation", batch)
        made = rows.rows(connection, record, batch).drop_columns(["replaced_seq"])
    names = [name for name in table_schema(record).names if name != "replaced_seq"]
    assert set(KEYS.names) - set(names) == {"replaced_seq"}
    catalog = VaultCatalog(vault, permit)
    table = catalog.create_table((permit.account, "Observation"), made.schema, properties={"format-version": "2"})
    table.append(made, snapshot_properties={sync.SEQ: "3"})
    table = catalog.load_table((permit.account, "Observation"))
    snapshot = table.current_snapshot()
    assert snapshot is not None
    return int(snapshot.snapshot_id)


def test_another_number_of_buckets_is_taken_up(
    tmp_path: Path, vault: Vault, permit: Permit, nouns: Nouns, feed: Any, small_buckets: None
) -> None:
    said = fill(feed, 10)
    sync.sync(permit, vault, feed, nouns)
    object.__setattr__(vault, "settings", Settings(workspace="w1", lake=LakeSettings(buckets=3)))
    maintain.maintain(permit, vault, nouns)
    assert {file.partition[0] for file in data_files(permit, vault)} <= {None, 0, 1, 2}
    assert back(permit, vault, query.snapshot_of(permit, vault, nouns)) == said


# -- losslessness ---------------------------------------------------------------------------------------------------


def _texts(folder: Path, every: int) -> Iterator[bytes]:
    for path in sorted(folder.iterdir())[::every]:
        if path.name.endswith(".ndjson.gz"):
            yield from gzip.decompress(path.read_bytes()).splitlines()
        elif path.name.endswith(".json.gz"):
            yield gzip.decompress(path.read_bytes())
        elif path.suffix == ".tgz":
            with tarfile.open(path) as package:
                for one in package:
                    found = package.extractfile(one) if one.name.endswith(".json") else None
                    if found is not None:
                        yield found.read()


def _of_folder(folder: Path, every: int = 1) -> Iterator[dict[str, Any]]:
    for text in (one for one in _texts(folder, every) if one.startswith(b"{")):
        body = canonical.load(text)
        if "resourceType" in body:
            yield body
        if body.get("resourceType") == "Bundle":
            yield from (entry["resource"] for entry in body.get("entry", ()) if "resource" in entry)


def _lossless(permit: Permit, vault: Vault, nouns: Nouns, feed: Any, resources: Iterator[dict[str, Any]]) -> int:
    latest: dict[tuple[str, str], bytes] = {}
    for one in resources:
        if "id" in one and definitions.is_resource(one["resourceType"]):
            feed.put(one, owner="p1")
            latest[one["resourceType"], one["id"]] = canonical.dump(one)
    sync.sync(permit, vault, feed, nouns)
    found = back(permit, vault, query.snapshot_of(permit, vault, nouns))
    wrong = defaultdict(int)
    for key, body in latest.items():
        wrong[key[0]] += found.get(key) != body
    assert not {kind: count for kind, count in wrong.items() if count}
    assert len(found) == len(latest)
    return len(latest)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "least"), [("fhir-r4-examples", 2_000), ("us-core-6.1.0", 100)])
def test_published_resources_come_back_whole(
    vault: Vault, permit: Permit, nouns: Nouns, feed: Any, shared_data: Path, name: str, least: int
) -> None:
    assert _lossless(permit, vault, nouns, feed, _of_folder(shared_data / name)) > least


def test_a_patient_of_synthea_comes_back_whole(
    vault: Vault, permit: Permit, nouns: Nouns, feed: Any, shared_data: Path
) -> None:
    path = min((shared_data / "synthea-r4").rglob("*.json.gz"), key=lambda one: one.stat().st_size)
    bundle = canonical.load(gzip.decompress(path.read_bytes()))
    assert _lossless(permit, vault, nouns, feed, (one["resource"] for one in bundle["entry"])) > 10


@pytest.mark.slow
@pytest.mark.parametrize(("every", "least"), [(8, 1_000), pytest.param(1, 10_000, marks=pytest.mark.soak)])
def test_synthea_comes_back_whole(
    vault: Vault, permit: Permit, nouns: Nouns, feed: Any, shared_data: Path, every: int, least: int
) -> None:
    assert _lossless(permit, vault, nouns, feed, _of_folder(shared_data / "synthea-r4", every)) > least
