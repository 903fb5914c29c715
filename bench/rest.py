"""The server over HTTP with everything on: reads and creates by several connections, on both databases.

    python bench/rest.py                                 both databases, 2 workers, 32 connections, 10 s each
    python bench/rest.py --smoke                         a second of each, embedded; no report is kept
    python bench/rest.py --databases embedded --workers 1 --connections 1,32 --seconds 5
    python bench/rest.py --folder DIR --keep             loads it once; the next run takes it as it is

`carelake serve` runs as anyone would start it. The load is one process on the same machine, with one event loop and
a parser of its own that knows just enough of HTTP/1.1; its processor time is in the report, since it is not the
server's. Each request has a token, is decided, and is an act that is durable before its answer leaves: afterwards
the acts are counted, and must be as many as the answers. Each answer must hold the id that was asked for, or the
address of what was made. Resources are drawn evenly of what the hospital holds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from _postgres import PostgresServer, end_with_parent, postgres_missing
from _workspace import COMMAND, Home, cpu, rss
from carelake.synth import generate

READS, READ_P99_MS, CREATES = 4000, 15.0, 1000
RESULTS = Path(__file__).parent / "results"


Draw = Callable[[], tuple[bytes, bytes]]
"""Gives a request, and what its answer must hold."""


class Line(asyncio.Protocol):
    """One connection: asks, waits for the whole answer, asks again until the time is over."""

    def __init__(self, load: Load) -> None:
        self._load, self._buffer, self._need, self._over = load, b"", 0, False

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._ask()

    def _ask(self) -> None:
        self._began = time.perf_counter()
        if self._began >= self._load.end:
            self._over = True
            self._load.over(self._transport)
            return
        asked, self._wanted = self._load.draw()
        self._transport.write(asked)

    def data_received(self, data: bytes) -> None:
        self._buffer = data = self._buffer + data if self._buffer else data
        if not self._need:
            head = data.find(b"\r\n\r\n")
            if head < 0:
                return
            at = data.find(b"content-length: ", 0, head)
            self._need = head + 4 + (int(data[at + 16 : data.find(b"\r", at)]) if at > 0 else 0)
        if len(data) >= self._need:
            self._load.took(data[9:12], time.perf_counter() - self._began, right=self._wanted in data)
            self._buffer, self._need = b"", 0
            self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        # One that the server ended before its time: it is told of, and waited for no more.
        if not self._over:
            self._load.lost += 1
            self._load.over(self._transport)


class Load:
    """Some connections for some seconds."""

    def __init__(self, draw: Draw, connections: int, seconds: float) -> None:
        self.draw, self._connections, self._seconds = draw, connections, seconds
        self.statuses: Counter[bytes] = Counter()
        self.spent: list[float] = []
        self.lost, self.wrong, self.end = 0, 0, 0.0

    def took(self, status: bytes, seconds: float, *, right: bool) -> None:
        self.statuses[status] += 1
        self.wrong += not right
        self.spent.append(seconds)

    def over(self, transport: Any) -> None:
        transport.close()
        self._left -= 1
        if not self._left:
            self._done.set_result(None)

    async def run(self, port: int) -> None:
        loop = asyncio.get_running_loop()
        self._done, self._left = loop.create_future(), self._connections
        self.end = time.perf_counter() + self._seconds
        for _ in range(self._connections):
            await loop.create_connection(lambda: Line(self), "127.0.0.1", port)
        await asyncio.wait_for(self._done, self._seconds + 60)


def percentiles(seconds: list[float]) -> dict[str, float]:
    """In milliseconds."""
    ordered = sorted(seconds)
    return {
        name: round(1000 * ordered[min(len(ordered) - 1, int(len(ordered) * share))], 2)
        for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99), ("most", 1.0))
    }


def run(load: Load, port: int) -> None:
    """Run a load, with uvloop where it is installed."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(load.run(port))
    else:
        uvloop.run(load.run(port))


@contextmanager
def serving(home: Home, workers: int, log: Path) -> Iterator[tuple[int, int]]:
    """``carelake serve`` as its own process: pid and port."""
    command = [*COMMAND, "-w", str(home.root), "serve", "--port", "0"]
    command += ["--workers", str(workers)] if workers > 1 else []
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=out, env=home.environment, preexec_fn=end_with_parent
        )  # fmt: skip
        try:
            for _ in range(600):
                told = [line for line in log.read_text(errors="replace").splitlines() if "Listening on" in line]
                if told or process.poll() is not None:
                    break
                time.sleep(0.1)
            if not told:
                raise SystemExit(f"The server did not begin: {log.read_text(errors='replace')[-2000:]}")
            yield process.pid, int(told[0].rpartition(":")[2])
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def reading(paths: list[str], token: str) -> Draw:
    """Reads, drawn evenly."""
    head = f" HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\nAccept: application/fhir+json\r\n\r\n"
    texts = [(f"GET {path}{head}".encode(), f'"id":"{path.rpartition("/")[2]}"'.encode()) for path in paths]
    choice = random.Random(5).random
    return lambda: texts[int(choice() * len(texts))]


def creating(paths: list[str], token: str) -> Draw:
    """Creates of an observation of 600 bytes, each of one of the patients."""
    patients = [path.rpartition("/")[2] for path in paths if "/Patient/" in path]
    rng, many = random.Random(6), iter(range(1 << 40))

    def draw() -> tuple[bytes, bytes]:
        number = next(many)
        body = json.dumps(
            {
                "resourceType": "Observation", "status": "final",
                "identifier": [{"system": "urn:bench:observation", "value": f"{number}"}],
                "category": [{"coding": [{"code": "vital-signs",
                              "system": "http://terminology.hl7.org/CodeSystem/observation-category"}]}],
                "code": {"coding": [{"system": "http://loinc.org", "code": "8867-4", "display": "Heart rate"}]},
                "subject": {"reference": f"Patient/{rng.choice(patients)}"},
                "effectiveDateTime": "2023-03-01T10:00:00Z",
                "valueQuantity": {"value": 60 + number % 60, "unit": "/min", "code": "/min",
                                  "system": "http://unitsofmeasure.org"},
            }
        ).encode()  # fmt: skip
        head = (
            f"POST /fhir/Observation HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n"
            f"Content-Type: application/fhir+json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body, b"/_history/1\r\n"

    return draw


def fill(home: Home, folder: Path, patients: int) -> None:
    """Make and load a workspace."""
    if home.there:
        return
    made = generate(folder / "hospital", patients=patients, seed=3)
    paths = []
    for file in made.files[1:]:
        with file.open("rb") as lines:
            for line in lines:
                one = json.loads(line)
                if one["resourceType"] in ("Patient", "Observation", "Condition", "Encounter"):
                    paths.append(f"/fhir/{one['resourceType']}/{one['id']}")
    (folder / "paths.json").write_text(json.dumps(random.Random(4).sample(paths, min(20_000, len(paths)))))
    home.make()
    home.ingest(folder / "hospital")
    home.settle()
    shutil.rmtree(folder / "hospital")


def token_of(home: Home) -> str:
    """A token of who made the workspace."""
    return home.run("-w", str(home.root), "token").decode().strip()


def acts(home: Home) -> int:
    """How many acts of reading and writing there are."""
    with home.opened() as workspace, workspace.vault.database.ledger_reading() as connection:
        return int(
            connection.exec_driver_sql(
                "SELECT count(*) FROM act WHERE action IN ('record:read', 'record:write')"
            ).scalar_one()
        )


def measure(home: Home, folder: Path, told: argparse.Namespace, workers: int) -> list[dict[str, Any]]:
    """Loads on one database with so many workers."""
    token, rows, answers, before = token_of(home), [], 0, acts(home)
    paths = json.loads((folder / "paths.json").read_text())
    with serving(home, workers, folder / "log") as (pid, port):
        kinds: dict[str, Draw] = {"read": reading(paths, token), "create": creating(paths, token)}
        for kind in told.kinds.split(","):
            draw = kinds[kind]
            warming = Load(draw, 8, min(1.0, told.seconds))  # imports, pools and caches
            run(warming, port)
            answers += len(warming.spent)
            time.sleep(0.5)  # until its connections have ended everywhere: the next are spread evenly
            for connections in map(int, told.connections.split(",")):
                load = Load(draw, connections, told.seconds)
                server, own, began = cpu(pid), _own(), time.perf_counter()
                run(load, port)
                seconds = time.perf_counter() - began
                answers += len(load.spent)
                good = sum(many for status, many in load.statuses.items() if status[:1] == b"2")
                row = {
                    "kind": kind, "workers": workers, "connections": connections, "seconds": round(seconds, 2),
                    "per_second": round(good / seconds), **percentiles(load.spent or [0.0]),
                    "statuses": {key.decode(): many for key, many in load.statuses.items()}, "lost": load.lost,
                    "wrong": load.wrong,
                    "server_cpu_us": round(1e6 * (cpu(pid) - server) / max(1, len(load.spent))),
                    "client_cpu_us": round(1e6 * (_own() - own) / max(1, len(load.spent))),
                    "rss": rss(pid), "load": round(os.getloadavg()[0], 2),
                }  # fmt: skip
                rows.append(row)
                print(json.dumps(row), flush=True)
    if (kept := acts(home) - before) < answers:
        raise SystemExit(f"{answers} answers, and {kept} acts: an answer left without its act.")
    return rows


def _own() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def pace() -> dict[str, float]:
    """How quick this machine is now, to compare reports by: it may have others beside it that we do not see.

    Milliseconds of a million additions; microseconds of a word to another process and back.
    """
    began, total = time.perf_counter(), 0
    for number in range(1_000_000):
        total += number
    added = time.perf_counter() - began
    ours, theirs = socket.socketpair()
    other = os.fork()
    if not other:
        ours.close()
        while word := theirs.recv(1):
            theirs.send(word)
        os._exit(0)
    theirs.close()
    began = time.perf_counter()
    for _ in range(2000):
        ours.send(b"x")
        ours.recv(1)
    there = time.perf_counter() - began
    ours.close()
    os.waitpid(other, 0)
    return {"additions_ms": round(1000 * added, 1), "switch_us": round(1e6 * there / 2000, 1)}


def held(rows: list[dict[str, Any]]) -> dict[str, bool]:
    """The bounds at 32 connections."""
    found = {}
    for one in rows:
        if one["connections"] == 32 and one["workers"] == max(row["workers"] for row in rows):
            name = f"{one['database']}-{one['kind']}"
            least = READS if one["kind"] == "read" else CREATES
            found[name] = (
                not one["wrong"]
                and one["per_second"] >= least
                and (one["kind"] != "read" or one["p99"] < READ_P99_MS)
            )
    return found


def main() -> int:
    """Measure, print and keep the report; exit code 1 when a bound does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--databases", default="embedded,postgresql")
    parser.add_argument("--workers", default="1,2", help="numbers of workers, separated by commas")
    parser.add_argument("--connections", default="1,32")
    parser.add_argument("--kinds", default="read,create")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each load")
    parser.add_argument("--patients", type=int, default=500)
    parser.add_argument("--folder", type=Path, help="where the workspaces are; otherwise a temporary one")
    parser.add_argument("--keep", action="store_true", help="leave them there")
    parser.add_argument("--smoke", action="store_true", help="does it run; no report, no bounds")
    parser.add_argument("--out", type=Path, default=RESULTS)
    told = parser.parse_args()
    if told.smoke:
        told.databases, told.workers, told.connections, told.seconds, told.patients = "embedded", "1", "8", 1.0, 20
    top = told.folder or Path(tempfile.mkdtemp(prefix="carelake-rest-"))
    rows: list[dict[str, Any]] = []
    paces: list[dict[str, float]] = []
    try:
        for name in told.databases.split(","):
            if name == "postgresql" and (reason := postgres_missing()):
                print(reason)
                continue
            folder = top / name
            folder.mkdir(parents=True, exist_ok=True)
            for path in (folder, folder.parent):
                path.chmod(path.stat().st_mode | 0o011)  # PostgreSQL runs as another user when we are root
            server = PostgresServer(folder / "postgresql") if name == "postgresql" else None
            try:
                home = Home(folder, server)
                fill(home, folder, told.patients)
                for workers in map(int, told.workers.split(",")):
                    print(f"== {name}, {workers} workers", flush=True)
                    paces.append(pace())
                    rows += [{"database": name, **row} for row in measure(home, folder, told, workers)]
            finally:
                if server is not None:
                    server.stop()
    finally:
        if not (told.keep or told.folder):
            shutil.rmtree(top, ignore_errors=True)
    if told.smoke:
        return 0 if rows and not any(row["lost"] or row["wrong"] for row in rows) else 1
    report = {
        "bench": "rest", "at": datetime.now(UTC).isoformat(timespec="seconds"), "cores": os.cpu_count(),
        "python": sys.version.split()[0], "pace": [*paces, pace()], "rows": rows, "held": held(rows),
    }  # fmt: skip
    told.out.mkdir(parents=True, exist_ok=True)
    (told.out / f"rest-{report['at'][:10]}.json").write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps({"held": report["held"]}))
    return 0 if all(report["held"].values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
