"""Drift of many columns, side by side with Evidently, and how its time grows.

    python bench/drift.py [--smoke] [--alone] [--part wide|long|curve] [--out FILE]

A baseline and new rows, half of the columns moved by a third of a standard deviation. Our side is the check of data
quality as the monitor makes it, from arrays: every column counted by the cells of the baseline, Kolmogorov-Smirnov
distance, population stability index, completeness, and bounds for chance; and with it SageMaker's three files as JSON
bytes. Making the baseline is told apart, since it is kept with the model. Evidently (`DataDriftPreset`, an
environment of its own, pandas below 3) has both tables in memory as pandas frames; its report is run and asked for as
a dict. Ours is timed three times after one that is not counted, and the best counts; Evidently once, after a small
report that is not counted. `merged` is the check of a year of days that were counted before: no row is read.

Bounds (issue 7): 200 columns x 10,000 rows under 1 second, and faster than Evidently; time grows no faster than the
cells (columns x rows), within a quarter.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from _peers import run
from carelake.monitor.baseline import Baseline, counted, profile
from carelake.monitor.drift import judge
from carelake.monitor.statistics import statistics

PEER = "evidently"
SIZES = ((200, 10_000), (50, 100_000))
CURVE = ((200, 2_500), (200, 10_000), (200, 40_000), (200, 160_000))
SMOKE = ((20, 1_000),)
TIMES = 3
BOUND, SLACK = 1.0, 1.25
DAYS = 365


def sample(columns: int, rows: int, seed: int, moved: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """(rows, columns) numbers of several kinds, and (rows,) risks."""
    random = np.random.default_rng(seed)
    x = np.empty((rows, columns))
    for at in range(columns):
        shift = moved if at % 2 else 0.0
        if at % 4 == 2:
            x[:, at] = random.poisson(2 + shift, rows)
        elif at % 4 == 3:
            x[:, at] = np.where(random.random(rows) < 0.2, np.nan, random.lognormal(shift, 1, rows))
        else:
            x[:, at] = random.normal(shift, 1, rows)
    return x, random.beta(2, 10, rows)


def check(made: Baseline, x: np.ndarray, p: np.ndarray, names: tuple[str, ...]) -> tuple[int, int]:
    """The whole check; violations and bytes of its files."""
    seen = counted(made.spread, x, p, names)
    found = judge(made, seen, len(x), patients=len(x))
    files = (statistics(made.spread, seen, len(x)), made.constraints, {"violations": found.violations})
    return len(found.violations), sum(len(json.dumps(one)) for one in files)


def best(work: Any) -> tuple[float, Any]:
    """The shortest of three times, after one that is not counted, and what came of it."""
    found = work()
    seconds = []
    for _ in range(TIMES):
        began = time.perf_counter()
        found = work()
        seconds.append(time.perf_counter() - began)
    return min(seconds), found


def ours(columns: int, rows: int) -> dict[str, Any]:
    """Our figures of one size."""
    names = tuple(f"c{at}" for at in range(columns))
    then, now = sample(columns, rows, 1), sample(columns, rows, 2, 0.33)
    making, made = best(lambda: profile(*then, names, "bench"))
    seconds, (violations, size) = best(lambda: check(made, *now, names))
    return {
        "columns": columns, "rows": rows, "seconds": round(seconds, 4), "baseline_seconds": round(making, 4),
        "violations": violations, "json_bytes": size,
    }  # fmt: skip


def merged(columns: int, rows: int) -> dict[str, Any]:
    """A year of days, counted before: added up and judged."""
    names = tuple(f"c{at}" for at in range(columns))
    made = profile(*sample(columns, rows, 1), names, "bench")
    day = counted(made.spread, *sample(columns, max(200, rows // 10), 2), names)

    def year() -> str:
        total = dict(day)
        for _ in range(DAYS - 1):
            total = {name: counts + day[name] for name, counts in total.items()}
        rows_seen = next(iter(total.values())).rows
        return judge(made, total, rows_seen, patients=rows_seen).status

    seconds, _ = best(year)
    return {"columns": columns, "days": DAYS, "seconds": round(seconds, 4)}


def peer(columns: int, rows: int) -> dict[str, Any]:
    """Evidently's figures of the same rows."""
    return run(PEER, {"columns": columns, "rows": rows}, seconds=900.0)


def sizes(chosen: tuple[tuple[int, int], ...], alone: bool) -> tuple[list[dict[str, Any]], list[str]]:
    """Both sides of each size, and which bounds do not hold."""
    told, failed = [], []
    for columns, rows in chosen:
        mine = ours(columns, rows)
        other = {} if alone else peer(columns, rows)
        ratio = round(other["seconds"] / mine["seconds"], 1) if "seconds" in other else None
        told.append({"ours": mine, PEER: other, "times_faster": ratio})
        print(json.dumps(told[-1]), flush=True)
        if (columns, rows) == SIZES[0] and mine["seconds"] > BOUND:
            failed.append("200 columns x 10,000 rows took longer than a second")
        if ratio is not None and ratio < 1.0:
            failed.append(f"Evidently was faster at {columns} x {rows}")
    return told, failed


def growth(curve: tuple[tuple[int, int], ...]) -> tuple[list[dict[str, Any]], list[str]]:
    """Our side by rows, and whether it grows faster than they do."""
    told = [ours(columns, rows) for columns, rows in curve]
    print(json.dumps(told), flush=True)
    failed = [
        f"from {less['rows']} to {more['rows']} rows time grew faster than the rows"
        for less, more in pairwise(told)
        if more["seconds"] / less["seconds"] > more["rows"] / less["rows"] * SLACK
    ]
    return told, failed


def main() -> int:
    """Measure, print, write the report; 1 when a bound does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--alone", action="store_true", help="without the peer")
    parser.add_argument("--part", choices=("wide", "long", "curve"), help="one part; the report keeps the others")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    told: dict[str, Any] = {"bench": "drift", "parts": {}}
    if asked.part and asked.out and asked.out.exists():
        told = json.loads(asked.out.read_text())
    told |= {"at": datetime.now(UTC).isoformat(timespec="seconds"), "cpus": os.cpu_count()}
    told["python"] = platform.python_version()
    failed: list[str] = []
    for part, chosen in (("wide", SIZES[:1]), ("long", SIZES[1:])):
        if asked.part in (None, part):
            told["parts"][part], late = sizes(SMOKE if asked.smoke else chosen, asked.alone or asked.smoke)
            failed += late
    if asked.part in (None, "curve"):
        told["parts"]["curve"], late = growth(() if asked.smoke else CURVE)
        told["parts"]["merged"] = merged(*(SMOKE[0] if asked.smoke else SIZES[0]))
        print(json.dumps(told["parts"]["merged"]), flush=True)
        failed += late
    if asked.out:
        asked.out.write_text(json.dumps(told, indent=1) + "\n")
    print("\n".join(failed) or "All bounds hold.")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
