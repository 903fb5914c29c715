"""Statements over several workers: pages from any of them, cancelled by any, told of when one was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pyarrow.flight as flight
import pytest
from tests.apps.asked import asked_workspace, filled, own_workspace
from tests.apps.crews import COMMAND, Served, clients, gone, wait_for
from tests.apps.served import Lines, bearer, serving

from carelake.core.settings import DatabaseSettings

ENDLESS = "SELECT count(*) FROM range(1000000000000) WHERE sin(range) > 2"
MANY = "SELECT range AS n FROM range(3000)"
NOT_WAITED = {"Prefer": "wait=0"}
ENVIRONMENT = {"CARELAKE_LAKE__STATEMENTS": "8", "CARELAKE_BULK__POLL_SECONDS": "0.2"}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str], dict[str, str]]:
    """The folder of a workspace, headers of a caller, and the environment of a process that opens it."""
    folder = tmp_path_factory.mktemp("workers")
    with asked_workspace(folder) as workspace:
        headers = bearer(workspace, "operator")
    return folder, headers, {"CARELAKE_KEY_DIR": str(folder / "keys"), **ENVIRONMENT}


@pytest.fixture(scope="module")
def served(made: tuple[Path, dict[str, str], dict[str, str]]) -> Iterator[Served]:
    folder, _, environment = made
    server = Served(environment, folder / "log")
    yield server
    assert server.end() == 0


@pytest.fixture
def both(served: Served, made: tuple[Path, dict[str, str], dict[str, str]]) -> Iterator[list[httpx.Client]]:
    """Clients of both workers: each new connection goes to the one that has fewer."""
    with clients(served.url, 2, headers=made[1]) as found:
        for one in found:
            one.get("/healthz")
        yield found


def busy(pid: int) -> float:
    """CPU seconds of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def at_work(served: Served, pids: list[int]) -> list[int]:
    """Which of some workers compute now."""
    before = {pid: busy(pid) for pid in pids}
    time.sleep(0.5)
    return [pid for pid in pids if busy(pid) - before[pid] > 0.15]


def test_pages_come_from_any_worker(both: list[httpx.Client]) -> None:
    one, other = both
    first = one.post("/sql", json={"statement": MANY}).json()
    second = other.get(f"/sql/{first['id']}", params={"page": first["next"]}).json()
    third = one.get(f"/sql/{first['id']}", params={"page": second["next"]}).json()
    assert [row[0] for page in (first, second, third) for row in page["rows"]] == list(range(3000))
    assert other.delete(f"/sql/{first['id']}").status_code == 204
    assert one.get(f"/sql/{first['id']}").status_code == 404


def test_a_statement_is_cancelled_by_another_worker(served: Served, both: list[httpx.Client]) -> None:
    one, other = both
    address = one.post("/sql", json={"statement": ENDLESS}, headers=NOT_WAITED).headers["location"]
    assert other.get(address).status_code == 202
    workers = served.workers()
    wait_for(lambda: at_work(served, workers), 10)
    assert other.delete(address).status_code == 204
    wait_for(lambda: not at_work(served, workers), 5)
    assert one.get(address).status_code == 404


def test_the_statement_of_a_killed_worker_is_told(
    served: Served, made: tuple[Path, dict[str, str], dict[str, str]]
) -> None:
    with httpx.Client(base_url=served.url, headers=made[1], timeout=30) as client:
        address = client.post("/sql", json={"statement": ENDLESS}, headers=NOT_WAITED).headers["location"]
    workers = served.workers()
    wait_for(lambda: at_work(served, workers), 10)
    for pid in at_work(served, workers):
        os.kill(pid, signal.SIGKILL)

    def told() -> bool:
        with suppress(httpx.TransportError), httpx.Client(headers=made[1], timeout=30) as client:
            return client.get(address).status_code == 409
        return False

    wait_for(told, 30)
    with httpx.Client(headers=made[1], timeout=30) as client:
        assert client.get(address).json()["failed"] == "lake.interrupted"


def test_flight_as_a_process_ends_in_time(made: tuple[Path, dict[str, str], dict[str, str]]) -> None:
    folder, headers, environment = made
    log = folder / "flight-log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*COMMAND, "-w", str(folder / "workspace"), "flight", "--port", "0"],
            env={**os.environ, **environment},
            stdout=out,
            stderr=out,
        )
    try:
        wait_for(lambda: "Listening on" in log.read_text())
        url = log.read_text().rpartition("Listening on ")[2].strip()
        options = flight.FlightCallOptions(headers=[(b"authorization", headers["Authorization"].encode())])
        with flight.connect(url) as client:
            command = b'{"statement": "SELECT range AS n FROM range(100000000)"}'
            info = client.get_flight_info(flight.FlightDescriptor.for_command(command), options)
            reader = client.do_get(info.endpoints[0].ticket, options)
            assert reader.read_chunk().data.num_rows
            process.send_signal(signal.SIGTERM)
            began = time.monotonic()
            with pytest.raises(flight.FlightError):
                reader.read_all()
        assert process.wait(20) == 0
        assert time.monotonic() - began < 10
    finally:
        if not gone(process.pid):
            process.kill()
            process.wait()


def test_it_is_the_same_on_postgres(tmp_path: Path, postgres: DatabaseSettings) -> None:
    told = {"CARELAKE_DATABASE__URL": postgres.url, "CARELAKE_DATABASE__PASSWORD_FILE": postgres.password_file}
    with (
        own_workspace(tmp_path, **told) as workspace,
        serving(filled(workspace), Lines()) as url,
        httpx.Client(base_url=url, headers=bearer(workspace, "operator"), timeout=30) as client,
    ):
        first = client.post("/sql", json={"statement": MANY}).json()
        page = client.get(f"/sql/{first['id']}", params={"page": first["next"]}).json()
        assert [row[0] for row in (first["rows"] + page["rows"])] == list(range(2000))
        address = client.post("/sql", json={"statement": ENDLESS}, headers=NOT_WAITED).headers["location"]
        assert client.delete(address).status_code == 204
        assert client.get(address).status_code == 404
