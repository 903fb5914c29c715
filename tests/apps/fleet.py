"""A served workspace that is written and read by many at once, and killed meanwhile; and what must hold of it.

What a client was told is kept. A counter is only ever incremented with If-Match, so that its value is its version
less one, in every answer. Two accounts are only changed together, in transactions, so that their sum stays. An own
resource has one writer, who must read what it wrote last. An answer that never came may have been kept or not.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

COUNTERS = tuple(f"c{number}" for number in range(3))
ACCOUNTS = ("a0", "a1")
START = 1000
COMMAND = [sys.executable, "-c", "from carelake.apps.cli.main import main; main()"]
ROUND = 20


class Served:
    """``carelake serve`` as a process of its own, which can be killed and started again."""

    def __init__(self, root: Path, environment: dict[str, str], workers: int) -> None:
        self.root, self._environment, self._workers = root, environment, workers
        self.port = 0
        self.log = root.parent / "served.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        asked = ["serve", "--port", str(self.port), "--workers", str(self._workers)]
        with self.log.open("ab") as log:
            told = log.tell()
            self.process = subprocess.Popen(
                [*COMMAND, "-w", str(self.root), *asked],
                env=self._environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        end = time.monotonic() + 60
        while time.monotonic() < end and self.process.poll() is None:
            with self.log.open("rb") as log:
                log.seek(told)
                found = re.search(rb"http://127\.0\.0\.1:(\d+)", log.read())
            if found:
                self.port = int(found[1])
                return
            time.sleep(0.02)
        raise TimeoutError(self.log.read_text()[-2000:])

    def kill(self) -> None:
        """``kill -9``, of the parent and its workers at once."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(20)

    def end(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()


class Lost(Exception):
    """No answer came, so nothing is known."""


class Client:
    """One connection, made again when it is lost."""

    def __init__(self, served: Served, token: str) -> None:
        self._served = served
        self._heads = {"Authorization": f"Bearer {token}", "Content-Type": "application/fhir+json"}
        self._connection: http.client.HTTPConnection | None = None

    def ask(self, method: str, path: str, body: Any = None, **heads: str) -> tuple[int, dict[str, str], Any]:
        """Status, headers in lower case, and JSON."""
        sent = None if body is None else json.dumps(body)
        try:
            if self._connection is None:
                self._connection = http.client.HTTPConnection("127.0.0.1", self._served.port, timeout=60)
            given = {name.replace("_", "-"): value for name, value in heads.items()}
            self._connection.request(method, f"/fhir{path}", sent, {**self._heads, **given})
            answer = self._connection.getresponse()
            raw = answer.read()
        except (OSError, http.client.HTTPException):
            self.close()
            raise Lost from None
        if answer.status == 503:
            raise Lost  # of a server that ends, or is too busy; whether it was kept is not told
        assert answer.status < 500, raw
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, json.loads(raw) if raw else None

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None


def observation(key: str, kind: str, value: int) -> dict[str, Any]:
    """A value that stands in it twice, so that half of one is seen."""
    return {
        "resourceType": "Observation",
        "id": key,
        "status": "final",
        "code": {"coding": [{"system": "urn:test", "code": kind}]},
        "valueInteger": value,
        "note": [{"text": str(value)}],
    }


def version_of(resource: dict[str, Any]) -> int:
    return int(resource["meta"]["versionId"])


def value_of(resource: dict[str, Any]) -> int:
    """The value; `AssertionError` for one that is torn."""
    value: int = resource["valueInteger"]
    assert resource["note"][0]["text"] == str(value), "a torn read"
    return value


class Fleet:
    """All that write and read, and what they know."""

    def __init__(self, served: Served, token: str, seed: int = 0) -> None:
        self.served, self._token, self._seed = served, token, seed
        self.stop = threading.Event()
        self.faults: list[BaseException] = []
        self.known = dict.fromkeys(COUNTERS, 1)
        """The newest version of each counter that anybody was told of."""
        self.told = dict.fromkeys(COUNTERS, 0)
        self.lost = dict.fromkeys(COUNTERS, 0)
        """Increments that were acknowledged, and those whose answer never came."""
        self.own: dict[str, list[dict[str, Any] | None]] = {}
        """What the own resource of each writer may be now: one, or what it was and what it may have become."""
        self.names: dict[str, str] = {}
        self.done: dict[str, int] = {}
        self._lock = threading.Lock()

    @contextmanager
    def client(self) -> Iterator[Client]:
        with closing(Client(self.served, self._token)) as made:
            yield made

    def prepare(self) -> None:
        with self.client() as client:
            for key in COUNTERS:
                assert client.ask("PUT", f"/Observation/{key}", observation(key, "counter", 0))[0] == 201
            for key in ACCOUNTS:
                assert client.ask("PUT", f"/Observation/{key}", observation(key, "account", START))[0] == 201

    def run(self, seconds: float, *, writers: int = 16, readers: int = 16, kills: int = 0) -> None:
        """Let them work; kill the server so often meanwhile, and start it again each time."""
        works: list[Callable[[], None]] = [self._writer(n) for n in range(writers)]
        works += [self._reader(n) for n in range(readers)]
        threads = [threading.Thread(target=self._guarded, args=(work,)) for work in works]
        for thread in threads:
            thread.start()
        try:
            for left in range(kills, -1, -1):
                self.stop.wait(seconds / (kills + 1))
                if left and not self.stop.is_set():
                    self.served.kill()
                    self.served.start()
        finally:
            self.stop.set()
            for thread in threads:
                thread.join(90)
        if self.faults:
            raise self.faults[0]
        assert not any(thread.is_alive() for thread in threads)

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # told in the test's own thread
            self.faults.append(error)
            self.stop.set()

    def _step(self, step: Callable[..., None], *given: Any) -> None:
        try:
            step(*given)
            self._count(step.__name__)
        except Lost:
            self._count("lost")
            time.sleep(0.05)

    def _count(self, what: str) -> None:
        with self._lock:
            self.done[what] = self.done.get(what, 0) + 1

    def _hear(self, key: str, version: int) -> None:
        with self._lock:
            self.known[key] = max(self.known[key], version)

    # -- writers -----------------------------------------------------------------------------------------------------

    def _writer(self, number: int) -> Callable[[], None]:
        def work() -> None:
            chance = random.Random(f"{self._seed}/w{number}")
            steps = [self._increment, self._increment, self._transfer, self._once, self._mine]
            with self.client() as client:
                while not self.stop.is_set():
                    self._step(chance.choice(steps), client, chance, number)

        return work

    def _increment(self, client: Client, chance: random.Random, number: int) -> None:
        """Read, add one, write if nobody was quicker."""
        key = chance.choice(COUNTERS)
        before = self.known[key]
        status, heads, found = client.ask("GET", f"/Observation/{key}")
        assert status == 200
        self._check_counter(key, found, before)
        sent = observation(key, "counter", value_of(found) + 1)
        try:
            status, _, made = client.ask("PUT", f"/Observation/{key}", sent, If_Match=heads["etag"])
        except Lost:
            with self._lock:
                self.lost[key] += 1
            raise
        if status == 412:
            return
        assert status == 200, made
        assert version_of(made) == version_of(found) + 1, "an update was lost"
        self._hear(key, version_of(made))
        with self._lock:
            self.told[key] += 1

    def _transfer(self, client: Client, chance: random.Random, number: int) -> None:
        """From one account to the other, both or none."""
        both = self._accounts(client)
        amount = chance.randrange(1, 10)
        entries = []
        for key, change in zip(chance.sample(ACCOUNTS, 2), (amount, -amount), strict=True):
            sent = observation(key, "account", value_of(both[key]) + change)
            request = {"method": "PUT", "url": f"Observation/{key}", "ifMatch": f'W/"{version_of(both[key])}"'}
            entries.append({"resource": sent, "request": request})
        status, _, said = client.ask("POST", "", {"resourceType": "Bundle", "type": "transaction", "entry": entries})
        assert status in (200, 412), said

    def _accounts(self, client: Client) -> dict[str, dict[str, Any]]:
        """Both, in one search."""
        status, _, bundle = client.ask("GET", "/Observation?code=urn:test|account")
        assert status == 200, bundle
        both = {entry["resource"]["id"]: entry["resource"] for entry in bundle["entry"]}
        assert sum(map(value_of, both.values())) == 2 * START, "half of a transaction was seen"
        assert len({version_of(one) for one in both.values()}) == 1, "half of a transaction was seen"
        return both

    def _once(self, client: Client, chance: random.Random, number: int) -> None:
        """Everybody makes the same few; each may be there once."""
        name = f"{len(self.names) // ROUND}-{chance.randrange(ROUND)}"
        sent = {"resourceType": "Patient", "identifier": [{"system": "urn:test", "value": name}]}
        status, _, made = client.ask("POST", "/Patient", sent, If_None_Exist=f"identifier=urn:test|{name}")
        assert status in (200, 201), made
        with self._lock:
            assert self.names.setdefault(name, made["id"]) == made["id"], "made twice"

    def _mine(self, client: Client, chance: random.Random, number: int) -> None:
        """Write what nobody else writes, and read it back by every way."""
        key = f"w{number}"
        maybe = self.own.get(key, [None])
        sent = None if chance.random() < 0.2 else observation(key, key, chance.randrange(1 << 30))
        self.own[key] = [*maybe, sent]
        if sent is None:
            status, heads, _ = client.ask("DELETE", f"/Observation/{key}")
            assert status == 204
        else:
            status, heads, _ = client.ask("PUT", f"/Observation/{key}", sent)
            assert status in (200, 201)
        self.own[key] = [sent]
        self._check_own(client, key, heads.get("etag"))

    def _check_own(self, client: Client, key: str, etag: str | None) -> None:
        (expected,) = self.own[key]
        status, heads, found = client.ask("GET", f"/Observation/{key}")
        searched = client.ask("GET", f"/Observation?code=urn:test|{key}")[2]
        if expected is None:
            assert status in (404, 410), "a deletion was lost"
            assert not searched.get("entry"), "a deletion was lost"
            return
        assert (status, heads["etag"]) == (200, etag), "a write was not read"
        assert value_of(found) == expected["valueInteger"], "a write was not read"
        assert [entry["resource"] for entry in searched["entry"]] == [found], "a search does not see a write"
        past = client.ask("GET", f"/Observation/{key}/_history?_count=1")[2]
        assert past["entry"][0]["resource"] == found, "history does not see a write"

    # -- readers -----------------------------------------------------------------------------------------------------

    def _reader(self, number: int) -> Callable[[], None]:
        def work() -> None:
            chance = random.Random(f"{self._seed}/r{number}")
            steps = [self._read, self._read, self._search, self._past, self._sums]
            with self.client() as client:
                while not self.stop.is_set():
                    self._step(chance.choice(steps), client, chance)

        return work

    def _check_counter(self, key: str, found: dict[str, Any], at_least: int) -> None:
        version = version_of(found)
        assert value_of(found) == version - 1, "an update was lost, or a read was torn"
        assert version >= at_least, "a read is older than what was told before it began"
        self._hear(key, version)

    def _read(self, client: Client, chance: random.Random) -> None:
        key = chance.choice(COUNTERS)
        before = self.known[key]
        status, heads, found = client.ask("GET", f"/Observation/{key}")
        assert status == 200
        assert heads["etag"] == f'W/"{version_of(found)}"'
        self._check_counter(key, found, before)
        old = chance.randint(1, version_of(found))
        status, _, past = client.ask("GET", f"/Observation/{key}/_history/{old}")
        assert (status, version_of(past), value_of(past)) == (200, old, old - 1)

    def _search(self, client: Client, chance: random.Random) -> None:
        before = dict(self.known)
        status, _, bundle = client.ask("GET", "/Observation?code=urn:test|counter")
        assert status == 200
        found = {entry["resource"]["id"]: entry["resource"] for entry in bundle["entry"]}
        assert found.keys() == set(COUNTERS), "a search misses what is there"
        for key, one in found.items():
            self._check_counter(key, one, before[key])

    def _past(self, client: Client, chance: random.Random) -> None:
        key = chance.choice(COUNTERS)
        before = self.known[key]
        status, _, bundle = client.ask("GET", f"/Observation/{key}/_history?_count=20")
        assert status == 200
        numbers = [version_of(entry["resource"]) for entry in bundle["entry"]]
        assert numbers == list(range(numbers[0], numbers[0] - len(numbers), -1)), "a hole in versions"
        assert numbers[0] >= before
        assert bundle["total"] == numbers[0]

    def _sums(self, client: Client, chance: random.Random) -> None:
        self._accounts(client)

    # -- the end -----------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Nothing that was told is lost, and nothing is there that nobody wrote."""
        with self.client() as client:
            self._check(client)

    def _check(self, client: Client) -> None:
        for key in COUNTERS:
            numbers, path = [], f"/Observation/{key}/_history?_count=1000"
            while path:
                bundle = client.ask("GET", path)[2]
                for entry in bundle["entry"]:
                    self._check_counter(key, entry["resource"], 1)
                    numbers.append(version_of(entry["resource"]))
                links = {link["relation"]: link["url"] for link in bundle["link"]}
                path = links.get("next", "").partition("/fhir")[2]
            assert numbers == list(range(len(numbers), 0, -1)), "a hole in versions"
            assert numbers[0] >= self.known[key], "an acknowledged write is lost"
            assert self.told[key] <= numbers[0] - 1 <= self.told[key] + self.lost[key], "a write is lost, or invented"
        self._accounts(client)
        for name, key in self.names.items():
            bundle = client.ask("GET", f"/Patient?identifier=urn:test|{name}")[2]
            assert [entry["resource"]["id"] for entry in bundle["entry"]] == [key], "lost, or made twice"
        for key, maybe in self.own.items():
            status, _, found = client.ask("GET", f"/Observation/{key}")
            there = value_of(found) if status == 200 else None
            assert there in [one and one["valueInteger"] for one in maybe], "an acknowledged write is lost"
