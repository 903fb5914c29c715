"""Bounds of the HTTP door: idle connections, bodies nobody asked for, threads, and what is told of deliveries."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import pytest
from starlette.responses import Response
from tests.apps.served import Lines, own_workspace, serving

from carelake.apps.http import app, connections
from carelake.apps.http.workers import Bodies, Workers
from carelake.apps.wiring import Workspace
from carelake.core.errors import Unavailable
from carelake.events.delivery import Report
from carelake.events.progress import Tally


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    with own_workspace(tmp_path_factory.mktemp("bounds")) as made:
        yield made


@contextmanager
def listening(workspace: Workspace, log: Lines, deliver: Any = None) -> Iterator[int]:
    """A server, by its port."""
    with serving(workspace, log, deliver) as address:
        yield int(address.rpartition(":")[2])


@pytest.fixture(scope="module")
def port(workspace: Workspace, log: Lines) -> Iterator[int]:
    with listening(workspace, log) as found:
        yield found


def raw(port: int, text: bytes, wait: float = 5.0) -> bytes:
    """What comes back until the server says no more for a moment."""
    with socket.create_connection(("127.0.0.1", port), timeout=wait) as line:
        line.sendall(text)
        return line.recv(65536)


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


# -- connections -----------------------------------------------------------------------------------------------------


def test_idle_connections_close_the_server_to_nobody(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MOST_CONNECTIONS", 30)
    monkeypatch.setattr(connections, "_ROOM", 10)
    with ExitStack() as stack:
        for _ in range(60):
            stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        assert httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=5).status_code == 200


@pytest.mark.slow
def test_more_idle_connections_than_the_limit(port: int) -> None:
    with ExitStack() as stack:
        for _ in range(connections.MOST_CONNECTIONS + 1):
            stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        assert httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=10).status_code == 200


@pytest.mark.parametrize("begun", [b"", b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-A"])
def test_headers_that_do_not_come_are_not_waited_for(
    port: int, monkeypatch: pytest.MonkeyPatch, begun: bytes
) -> None:
    monkeypatch.setattr(connections, "_HEAD_SECONDS", 0.3)
    monkeypatch.setattr(connections, "_KEPT_SECONDS", 0.3)
    whole = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    for before in (b"", whole):
        with socket.create_connection(("127.0.0.1", port), timeout=5) as line:
            if before:
                line.sendall(before)
                assert line.recv(65536).startswith(b"HTTP/1.1 200")
            line.sendall(begun)
            until = time.monotonic() + 5
            try:
                while line.recv(65536):
                    assert time.monotonic() < until
            except ConnectionResetError:
                pass


def test_a_slow_answer_is_not_idle(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is for headers: a body that takes longer than it is waited for."""
    monkeypatch.setattr(connections, "_HEAD_SECONDS", 0.2)
    head = b"POST /predict/x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer x\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=5) as line:
        line.sendall(head + b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{")
        time.sleep(0.6)
        line.sendall(b"}")
        assert status(line.recv(65536)) in (400, 401)


@pytest.mark.parametrize("target", ["/#", "/healthz#", "/healthz?a#b", "/fhir/Patient/1#/../2", "#"])
def test_a_target_with_a_fragment_is_refused_before_anything_else(port: int, log: Lines, target: str) -> None:
    answer = raw(port, f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    assert status(answer) == 400, target
    assert not [one for one in log.said if one["event"] == "fault"]
    if target != "#":
        assert b"http.target" in answer or b"x-request-id" in answer.lower()


# -- bodies ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("framing", ["Content-Length: 4000000", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize(
    "target", ["GET /healthz", "GET /metrics", "GET /fhir/metadata", "GET /fhir/Patient/1", "GET /openapi.json"]
)
def test_a_body_that_nobody_takes_is_refused_unread(port: int, target: str, framing: str) -> None:
    answer = raw(port, f"{target} HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n".encode())
    assert status(answer) == 400
    assert raw(port, f"{target} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode())[9:12] in (b"200", b"401")


@pytest.mark.parametrize("more", ["", "Cookie: carelake_visit=forged\r\n"])
@pytest.mark.parametrize("target", ["/predict/readmission", "/fhir/Patient/_search", "/explore/sql"])
def test_of_somebody_unnamed_no_body_is_read(port: int, target: str, more: str) -> None:
    """Not one byte of the body is sent, and the answer is there."""
    answer = raw(port, f"POST {target} HTTP/1.1\r\nHost: x\r\n{more}Content-Length: 4000000\r\n\r\n".encode())
    assert status(answer) == 401


@pytest.mark.parametrize(("target", "most"), [("/explore/enter", 16 << 10), ("/auth/token", 128 << 10)])
def test_of_a_form_that_anybody_may_send_little_is_read(port: int, target: str, most: int) -> None:
    head = f"POST {target} HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    told = raw(port, f"{head}Content-Length: {most + 1}\r\n\r\n".encode())
    sent = raw(port, f"{head}Transfer-Encoding: chunked\r\n\r\n{most + 1:x}\r\n".encode() + b"a" * (most + 1))
    assert [(status(one), b"http.body_too_large" in one) for one in (told, sent)] == [(413, True)] * 2


def test_all_bodies_together_are_bounded(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "_BODIES_BYTES", 0)
    most = workspace.settings.serve.max_body_bytes
    head = (
        "POST /predict/readmission HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer x\r\n"
        f"Content-Type: application/json\r\nContent-Length: {most}\r\n\r\n"
    ).encode()
    with listening(workspace, Lines()) as port, ExitStack() as stack:
        first = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
        first.sendall(head + b" " * (most - 1))
        time.sleep(0.5)  # until it is all read; it waits for its last byte now
        second = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
        second.sendall(head + b" " * 65536)
        answer = second.recv(65536)
        assert (status(answer), b"http.busy" in answer or b"http.busy" in second.recv(65536)) == (503, True)
        first.sendall(b"}")
        assert status(first.recv(65536)) in (400, 401)
        third = raw(port, head.replace(str(most).encode(), b"2") + b"{}")
        assert status(third) in (400, 401)


def test_a_share_is_given_back_whatever_happens() -> None:
    bodies = Bodies(10)
    with bodies.share() as take:
        take(8)
        with pytest.raises(Unavailable):
            take(3)
    with bodies.share() as take:
        take(10)


# -- threads ---------------------------------------------------------------------------------------------------------


def test_work_that_was_given_up_keeps_its_thread_and_is_waited_for() -> None:
    going = threading.Semaphore(0)
    ran: list[int] = []
    most: list[int] = []
    lock = threading.Lock()

    def work(number: int) -> Callable[[], Response]:
        def one() -> Response:
            with lock:
                ran.append(number)
                most.append(len(ran))
            going.acquire(timeout=10)
            with lock:
                ran.remove(number)
            return Response()

        return one

    async def all_of_them() -> None:
        workers = Workers(2, 0.2)
        async with workers.until_done(10):
            answers = await asyncio.gather(*(workers.run(work(n)) for n in range(6)), return_exceptions=True)
            assert [type(one) for one in answers] == [Unavailable] * 6
            late = await asyncio.gather(workers.run(work(9)), return_exceptions=True)
            assert isinstance(late[0], Unavailable)
            assert (max(most), len(most)) == (2, 2)  # the others never began
            threading.Timer(0.3, going.release, [2]).start()
        assert ran == []

    asyncio.run(all_of_them())


def test_the_end_does_not_wait_for_ever() -> None:
    end = threading.Event()

    async def stuck() -> None:
        workers = Workers(1, 0.1)
        async with workers.until_done(0.2):
            with pytest.raises(Unavailable):
                await workers.run(lambda: Response(str(end.wait(20))))

    began = time.monotonic()
    try:
        asyncio.run(stuck())
        assert time.monotonic() - began < 5
    finally:
        end.set()


# -- deliveries ------------------------------------------------------------------------------------------------------


def test_a_failed_delivery_is_logged_and_counted_by_code(workspace: Workspace) -> None:
    log = Lines()
    rounds: list[int] = []

    def deliver(_stop: Callable[[], bool]) -> list[Report]:
        rounds.append(1)
        if len(rounds) > 1:
            raise ValueError("Zebulon")
        return [Report("abus", Tally(), failed="fault.InvalidRegionError")]

    with listening(workspace, log, deliver) as port:
        until = time.monotonic() + 10
        while len(rounds) < 3 and time.monotonic() < until:
            time.sleep(0.05)
        page = httpx.get(f"http://127.0.0.1:{port}/metrics").text
    said = [(one["consumer"], one["code"]) for one in log.said if one["event"] == "not delivered"]
    assert said == [("abus", "fault.InvalidRegionError"), ("", "fault.ValueError")]
    assert 'carelake_event_failures_total{code="fault.InvalidRegionError"} 1.0' in page
    assert "Zebulon" not in str(log.said)
