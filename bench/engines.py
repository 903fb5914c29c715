"""The same view of the lake on DuckDB, on Spark and by shards: how long, on how many processors, in how much memory.

    python bench/engines.py [--rows 10000,100000,1000000] [--times 3]    # makes lakes, measures, a process for each
    python bench/engines.py --folder F --build [--rows ...]              # makes the lakes, measures nothing
    python bench/engines.py --folder F [--rows ...]                      # measures those

A lake has Observations of one patient for each 50, sealed in the vault. The view gives one row for each: four
columns, one of them out of a coding. ``seconds`` is the shortest of ``--times``, from the encrypted files to the rows
in this process (``sharded``: to Parquet); ``cpu_seconds`` and ``peak_rss`` are of the same run, child processes with
it. ``spark`` is handed the rows, since it does not read what is sealed; ``start_seconds`` is its session and a first
view over one row. Every engine's rows have the same hash, or the report is not written.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from _workspace import cpu, rss

RESULTS = Path(__file__).parent / "results"
VIEW = {
    "resource": "Observation",
    "name": "values",
    "status": "active",
    "select": [
        {
            "column": [
                {"name": "id", "path": "getResourceKey()"},
                {"name": "patient", "path": "subject.getReferenceKey(Patient)"},
                {"name": "value", "path": "value.ofType(Quantity).value"},
                {"name": "loinc", "path": "code.coding.where(system = 'http://loinc.org').code.first()"},
            ]
        }
    ],
}
PER_PATIENT = 50


class Feed:
    """Observations, made as they are read."""

    def __init__(self, count: int) -> None:
        self._count = count

    def last_seq(self, permit: Any) -> int:
        return self._count

    def changes(self, permit: Any, after: int, limit: int) -> list[Any]:
        from carelake.store.feed import Change

        return [Change(*_change(n)) for n in range(after + 1, min(after + limit, self._count) + 1)]


def _change(n: int) -> tuple[Any, ...]:
    patient = f"p{(n - 1) // PER_PATIENT}"
    body = (
        f'{{"code":{{"coding":[{{"code":"x{n % 7}","system":"http://local"}},'
        f'{{"code":"{n % 90}-{n % 9}","display":"Measured {n % 90}","system":"http://loinc.org"}}]}},'
        f'"effectiveDateTime":"2024-{n % 12 + 1:02}-{n % 28 + 1:02}T08:00:00Z","id":"o{n}",'
        f'"resourceType":"Observation",'
        f'"status":"final","subject":{{"reference":"Patient/{patient}"}},'
        f'"valueQuantity":{{"code":"mg","system":"http://unitsofmeasure.org","unit":"mg","value":{n % 300}.5}}}}'
    )
    at = "2025-01-01T00:00:00.000Z"
    return (n, "Observation", f"o{n}", 1, False, patient, at, body.encode(), f"resource:{n}", 0)


class Log:
    """Notes nothing."""

    ended = False

    def __getattr__(self, _: str) -> Callable[..., None]:
        return lambda *a, **k: None


@contextmanager
def workspace(folder: Path, *, new: bool) -> Iterator[tuple[Any, Any, Any]]:
    """The vault, a permit and the nouns."""
    from carelake.apps.wiring import import_tables
    from carelake.audit.nouns import Nouns
    from carelake.core.clock import SystemClock
    from carelake.core.ids import RandomIds
    from carelake.core.permit import mint
    from carelake.core.settings import LakeSettings, Settings
    from carelake.vault.workspace import Vault

    import_tables()
    clock = SystemClock()
    said: dict[str, Any] = {"settings": Settings(workspace="bench", lake=LakeSettings(memory_limit="4GB")),
                            "key_dir": folder / "keys", "clock": clock, "ids": RandomIds()}  # fmt: skip
    permit = mint(
        act="a" * 32, principal="bench", account="production", purpose="HOPERAT", action="bench", target="lake",
        grants=("clinical:read", "lake:read", "lake:write", "rows:read", "rows:write"), scope=(),
        expires=clock.now() + timedelta(hours=2), log=Log(),
    )  # fmt: skip
    with (Vault.create if new else Vault.open)(folder / "ws", **said) as vault:
        yield vault, permit, Nouns(clock)


def build(folder: Path, rows: int) -> None:
    """A lake of so many Observations."""
    from carelake.lake.following.sync import sync
    from carelake.lake.upkeep.maintain import maintain

    with workspace(folder, new=True) as (vault, permit, nouns):
        sync(permit, vault, Feed(rows), nouns, sources=())
        maintain(permit, vault, nouns)


def timed(work: Callable[[], Any], times: int) -> tuple[dict[str, Any], Any]:
    """The shortest of some runs, and what it gave."""
    runs = []
    for _ in range(times):
        peak, ended = [0], threading.Event()

        def look(peak: list[int] = peak, ended: threading.Event = ended) -> None:
            while not ended.wait(0.05):
                peak[0] = max(peak[0], rss(os.getpid()))

        watch = threading.Thread(target=look)
        watch.start()
        busy, began = cpu(os.getpid()), time.perf_counter()
        found = work()
        seconds = time.perf_counter() - began
        told = {"seconds": round(seconds, 3), "cpu_seconds": round(cpu(os.getpid()) - busy, 2)}
        ended.set()
        watch.join()
        runs.append(({**told, "peak_rss": peak[0]}, found))
    return min(runs, key=lambda run: run[0]["seconds"])


def measure(folder: Path, rows: int, times: int) -> dict[str, Any]:
    """One size."""
    import pyarrow.parquet as pq

    from carelake.lake import query
    from carelake.lake.engines import sharded
    from carelake.lake.engines.rowhash import row_hash, together
    from carelake.lake.views import run
    from carelake.lake.views.over import over

    made: dict[str, Any] = {"rows": rows, "times": times}
    with workspace(folder, new=False) as (vault, permit, nouns):
        snapshot = query.snapshot_of(permit, vault, nouns)
        made["duckdb"], found = timed(lambda: over(permit, vault, snapshot, VIEW, engine="duckdb"), times)
        wanted = row_hash(found)
        del found
        for workers in (1, 2):
            made[f"sharded_{workers}"], parts = timed(
                lambda n=workers: list(sharded.view_shards(permit, vault, snapshot, VIEW, "parquet", workers=n)),
                times,
            )
            made[f"sharded_{workers}"]["shards"] = len(parts)
            if together([row_hash(pq.read_table(io.BytesIO(one.data))) for one in parts]) != wanted:
                raise SystemExit("the shards' rows are not DuckDB's")
            del parts
        began = time.perf_counter()
        run(VIEW, [{"resourceType": "Observation", "id": "o", "code": {"text": "x"}}], engine="spark")
        start = round(time.perf_counter() - began, 2)
        made["spark"], found = timed(lambda: over(permit, vault, snapshot, VIEW, engine="spark"), times)
        made["spark"]["start_seconds"] = start
        if row_hash(found) != wanted:
            raise SystemExit("Spark's rows are not DuckDB's")
        made["hash"] = wanted
    return made


def curve(sizes: list[dict[str, Any]]) -> str:
    """Rows a second over the number of rows, as SVG."""
    engines = (("duckdb", "#0b6e99"), ("sharded_1", "#7a7a7a"), ("sharded_2", "#4f8a10"), ("spark", "#b5521b"))
    wide, high, left, top = 420, 240, 80, 30
    most = 1.1 * max(one["rows"] / one[name]["seconds"] for one in sizes for name, _ in engines)
    step = wide / max(1, len(sizes) - 1)
    parts = [f'<text x="{left}" y="{top - 12}">rows a second</text>',
             f'<path d="M{left} {top}V{top + high}H{left + wide}" stroke="#888" fill="none"/>']  # fmt: skip
    for share in (0, 0.5, 1):
        y = top + high * (1 - share)
        parts.append(f'<text x="{left - 6}" y="{y + 4}" text-anchor="end">{most * share:,.0f}</text>')
    for i, one in enumerate(sizes):
        x = left + i * step
        parts.append(f'<text x="{x}" y="{top + high + 18}" text-anchor="middle">{one["rows"]:,}</text>')
    for n, (name, tone) in enumerate(engines):
        points = [
            (left + i * step, top + high * (1 - one["rows"] / one[name]["seconds"] / most))
            for i, one in enumerate(sizes)
        ]
        joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline points="{joined}" fill="none" stroke="{tone}" stroke-width="2"/>')
        parts.append(f'<text x="{left + wide + 12}" y="{top + 16 + 18 * n}" fill="{tone}">{name}</text>')
    style = 'font-family="sans-serif" font-size="12"'
    box = f"0 0 {left + wide + 110} {top + high + 30}"
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}" {style}>{"".join(parts)}</svg>\n'


def main() -> int:
    """Build, or measure, print and keep the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where the lakes are; otherwise a temporary one")
    parser.add_argument("--rows", default="10000,100000,1000000", help="sizes, separated by commas")
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--build", action="store_true", help="make the lakes and measure nothing")
    parser.add_argument("--one", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--add", action="store_true", help="to the sizes that the report of the day has")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the report")
    told = parser.parse_args()
    if told.one:
        print(json.dumps(measure(told.folder / str(told.one), told.one, told.times)))
        return 0
    with ExitStack() as stack:
        folder = told.folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="carelake-engines-")))
        sizes = [int(one) for one in told.rows.split(",")]
        for rows in sizes if told.build or told.folder is None else ():
            build(folder / str(rows), rows)
        if not told.build:
            report(folder, sizes, told.times, told.out, add=told.add)
    return 0


def report(folder: Path, sizes: list[int], times: int, out: Path, *, add: bool) -> None:
    """Measure each size, print it and keep all."""
    made: dict[str, Any] = {
        "bench": "engines", "at": datetime.now(UTC).isoformat(timespec="seconds"), "cores": os.cpu_count(),
        "sizes": [],
    }  # fmt: skip
    for rows in sizes:
        words = ["--folder", str(folder), "--times", str(times), "--one", str(rows)]
        found = subprocess.run([sys.executable, __file__, *words], stdout=subprocess.PIPE, check=True)
        made["sizes"].append(json.loads(found.stdout))
        print(json.dumps(made["sizes"][-1]))
    out.mkdir(parents=True, exist_ok=True)
    name = f"engines-{made['at'][:10]}"
    if add and (out / f"{name}.json").exists():
        made["sizes"] = json.loads((out / f"{name}.json").read_text())["sizes"] + made["sizes"]
    (out / f"{name}.json").write_text(json.dumps(made, indent=2) + "\n")
    (out / f"{name}.svg").write_text(curve(made["sizes"]))


if __name__ == "__main__":
    raise SystemExit(main())
