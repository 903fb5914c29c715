"""The HTTP door under requests that no client makes: paths, headers, framing, and tokens of those who left."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest

pytestmark = pytest.mark.slow


@dataclass
class Door:
    home: Any
    port: int
    token: str

    def raw(self, text: bytes, wait: float = 20.0) -> bytes:
        """Send bytes as they are; everything that comes back within the time."""
        found = b""
        with socket.create_connection(("127.0.0.1", self.port), timeout=wait) as line, suppress(OSError):
            line.sendall(text)
            while got := line.recv(65536):
                found += got
        return found

    def get(
        self, target: str, *headers: str, method: str = "GET", host: str = "127.0.0.1", body: bytes = b""
    ) -> bytes:
        lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", "Connection: close", *headers, "", ""]
        return self.raw("\r\n".join(lines).encode("latin-1") + body)

    @property
    def bearer(self) -> str:
        return f"Authorization: Bearer {self.token}"


@pytest.fixture(scope="module")
def door(prey: Any, tmp_path_factory: Any) -> Iterator[Door]:
    home = prey.mine.copy(tmp_path_factory.mktemp("door") / "copy")
    token = home.json("token", "--as", "dr-who", "--purpose", "TREAT")["token"]
    running, url = home.serve()
    yield Door(home, int(url.rpartition(":")[2]), token)
    running.kill(signal.SIGTERM)
    assert running.wait(30.0).code == 0
    assert home.json("audit", "verify")["intact"] is True
    home.remove()


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else 0


def test_the_door_opens_for_who_may(door: Door) -> None:
    answer = door.get("/fhir/Patient/p1", door.bearer)
    assert status(answer) == 200
    assert b'"p1"' in answer


@pytest.mark.parametrize(
    "target",
    [
        "/../../../etc/passwd",
        "/fhir/../../etc/passwd",
        "/fhir/%2e%2e/%2e%2e/etc/passwd",
        "/fhir/..%2f..%2fetc%2fpasswd",
        "/fhir/Patient/..%2fPatient%2fp1",
        "//fhir/Patient/p1",
        "/fhir//Patient/p1",
        "/fhir/Patient/p1%00",
        "/fhir/Patient/p1/../p2",
        "/FHIR/Patient/p1",
        "/fhir/Patient/%c0%ae%c0%ae/p1",
        "/static/../carelake.toml",
        "/carelake.toml",
        "/keyring.json",
        "/fhir/Patient/p1;x=1",
        "/fhir\\Patient\\p1",
        "/fhir/Patient/p1?_format=../../etc/passwd",
        "/fhir/Patient?_include=*&__proto__=1",
    ],
)
def test_paths_lead_nowhere_else(door: Door, target: str) -> None:
    for headers in ((), (door.bearer,)):
        answer = door.get(target, *headers)
        assert status(answer) in (400, 401, 403, 404, 406), (target, answer[:200])
        assert b"root:" not in answer
        assert b"workspace =" not in answer


@pytest.mark.parametrize(
    "header",
    [
        "X-Forwarded-User: operator",
        "X-Remote-User: operator",
        "X-Original-URL: /probe",
        "X-Rewrite-URL: /metrics",
        "X-HTTP-Method-Override: GET",
        "X-Forwarded-For: 127.0.0.1",
        "Authorization: Basic b3BlcmF0b3I6",
        "Authorization: Bearer",
        "Authorization: Bearer null",
        "Authorization: bearer eyJhbGciOiJub25lIn0.e30.",
        "Cookie: token=x; session=operator",
        "Authorization: AWS4-HMAC-SHA256 Credential=x",
    ],
)
def test_headers_make_nobody_somebody(door: Door, header: str) -> None:
    answer = door.get("/fhir/Patient/p1", header)
    assert status(answer) == 401, (header, answer[:200])
    assert b'"p1"' not in answer


def test_two_tokens_are_not_better_than_one(door: Door) -> None:
    for headers in ((door.bearer, "Authorization: Bearer x"), ("Authorization: Bearer x", door.bearer)):
        assert status(door.get("/fhir/Patient/p1", *headers)) in (200, 400, 401)
    joined = f"Authorization: Bearer x, Bearer {door.token}"
    assert status(door.get("/fhir/Patient/p1", joined)) in (400, 401)


def test_requests_are_not_smuggled(door: Door) -> None:
    """What one reader takes for a body, another takes for a request: both framings at once are refused."""
    inner = f"GET /fhir/Patient/p1 HTTP/1.1\r\nHost: x\r\n{door.bearer}\r\n\r\n".encode()
    for framing in (
        ("Content-Length: 4", "Transfer-Encoding: chunked"),
        ("Transfer-Encoding: chunked, identity", "Content-Length: 0"),
        ("Content-Length: 0", f"Content-Length: {len(inner)}"),
        ("Content-Length: -1",),
        ("Transfer-Encoding: xchunked",),
    ):
        answer = door.get("/fhir/Patient/_search", *framing, method="POST", body=b"0\r\n\r\n" + inner)
        assert status(answer) in (0, 400, 401, 411, 415, 501), (framing, answer[:200])
        assert b'"p1"' not in answer, framing


@pytest.mark.parametrize(
    "raw",
    [
        b"GET /fhir/Patient/p1\r\n\r\n",
        b"GET  /fhir/Patient HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 200_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nA: b\x00c\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        bytes(range(256)),
    ],
    ids=["0.9", "spaces", "tls", "long-path", "long-header", "space", "nul", "h2", "noise"],
)
def test_what_is_no_request_is_refused_and_others_are_served(door: Door, raw: bytes) -> None:
    assert status(door.raw(raw, 1.0)) in (0, 400, 404, 414, 431)
    assert status(door.get("/fhir/Patient/p1", door.bearer)) == 200


def test_the_start_page_is_not_for_a_rebound_name(door: Door) -> None:
    for host in ("evil.example.org", "127.0.0.1.evil.org", "localhost.evil.org", ""):
        answer = door.get("/", host=host)
        assert status(answer) in (400, 403, 404, 421), (host, answer[:120])


def test_a_stolen_token_ends_with_its_principal_and_with_its_role(door: Door) -> None:
    home = door.home
    home.json("principal", "add", "leaver", "--role", "clinician")
    held = home.json("token", "--as", "leaver", "--purpose", "TREAT")["token"]
    bearer = f"Authorization: Bearer {held}"
    assert status(door.get("/fhir/Patient/p1", bearer)) == 200
    home.json("principal", "remove-role", "leaver", "clinician")
    assert status(door.get("/fhir/Patient/p1", bearer)) == 403
    home.json("principal", "add-role", "leaver", "clinician")
    home.json("principal", "disable", "leaver")
    assert status(door.get("/fhir/Patient/p1", bearer)) in (401, 403)
    told = home.json("audit", "list", "--principal", "leaver", "--phase", "refused")
    assert told
    assert held not in json.dumps(told)


def test_a_token_of_another_workspace_is_none_here(prey: Any, door: Door) -> None:
    other = prey.theirs.copy(door.home.folder / "theirs")
    token = other.json("token", "--as", "dr-who", "--purpose", "TREAT")["token"]
    assert status(door.get("/fhir/Patient/p1", f"Authorization: Bearer {token}")) == 401
