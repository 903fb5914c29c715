"""Arrow Flight: a real client, tokens, tickets that are good once, limits, and clients that go away."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from pyarrow import flight
from tests.apps.asked import PATIENTS, SECRET, asked_workspace
from tests.apps.served import bearer
from tests.apps.test_apps_serving_renewal import pair

from carelake.apps.flight import open_door
from carelake.apps.wiring import Workspace
from carelake.audit.readings import Acts
from carelake.core.errors import Unavailable, Unsupported

ENDLESS = "SELECT count(*) FROM range(1000000000000) WHERE sin(range) > 2"
LONG = "SELECT range AS n, hash(range) AS h FROM range(200000000)"
Get = Callable[..., flight.FlightStreamReader]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    told = {"CARELAKE_LAKE__STATEMENTS": "2", "CARELAKE_LAKE__MEMORY_LIMIT": "100MB", "CARELAKE_LAKE__SECONDS": "3"}
    with asked_workspace(tmp_path_factory.mktemp("flight"), **told) as made:
        yield made


@pytest.fixture(scope="module")
def client(workspace: Workspace) -> Iterator[flight.FlightClient]:
    addresses: list[str] = []
    with open_door(workspace, "127.0.0.1", 0, addresses.append), flight.connect(addresses[0]) as made:
        yield made


def of(workspace: Workspace, name: str = "operator") -> flight.FlightCallOptions:
    return flight.FlightCallOptions(headers=[header(workspace, name)], timeout=30)


def header(workspace: Workspace, name: str = "operator") -> tuple[bytes, bytes]:
    return b"authorization", bearer(workspace, name)["Authorization"].encode()


def descriptor(statement: str, **more: Any) -> flight.FlightDescriptor:
    return flight.FlightDescriptor.for_command(json.dumps({"statement": statement, **more}).encode())


@pytest.fixture
def get(client: flight.FlightClient, workspace: Workspace) -> Get:
    def got(statement: str, *, who: str = "operator", **more: Any) -> flight.FlightStreamReader:
        options = of(workspace, who)
        info = client.get_flight_info(descriptor(statement, **more), options)
        return client.do_get(info.endpoints[0].ticket, options)

    return got


def acts(workspace: Workspace) -> list[dict[str, Any]]:
    with workspace.vault.database.ledger_reading() as connection:
        return list(reversed(Acts(connection).find(limit=1000, action="lake:query")))


def test_rows_come_as_batches(get: Get) -> None:
    assert get("SELECT id FROM Patient ORDER BY id").read_all().column("id").to_pylist()[0] == "p0"
    assert len(get("SELECT id FROM Patient WHERE gender = ?", parameters=["female"]).read_all()) == PATIENTS
    assert len(get("SELECT id FROM Patient WHERE id = $x", parameters={"x": "p1' OR 1=1 --"}).read_all()) == 0
    assert len(get("SELECT id FROM Patient", limit=3).read_all()) == 3
    reader = get("SELECT range AS n FROM range(1000000)")
    batches = [chunk.data for chunk in reader]
    assert len(batches) > 10
    assert pa.Table.from_batches(batches).column("n").to_pylist() == list(range(1_000_000))


def test_a_token_is_needed(client: flight.FlightClient, workspace: Workspace) -> None:
    good = of(workspace)
    wrong = flight.FlightCallOptions(headers=[(b"authorization", b"Bearer x.y.z")])
    ticket = client.get_flight_info(descriptor("SELECT 1"), good).endpoints[0].ticket
    for options, code in ((flight.FlightCallOptions(), "flight.no_token"), (wrong, "access.token")):
        with pytest.raises(flight.FlightUnauthenticatedError, match=code):
            client.get_flight_info(descriptor("SELECT 1"), options)
        with pytest.raises(flight.FlightUnauthenticatedError):
            client.do_get(ticket, options).read_all()
        with pytest.raises(flight.FlightUnauthenticatedError):
            list(client.list_flights(options=options))
    assert list(client.list_flights(options=good)) == []
    with workspace.vault.database.ledger_reading() as connection:
        refused = Acts(connection).find(limit=10, phase="refused")
    assert {one["error"] for one in refused} >= {"flight.no_token", "access.token"}


def test_a_ticket_is_for_its_caller_and_good_once(client: flight.FlightClient, workspace: Workspace) -> None:
    options = of(workspace)
    ticket = client.get_flight_info(descriptor(f"SELECT '{SECRET}' AS s"), options).endpoints[0].ticket
    assert SECRET.encode() not in ticket.ticket
    with pytest.raises(flight.FlightServerError, match=r"flight\.no_ticket"):
        client.do_get(ticket, of(workspace, "doctor")).read_all()
    assert client.do_get(ticket, options).read_all().to_pylist() == [{"s": SECRET}]
    for again in (ticket, flight.Ticket(b"x"), flight.Ticket(b"")):
        with pytest.raises(flight.FlightServerError, match=r"flight\.no_ticket"):
            client.do_get(again, options).read_all()


@pytest.mark.parametrize(
    ("statement", "code"),
    [
        (f"SELECT {SECRET}", "lake.sql"),
        (f"SELECT CAST('{SECRET}' AS INT)", "lake.sql"),
        (ENDLESS, "lake.too_long"),
        ("SELECT len(list(range)) FROM range(500000000)", "lake.memory"),
    ],
)
def test_what_goes_wrong_says_its_code_and_no_value(get: Get, statement: str, code: str) -> None:
    with pytest.raises(flight.FlightError) as found:
        get(statement).read_all()
    assert code in str(found.value)
    assert SECRET not in str(found.value)


@pytest.mark.parametrize(
    "command", [b"", b"{", b"[]", b'{"statement": 1}', b'{"statement": "x", "more": "Zzyzxabcd"}']
)
def test_a_command_is_json(client: flight.FlightClient, workspace: Workspace, command: bytes) -> None:
    with pytest.raises(flight.FlightServerError, match=r"flight\.(command|descriptor)") as found:
        client.get_flight_info(flight.FlightDescriptor.for_command(command), of(workspace))
    assert SECRET not in str(found.value)
    with pytest.raises(flight.FlightServerError, match=r"flight\.descriptor"):
        client.get_flight_info(flight.FlightDescriptor.for_path("x"), of(workspace))


def test_who_may_not_gets_nothing(get: Get) -> None:
    with pytest.raises(flight.FlightUnauthorizedError, match=r"access\.denied"):
        get("SELECT 1", who="auditor").read_all()
    assert get("SELECT count(*) AS n FROM Patient", who="doctor").read_all().to_pylist() == [{"n": PATIENTS}]


def test_a_client_that_goes_away_ends_its_statement(
    get: Get, client: flight.FlightClient, workspace: Workspace
) -> None:
    reader = get(LONG)
    assert reader.read_chunk().data.num_rows
    reader.cancel()
    over(workspace)
    last = acts(workspace)[-1]
    assert (last["phase"], last.get("error", last.get("changed", {}).get("read"))) in {
        ("done", "in part"),
        ("failed", "lake.cancelled"),
    }
    options = flight.FlightCallOptions(headers=[header(workspace)], timeout=0.5)
    info = client.get_flight_info(descriptor(ENDLESS), options)
    with pytest.raises(flight.FlightTimedOutError):  # the client's own patience; ours would last longer
        client.do_get(info.endpoints[0].ticket, options).read_all()
    over(workspace)
    assert acts(workspace)[-1]["error"] == "lake.cancelled"


def watchers() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name == "carelake-lake-stop"]


def over(workspace: Workspace) -> None:
    until = time.monotonic() + 2.5
    while watchers():
        assert time.monotonic() < until, "it ran on to its own end"
        time.sleep(0.02)
    until += 10
    while acts(workspace)[-1]["phase"] == "start":
        assert time.monotonic() < until
        time.sleep(0.02)


def test_only_so_many_of_one_caller_run(get: Get, workspace: Workspace) -> None:
    held = [get(LONG) for _ in range(2)]
    for one in held:
        assert one.read_chunk().data.num_rows
    with pytest.raises(flight.FlightUnavailableError, match=r"lake\.too_many"):
        get("SELECT 1").read_all()
    assert len(get("SELECT 1 AS n", who="doctor").read_all()) == 1
    for one in held:
        one.cancel()
    over(workspace)
    assert len(get("SELECT 1 AS n").read_all()) == 1


def test_each_statement_is_one_act(get: Get, workspace: Workspace) -> None:
    before = len(acts(workspace))
    get("SELECT id FROM Patient WHERE id <> ?", parameters=[SECRET]).read_all()
    start, done = acts(workspace)[before:]
    assert (start["phase"], done["phase"]) == ("start", "done")
    assert start["correlation"] == done["correlation"]
    assert done["counts"] == {"rows": PATIENTS}
    assert SECRET not in repr((start, done))


def test_it_is_loopback_or_tls(workspace: Workspace) -> None:
    with pytest.raises(Unsupported, match="loopback"), open_door(workspace, "0.0.0.0", 0, lambda _url: None):
        pass
    with (
        open_door(workspace, "127.0.0.1", 0, lambda _url: None) as one,
        pytest.raises(Unavailable),
        open_door(workspace, "127.0.0.1", one.port, lambda _url: None),
    ):
        pass


def test_tls(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    certificate, key = tmp_path / "cert", tmp_path / "key"
    for path, text in zip((certificate, key), pair(1, ec.generate_private_key(ec.SECP256R1())), strict=True):
        path.write_bytes(text)
    told = {"CARELAKE_SERVE__TLS_CERTIFICATE": str(certificate), "CARELAKE_SERVE__TLS_KEY": str(key)}
    addresses: list[str] = []
    with (
        asked_workspace(tmp_path_factory.mktemp("flight-tls"), **told) as workspace,
        open_door(workspace, "0.0.0.0", 0, addresses.append) as server,
        flight.connect(f"grpc+tls://127.0.0.1:{server.port}", tls_root_certs=certificate.read_bytes()) as client,
    ):
        assert addresses[0].startswith("grpc+tls://")
        options = of(workspace)
        info = client.get_flight_info(descriptor("SELECT 1 AS n"), options)
        assert client.do_get(info.endpoints[0].ticket, options).read_all().to_pylist() == [{"n": 1}]
