"""What import costs: each stage, each number of workers, growing sizes, and memory; on both databases.

    python bench/import.py                                       10,000 to 300,000 resources
    python bench/import.py --resources 10000,100000,1000000      the whole curve
    python bench/import.py --databases embedded --workers 1      a part of it

The rate is that of the whole ``carelake ingest``: landing sealed and hashed, parsed, validated, indexed, compressed,
sealed under patients' keys, written in transactions with their acts and events. The stages' costs are sampled by the
processor's clock, a thousand times a second, in a run without workers; a sample counts for the stage whose code is
innermost (`_STAGES`). PostgreSQL's own processor time stands beside them as ``server``. Memory is the sum over the
command's processes (Linux); what a resource more costs is read off the growth between sizes.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from _postgres import PostgresServer
from _sizes import begun, hospitals, present, scratch, served, written
from _workspace import Home, cpu

RATE = 10_000
PER_PATIENT = 54.8
"""Resources of one made-up patient, about."""
SAMPLES = 1000
TELLING = 150_000
"""Resources that two sizes must differ by for their memory to be compared: before, caches are still filling."""

_STAGES = (
    ("carelake/core/canonical", "parse"),
    ("carelake/fhir/search", "extract"),
    ("carelake/fhir/compartment", "extract"),
    ("carelake/fhir/", "validate"),
    ("carelake/ingest/parse:_record", "compress"),
    ("carelake/ingest/landing", "land"),
    ("carelake/ingest/", "read"),
    ("carelake/vault/sql", "write"),
    ("carelake/vault/database", "write"),
    ("carelake/vault/", "seal"),
    ("carelake/store/", "keep"),
    ("carelake/audit/", "tell"),
    ("carelake/events/", "tell"),
    ("carelake/access/", "tell"),
)
"""Where code is, and the stage it belongs to; the first that matches. SQL is run by the database's own module, and
``keep`` is what makes the rows; what is innermost in a library counts for the code of ours that called it."""


@contextmanager
def sampled() -> Iterator[Counter[str]]:
    """Counts, by module and function of ours, where this process's processor time goes."""
    found: Counter[str] = Counter()

    def look(_signal: int, frame: FrameType | None) -> None:
        while frame is not None:
            place = frame.f_code.co_filename
            at = place.rfind("/carelake/")
            if at >= 0:
                found[f"{place[at + 1 :].removesuffix('.py')}:{frame.f_code.co_name}"] += 1
                return
            frame = frame.f_back
        found["none:"] += 1

    signal.signal(signal.SIGPROF, look)
    signal.setitimer(signal.ITIMER_PROF, 1 / SAMPLES, 1 / SAMPLES)
    try:
        yield found
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def stage_of(place: str) -> str:
    """The stage that a place in the code belongs to."""
    if place.startswith("carelake/core/canonical:dump"):
        return "canonical"
    return next((stage for prefix, stage in _STAGES if place.startswith(prefix)), "other")


def sample(root: Path, source: Path) -> dict[str, Any]:
    """Import in this process, without workers, and see where the time goes."""
    from carelake.apps.wiring import Workspace
    from carelake.pipelines.ingest import ingest

    workspace = Workspace.open(root, os.environ)
    try:
        caller = workspace.local(None, None, None)
        began = os.times()
        with workspace.enter(caller, "record:ingest", "record", job=True) as permit, sampled() as found:
            report = ingest(
                workspace.vault, permit, [source], resources=workspace.resources, nouns=workspace.nouns,
                outbox=workspace.outbox,
            )  # fmt: skip
        ended = os.times()
    finally:
        workspace.close()
    spent = ended.user + ended.system - began.user - began.system
    each = 1e6 * spent / max(1, report.read) / max(1, found.total())
    stages: Counter[str] = Counter()
    for place, count in found.items():
        stages[stage_of(place)] += count
    return {
        "read": report.read, "seconds": round(report.seconds, 2), "cpu_seconds": round(spent, 2),
        "cpu_us_per_resource": {name: round(count * each, 1) for name, count in stages.most_common()},
        "places": {name: round(count * each, 1) for name, count in found.most_common(25)},
    }  # fmt: skip


class Bench:
    """Workspaces in a temporary folder, on one of the databases."""

    def __init__(self, folder: Path, server: PostgresServer | None) -> None:
        self._folder, self._server, self._made = folder, server, 0

    def _home(self) -> Home:
        self._made += 1
        home = Home(self._folder / f"home{self._made}", self._server, f"import{self._made}")
        home.make()
        return home

    def whole(self, source: Path, workers: int) -> dict[str, Any]:
        """One run of the command in a new workspace."""
        home = self._home()
        found = home.ingest(source, CARELAKE_INGEST__WORKERS=str(workers))
        busy = round(found["read"] * (os.cpu_count() or 1) / found["cpu_seconds"])
        found = {"workers": workers, **found, "per_second_if_all_cores_were_busy": busy,
                 "bytes_per_resource": round(home.bytes() / found["read"])}  # fmt: skip
        self._drop(home)
        print(f"  {found['read']:>9,} resources, {workers} workers: {found['per_second']:>7,}/s  "
              f"{found['peak_rss'] / 1e6:,.0f} MB  {1e6 * found['cpu_seconds'] / found['read']:.0f} us of processor "
              f"time (at most {busy:,}/s), {found['bytes_per_resource']:,} bytes each", flush=True)  # fmt: skip
        return found

    def stages(self, source: Path) -> dict[str, Any]:
        """Sampled, in a process of its own."""
        home = self._home()
        before = cpu(self._server.process.pid) if self._server is not None else 0.0
        done = subprocess.run(
            [sys.executable, __file__, "--sample", str(home.root), str(source)], check=True, stdout=subprocess.PIPE,
            env={**home.environment, "CARELAKE_INGEST__WORKERS": "0"},
        )  # fmt: skip
        found: dict[str, Any] = json.loads(done.stdout)
        if self._server is not None:
            spent = cpu(self._server.process.pid) - before
            found["cpu_us_per_resource"]["server"] = round(1e6 * spent / found["read"], 1)
        self._drop(home)
        print(f"  microseconds of processor time a resource: {found['cpu_us_per_resource']}", flush=True)
        return found

    def _drop(self, home: Home) -> None:
        shutil.rmtree(home.root.parent)
        if self._server is not None:
            with self._server.connect() as connection:
                connection.execute(f"DROP DATABASE import{self._made} WITH (FORCE)")


def per_million(runs: list[dict[str, Any]]) -> dict[str, float]:
    """Megabytes: the most of the largest run, and what a million resources more would add by the last two sizes."""
    last, before = runs[-1], runs[max(0, len(runs) - 2)]
    found = {"largest_mb": round(last["peak_rss"] / 1e6, 1)}
    if last["read"] - before["read"] > TELLING:
        grown = (last["peak_rss"] - before["peak_rss"]) / (last["read"] - before["read"])
        found["per_million_mb"] = round(grown, 1)
    return found


def measure(bench: Bench, sources: list[Path], workers: list[int]) -> dict[str, Any]:
    """All of one database."""
    stages = bench.stages(sources[0])
    middle = sources[min(1, len(sources) - 1)]
    runs = [bench.whole(middle, count) for count in workers]
    best = max(runs, key=lambda one: one["per_second"])
    sizes = [best if source is middle else bench.whole(source, best["workers"]) for source in sources]
    return {"stages": stages, "workers": runs, "sizes": sizes, "memory": per_million(sizes)}


def held(report: dict[str, Any]) -> dict[str, bool]:
    """The bounds."""
    found = {}
    for name in ("embedded", "postgresql"):
        if name in report:
            runs = [*report[name]["workers"], *report[name]["sizes"]]
            found[f"nothing_lost_{name}"] = all(one["read"] == one["stored"] for one in runs)
    if "embedded" in report:
        found["rate"] = max(one["per_second"] for one in report["embedded"]["workers"]) >= RATE
    return found


def main() -> int:
    """Measure, print and keep the report; exit code 1 when a bound does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--resources", default="10000,100000,300000", help="sizes, separated by commas; about")
    parser.add_argument("--workers", default="0,1,2", help="numbers of workers, separated by commas")
    parser.add_argument("--databases", default="embedded,postgresql")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--sample", nargs=2, type=Path, help=argparse.SUPPRESS)
    told = parser.parse_args()
    if told.sample:
        print(json.dumps(sample(*told.sample)))
        return 0
    report = begun("import")
    with scratch("import") as folder:
        sources = hospitals(folder, told.resources, PER_PATIENT)
        for name in present(told.databases):
            with served(folder, name) as server:
                bench = Bench(folder / name, server)
                report[name] = measure(bench, sources, [int(one) for one in told.workers.split(",")])
    report["load_after"] = round(os.getloadavg()[0], 2)
    report["held"] = held(report)
    written(report, told.out)
    print(json.dumps({name: report[name]["memory"] for name in ("embedded", "postgresql") if name in report}))
    print(json.dumps({"held": report["held"]}))
    return 0 if all(report["held"].values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
