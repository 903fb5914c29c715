"""Events through the real doors: the command line as processes, and the server that delivers while it runs."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook as Reference

import forked

CARELAKE = Path(sys.executable).with_name("carelake")

pytestmark = pytest.mark.slow


@dataclass
class Place:
    folder: Path
    extra: dict[str, str] = field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        own = {"CARELAKE_KEY_DIR": str(self.folder / "keys"), "CARELAKE_WORKSPACE": str(self.folder / "ws")}
        return {"PATH": os.environ["PATH"], "HOME": str(self.folder), **own, **self.extra}

    def run(self, *arguments: str, code: int = 0) -> tuple[str, str]:
        done = forked.run(*arguments, env=self.environment())
        assert done.returncode == code, (arguments, done.returncode, done.stderr)
        assert "Traceback" not in done.stderr
        return done.stdout, done.stderr

    def json(self, *arguments: str) -> Any:
        return json.loads(self.run(*arguments, "--json")[0])

    def error(self, *arguments: str, code: int) -> str:
        said = json.loads(self.run(*arguments, "--json", code=code)[1].strip().splitlines()[-1])
        return str(said["error"]["code"])

    def ingest(self, number: int) -> None:
        source = self.folder / f"p{number}.ndjson"
        source.write_text(json.dumps({"resourceType": "Patient", "id": f"p{number}"}) + "\n")
        self.json("ingest", str(source))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    made = Place(tmp_path)
    made.run("init", str(tmp_path / "ws"))
    return made


@dataclass
class Hook:
    port: int
    got: list[tuple[dict[str, str], bytes]]
    status: list[int]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"


@pytest.fixture
def hook() -> Iterator[Hook]:
    made = Hook(0, [], [])

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            status = made.status.pop(0) if made.status else 204
            if status < 300:
                made.got.append(({k.lower(): v for k, v in self.headers.items()}, body))
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield made
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_pipe_reads_on_and_again(place: Place) -> None:
    place.json("events", "add", "lab", "--type", "record", "--start", "beginning")
    for number in (1, 2):
        place.ingest(number)
    [row] = place.json("events", "list")
    assert (row["lag"], row["offset"], row["dead"], row["blocked"]) == (2, 0, 0, [])
    assert row["oldest"]
    lines = place.run("events", "read", "lab", "--limit", "1")[0].splitlines()
    lines += place.run("events", "read", "lab")[0].splitlines()
    assert [json.loads(line)["sequence"] for line in lines] == ["1", "2"]
    assert place.run("events", "read", "lab")[0] == ""
    assert place.json("events", "replay", "lab", "--from", "2") == {"name": "lab", "ahead": 1}
    assert place.json("events", "replay", "lab", "--from", "2") == {"name": "lab", "ahead": 1}
    assert len(place.run("events", "read", "lab")[0].splitlines()) == 1
    assert place.json("events", "trim", "--days", "0")["trimmed"] == 2
    assert place.error("events", "replay", "lab", "--from", "1", code=4) == "events.trimmed"
    assert place.json("audit", "verify")["intact"] is True


def test_a_webhook_by_the_command_line(place: Place, hook: Hook) -> None:
    assert place.error("events", "add", "hook", "--url", hook.url, code=3) == "events.host_not_allowed"
    place.extra["CARELAKE_EVENTS__HOSTS"] = "127.0.0.1"
    secret = place.json("events", "add", "hook", "--url", hook.url)["secret"]
    files = b"".join(path.read_bytes() for path in (place.folder / "ws").rglob("*") if path.is_file())
    assert secret.encode() not in files
    assert secret not in place.run("events", "list", "--json")[0]
    place.ingest(1)
    hook.status = [404]
    assert place.json("events", "deliver")[0]["dead"] == 1
    [letter] = place.json("events", "dead", "list", "hook")
    assert letter["reason"] == "webhook.status_404"
    assert place.json("events", "dead", "retry", "hook") == {"name": "hook", "retried": 1}
    assert place.json("events", "deliver", "hook")[0]["delivered"] == 1
    [(headers, body)] = hook.got
    assert Reference(secret).verify(body, headers)["data"]["stored"] == 1
    newer = place.json("events", "rotate", "hook")["secret"]
    place.ingest(2)
    place.json("events", "deliver")
    for one in (secret, newer):
        headers, body = hook.got[-1]
        assert Reference(one).verify(body, headers)
    [act] = [a for a in place.json("audit", "list", "--action", "event:manage") if "delivered" in json.dumps(a)][:1]
    assert act["principal"] == "operator"
    place.json("events", "pause", "hook")
    place.ingest(3)
    assert place.json("events", "deliver") == []
    place.json("events", "resume", "hook")
    assert place.json("events", "deliver")[0]["delivered"] == 1
    place.json("events", "remove", "hook")
    assert place.json("events", "list") == []


def test_the_server_delivers_while_it_runs(place: Place, hook: Hook) -> None:
    place.extra |= {"CARELAKE_EVENTS__HOSTS": "127.0.0.1", "CARELAKE_EVENTS__POLL_SECONDS": "0.1"}
    place.extra["CARELAKE_EVENTS__FIRST_SECONDS"] = "0.2"
    place.json("events", "add", "hook", "--url", hook.url)
    log = place.folder / "log"
    with log.open("wb") as err:
        server = subprocess.Popen([str(CARELAKE), "serve", "--port", "0"], env=place.environment(), stderr=err)
    try:
        wait(lambda: re.search("Listening on", log.read_text()) is not None)
        hook.status = [503]
        place.ingest(1)
        place.ingest(2)
        wait(lambda: len(hook.got) == 2)
    finally:
        server.send_signal(signal.SIGTERM)
        assert server.wait(20) == 0
    assert [json.loads(body)["sequence"] for _, body in hook.got] == ["1", "2"]
    assert place.json("events", "list")[0]["lag"] == 0
    assert place.json("audit", "verify")["intact"] is True


def wait(until: Any) -> None:
    end = time.monotonic() + 30
    while not until():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_who_may_not_is_refused(place: Place) -> None:
    assert place.error("events", "add", "lab", "--as", "reviewer", code=3) == "access.denied"
    assert place.error("events", "list", "--as", "pipeline", code=3) == "access.denied"
    assert place.json("events", "list", "--as", "auditor") == []
    place.json("events", "add", "lab")
    assert place.error("events", "read", "lab", "--as", "auditor", code=3) == "access.denied"
    assert place.error("events", "remove", "lab", "--account", "research", code=4) == "events.no_such_consumer"
    assert place.error("events", "read", "nobody", code=4) == "events.no_such_consumer"


def test_what_cannot_be_is_a_fault_of_the_input(place: Place) -> None:
    place.json("events", "add", "lab")
    early = "0001-01-01T00:00:00+23:00"
    assert place.error("events", "add", "x", "--start", early, code=2) == "events.start"
    assert place.error("events", "replay", "lab", "--from", early, code=2) == "events.start"
    assert place.error("events", "trim", "--days", "999999999", code=2) == "events.days"
    assert place.error("events", "trim", "--days", "9" * 30, code=2) == "events.days"
    for what in ("retry", "drop"):
        assert place.error("events", "dead", what, "lab", "1" + "0" * 22, code=2) == "events.sequence"
    bad = ("events", "add", "abus", "--bus", "x", "--region", "bad region!")
    assert place.error(*bad, code=2) == "events.target"
