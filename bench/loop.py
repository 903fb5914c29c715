"""The whole loop by commands, from files to findings, on growing hospitals: seconds, processor time and memory.

    python bench/loop.py                                 3,000, 10,000 and 30,000 patients
    python bench/loop.py --patients 10000,100000         so many; 100,000 patients need 30 GB of disk and an hour
    python bench/loop.py --smoke                         2,000 patients; no report, no bounds

Each size has a workspace of its own: made-up patients are read (``ingest``), become tables, features, a training set,
a model beside its baselines, an approved version and an endpoint (``run readmission``), a morning list
(``predict --days``) and findings (``monitor check``). Everything runs as anyone would run it, one process a step.

Bounds: no step holds more memory than ``MEMORY``, and a patient of the largest hospital costs at most ``GROWTH``
times what one of the smallest costs. The model's figures stand beside it; made-up patients prove plumbing only.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from _curves import drawn
from _sizes import begun, scratch, written
from _workspace import COMMAND, Home, rss
from carelake.synth import generate

RESULTS = Path(__file__).parent / "results"
MEMORY = 16 << 30
GROWTH = 1.5
SEED = 3
DAYS = "30"


def step(home: Home, name: str, *arguments: str) -> tuple[dict[str, Any], Any]:
    """One command to its end: what it cost, and what it answered."""
    out = home.root.parent / f"{name}.json"
    before, began, peak = os.times(), time.monotonic(), 0
    with out.open("wb") as answer, (home.root.parent / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            [*COMMAND, "-w", str(home.root), *arguments, "--json"], stdout=answer, stderr=log, env=home.environment
        )
        while process.poll() is None:
            peak = max(peak, rss(process.pid))
            time.sleep(0.2)
    seconds, after = time.monotonic() - began, os.times()
    if process.returncode:
        raise SystemExit(f"{name} ended with {process.returncode}: {(home.root.parent / f'{name}.log').read_text()}")
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    told = {"step": name, "seconds": round(seconds, 1), "cpu_seconds": round(spent, 1), "peak_rss": peak}
    print(json.dumps(told), flush=True)
    return told, json.loads(out.read_bytes())


def loop(folder: Path, patients: int) -> dict[str, Any]:
    """All steps for one hospital."""
    print(f"== {patients} patients", flush=True)
    generate(folder / "hospital", patients=patients, seed=SEED)
    home = Home(folder)
    home.make()
    spent, read = step(home, "ingest", "ingest", str(folder / "hospital"))
    shutil.rmtree(folder / "hospital")
    steps = [spent]
    spent, made = step(home, "run", "run", "readmission")
    steps.append(spent)
    spent, answers = step(home, "predict", "predict", "readmission", "--days", DAYS)
    steps.append(spent)
    spent, found = step(home, "monitor", "monitor", "check", "readmission")
    steps.append(spent)
    metrics = made["metrics"]
    return {
        "patients": patients,
        "resources": read["stored"],
        "labelled": made["attrition"].get("labelled"),
        "predictions": len(answers if isinstance(answers, list) else answers.get("predictions", ())),
        "monitor": found.get("status"),
        "test": {name: metrics.get(name) for name in ("n", "auroc", "calibration_slope", "calibration_intercept")},
        "bytes": home.bytes(),
        "seconds": round(sum(one["seconds"] for one in steps), 1),
        "cpu_seconds": round(sum(one["cpu_seconds"] for one in steps), 1),
        "peak_rss": max(one["peak_rss"] for one in steps),
        "steps": steps,
    }


def held(rows: list[dict[str, Any]]) -> dict[str, bool]:
    """The bounds."""
    first, last = rows[0], rows[-1]
    return {
        "memory": all(row["peak_rss"] < MEMORY for row in rows),
        "linear": last["cpu_seconds"] / last["patients"] < GROWTH * first["cpu_seconds"] / first["patients"],
        "whole": all(row["predictions"] and row["monitor"] for row in rows),
    }


def main() -> int:
    """Measure, print and keep the report; exit code 1 when a bound does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", default="3000,10000,30000", help="sizes, separated by commas")
    parser.add_argument("--smoke", action="store_true", help="does it run; no report, no bounds")
    parser.add_argument("--out", type=Path, default=RESULTS)
    told = parser.parse_args()
    rows = []
    with scratch("loop") as folder:
        for patients in [2000] if told.smoke else sorted(map(int, told.patients.split(","))):
            place = folder / str(patients)
            place.mkdir()
            rows.append(loop(place, patients))
            print(json.dumps(rows[-1]), flush=True)
            shutil.rmtree(place)
    if told.smoke:
        return 0
    report = {**begun("loop"), "python": sys.version.split()[0], "rows": rows, "held": held(rows)}
    written(report, told.out)
    names = [one["step"] for one in rows[0]["steps"]]
    taken = {name: [row["steps"][at]["seconds"] for row in rows] for at, name in enumerate(names)}
    lines = {name: [(row["patients"], s) for row, s in zip(rows, some, strict=True)] for name, some in taken.items()}
    if len(rows) > 1:
        (told.out / f"loop-{report['at'][:10]}.svg").write_text(drawn("The loop, seconds by patients", lines))
    print(json.dumps({"held": report["held"]}))
    return 0 if all(report["held"].values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
