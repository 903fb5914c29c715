"""Side by side with HAPI FHIR in one run: the same resources into both, then the same searches of both over HTTP.

    python bench/hapi_import.py [--patients 600] [--warm-up 600] [--clients 3] [--bundle 500] [--out bench/results]

HAPI's JPA server is put together from Maven Central (`bench/hapi`), with PostgreSQL and the settings that its
documentation advises for loading. It gets transactions of whole patients by several clients, after other patients
that warm it up and are not counted. carelake gets the same files by ``carelake ingest``, with all that it always
does: validated, all parameters indexed, sealed under patients' keys, told on the trail; into its own database
(SQLCipher) and into a database of the same PostgreSQL server. They run one after another. Processor time is told
beside the rates: other work on the machine lengthens it less.

Needs Java 17 or later and Maven; where they are not, it says so and measures nothing.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from _hapi import Hapi, build, bundles, get, missing
from _mix import MIX, Pool, read_pool
from _postgres import PostgresServer, postgres_missing
from _workspace import COMMAND, Home, cpu, rss
from carelake.synth import generate

TIMES = 5
"""How many times HAPI's rate carelake's must be."""
Ask = Callable[[str], dict[str, Any]]


@contextmanager
def serving(home: Home) -> Iterator[Ask]:
    """``carelake serve`` on a free port, asked with a token."""
    token = home.run("-w", str(home.root), "--as", "operator", "--purpose", "TREAT", "token", "--json")
    log = home.root.parent / "log"  # a line for each request: a pipe that nobody reads would fill
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [*COMMAND, "-w", str(home.root), "serve", "--port", "0"], stdout=errors, stderr=errors,
            env=home.environment,
        )  # fmt: skip
    try:
        while not (found := re.search(r"http://127\.0\.0\.1:(\d+)", log.read_text())):
            if process.poll() is not None:
                raise SystemExit(f"carelake serve ended: {log.read_text()}")
            time.sleep(0.1)
        connection = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=600)
        headers = {"Authorization": f"Bearer {json.loads(token)['token']}"}
        time.sleep(3)  # what it imports behind its first answers
        yield lambda text: get(connection, text, headers)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def searches(ask: Ask, pool: Pool, seconds: float) -> dict[str, Any]:
    """Percentiles of each search of the mix, or why it is not answered."""
    found: dict[str, Any] = {}
    for search in MIX:
        rng, spent, matches = random.Random(5), list[float](), 0
        try:
            for number in range(-10, 60):
                text = pool.draw(search.text, rng)
                began = time.perf_counter()
                found_here = ask(text)
                if number >= 0:
                    spent.append(time.perf_counter() - began)
                    matches += len(found_here.get("entry", ()))
                if sum(spent) > seconds:
                    break
            spent.sort()
            found[search.name] = {
                "p50": round(1000 * spent[len(spent) // 2], 2),
                "p95": round(1000 * spent[min(len(spent) - 1, int(len(spent) * 0.95))], 2),
                "entries": round(matches / len(spent), 1),
            }
        except ValueError as error:
            found[search.name] = {"left_out": str(error)[:120]}
    return found


def hapi_side(folder: Path, made: dict[str, Any], told: argparse.Namespace, server: PostgresServer) -> dict[str, Any]:
    """Build, start, warm up, load, search."""
    began = time.monotonic()
    built = build()
    print(f"HAPI FHIR {built[1]} is built ({time.monotonic() - began:.0f} s)", flush=True)
    server.create("hapi")
    began = time.monotonic()
    hapi = Hapi(built, server, "hapi", folder / "hapi.log")
    try:
        started = time.monotonic() - began
        # The hospital itself first and alone, since all patients refer to it; it is the same for both sets of them.
        began, warm = time.monotonic(), 0
        for files in (made["warm"][:1], made["warm"][1:]):
            warm += hapi.load(bundles(files, told.bundle), told.clients)[0]
        print(f"HAPI FHIR is up ({started:.0f} s) and warm ({time.monotonic() - began:.0f} s)", flush=True)
        sent = bundles(made["files"][1:], told.bundle)
        before, half = cpu(hapi.pid) + cpu(server.process.pid), len(sent) // 2
        first, second = (hapi.load(part, told.clients) for part in (sent[:half], sent[half:]))
        read, seconds = first[0] + second[0], first[1] + second[1]
        spent = cpu(hapi.pid) + cpu(server.process.pid) - before
        with server.connect("hapi") as database:
            [(rows,)] = database.execute("SELECT count(*) FROM hfj_resource").fetchall()
        if rows != warm + read:
            raise SystemExit(f"HAPI FHIR was sent {warm + read} resources and holds {rows}.")
        print(f"HAPI FHIR took {read:,} resources in {seconds:.1f} s", flush=True)
        server.settle("hapi")
        connection, headers = hapi.connect(), {"Cache-Control": "no-cache"}
        found = searches(lambda text: get(connection, text, headers), made["pool"], told.seconds)
        return {
            "version": built[1], "read": read, "seconds": round(seconds, 2), "per_second": round(read / seconds),
            "cpu_seconds": round(spent, 2), "halves_per_second": [round(one[0] / one[1]) for one in (first, second)],
            "start_seconds": round(started, 1),
            "rss": rss(hapi.pid), "bytes": server.bytes("hapi"), "searches": found,
        }  # fmt: skip
    finally:
        hapi.stop()


def carelake_side(
    folder: Path, made: dict[str, Any], told: argparse.Namespace, server: PostgresServer | None
) -> dict[str, Any]:
    """Load, search."""
    home = Home(folder, server)
    home.make()
    found: dict[str, Any] = home.ingest(made["folder"])
    found["bytes"] = home.bytes()
    home.settle()
    with serving(home) as ask:
        found["searches"] = searches(ask, made["pool"], told.seconds)
    return found


def hospitals(folder: Path, patients: int, warm_up: int) -> dict[str, Any]:
    """The files that both get, and those that only warm up."""
    warm = generate(folder / "warm", patients=warm_up, seed=11)
    made = generate(folder / "hospital", patients=patients, seed=3)
    return {
        "warm": warm.files, "files": made.files, "folder": folder / "hospital",
        "pool": read_pool(made.files[1:]), "resources": made.resources,
    }  # fmt: skip


def table(report: dict[str, Any]) -> None:
    """For people."""
    sides = ("hapi", "embedded", "postgresql")
    for name in sides:
        one = report[name]
        print(f"{name:11} {one['per_second']:>7,} resources/s   {one['read']:,} in {one['seconds']:.1f} s")
    print(f"{'milliseconds: p50 (p95) entries':30}" + "".join(f"{name:>24}" for name in sides))
    for search in MIX:
        cells = (report[name]["searches"][search.name] for name in sides)
        shown = (f"{one['p50']:.1f} ({one['p95']:.1f}) {one['entries']:>5}" if "p50" in one else "-" for one in cells)
        print(f"{search.name:30}" + "".join(f"{one:>24}" for one in shown))


def main() -> int:
    """Measure, print and keep the report; exit code 1 when carelake is not so many times as fast."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, default=600)
    parser.add_argument("--warm-up", type=int, default=600, help="patients that HAPI gets first, not counted")
    parser.add_argument("--clients", type=int, default=3, help="that send to HAPI at once")
    parser.add_argument("--bundle", type=int, default=500, help="resources of one transaction to HAPI, at least")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each search, at most")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    told = parser.parse_args()
    if reason := missing() or postgres_missing():
        print(reason)
        return 0
    folder = Path(tempfile.mkdtemp(prefix="carelake-beside-"))
    folder.chmod(0o711)  # PostgreSQL runs as another user when we are root
    report: dict[str, Any] = {
        "bench": "hapi_import", "at": datetime.now(UTC).isoformat(timespec="seconds"), "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2), "patients": told.patients, "warm_up": told.warm_up,
        "clients": told.clients, "bundle": told.bundle,
    }  # fmt: skip
    server = PostgresServer(folder / "postgresql")
    try:
        made = hospitals(folder, told.patients, told.warm_up)
        report["resources"] = made["resources"]
        report["hapi"] = hapi_side(folder, made, told, server)
        report["embedded"] = carelake_side(folder / "embedded", made, told, None)
        report["postgresql"] = carelake_side(folder / "on-postgresql", made, told, server)
        report["load_after"] = round(os.getloadavg()[0], 2)
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
    rate = report["hapi"]["per_second"]
    report["times_hapi"] = {one: round(report[one]["per_second"] / rate, 2) for one in ("embedded", "postgresql")}
    each = {one: report[one]["cpu_seconds"] / report[one]["read"] for one in ("hapi", "embedded", "postgresql")}
    report["cpu_us_per_resource"] = {one: round(1e6 * spent) for one, spent in each.items()}
    report["times_hapi_cpu"] = {one: round(each["hapi"] / each[one], 2) for one in ("embedded", "postgresql")}
    report["held"] = {"embedded": report["times_hapi"]["embedded"] >= TIMES}
    told.out.mkdir(parents=True, exist_ok=True)
    (told.out / f"hapi_import-{report['at'][:10]}.json").write_text(json.dumps(report, indent=2) + "\n")
    table(report)
    print(
        json.dumps({name: report[name] for name in ("times_hapi", "times_hapi_cpu", "cpu_us_per_resource", "held")})
    )
    return 0 if all(report["held"].values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
