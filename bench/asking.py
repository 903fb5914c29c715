"""Rows a second of one statement through each door, and what a small statement takes.

    python bench/asking.py [--rows 1000000] [--folder DIR] [--smoke]

A hospital is made, read and synced (in ``--folder``, where a second run finds it). The statement gives ``--rows``
rows of five columns (id, patient, code, time, number) of Observations, each of them several times. ``python_*`` are
``carelake.connect`` in this process: record batches, a frame of polars, tuples. ``http_*`` are ``carelake serve``
with one worker and one client that reads the whole answer: it runs, is sealed and kept, and is read again, so
``first_seconds`` (until the first piece) holds most of it; ``http_json`` reads pages of 10,000. ``flight`` is
``carelake flight`` and a client of pyarrow. ``rss`` and ``peak_rss`` are of the server, before and at the highest.
``small`` is the median of a statement with one row, in milliseconds. Bounds: every door gives all rows; no door but
JSON, CSV and tuples is slower than 100,000 rows a second.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, Thread
from typing import Any

import httpx
import pyarrow as pa
from pyarrow import flight

from _workspace import COMMAND, Home, rss

PATIENTS = 150
LEAST = 100_000
PAGES = 10_000
SMALL = "SELECT count(*) AS n FROM Patient WHERE gender = ?"
ASKED = 15


def statement(home: Home, rows: int) -> str:
    """So many rows, of Observations that are there."""
    found = json.loads(home.run("-w", str(home.root), "sql", "SELECT count(*) AS n FROM Observation", "--json"))
    times = -(-rows // found[0]["n"])
    return f"SELECT o.id, o.patient, o.code, o.time, r.range AS n FROM Observation o, range({times}) r LIMIT {rows}"


@contextmanager
def door(home: Home, *words: str) -> Iterator[tuple[str, int]]:
    """A server as a process: its address and its pid."""
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [*COMMAND, "-w", str(home.root), *words, "--port", "0"], stdout=log, stderr=log, env=home.environment
        )
        try:
            while "Listening on " not in (said := _read(log)):
                assert process.poll() is None, said
                time.sleep(0.05)
            yield said.partition("Listening on ")[2].split()[0], process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def _read(log: Any) -> str:
    log.seek(0)
    return str(log.read())


@contextmanager
def watched(pid: int, told: dict[str, Any]) -> Iterator[None]:
    """Put down the memory of a process before the block, and its highest in it."""
    over, before = Event(), rss(pid)
    told["rss"], told["peak_rss"] = before, before

    def watch() -> None:
        while not over.wait(0.02):
            told["peak_rss"] = max(told["peak_rss"], rss(pid))

    thread = Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def measured(pid: int, read: Callable[[], Iterator[int]]) -> dict[str, Any]:
    """Read rows, told piece by piece: how many, how fast, and the memory that it took."""
    told: dict[str, Any] = {}
    with watched(pid, told):
        began, first, rows = time.perf_counter(), 0.0, 0
        for number in read():
            first = first or time.perf_counter() - began
            rows += number
        seconds = time.perf_counter() - began
    return {"rows": rows, "seconds": round(seconds, 3), "per_second": round(rows / seconds),
            "first_seconds": round(first, 3), **told}  # fmt: skip


def small(ask: Callable[[], Any]) -> float:
    """Median milliseconds."""
    took = []
    for _ in range(ASKED):
        began = time.perf_counter()
        ask()
        took.append((time.perf_counter() - began) * 1000)
    return round(statistics.median(took), 1)


def by_python(home: Home, text: str, report: dict[str, Any]) -> None:
    """``carelake.connect``."""
    import carelake

    os.environ["CARELAKE_KEY_DIR"] = home.environment["CARELAKE_KEY_DIR"]
    with carelake.connect(home.root) as way:
        ways: dict[str, Callable[[], Iterator[int]]] = {
            "python_batches": lambda: (len(one) for one in way.execute(text).batches()),
            "python_polars": lambda: iter([way.execute(text).polars().height]),
            "python_tuples": lambda: (1 for _ in way.execute(text)),
        }
        for name, read in ways.items():
            report[name] = measured(os.getpid(), read)
        report["small"]["python"] = small(lambda: way.execute(SMALL, ["female"]).fetchall())


def by_http(home: Home, text: str, headers: dict[str, str], report: dict[str, Any]) -> None:
    """``carelake serve``."""
    with door(home, "serve") as (url, pid), httpx.Client(base_url=url, headers=headers, timeout=300) as client:
        report["small"]["http"] = small(
            lambda: client.post("/sql", json={"statement": SMALL, "parameters": ["female"]})
        )

        def arrow() -> Iterator[int]:
            yield from _streamed(client, text, "arrow", lambda lines: (len(one) for one in _batches(lines)))

        def lines(form: str) -> Iterator[int]:
            yield from _streamed(client, text, form, lambda pieces: (one.count(b"\n") for one in pieces))

        def pages() -> Iterator[int]:
            page = client.post("/sql", json={"statement": text, "rows": PAGES}, headers={"Prefer": "wait=30"}).json()
            yield len(page["rows"])
            while page["next"]:
                page = client.get(f"/sql/{page['id']}", params={"page": page["next"]}).json()
                yield len(page["rows"])

        report["http_arrow"] = measured(pid, arrow)
        report["http_csv"] = measured(pid, lambda: lines("csv"))
        report["http_csv"]["rows"] -= 1  # the names of the columns
        report["http_json"] = measured(pid, pages)


def _streamed(
    client: httpx.Client, text: str, form: str, rows: Callable[[Iterator[bytes]], Iterator[int]]
) -> Iterator[int]:
    said = {"statement": text, "format": form}
    with client.stream("POST", "/sql", json=said, headers={"Prefer": "wait=30", "Accept-Encoding": ""}) as answer:
        assert answer.status_code == 200, answer.read()
        yield from rows(answer.iter_raw())


def _batches(pieces: Iterator[bytes]) -> Iterator[pa.RecordBatch]:
    yield from pa.ipc.open_stream(pa.PythonFile(_Pieces(pieces), "r"))


class _Pieces:
    """What is read piece by piece, as a file."""

    closed = False

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._left = pieces, bytearray()

    def read(self, size: int) -> bytes:
        while len(self._left) < size and (piece := next(self._pieces, None)) is not None:
            self._left += piece
        found = bytes(self._left[:size])
        del self._left[:size]
        return found

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        """Nothing is held."""


def by_flight(home: Home, text: str, headers: dict[str, str], report: dict[str, Any]) -> None:
    """``carelake flight``."""
    options = flight.FlightCallOptions(headers=[(b"authorization", headers["Authorization"].encode())])
    with door(home, "flight") as (url, pid), flight.connect(url) as client:

        def get(said: str, parameters: Any = None) -> flight.FlightStreamReader:
            command = json.dumps({"statement": said, "parameters": parameters}).encode()
            info = client.get_flight_info(flight.FlightDescriptor.for_command(command), options)
            return client.do_get(info.endpoints[0].ticket, options)

        report["small"]["flight"] = small(lambda: get(SMALL, ["female"]).read_all())
        report["flight"] = measured(pid, lambda: (one.data.num_rows for one in get(text)))


def made(folder: Path, patients: int) -> Home:
    """A workspace with a hospital in it, synced."""
    from carelake.synth import generate

    home = Home(folder)
    if not home.there:
        generate(folder / "hospital", patients=patients, seed=3)
        home.make()
        home.ingest(folder / "hospital")
        home.run("-w", str(home.root), "lake", "sync")
    return home


def main() -> int:
    """Measure, print and keep the report; exit code 1 when a bound does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, help="where the workspace is made, or found")
    parser.add_argument("--only-make", action="store_true", help="make the workspace and measure nothing")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--smoke", action="store_true", help="few rows, and no bound of time")
    asked = parser.parse_args()
    rows = 20_000 if asked.smoke else asked.rows
    folder = asked.folder or Path(tempfile.mkdtemp(prefix="carelake-asking-"))
    report: dict[str, Any] = {
        "bench": "asking", "at": datetime.now(UTC).isoformat(timespec="seconds"), "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2), "rows": rows, "small": {},
    }  # fmt: skip
    try:
        home = made(folder, 20 if asked.smoke else PATIENTS)
        if asked.only_make:
            return 0
        text = statement(home, rows)
        token = home.run("-w", str(home.root), "token", "--as", "operator", "--purpose", "HOPERAT").decode().strip()
        headers = {"Authorization": f"Bearer {token}"}
        by_python(home, text, report)
        by_http(home, text, headers, report)
        by_flight(home, text, headers, report)
    finally:
        if asked.folder is None:
            shutil.rmtree(folder, ignore_errors=True)
    report["load_after"] = round(os.getloadavg()[0], 2)
    doors = {name: one for name, one in report.items() if isinstance(one, dict) and "per_second" in one}
    columns = ("python_batches", "python_polars", "http_arrow", "flight")
    report["held"] = {
        "all_rows": all(one["rows"] == rows for one in doors.values()),
        "rate": min(doors[name]["per_second"] for name in columns) >= LEAST,
    }
    print(json.dumps(report))
    if asked.smoke:
        return 0 if report["held"]["all_rows"] else 1
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / f"asking-{report['at'][:10]}.json").write_text(json.dumps(report, indent=2) + "\n")
    return 0 if all(report["held"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
