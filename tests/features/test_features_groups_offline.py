"""The offline store and files into it: exactly once, as of a moment, without whoever was erased."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pcsv
import pyarrow.parquet as pq
import pytest

from carelake.core.errors import Conflict, Invalid
from carelake.core.permit import Permit
from carelake.core.settings import DatabaseSettings, FeatureSettings, Settings
from carelake.features import asof
from carelake.features.groups import erase, offline, quality, refused, upkeep
from carelake.features.groups.definition import Gate
from carelake.features.groups.iceberg import FeatureCatalog, FeatureZone
from carelake.features.groups.ingest import ingest
from carelake.vault.workspace import Vault

sys.path.append(str(Path(__file__).parent))  # for `import groups_data`

from groups_data import GRANTS, Store, record, request

DAY1, DAY2, DAY3 = (f"2026-01-0{day}T00:00:00Z" for day in (1, 2, 3))


@pytest.fixture
def store(tmp_path: Path, clock: Any, permit_for: Callable[..., Permit]) -> Any:
    with opened(tmp_path, clock) as vault:
        yield Store(vault, permit_for(*GRANTS, expires=clock.now() + timedelta(days=30)))


def opened(folder: Path, clock: Any, **more: Any) -> Vault:
    from carelake.apps.wiring import import_tables
    from carelake.core.ids import RandomIds

    import_tables()
    settings = Settings(workspace="w1", features=FeatureSettings(ingest_rows=10, log_rows=4), **more)
    return Vault.create(folder / "ws", settings=settings, key_dir=folder / "keys", clock=clock, ids=RandomIds())


def table(store: Store, name: str = "g") -> pa.Table:
    return offline.table(store.permit, store.vault, name)


def test_a_flush_changes_nothing_for_readers(store: Store) -> None:
    store.groups.create(store.permit, request())
    for number in range(10):
        store.put("g", *record(f"p{number % 3}", f"2026-01-01T00:00:0{number}Z", x=str(number), t="ä"))
    before = table(store)
    assert offline.flush(store.permit, store.vault) == {"g": 10}
    assert table(store).equals(before)
    assert offline.flush(store.permit, store.vault) == {}
    store.put("g", *record("p", DAY2))
    assert len(table(store)) == 11


@pytest.mark.parametrize("after", [False, True])
def test_a_flush_that_is_broken_off_writes_nothing_twice(
    store: Store, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    store.groups.create(store.permit, request())
    for number in range(6):
        store.put("g", *record("p", f"2026-01-01T00:00:0{number}Z", x=str(number)))
    before, swap = table(store), FeatureCatalog.swap

    def broken(self: FeatureCatalog, tx: Any) -> None:
        if after:
            swap(self, tx)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(FeatureCatalog, "swap", broken)
        with pytest.raises(KeyboardInterrupt):
            offline.flush(store.permit, store.vault)
    assert table(store).equals(before)
    assert offline.flush(store.permit, store.vault) == {"g": 6}
    assert table(store).equals(before)


def test_many_small_files_become_few(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "_MANY", 4)
    store.groups.create(store.permit, request())
    for number in range(9):
        store.put("g", *record("p", f"2026-01-01T00:00:{number:02}Z", x=str(number)))
        offline.flush(store.permit, store.vault)
        store.vault.clock.move(hours=2)
    assert table(store).column("x").to_pylist() == [float(n) for n in range(9)]
    assert len([name for name in names(store) if "/data/" in name]) < 9


def test_two_flushes_at_once_do_not_double(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.groups.create(store.permit, request())
    for number in range(3):
        store.put("g", *record("p", f"2026-01-01T00:00:0{number}Z"))
    before, swap = table(store), FeatureCatalog.swap
    offline.flush(store.permit, store.vault)
    store.put("g", *record("p", DAY2))
    files = set(names(store))

    def late(self: FeatureCatalog, tx: Any) -> None:
        store.vault.database._driver.rows(tx, "UPDATE feature_table SET location = ? RETURNING 1", ("elsewhere",))
        swap(self, tx)

    with monkeypatch.context() as patch:
        patch.setattr(FeatureCatalog, "swap", late)
        with pytest.raises(Conflict) as caught:
            offline.flush(store.permit, store.vault)
    assert caught.value.code == "features.concurrent"
    data = {name for name in names(store) if "/data/" in name}
    assert data <= files  # what was refused is taken back
    offline.flush(store.permit, store.vault)
    assert len(table(store)) == len(before) + 1


def names(store: Store) -> list[str]:
    return [one.name for one in FeatureZone(store.vault).list(store.permit, "iceberg/")]


def test_as_of_and_joined(store: Store) -> None:
    store.groups.create(store.permit, request())
    store.put("g", *record("p", DAY1, x="1"))
    first = store.vault.clock.now()
    store.vault.clock.move(hours=1)
    store.put("g", *record("p", DAY1, x="2"))  # a correction, that nobody knew of before
    store.delete("g", "p", DAY2)
    assert offline.table(store.permit, store.vault, "g", first).column("x").to_pylist() == [1.0]
    at = [first - timedelta(seconds=1), first, store.vault.clock.now(), datetime(2026, 1, 1, 12, tzinfo=UTC)]
    labels = pa.table({"subject_id": ["p"] * 4, "prediction_time": pa.array(at, pa.timestamp("us", "UTC"))})
    joined = asof.join(labels, {"g": table(store)})
    assert joined.column("g__x").to_pylist() == [None, 1.0, None, None]
    assert {"g__n", "g__t"} <= set(joined.column_names)
    assert "g__api_invocation_time" not in joined.column_names


def test_erasure_reaches_groups_that_say_nothing_of_patients(store: Store) -> None:
    definitions = [
        {"FeatureName": "stay", "FeatureType": "String"},
        {"FeatureName": "at", "FeatureType": "String"},
        {"FeatureName": "who", "FeatureType": "String"},
        {"FeatureName": "tags", "FeatureType": "String", "CollectionType": "List"},
    ]
    plain = request("plain", FeatureDefinitions=definitions, RecordIdentifierFeatureName="stay")
    tagged = {**plain, "FeatureGroupName": "tagged", "Tags": [{"Key": "carelake:subject", "Value": "who"}]}

    def said(stay: str, *more: dict[str, Any]) -> list[dict[str, Any]]:
        named = [{"FeatureName": "stay", "ValueAsString": stay}, {"FeatureName": "at", "ValueAsString": DAY1}]
        return [*named, *more]

    def who(name: str) -> dict[str, Any]:
        return {"FeatureName": "who", "ValueAsString": name}

    for name, asked in (("plain", plain), ("tagged", tagged)):
        store.groups.create(store.permit, asked)
        for turn in range(2):
            store.put(name, *said("s1", who("Patient/p1")))
            store.put(name, *said("s2", who("p2")))
            if turn == 0:
                store.put(name, *said("s3", {"FeatureName": "tags", "ValueAsStringList": ["a", "p1"]}))
                store.delete(name, "s1", DAY3)
                offline.flush(store.permit, store.vault)
    store.groups.delete(store.permit, {"FeatureGroupName": "plain"})
    assert erase.residue(store.permit, store.vault, {"p1"}) > 0
    erase.erase(store.permit, store.vault, {"p1"})
    assert erase.residue(store.permit, store.vault, {"p1"}) == 0
    assert set(table(store, "tagged").column("stay").to_pylist()) == {"s2"}
    assert store.records.list_records(
        store.permit, feature_group_name="tagged", include_soft_deleted_records=True
    ) == {"RecordIdentifiers": ["s2"]}
    place = FeatureZone(store.vault)
    for name in names(store):
        with place.open(store.permit, name) as file:
            assert b"p1" not in file.read()


@pytest.mark.parametrize("order", ["put", "marker", "between"])
def test_a_marker_of_a_record_that_only_the_log_knows_goes_too(
    store: Store, permit_for: Callable[..., Permit], order: str
) -> None:
    """Its patient's key is gone first, as an erasure does it: nobody can read then whose record it was."""
    definitions = [{"FeatureName": name, "FeatureType": "String"} for name in ("stay", "at", "who")]
    told = {"FeatureDefinitions": definitions, "RecordIdentifierFeatureName": "stay"}
    tags = {"Tags": [{"Key": "carelake:subject", "Value": "who"}]}
    store.groups.create(store.permit, {**request("g", **told, **tags), "OnlineStoreConfig": None})

    def put(stay: str, who: str) -> None:
        store.put(
            "g",
            *(
                {"FeatureName": name, "ValueAsString": value}
                for name, value in (("stay", stay), ("at", DAY1), ("who", who))
            ),
        )

    put("s2", "p2")
    store.delete("g", "s2", DAY3)
    if order == "put":
        put("s1", "p1")
    store.delete("g", "s1", DAY3)
    if order == "between":  # the marker is in a file, the record in the log
        offline.flush(store.permit, store.vault)
    if order != "put":
        put("s1", "p1")
    eraser = permit_for(*GRANTS, "rows:erase")
    with store.vault.database.transaction(eraser) as tx:
        store.vault.sealer.forget(eraser, tx, "p1")
    offline.flush(store.permit, store.vault)  # leaves what the erasure goes by
    erase.erase(store.permit, store.vault, {"p1"})
    assert sorted(table(store).column("stay").to_pylist()) == ["s2", "s2"]
    assert erase.residue(store.permit, store.vault, {"p1"}) == 0
    assert offline.flush(store.permit, store.vault) == {}


# -- files --------------------------------------------------------------------------------------------------------


def rows(count: int) -> pa.Table:
    at = [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=n) for n in range(count)]
    return pa.table(
        {
            "subject_id": [f"p{n % 7}" for n in range(count)],
            "at": pa.array(at, pa.timestamp("us", "UTC")),
            "x": [n / 3 for n in range(count)],
            "n": pa.array(range(count), pa.int32()),
        }
    )


def take(store: Store, path: Path, **more: Any) -> Any:
    return ingest(store.permit, store.vault, store.outbox, "g", path, **more)


@pytest.mark.parametrize("kind", ["parquet", "csv", "ndjson"])
def test_a_file_is_as_if_put_row_by_row(store: Store, tmp_path: Path, kind: str) -> None:
    store.groups.create(store.permit, request())
    store.groups.create(store.permit, request("one"))
    given = rows(25)
    texts = given.set_column(
        1, "at", pa.array([one.strftime("%Y-%m-%dT%H:%M:%SZ") for one in given["at"].to_pylist()])
    )
    path = tmp_path / f"rows.{kind}"
    if kind == "parquet":
        pq.write_table(given, path)
    elif kind == "csv":
        pcsv.write_csv(texts, path)
    else:
        path.write_bytes(b"".join(__import__("json").dumps(one).encode() + b"\n" for one in texts.to_pylist()))
    done = take(store, path)
    assert (done.rows, done.stored, done.refused) == (25, 25, 0)
    for one in texts.to_pylist():
        store.put("one", *record(one["subject_id"], one["at"], x=repr(one["x"]), n=str(one["n"])))
    same = ["subject_id", "event_time", "is_deleted", "x", "n", "t"]
    assert table(store).select(same).equals(table(store, "one").select(same))
    assert store.listed("g") == store.listed("one")
    assert all(store.get("g", f"p{n}") == store.get("one", f"p{n}") for n in range(7))
    again = take(store, path)
    assert (again.stored, again.before) == (0, 25)
    assert len(table(store)) == 25


def test_a_file_that_was_broken_off_goes_on(store: Store, tmp_path: Path) -> None:
    store.groups.create(store.permit, request())
    path = tmp_path / "rows.parquet"
    pq.write_table(rows(35), path)

    def stop(done: int, of: int) -> None:
        if done == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        take(store, path, progress=stop)
    assert len(table(store)) == 20
    done = take(store, path)
    assert (done.before, done.stored) == (20, 15)
    assert sorted(table(store).column("n").to_pylist()) == list(range(35))


def test_a_file_that_changes_meanwhile_is_refused(store: Store, tmp_path: Path) -> None:
    store.groups.create(store.permit, request())
    path = tmp_path / "rows.parquet"
    pq.write_table(rows(35), path)
    other = tmp_path / "other.parquet"
    pq.write_table(rows(35), other)

    def change(done: int, of: int) -> None:
        if done == 20:
            other.replace(path)

    with pytest.raises(Invalid, match="changed while it was read"):
        take(store, path, progress=change)
    assert len(table(store)) == 20
    assert take(store, path).stored == 15  # the same bytes


def test_allowed_numbers_are_numbers(store: Store, tmp_path: Path) -> None:
    gates = {"x": Gate(allowed=("1", "2.50")), "n": Gate(allowed=("1", "3"))}
    store.groups.create(store.permit, request(), gates=gates, on_breach="quarantine")
    path = tmp_path / "rows.csv"
    path.write_text(f"subject_id,at,x,n\np1,{DAY1},1.0,3\np2,{DAY1},2.5,1\np3,{DAY1},1,2\np4,{DAY1},2,1\n")
    assert take(store, path).lines == [3, 4]
    assert [quality.breaks(gates["x"], one) for one in (1.0, 2.5, 2.0)] == ["", "", "not an allowed value"]


def test_gates_refuse_or_set_apart(store: Store, tmp_path: Path) -> None:
    gates = {"x": Gate(low=0.0, high=5.0), "t": Gate(allowed=("a", "b")), "n": Gate(complete=0.5)}
    store.groups.create(store.permit, request(), gates=gates)
    path = tmp_path / "rows.csv"
    path.write_text(f"subject_id,at,x,n,t\np1,{DAY1},1,1,a\np2,{DAY1},6,1,a\np3,{DAY1},1,1,c\np4,x,1,1,\n")
    with pytest.raises(Invalid, match=r"3 of 4 rows .* First lines: 2, 3, 4") as caught:
        take(store, path)
    assert caught.value.code == "features.quality"
    assert len(table(store)) == 0
    store.groups.delete(store.permit, {"FeatureGroupName": "g"})
    store.groups.create(store.permit, request(), gates=gates, on_breach="quarantine")
    done = take(store, path)
    assert (done.stored, done.refused, done.lines) == (1, 3, [2, 3, 4])
    assert done.reasons == {
        "x: above 5": 1, "t: not an allowed value": 1, "at: not an event time as SageMaker writes it": 1,
    }  # fmt: skip
    assert table(store).column("subject_id").to_pylist() == ["p1"]
    said = refused.told(store.permit, store.vault, "g")
    assert {one["reason"]: one["lines"] for one in said}["x: above 5"] == [2]
    assert sum(one["rows"] for one in said) == 3
    assert erase.residue(store.permit, store.vault, {"p2"}) == 1
    erase.erase(store.permit, store.vault, {"p2"})
    assert erase.residue(store.permit, store.vault, {"p2"}) == 0
    few = tmp_path / "few.csv"
    few.write_text(f"subject_id,at,x\np1,{DAY2},1\n")
    with pytest.raises(Invalid, match="too few"):
        take(store, few)


def test_files_that_are_none(store: Store, tmp_path: Path) -> None:
    store.groups.create(store.permit, request())
    for name, text in (("a.parquet", "x"), ("a.txt", "x"), ("a.csv", "subject_id,other\n1,2\n"), ("b.csv", "")):
        (tmp_path / name).write_text(text)
        with pytest.raises(Invalid):
            take(store, tmp_path / name)


def test_histories_say_when_they_were_known(store: Store, tmp_path: Path) -> None:
    store.groups.create(store.permit, request())
    path = tmp_path / "rows.parquet"
    pq.write_table(rows(3).append_column("known", rows(3)["at"]), path)
    take(store, path, known="known")
    found = table(store)
    assert found.column("write_time").to_pylist() == found.column("event_time").to_pylist()
    assert set(found.column("api_invocation_time").to_pylist()) == {store.vault.clock.now()}


def test_it_is_the_same_on_postgres(
    tmp_path: Path, clock: Any, permit_for: Callable[..., Permit], postgres: DatabaseSettings
) -> None:
    with opened(tmp_path, clock, database=postgres) as vault:
        store = Store(vault, permit_for(*GRANTS))
        store.groups.create(store.permit, request())
        path = tmp_path / "rows.parquet"
        pq.write_table(rows(25), path)
        take(store, path)
        store.put("g", *record("p1", DAY3, x="1.5"))
        store.delete("g", "p2", DAY3)
        assert store.value("g", "p1") == "1.5"
        assert store.listed("g") == [f"p{n}" for n in range(7) if n != 2]
        before = table(store)
        offline.flush(store.permit, vault)
        assert table(store).equals(before)
        erase.erase(store.permit, vault, {"p1"})
        assert erase.residue(store.permit, vault, {"p1"}) == 0
        assert store.get("g", "p1") == {}


def test_nanoseconds_and_columns_that_are_missing_or_twice(store: Store, tmp_path: Path) -> None:
    store.groups.create(store.permit, request())
    at = pa.array([1_767_225_600_123_456_789], pa.timestamp("ns", "UTC"))
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"subject_id": ["p"], "at": at, "known": at}), path)
    with pytest.raises(Invalid) as missing:
        take(store, path, known="other")
    assert missing.value.code == "features.columns"
    assert take(store, path, known="known").stored == 1
    assert store.get("g", "p")["Record"][1]["ValueAsString"] == "2026-01-01T00:00:00.123Z"
    twice = tmp_path / "twice.csv"
    twice.write_text(f"subject_id,at,x,x\np,{DAY1},1,2\n")
    with pytest.raises(Invalid, match="two columns of one name"):
        take(store, twice)
