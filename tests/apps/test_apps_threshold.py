"""What the HTTP door bounds before and around its handlers: rates, gzip, TLS, heads of requests, and the lane."""

from __future__ import annotations

import asyncio
import datetime as dt
import gzip
import ipaddress
import socket
import ssl
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.responses import Response, StreamingResponse
from tests.apps.served import Lines, bearer, fill, outcome, own_workspace, serving

from carelake.apps.http import server
from carelake.apps.http.connections import HEAD_BYTES, Connection, quickest
from carelake.apps.http.packing import LEAST, packed, takes_gzip, unpacked
from carelake.apps.http.rates import SIZE, Rates, Table, source_of
from carelake.apps.http.server import check_host
from carelake.apps.http.tls import context_of
from carelake.apps.http.workers import Lane, Patience, Reading, readings
from carelake.apps.wiring import Workspace
from carelake.audit.readings import Acts
from carelake.core.errors import CarelakeError, Invalid, Unavailable, Unsupported
from carelake.core.settings import ServeSettings

# -- rates -----------------------------------------------------------------------------------------------------------


class Hands:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.at = 1000.0

    def now(self) -> float:
        return self.at


def test_a_burst_then_a_rate_then_a_wait() -> None:
    hands = Hands()
    rates = Rates(Table(), "source", 10.0, 2.0, hands.now)
    assert [rates.wait("a") for _ in range(20)] == [0.0] * 20
    assert 0 < rates.wait("a") <= 0.1001
    assert rates.wait("b") == 0.0
    hands.at += 0.1
    assert rates.wait("a") == 0.0
    assert rates.wait("a") > 0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60), st.floats(0.5, 50), st.floats(0.1, 3))
@settings(max_examples=60, deadline=None)
def test_never_more_than_the_burst_and_the_rate(pauses: list[float], rate: float, burst: float) -> None:
    hands, passed = Hands(), 0
    rates = Rates(Table(), "source", rate, burst, hands.now)
    for pause in pauses:
        hands.at += pause
        passed += rates.wait("a") == 0.0
    assert passed <= rate * (sum(pauses) + max(burst, 1 / rate)) + 1


def test_workers_count_together(tmp_path: Path) -> None:
    Table.make(tmp_path / "rates")
    assert (tmp_path / "rates").stat().st_size == SIZE
    hands = Hands()
    one, other = (Rates(Table(tmp_path / "rates"), "source", 1.0, 4.0, hands.now) for _ in range(2))
    assert [each.wait("a") for each in (one, other, one, other)] == [0.0] * 4
    assert one.wait("a") > 0
    assert other.wait("a") > 0


def test_a_full_table_forgets_who_was_quiet_and_not_who_is_loud() -> None:
    hands = Hands()
    rates = Rates(Table(), "source", 1.0, 100.0, hands.now)
    for _ in range(100):
        rates.wait("loud")
    for number in range(20_000):
        rates.wait(f"other {number}")
    assert rates.wait("loud") > 0


def test_no_rate_counts_nothing() -> None:
    assert Rates(Table(), "source", 0.0, 1.0).wait("a") == 0.0


def test_one_network_of_ipv6_is_one_source() -> None:
    assert source_of("2001:db8:1:2::1") == source_of("2001:db8:1:2:ffff::9") != source_of("2001:db8:1:3::1")
    assert source_of("::ffff:192.0.2.1") == source_of("192.0.2.1") != source_of("192.0.2.2")
    assert source_of("testclient") == "testclient"


# -- gzip ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "takes"),
    [
        ("gzip", True),
        ("br, GZIP;q=0.5", True),
        ("gzip;q=0", False),
        ("gzip; q=0.000", False),
        ("", False),
        ("br", False),
    ],
)
def test_who_takes_gzip(said: str, takes: bool) -> None:
    assert takes_gzip(said) is takes


def test_only_answers_that_are_worth_it_are_packed() -> None:
    assert "content-encoding" not in packed(Response(b"x" * (LEAST - 1)), "gzip").headers
    plain = packed(Response(b"x" * LEAST), "")
    assert ("content-encoding" in plain.headers, plain.headers["vary"]) == (False, "Accept-Encoding")
    answer = packed(Response(b"x" * LEAST), "gzip")
    assert gzip.decompress(bytes(answer.body)) == b"x" * LEAST
    assert answer.headers["content-length"] == str(len(answer.body))


def test_an_answer_in_pieces_is_left_as_it_is() -> None:
    answer = StreamingResponse(iter([b"x" * 5000]))
    assert packed(answer, "gzip") is answer
    assert "content-encoding" not in answer.headers


@given(st.binary(max_size=2000))
def test_what_was_packed_is_unpacked(body: bytes) -> None:
    assert unpacked(gzip.compress(body), "gzip", 5000) == unpacked(body, "identity", 5000) == body


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no gzip",
        gzip.compress(b"x", mtime=0)[:-1],
        gzip.compress(b"x", mtime=0) + b"y",
        gzip.compress(b"x", mtime=0) * 2,
        zlib.compress(b"x"),
    ],
)
def test_broken_gzip_is_refused(body: bytes) -> None:
    with pytest.raises(Invalid) as error:
        unpacked(body, "gzip", 5000)
    assert error.value.code == "http.gzip"


def test_a_bomb_is_refused_before_it_is_unpacked() -> None:
    bomb = gzip.compress(bytes(50_000_000))
    for most, code in ((5_000_000, "http.body_too_large"), (500_000_000, "http.gzip")):
        with pytest.raises(Invalid) as error:
            unpacked(bomb, "gzip", most)
        assert error.value.code == code


def test_another_encoding_is_not_offered() -> None:
    with pytest.raises(Unsupported) as error:
        unpacked(b"", "br", 10)
    assert error.value.code == "http.content_encoding"


# -- the lane --------------------------------------------------------------------------------------------------------


def run_lane(settle: Callable[[], None], works: list[Callable[[], Response]]) -> list[Any]:
    @contextmanager
    def together(_expected: Any) -> Iterator[None]:
        yield
        settle()

    async def all_of() -> list[Any]:
        lane = Lane(readings(together), 5.0)
        async with lane.until_done():
            return await asyncio.gather(*(lane.run(Reading(work)) for work in works), return_exceptions=True)

    return asyncio.run(all_of())


def test_those_who_come_while_a_group_runs_are_the_next_group() -> None:
    groups: list[int] = []
    going, go_on = threading.Event(), threading.Event()

    @contextmanager
    def together(_expected: Any) -> Iterator[None]:
        groups.append(0)
        yield

    def work() -> Response:
        groups[-1] += 1
        going.set()
        go_on.wait(10)
        return Response(b"")

    async def all_of() -> None:
        lane = Lane(readings(together), 20.0)
        async with lane.until_done():
            first = [asyncio.ensure_future(lane.run(Reading(work))) for _ in range(3)]
            await asyncio.to_thread(going.wait, 10)
            then = [asyncio.ensure_future(lane.run(Reading(work))) for _ in range(100)]
            await asyncio.sleep(0)
            go_on.set()
            await asyncio.gather(*first, *then)

    asyncio.run(all_of())
    assert groups == [3, 64, 36]


class Timers:
    """An event loop's, that ring when they are told to."""

    def __init__(self) -> None:
        self.rings: Callable[[], None] | None = None

    def call_later(self, _seconds: float, call: Callable[..., None], *said: Any) -> Timers:
        self.rings = partial(call, *said)
        return self

    def cancel(self) -> None:
        self.rings = None


def test_a_group_waits_for_those_who_were_answered() -> None:
    timers, patience, late = Timers(), Patience(), list[int]()
    loop: Any = timers
    assert not patience.waits(loop, 1, lambda: late.append(0))  # nobody was answered before
    patience.hoped = 8
    assert not patience.waits(loop, 8, lambda: late.append(1))
    assert patience.waits(loop, 5, lambda: late.append(2))
    assert [patience.came(number) for number in (6, 7, 8, 9)] == [False, False, True, False]
    assert timers.rings is None
    assert not patience.waits(loop, 8, lambda: late.append(3))
    assert not late


def test_those_who_do_not_ask_again_are_soon_not_waited_for() -> None:
    timers, patience, began = Timers(), Patience(), list[float]()
    loop: Any = timers
    patience.hoped, waited = 8, 0.0

    def begin() -> None:
        assert not patience.waits(loop, 1, begin)  # what waits is done then, whoever is missing
        began.append(waited)

    for _ in range(100):
        if patience.waits(loop, 1, begin):
            waited += patience.seconds
            assert timers.rings is not None
            timers.rings()
        else:
            began.append(waited)
    assert len(began) == 100
    assert waited < 0.02  # seconds, of 0.2 if all had waited


def test_nobody_is_done_who_is_not_waited_for_any_more() -> None:
    done: list[int] = []
    going, go_on = threading.Event(), threading.Event()

    def work(number: int) -> Response:
        done.append(number)
        going.set()
        go_on.wait(10)
        return Response(b"")

    async def all_of() -> None:
        lane = Lane(readings(lambda _: nullcontext()), 20.0)
        async with lane.until_done():
            first = asyncio.ensure_future(lane.run(Reading(lambda: work(0))))
            await asyncio.to_thread(going.wait, 10)
            gone, stays = (asyncio.ensure_future(lane.run(Reading(partial(work, number)))) for number in (1, 2))
            await asyncio.sleep(0)
            gone.cancel()
            await asyncio.sleep(0)
            go_on.set()
            await asyncio.gather(first, stays)

    asyncio.run(all_of())
    assert done == [0, 2]


def test_who_waits_behind_many_that_gave_up_is_answered() -> None:
    going, go_on = threading.Event(), threading.Event()

    def first() -> Response:
        going.set()
        go_on.wait(10)
        return Response(b"")

    async def all_of() -> Response:
        lane = Lane(readings(lambda _: nullcontext()), 20.0)
        async with lane.until_done():
            running = asyncio.ensure_future(lane.run(Reading(first)))
            await asyncio.to_thread(going.wait, 10)
            gone = [asyncio.ensure_future(lane.run(Reading(lambda: Response(b"")))) for _ in range(200)]
            await asyncio.sleep(0)
            stays = asyncio.ensure_future(lane.run(Reading(lambda: Response(b"here"))))
            await asyncio.sleep(0)
            for one in gone:
                one.cancel()
            await asyncio.sleep(0)
            go_on.set()
            await running
            return await asyncio.wait_for(stays, 5)

    assert asyncio.run(all_of()).body == b"here"


def test_nothing_is_answered_whose_act_is_not_kept() -> None:
    def settle() -> None:
        raise Unavailable("vault.disk_full", "The disk is full.")

    found = run_lane(settle, [lambda: Response(b"secret")] * 5)
    assert all(isinstance(one, Unavailable) for one in found)


def test_an_error_of_one_is_not_that_of_others_in_its_group() -> None:
    def fails() -> Response:
        raise Invalid("x.y", "It is wrong.")

    found = run_lane(lambda: None, [lambda: Response(b"1"), fails, lambda: Response(b"2")])
    assert [type(one) for one in found] == [Response, Invalid, Response]


# -- over a server ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    with own_workspace(tmp_path_factory.mktemp("threshold")) as made:
        names = [{"family": "Example", "given": ["An", "Other"]} for _ in range(40)]
        fill(made, {"resourceType": "Patient", "id": "p", "name": names})
        yield made


@pytest.fixture
def headers(workspace: Workspace) -> dict[str, str]:
    return bearer(workspace, "operator")


@contextmanager
def with_settings(workspace: Workspace, **told: Any) -> Iterator[None]:
    before = workspace.settings
    serve = msgspec.structs.replace(before.serve, **told)
    workspace.settings = msgspec.structs.replace(before, serve=serve)
    try:
        yield
    finally:
        workspace.settings = before


@pytest.mark.parametrize("rate", ["source", "principal"])
def test_over_a_rate_it_is_429(workspace: Workspace, headers: dict[str, str], rate: str) -> None:
    told = {f"{rate}_per_second": 0.01, "burst_seconds": 300.0}
    with with_settings(workspace, **told), serving(workspace, Lines()) as url, httpx.Client(base_url=url) as client:
        found = [client.get("/fhir/Patient/p", headers=headers) for _ in range(5)]
        assert [one.status_code for one in found] == [200, 200, 200, 429, 429]
        assert 1 <= int(found[-1].headers["Retry-After"]) <= 101
        outcome(found[-1], 429, "http.too_many")
        told_of = client.get("/metrics")
        assert told_of.status_code == (429 if rate == "source" else 200)
        if rate == "principal":
            assert f'carelake_http_limited_total{{rate="{rate}"}} 2.0' in told_of.text


def test_answers_and_bodies_may_be_gzip(workspace: Workspace, headers: dict[str, str]) -> None:
    with serving(workspace, Lines()) as url, httpx.Client(base_url=url, headers=headers) as client:
        plain = client.get("/fhir/Patient/p", headers={"Accept-Encoding": "identity"})
        small = client.get("/fhir/Patient/p", headers={"Accept-Encoding": "gzip"})
        assert (small.headers["Content-Encoding"], small.json()) == ("gzip", plain.json())
        assert int(small.headers["Content-Length"]) < len(plain.content)
        assert small.headers["ETag"] == plain.headers["ETag"]
        body = gzip.compress(b'{"resourceType":"Patient","gender":"female"}')
        said = {"Content-Type": "application/fhir+json", "Content-Encoding": "gzip"}
        assert client.post("/fhir/Patient", content=body, headers=said).status_code == 201
        assert (
            client.post("/fhir/Patient", content=body, headers={**said, "Content-Encoding": "br"}).status_code == 415
        )
        bomb = gzip.compress(bytes(40_000_000))
        assert client.post("/fhir/Patient", content=bomb, headers=said).status_code in (400, 413)


def test_readings_done_together_are_acts_of_their_own(workspace: Workspace, headers: dict[str, str]) -> None:
    async def ask(url: str) -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=30) as client:
            paths = ["/fhir/Patient/p", "/fhir/Patient/none"] * 10
            return await asyncio.gather(*(client.get(path) for path in paths))

    with serving(workspace, Lines()) as url:
        found = asyncio.run(ask(url))
    assert [one.status_code for one in found] == [200, 404] * 10
    names = [one.headers["X-Request-Id"] for one in found]
    assert len(set(names)) == len(names)
    with workspace.vault.database.ledger() as connection:
        for name, answer in zip(names, found, strict=True):
            (act,) = Acts(connection).find(correlation=name, limit=5)
            assert act["phase"] == ("done" if answer.status_code == 200 else "failed")


# -- heads, over both parsers ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["quickest", "h11"])
def port(request: pytest.FixtureRequest, workspace: Workspace) -> Iterator[int]:
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "h11":
            patch.setattr(server, "quickest", lambda: Connection)
        else:
            assert quickest() is not Connection
        with serving(workspace, Lines()) as url:
            yield int(url.rpartition(":")[2])


def sent(port: int, text: bytes) -> bytes:
    found = b""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as line:
        try:
            line.sendall(text)
            line.settimeout(3)
            while more := line.recv(65536):
                found += more
        except (TimeoutError, ConnectionError):
            pass
    return found


HEAD = b"GET /healthz HTTP/1.1\r\n"
HOST = b"Host: x\r\n"
CLOSE = b"Connection: close\r\n\r\n"


@pytest.mark.parametrize(
    "text",
    [
        HEAD + CLOSE,
        HEAD + HOST + HOST + CLOSE,
        HEAD + HOST + b"X: " + b"a" * (2 * HEAD_BYTES) + b"\r\n" + CLOSE,
        HEAD + HOST + b"X: " + b"a" * (2 * HEAD_BYTES),
        HEAD + HOST + b"".join(b"X%d: %s\r\n" % (n, b"a" * 1000) for n in range(90)) + CLOSE,
        b"GET /" + b"a" * (2 * HEAD_BYTES) + b" HTTP/1.1\r\n" + HOST + CLOSE,
        b"POST /fhir/Patient HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"POST /fhir/Patient HTTP/1.1\r\nHost: x\r\nContent-Length: +1\r\n\r\na",
        b"POST /fhir/Patient HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: x\r\n\r\na",
        HEAD + b"Host : x\r\n" + CLOSE,
        HEAD + HOST + b"X: a\x00b\r\n" + CLOSE,
        b"\x16\x03\x01\x02\x00\x01\x00",
    ],
)
def test_a_head_that_is_wrong_or_endless_ends_the_connection(port: int, text: bytes) -> None:
    answer = sent(port, text)
    assert answer == b"" or answer.split(b" ", 2)[1] in (b"400", b"431", b"501"), answer[:200]
    assert b"HTTP/1.1 200" not in answer
    assert sent(port, HEAD + HOST + CLOSE).startswith(b"HTTP/1.1 200")


def test_requests_in_one_piece_are_answered_in_their_order(port: int) -> None:
    piece = HEAD + HOST + b"\r\n" + b"GET /nowhere HTTP/1.1\r\n" + HOST + b"\r\n" + HEAD + HOST + CLOSE
    answers = [one[:3] for one in sent(port, piece).split(b"HTTP/1.1 ")[1:]]
    assert answers == [b"200", b"404", b"200"]


# -- TLS -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A certificate for 127.0.0.1, and its key."""
    folder, key = tmp_path_factory.mktemp("tls"), ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "carelake test")])
    now = dt.datetime.now(dt.UTC)
    here = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(here, critical=False)
        .sign(key, hashes.SHA256())
    )
    encoding, none = serialization.Encoding.PEM, serialization.NoEncryption()
    (folder / "cert").write_bytes(made.public_bytes(encoding))
    (folder / "key").write_bytes(key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, none))
    return {"tls_certificate": str(folder / "cert"), "tls_key": str(folder / "key")}


def test_over_tls(workspace: Workspace, headers: dict[str, str], pair: dict[str, str]) -> None:
    with with_settings(workspace, **pair), serving(workspace, Lines()) as url:
        assert url.startswith("https://127.0.0.1:")
        trusting = ssl.create_default_context(cafile=pair["tls_certificate"])
        with httpx.Client(base_url=url, verify=trusting, headers=headers) as client:
            answer = client.get("/fhir/Patient/p")
            assert (answer.status_code, answer.json()["id"]) == (200, "p")
            assert answer.headers["Strict-Transport-Security"] == "max-age=31536000"
            found = client.get("/fhir/Patient?_count=1").json()
            assert found["link"][0]["url"].startswith(url)
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        old.minimum_version = ssl.TLSVersion.TLSv1_2
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        port = int(url.rpartition(":")[2])
        for ciphers, fine in (("ECDHE+AESGCM", True), ("AES128-GCM-SHA256:AES256-SHA256", False)):
            old.set_ciphers(ciphers)
            assert handshakes(old, port) is fine
        assert not sent(port, HEAD + HOST + CLOSE).startswith(b"HTTP/1.1 200")


def handshakes(context: ssl.SSLContext, port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as line, context.wrap_socket(line):
            return True
    except (ssl.SSLError, ConnectionError):
        return False


def test_the_floor_is_tls_1_2(pair: dict[str, str]) -> None:
    context = context_of(ServeSettings(**pair))
    assert context is not None
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    names = {one["name"] for one in context.get_ciphers()}
    assert names
    assert all(name.startswith(("TLS_", "ECDHE-")) and ("GCM" in name or "CHACHA20" in name) for name in names)


def test_what_is_no_certificate_is_told_without_its_content(tmp_path: Path, pair: dict[str, str]) -> None:
    (tmp_path / "no").write_text("SECRET")
    for told in ({**pair, "tls_key": str(tmp_path / "no")}, {**pair, "tls_certificate": str(tmp_path / "missing")}):
        with pytest.raises(CarelakeError) as error:
            context_of(ServeSettings(**told))
        assert error.value.code == "http.tls"
        assert "SECRET" not in error.value.message


def test_away_from_loopback_only_with_tls(pair: dict[str, str]) -> None:
    check_host("127.0.0.1", ServeSettings())
    check_host("0.0.0.0", ServeSettings(**pair))
    with pytest.raises(Unsupported) as error:
        check_host("0.0.0.0", ServeSettings())
    assert error.value.code == "http.loopback_only"


@pytest.mark.parametrize("told", [{"workers": 0}, {"tls_key": "x"}, {"source_per_second": -1}, {"burst_seconds": 0}])
def test_settings_that_make_no_sense(told: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="serve"):
        ServeSettings(**told)
