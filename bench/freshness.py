"""How far the lake is behind while the record is written to over HTTP, and a follower keeps it.

    python bench/freshness.py [--writes 500] [--seconds 60] [--patients 300] [--beside command|server] [--smoke]

`carelake serve` takes so many creates a second, evenly, over 16 connections; `carelake lake sync --follow` runs
beside it, or the server itself follows (setting ``lake.follow``). Ten times a second this process asks what
`lake status` tells: the age of the oldest change that the lake does not have. Afterwards writing ends, and the lake
must have every change once, which is counted with SQL. Bound: behind less than 2 s at any time (issue 6).
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from _postgres import end_with_parent
from _workspace import COMMAND, Home, cpu
from rest import fill, serving, token_of

BEHIND_SECONDS = 2.0
CONNECTIONS = 16
LOOK_SECONDS = 0.1
OBSERVATION: dict[str, Any] = {
    "status": "final",
    "category": [
        {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": "vital-signs"}]}
    ],
    "code": {"coding": [{"system": "http://loinc.org", "code": "8867-4", "display": "Heart rate"}]},
    "effectiveDateTime": "2023-03-01T10:00:00Z",
    "valueQuantity": {"value": 71, "unit": "/min", "system": "http://unitsofmeasure.org", "code": "/min"},
}
OTHERS: dict[str, dict[str, Any]] = {
    "Condition": {
        "clinicalStatus": {
            "coding": [{"system": "http://terminology.hl7.org/CodeSystem/condition-clinical", "code": "active"}]
        },
        "code": {"coding": [{"system": "http://hl7.org/fhir/sid/icd-10-cm", "code": "I10"}]},
        "onsetDateTime": "2023-03-01",
    },
    "Encounter": {
        "status": "finished",
        "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "AMB"},
        "period": {"start": "2023-03-01T10:00:00Z", "end": "2023-03-01T10:20:00Z"},
    },
    "Procedure": {
        "status": "completed",
        "code": {"text": "Wound care"},
        "performedDateTime": "2023-03-01T10:00:00Z",
    },
    "MedicationRequest": {
        "status": "active",
        "intent": "order",
        "medicationCodeableConcept": {
            "coding": [{"system": "http://www.nlm.nih.gov/research/umls/rxnorm", "code": "29046"}]
        },
        "authoredOn": "2023-03-01",
    },
}
"""Every second write is one of these in turn, the others are Observations: each type is a table of the lake."""
TYPES = ("Observation", *OTHERS)
COUNT = " UNION ALL ".join(f"SELECT count(*) AS n, count(DISTINCT id) AS ids FROM {one}_history" for one in TYPES)


class Paced(asyncio.Protocol):
    """One connection: asks at its times, or at once where the answer before came late."""

    def __init__(self, load: Load, first: float) -> None:
        self._load, self._next, self._buffer, self._need = load, first, b"", 0

    def connection_made(self, transport: Any) -> None:
        self._transport, self._loop = transport, asyncio.get_running_loop()
        self._wait()

    def _wait(self) -> None:
        if self._next >= self._load.end:
            self._load.over(self._transport)
        else:
            self._loop.call_at(max(self._next, self._loop.time()), self._ask)

    def _ask(self) -> None:
        self._began = self._loop.time()
        self._next += self._load.step
        self._transport.write(self._load.draw())

    def data_received(self, data: bytes) -> None:
        self._buffer = data = self._buffer + data
        if not self._need:
            head = data.find(b"\r\n\r\n")
            if head < 0:
                return
            at = data.find(b"content-length: ", 0, head)
            self._need = head + 4 + (int(data[at + 16 : data.find(b"\r", at)]) if at > 0 else 0)
        if len(data) >= self._need:
            self._load.statuses[data[9:12].decode()] += 1
            self._load.spent.append(self._loop.time() - self._began)
            self._buffer, self._need = b"", 0
            self._wait()


def mixed(paths: list[str], token: str) -> Callable[[], bytes]:
    """Creates of several types."""
    number = itertools.count()
    patients = [path.removeprefix("/fhir/") for path in paths if "/Patient/" in path]

    def draw() -> bytes:
        at = next(number)
        kind = "Observation" if at % 2 else TYPES[1 + at // 2 % len(OTHERS)]
        said = OTHERS.get(kind, OBSERVATION)
        told = {"resourceType": kind, "subject": {"reference": patients[at % len(patients)]}, **said}
        body = json.dumps(told).encode()
        return (
            f"POST /fhir/{kind} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n"
            f"Content-Type: application/fhir+json\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode() + body

    return draw


class Load:
    """So many creates a second."""

    def __init__(self, draw: Callable[[], bytes], rate: float, seconds: float) -> None:
        self.draw, self.step, self._seconds = draw, CONNECTIONS / rate, seconds
        self.statuses: Counter[str] = Counter()
        self.spent: list[float] = []

    def over(self, transport: Any) -> None:
        transport.close()
        self._left -= 1
        if not self._left:
            self._done.set_result(None)

    async def run(self, port: int) -> None:
        loop = asyncio.get_running_loop()
        self._done, self._left = loop.create_future(), CONNECTIONS
        began = loop.time() + 0.1
        self.end = began + self._seconds
        for number in range(CONNECTIONS):
            first = began + self.step * number / CONNECTIONS
            await loop.create_connection(lambda first=first: Paced(self, first), "127.0.0.1", port)
        await asyncio.wait_for(self._done, self._seconds + 60)


def percentiles(found: list[float]) -> dict[str, float]:
    """In seconds."""
    ordered = sorted(found)
    return {
        name: round(ordered[min(len(ordered) - 1, int(len(ordered) * share))], 3)
        for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99), ("most", 1.0))
    }


class Watch:
    """Looks how far the lake is behind, until the block ends."""

    def __init__(self, workspace: Any) -> None:
        self._workspace, self._account = workspace, workspace.local(None, None, None).account
        self._over = threading.Event()
        self.seconds: list[float] = []
        self.changes: list[float] = []

    def look(self) -> Any:
        from carelake.lake.following.fresh import of_accounts

        space = self._workspace
        return of_accounts(space.gate.polling(), space.vault, space.resources, self._account)[self._account]

    def __enter__(self) -> Watch:
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def _run(self) -> None:
        while not self._over.wait(LOOK_SECONDS):
            found = self.look()
            self.seconds.append(found.seconds)
            self.changes.append(found.behind)

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


@contextmanager
def follower(home: Home, report: dict[str, Any]) -> Iterator[int]:
    """``carelake lake sync --follow`` as its own process; what it tells at its end goes to the report."""
    process = subprocess.Popen(
        [*COMMAND, "-w", str(home.root), "lake", "sync", "--follow", "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=home.environment, preexec_fn=end_with_parent,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        process.stderr.readline()
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=60)
        report["follower"] = {**json.loads(out or b"{}"), "exit": process.returncode}


def measure(home: Home, folder: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """Writes for some seconds, and what the lake was behind meanwhile."""
    home.run("-w", str(home.root), "lake", "sync")
    token, report = token_of(home), {}
    if asked.beside == "server":
        home.environment["CARELAKE_LAKE__FOLLOW"] = "true"
    paths = json.loads((folder / "paths.json").read_text())
    load = Load(mixed(paths, token), asked.writes, asked.seconds)
    with serving(home, 1, folder / "log") as (pid, port), ExitStack() as rest:
        mate = rest.enter_context(follower(home, report)) if asked.beside == "command" else 0
        watch = Watch(rest.enter_context(home.opened()))
        asyncio.run(Load(load.draw, asked.writes, min(3.0, asked.seconds)).run(port))  # imports, pools and caches
        wait_for(watch)
        used, began = (cpu(pid), cpu(mate) if mate else 0.0), time.monotonic()
        with watch:
            asyncio.run(load.run(port))
        seconds = time.monotonic() - began
        report |= {
            "server_cpu": round(cpu(pid) - used[0], 2),
            "follower_cpu": round(cpu(mate) - used[1], 2) if mate else 0,
        }
        report["caught_up_seconds"] = wait_for(watch)
    good = sum(many for status, many in load.statuses.items() if status[:1] == "2")
    told = counted(home)
    return {
        "beside": asked.beside, "asked_per_second": asked.writes, "per_second": round(good / seconds, 1),
        "seconds": round(seconds, 1), "writes": good, "statuses": dict(load.statuses),
        "write_ms": {name: round(1000 * value, 1) for name, value in percentiles(load.spent or [0.0]).items()},
        "behind_seconds": percentiles(watch.seconds or [0.0]), "behind_changes": percentiles(watch.changes or [0.0]),
        "looks": len(watch.seconds), **report, "observation": files(home),
        "lost": stored(home) - told["n"], "doubled": told["n"] - told["ids"],
    }  # fmt: skip


def stored(home: Home) -> int:
    """Resources of these types in the record, as its own index counts them."""
    return sum(
        json.loads(home.run("-w", str(home.root), "search", f"{one}?_summary=count", "--json"))["total"]
        for one in TYPES
    )


def counted(home: Home) -> dict[str, int]:
    """Rows of all versions in the lake's tables, and their ids."""
    told = json.loads(home.run("-w", str(home.root), "sql", COUNT, "--format", "json"))
    return {name: sum(one[name] for one in told) for name in ("n", "ids")}


def wait_for(watch: Watch) -> float:
    """Seconds until the lake has everything."""
    began = time.monotonic()
    while watch.look().behind:
        if time.monotonic() - began > 60:
            raise SystemExit("The lake does not come up to the record.")
        time.sleep(0.02)
    return round(time.monotonic() - began, 2)


def files(home: Home) -> dict[str, int]:
    """What the follower left of one table."""
    from carelake.lake.iceberg.catalog import VaultCatalog

    with home.opened() as space, space.enter(space.local(None, None, None), "lake:query", "lake") as permit:
        table = VaultCatalog(space.vault, permit).load_table((permit.account, "Observation"))
        return {"files": sum(1 for _ in table.scan().plan_files()), "snapshots": len(table.snapshots())}


def main() -> int:
    """Measure, print and keep the report; exit code 1 when the bound does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--writes", type=float, default=500.0, help="a second")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--patients", type=int, default=300)
    parser.add_argument("--beside", choices=("command", "server"), default="command")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--smoke", action="store_true", help="a few seconds, few writes, and no bound of time")
    asked = parser.parse_args()
    if asked.smoke:
        asked.writes, asked.seconds, asked.patients = 100.0, 3.0, 20
    top = Path(tempfile.mkdtemp(prefix="carelake-freshness-"))
    try:
        home = Home(top)
        fill(home, top, asked.patients)
        told = measure(home, top, asked)
    finally:
        shutil.rmtree(top, ignore_errors=True)
    print(json.dumps(told), flush=True)
    whole = told["lost"] == 0 == told["doubled"]
    if asked.smoke:
        return 0 if whole else 1
    report = {
        "bench": "freshness", "at": datetime.now(UTC).isoformat(timespec="seconds"), "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2), **told,
        "held": {
            "behind": told["behind_seconds"]["most"] < BEHIND_SECONDS, "nothing_lost": whole,
            "writes": told["per_second"] >= 0.98 * asked.writes,
        },
    }  # fmt: skip
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / f"freshness-{report['at'][:10]}.json").write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps({"held": report["held"]}))
    return 0 if all(report["held"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
