"""One suite for every driver of the online store: whatever the driver, what is read is what SQL has.

Redis is the system's `redis-server`, which `make test` installs where it can; without it its part is skipped.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread
from typing import Any

import msgspec
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from carelake.core.errors import Invalid, Unavailable
from carelake.core.permit import Permit
from carelake.core.settings import FeatureSettings, Settings
from carelake.features.groups import erase, offline, online, stores
from carelake.features.groups.drivers.redis import Redis
from carelake.features.groups.tables import feature_change, feature_group, feature_log, feature_row
from carelake.vault.workspace import Vault

sys.path.append(str(Path(__file__).parents[1] / "features"))  # for `import groups_data`

from groups_data import GRANTS, Store, record, request

DAYS = [f"2026-01-0{day}T00:00:00Z" for day in range(1, 8)]
IN_MEMORY = {"OnlineStoreConfig": {"EnableOnlineStore": True, "StorageType": "InMemory"}}
V2 = {"OnlineStoreConfig": {"EnableOnlineStore": True, "StorageType": "Standard_V2"}}
SERVER = shutil.which("redis-server") or shutil.which("valkey-server")
NO_SERVER = "no redis-server and no valkey-server is installed"


class Server:
    """A server of its own, on a socket in a folder of its own, which writes nothing to disk."""

    def __init__(self, *more: str) -> None:
        assert SERVER is not None
        self._folder = tempfile.mkdtemp(prefix="carelake-redis-")
        self.path = f"{self._folder}/s"
        said = ["--unixsocket", self.path, "--save", "", "--appendonly", "no", "--dir", self._folder]
        self._said = [SERVER, *([] if "--port" in more else ["--port", "0"]), *said, *more]
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(self._said, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(500):
            with suppress(OSError), socket.socket(socket.AF_UNIX) as one:
                one.connect(self.path)
                return
            time.sleep(0.01)
        raise RuntimeError("the server does not start")

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        Path(self.path).unlink(missing_ok=True)

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    if SERVER is None:
        pytest.skip(NO_SERVER)
    made = Server()
    yield made
    made.close()


def opened(folder: Path, clock: Any, said: FeatureSettings, **more: Any) -> Vault:
    from carelake.apps.wiring import import_tables
    from carelake.core.ids import RandomIds

    import_tables()
    told = Settings(workspace="workcanary", features=said, **more)
    return Vault.create(folder / "ws", settings=told, key_dir=folder / "keys", clock=clock, ids=RandomIds())


class Copied(Store):
    """Groups of a vault whose InMemory ones are copied to a server; tells how many records SQL was asked for."""

    def __init__(self, vault: Vault, permit: Permit, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(vault, permit)
        self.asked = 0
        latest = online.latest

        def counted(tx: Any, group: str, records: Any) -> Any:
            self.asked += len(records)
            return latest(tx, group, records)

        monkeypatch.setattr(online, "latest", counted)

    @property
    def client(self) -> Any:
        driver = stores._redis(self.vault.settings.features)
        assert isinstance(driver, Redis)
        driver._down = 0.0
        return driver._client

    def from_sql(self, subject: str) -> Any:
        """What the database itself has."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(stores, "store_of", lambda vault, group: stores.Sql())
            patch.setattr("carelake.features.groups.reading.store_of", lambda vault, group: stores.Sql())
            return self.get("g", subject)


@pytest.fixture
def store(
    tmp_path: Path, clock: Any, permit_for: Callable[..., Permit], server: Server, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Copied]:
    with opened(tmp_path, clock, FeatureSettings(redis=f"unix://{server.path}", redis_ms=2_000)) as vault:
        made = Copied(vault, permit_for(*GRANTS, "rows:erase", expires=clock.now() + timedelta(days=30)), monkeypatch)
        made.client.flushall()
        made.groups.create(made.permit, request("g", **IN_MEMORY))
        yield made


# -- the same of every driver --------------------------------------------------------------------------------------


@pytest.mark.parametrize("driver", ["sql", "redis", "redis beside postgresql"])
def test_what_operations_mean(
    tmp_path: Path, clock: Any, permit_for: Callable[..., Permit], driver: str, request: pytest.FixtureRequest
) -> None:
    said = FeatureSettings()
    if driver.startswith("redis"):
        said = FeatureSettings(redis=f"unix://{request.getfixturevalue('server').path}", redis_ms=2_000)
    more = {"database": request.getfixturevalue("postgres")} if "postgresql" in driver else {}
    with opened(tmp_path, clock, said, **more) as vault:
        store = Store(vault, permit_for(*GRANTS, expires=clock.now() + timedelta(days=30)))
        _operations(store)


def _operations(store: Store) -> None:
    from groups_data import request

    store.groups.create(store.permit, request("g", **IN_MEMORY))
    for turn in range(2):  # the second look is at a copy, where there are copies
        assert store.get("g", "p") == {}, turn
    store.put("g", *record("p", DAYS[1], x="1.50", t="a"))
    for _ in range(2):
        assert store.get("g", "p") == {"Record": record("p", DAYS[1], x="1.50", t="a")}
        assert store.get("g", "p", feature_names=["x"]) == {"Record": [{"FeatureName": "x", "ValueAsString": "1.50"}]}
    store.put("g", *record("p", DAYS[0], x="0"))  # history
    assert store.value("g", "p") == "1.50"
    store.put("g", *record("p", DAYS[2], x="2"))  # overwritten whole
    assert store.get("g", "p") == {"Record": record("p", DAYS[2], x="2")}
    change = [{"FeatureName": "n", "ValueAsString": "5"}]
    told = {"feature_group_name": "g", "record_identifier_value_as_string": "p"}
    store.records.update_record(store.permit, **told, features=change)
    assert store.value("g", "p", "n") == "5"
    store.delete("g", "p", DAYS[3])
    assert store.get("g", "p") == {}
    store.put("g", *record("p", DAYS[2], x="3"))
    assert store.get("g", "p") == {}
    store.delete("g", "p", DAYS[4], deletion_mode="HardDelete")
    store.put("g", *record("p", DAYS[0], x="4"))
    assert store.value("g", "p") == "4"
    one = store.records.list_records(store.permit, feature_group_name="g")
    assert one == {"RecordIdentifiers": ["p"]}
    # A time to live, by the clock of the workspace.
    store.put("g", *record("q", "2026-01-02T03:00:00Z", x="9"), ttl_duration={"Unit": "Hours", "Value": 1})
    for _ in range(2):
        assert store.get("g", "q", expiration_time_response="Enabled")["ExpiresAt"] == "2026-01-02T04:00:00Z"
    store.vault.clock.move(hours=1)
    assert store.get("g", "q") == {}
    asked = [{"FeatureGroupName": "g", "RecordIdentifiersValueAsString": ["q", "p", "none"]}]
    for _ in range(2):
        found = store.records.batch_get_record(store.permit, identifiers=asked)
        assert [one["RecordIdentifierValueAsString"] for one in found["Records"]] == ["p"]
    erase.erase(store.permit, store.vault, {"p"})
    assert store.get("g", "p") == {}
    assert erase.residue(store.permit, store.vault, {"p"}) == 0
    offline.flush(store.permit, store.vault)
    store.groups.delete(store.permit, {"FeatureGroupName": "g"})
    store.groups.create(store.permit, request("g", **IN_MEMORY))
    assert store.get("g", "p") == {}


# -- copies --------------------------------------------------------------------------------------------------------


def test_copies_are_read_and_hold_nothing_in_the_clear(store: Copied, tmp_path: Path) -> None:
    canary = "Qz7canary"
    store.put("g", *record(canary, DAYS[0], x="12345.678", t=canary))
    for _ in range(3):
        store.value("g", canary)
    assert store.asked == 2  # before the put, and by the first of these
    kept = {key: store.client.get(key) for key in store.client.scan_iter()}
    assert len(kept) == 2
    for key, value in kept.items():
        for text in (canary, "12345", "workcanary"):
            assert text.encode() not in key + value
        ends = store.client.pttl(key)
        assert ends == -1 if key.endswith(b"at") else 0 < ends <= 86_400_000
    # Whose key is gone is not read of a copy either.
    with store.vault.database.transaction(store.permit) as tx:
        store.vault.sealer.forget(store.permit, tx, canary)
    assert store.get("g", canary) == {}
    # A group that is not InMemory has none.
    store.groups.create(store.permit, request("h"))
    store.put("h", *record("p", DAYS[0], x="1"))
    store.value("h", "p")
    assert len(list(store.client.scan_iter())) == 2


def test_a_process_that_dies_after_its_commit_leaves_nothing_old(
    store: Copied, monkeypatch: pytest.MonkeyPatch
) -> None:
    for who in ("p", "q", "r"):
        store.put("g", *record(who, DAYS[0], x="1"))
        store.value("g", who)
    with monkeypatch.context() as patch:
        patch.setattr(Redis, "settle", lambda *_: None)
        store.put("g", *record("p", DAYS[1], x="2"))
        patch.setattr(Redis, "_catch_up", lambda *_, **__: None)  # nor does the reader bring it up
        assert (store.value("g", "p"), store.value("g", "q")) == ("2", "1")
    before = store.asked
    assert store.value("g", "p") == "2"  # which brings the copies up
    assert [store.value("g", who) for who in ("p", "p", "q", "r")] == ["2", "2", "1", "1"]
    assert store.asked == before + 2  # of q and r nothing had changed: their copies are good still


def test_a_server_that_forgets_or_comes_back_with_older_data(store: Copied) -> None:
    store.put("g", *record("p", DAYS[0], x="1"))
    store.put("g", *record("q", DAYS[0], x="1"))
    assert [store.value("g", who) for who in "pqpq"] == ["1"] * 4
    old = {key: (store.client.dump(key)) for key in store.client.scan_iter()}
    store.put("g", *record("p", DAYS[1], x="2"))
    assert [store.value("g", who) for who in "pp"] == ["2", "2"]

    def put_back(*names: bytes) -> None:
        for key in names:
            store.client.restore(key, 0, old[key], replace=True)

    put_back(*old)  # all of it, as of a snapshot or a replica that lagged
    assert [store.value("g", who) for who in "pqpq"] == ["2", "1", "2", "1"]
    for key in list(store.client.scan_iter()):  # some of it is evicted, the state among it or not
        store.client.delete(key)
        assert [store.value("g", who) for who in "pq"] == ["2", "1"]
    store.client.flushall()
    put_back(*(key for key in old if not key.endswith(b"at")))
    assert [store.value("g", who) for who in "pqpq"] == ["2", "1", "2", "1"]
    # Values that are put under one another's keys, or are none, are not taken.
    first, second = (key for key in store.client.scan_iter() if not key.endswith(b"at"))
    values = store.client.mget(first, second)
    store.client.mset({first: values[1], second: b"junk"})
    assert [store.value("g", who) for who in "pq"] == ["2", "1"]
    at = next(key for key in store.client.scan_iter() if key.endswith(b"at"))
    for junk in (b"junk", b'["a",%d,"b"]' % (10**30), b'["a",1,"\\u0000"]'):
        store.client.set(at, junk)
        assert [store.value("g", who) for who in "pqpq"] == ["2", "1", "2", "1"]
        store.client.set(at, junk)
        store.put("g", *record("q", DAYS[0], x="1"))


def test_a_database_that_comes_back_with_older_data(store: Copied) -> None:
    store.put("g", *record("p", DAYS[0], x="1"))
    assert store.value("g", "p") == "1"
    tables = (feature_row, feature_group, feature_change, feature_log)
    with store.vault.database.reading(store.permit) as tx:
        old = [[dict(row) for row in tx.execute(select(one)).mappings()] for one in tables]
    store.put("g", *record("p", DAYS[1], x="2"))
    assert [store.value("g", "p") for _ in range(2)] == ["2", "2"]
    with store.vault.database.transaction(store.permit) as tx:
        for one, rows in zip(tables, old, strict=True):
            tx.execute(one.delete())
            for row in rows:
                tx.execute(one.insert().values(**row))
    assert [store.value("g", "p") for _ in range(2)] == ["1", "1"]
    store.put("g", *record("p", DAYS[2], x="3"))  # as many states as there had been, and another one
    assert [store.value("g", "p") for _ in range(2)] == ["3", "3"]


def test_a_reader_of_an_older_snapshot_leaves_no_old_value(store: Copied) -> None:
    store.put("g", *record("p", DAYS[0], x="1"))
    made: list[Any] = []

    def behind() -> None:
        with store.vault.database.reading(store.permit):
            made.append(store.from_sql("p"))
            gate.append("began")
            while len(gate) < 2:
                time.sleep(0.002)
            made.append(store.get("g", "p"))  # its snapshot is before the write

    gate: list[str] = []
    reader = Thread(target=behind)
    reader.start()
    while not gate:
        time.sleep(0.002)
    store.put("g", *record("p", DAYS[1], x="2"))
    assert store.value("g", "p") == "2"
    gate.append("go")
    reader.join()
    assert made[0] == made[1] == {"Record": record("p", DAYS[0], x="1")}
    before = store.asked
    assert (store.value("g", "p"), store.asked) == ("2", before)  # and the copy is still the new one


def test_an_erasure_reaches_copies_and_waits_for_them(store: Copied, server: Server) -> None:
    for who in ("p", "q"):
        store.put("g", *record(who, DAYS[0], x="1"))
        store.value("g", who)
    assert len(list(store.client.scan_iter())) == 3
    told = stores.store_of(store.vault, store.groups.get(store.permit, "g"))
    group = store.groups.get(store.permit, "g")
    assert told.left(store.permit, store.vault, group, {"p"}) == 1
    server.stop()
    try:
        with pytest.raises(Unavailable) as caught:
            erase.erase(store.permit, store.vault, {"p"})
        assert caught.value.code == "features.redis"
        with pytest.raises(Unavailable):  # a proof that could not look is none
            erase.residue(store.permit, store.vault, {"p"})
        assert store.get("g", "p") == {}  # all else goes on
        store.put("g", *record("q", DAYS[1], x="2"))
        assert store.value("g", "q") == "2"
    finally:
        server.start()
    erase.erase(store.permit, store.vault, {"p"})
    assert [key[-2:] for key in store.client.scan_iter()] == [b"at"]  # of nobody
    assert store.value("g", "q") == "2"
    assert erase.residue(store.permit, store.vault, {"p"}) == 0


def test_a_reader_of_an_older_snapshot_adds_nothing_after_an_erasure(store: Copied) -> None:
    store.put("g", *record("p", DAYS[0], x="1"))
    with store.vault.database.reading(store.permit):
        assert store.value("g", "p") == "1"
        other = Thread(target=erase.erase, args=(store.permit, store.vault, {"p"}))
        other.start()
        other.join()
        assert [store.value("g", "p") for _ in range(2)] == ["1", "1"]  # what it sees, from SQL
    assert [key[-2:] for key in store.client.scan_iter()] == [b"at"]
    assert store.get("g", "p") == {}


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["put", "put", "get", "get", "delete", "hard", "ingest", "lose", "old", "quiet", "erase"]),
        st.sampled_from(["p", "q"]),
        st.integers(0, 6),
    ),
    min_size=4,
    max_size=16,
)


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_whatever_happens_a_read_is_what_sql_has(
    store: Copied, tmp_path: Path, steps: list[tuple[str, str, int]]
) -> None:
    _lived_through(store, tmp_path, steps)


@pytest.mark.soak
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_whatever_happens_for_long_a_read_is_what_sql_has(
    store: Copied, tmp_path: Path, steps: list[tuple[str, str, int]]
) -> None:
    _lived_through(store, tmp_path, steps)


def _lived_through(store: Copied, tmp_path: Path, steps: list[tuple[str, str, int]]) -> None:
    """Writers that die after their commit, servers that lose or bring back what they had, in any order."""
    store.groups.delete(store.permit, {"FeatureGroupName": "g"})
    store.groups.create(store.permit, request("g", **IN_MEMORY))
    kept: list[dict[bytes, bytes]] = []
    for number, (what, who, day) in enumerate(steps):
        with ExitStack() as stack:
            patch = stack.enter_context(pytest.MonkeyPatch.context())
            if what == "quiet":
                patch.setattr(Redis, "settle", lambda *_: None)
            _step(store, tmp_path, "put" if what == "quiet" else what, who, day, number, kept)
        kept.append({key: data for key in store.client.scan_iter() if (data := store.client.dump(key))})
        for one in ("p", "q", "p"):
            assert store.get("g", one) == store.from_sql(one), (number, what)


def _step(
    store: Copied, folder: Path, what: str, who: str, day: int, number: int, kept: list[dict[bytes, bytes]]
) -> None:
    if what == "put":
        store.put("g", *record(who, DAYS[day], x=str(number)))
    elif what == "delete":
        store.delete("g", who, DAYS[day])
    elif what == "hard":
        with suppress(Invalid):
            store.delete("g", who, DAYS[day], deletion_mode="HardDelete")
    elif what == "ingest":
        from carelake.features.groups.ingest import ingest

        path = folder / "rows.parquet"
        row = {"subject_id": who, "at": datetime(2026, 1, day + 1, tzinfo=UTC), "x": number + 0.5}
        pq.write_table(__import__("pyarrow").Table.from_pylist([row]), path)
        ingest(store.permit, store.vault, store.outbox, "g", path)
    elif what == "lose":
        for key in list(store.client.scan_iter())[: day // 2 + 1]:
            store.client.delete(key)
    elif what == "old":  # as of one of the last steps, all of it
        store.client.flushall()
        for key, data in (kept[-1 - day % len(kept)] if kept else {}).items():
            store.client.restore(key, 0, data)
    elif what == "erase":
        erase.erase(store.permit, store.vault, {who})


# -- the server ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "redis://redis.example:6379",
        "rediss://u:secret@h:6380",
        "rediss://h:6380?ssl_cert_reqs=none",
        "http://h",
        "unix://",
    ],
)
def test_addresses_that_are_not_taken(url: str) -> None:
    with pytest.raises((ValueError, msgspec.ValidationError)) as caught:
        FeatureSettings(redis=url)
    assert "secret" not in str(caught.value)


def test_it_is_reached_by_tls_and_with_a_password(
    tmp_path: Path, clock: Any, permit_for: Callable[..., Permit], monkeypatch: pytest.MonkeyPatch
) -> None:
    if SERVER is None:
        pytest.skip(NO_SERVER)
    _certificate(tmp_path)
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    (tmp_path / "password").write_text("long-and-secret\n")
    tls = ("--tls-cert-file", f"{tmp_path}/cert", "--tls-key-file", f"{tmp_path}/key", "--tls-auth-clients", "no")
    server = Server("--port", "0", "--tls-port", str(port), *tls, "--requirepass", "long-and-secret")
    url = f"rediss://localhost:{port}"
    try:
        for number, (more, good) in enumerate(
            [
                ({"redis_ca_file": f"{tmp_path}/cert", "redis_password_file": f"{tmp_path}/password"}, True),
                ({"redis_ca_file": f"{tmp_path}/cert"}, False),
                ({"redis_password_file": f"{tmp_path}/password"}, False),  # signed by nobody that is trusted
            ]
        ):
            folder = tmp_path / str(number)
            folder.mkdir()
            with opened(folder, clock, FeatureSettings(redis=url, redis_ms=2_000, **more)) as vault:
                store = Copied(vault, permit_for(*GRANTS), monkeypatch)
                store.groups.create(store.permit, request("g", **IN_MEMORY))
                store.put("g", *record("p", DAYS[0], x="1"))
                assert [store.value("g", "p") for _ in range(4)] == ["1"] * 4
                assert (store.asked < 5) is good
    finally:
        server.close()


def _certificate(folder: Path) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "key").write_bytes(private)


def test_a_driver_that_is_not_installed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(Unavailable) as caught:
        Redis(FeatureSettings(redis="rediss://h"))
    assert caught.value.code == "features.redis_extra"
    monkeypatch.undo()
    with pytest.raises(Unavailable) as missing:
        Redis(FeatureSettings(redis="rediss://h", redis_password_file="/nowhere"))
    assert missing.value.code == "features.redis_password"
