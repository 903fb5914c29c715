"""No request brings the server down: thousands of mutated ones, each answered in time and never with a fault."""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.apps.fuzzing import CANARY, SEEDS, Fuzzer, Sent
from tests.apps.served import Lines, bearer, fill, own_workspace, serving

from carelake.apps.wiring import Workspace
from carelake.audit.readings import Acts

SECONDS = 20.0
"""No request may take longer; the machine may be busy."""


@dataclass
class Target:
    """A served workspace to send anything to."""

    workspace: Workspace
    log: Lines
    host: str
    port: int
    headers: dict[str, str]

    def send(self, sent: Sent, root: str = "/fhir") -> tuple[int, str, bytes]:
        """Status, content type and body; headers may be such as no HTTP library would send."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=SECONDS)
        headers = {**self.headers, "Accept": "application/fhir+json", **sent.headers}
        try:
            connection.putrequest(
                sent.method,
                root + sent.path + (f"?{sent.query}" if sent.query else ""),
                skip_host="Host" in headers,
                skip_accept_encoding=True,
            )
            for name, value in headers.items():
                connection._buffer.append(  # type: ignore[attr-defined]  # putheader refuses what is to be tried
                    f"{name}: {value}".encode("utf-8", "replace").replace(b"\r", b"").replace(b"\n", b"")
                )
            if sent.body is not None:
                connection.putheader("Content-Length", str(len(sent.body)))
            connection.endheaders(sent.body)
            answer = connection.getresponse()
            return answer.status, answer.headers.get("Content-Type", ""), answer.read()
        finally:
            connection.close()


@contextmanager
def opened(folder: Path, **told: str) -> Iterator[Target]:
    log = Lines()
    with own_workspace(folder, CARELAKE_SEARCH__CONTENT="true", **told) as made, serving(made, log) as url:
        fill(made, *(dict(one) for one in SEEDS))
        at = urlsplit(url)
        yield Target(made, log, at.hostname or "", at.port or 0, bearer(made, "operator", seconds=7200))


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with opened(tmp_path_factory.mktemp("fuzz")) as made:
        yield made


def faults(target: Target, fuzzer: Fuzzer, numbers: range) -> list[str]:
    """What went wrong, by number."""
    found: list[str] = []
    for number in numbers:
        sent = fuzzer.request(number)
        before = len(target.log.said)
        start = time.monotonic()
        try:
            status, kind, body = target.send(sent)
        except (OSError, http.client.HTTPException) as error:
            found.append(f"{number}: {sent.method} {sent.path[:80]}: no answer ({type(error).__name__})")
            continue
        took = time.monotonic() - start
        what = f"{number}: {sent.method} {sent.path[:80]} {status}"
        if status >= 500:
            said = [one for one in target.log.said[before:] if one.get("event") != "request"]
            found.append(f"{what}: {body[:300]!r} {said}"[:3000])
        elif took > SECONDS / 2:
            found.append(f"{what}: took {took:.1f} s")
        elif status >= 400 and sent.method != "HEAD" and kind.startswith("application/fhir+json"):
            if b'"OperationOutcome"' not in body:
                found.append(f"{what}: no OperationOutcome")
        elif status >= 400 and sent.method != "HEAD" and not kind.startswith("text/plain"):
            found.append(f"{what}: an error as {kind!r}")
    return found


def untold(target: Target) -> None:
    """Nothing that was sent is in the log, the metrics or the trail."""
    assert CANARY not in repr(target.log.said)
    status, _, metrics = target.send(Sent("GET", "/metrics"), root="")
    assert status == 200
    assert CANARY.encode() not in metrics
    with target.workspace.vault.database.ledger() as connection:
        assert CANARY not in repr(Acts(connection).find(limit=5000))


def check(target: Target, seed: int, count: int) -> None:
    found = faults(target, Fuzzer(seed), range(count))
    assert not found, f"seed {seed}: {len(found)} of {count}\n" + "\n".join(found[:20])
    untold(target)
    assert target.send(Sent("GET", "/Patient/p2"))[0] in (200, 410)


def test_a_few_hundred(target: Target) -> None:
    check(target, 1, 300)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(2, 8))
def test_ten_thousand(target: Target, seed: int) -> None:
    check(target, seed, 2000)


@pytest.mark.soak
def test_thousands_on_postgresql(postgres: Any, tmp_path: Path) -> None:
    told = {"CARELAKE_DATABASE__URL": postgres.url, "CARELAKE_DATABASE__PASSWORD_FILE": postgres.password_file}
    with opened(tmp_path, **told) as target:
        check(target, 8, 3000)


def test_the_fuzzer_sends_the_same_again_and_finds_what_is_wrong(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    def signs(seed: int) -> list[str]:
        return [repr(Fuzzer(seed).request(number)) for number in range(200)]

    assert signs(1) == signs(1) != signs(2)

    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError(CANARY)

    monkeypatch.setattr(target.workspace.resources, "history", broken)
    (fault,) = faults(target, _Always(Sent("GET", "/Patient/_history")), range(1))
    assert "500" in fault
    monkeypatch.undo()
    untold(target)


class _Always(Fuzzer):
    def __init__(self, sent: Sent) -> None:
        super().__init__(0)
        self._sent = sent

    def request(self, number: int) -> Sent:
        return self._sent
