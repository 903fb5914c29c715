"""The whole loop by commands, from files to findings, on growing hospitals: seconds, processor time and memory.

    python bench/loop.py                                 3,000, 10,000 and 30,000 patients
    python bench/loop.py --patients 10000,100000         so many; 100,000 patients need 30 GB of disk and an hour
    python bench/loop.py --engine spark                  the lake in a bucket, and the training set on Spark too
    python bench/loop.py --folder F                      keeps workspaces; what is ingested there stays so
    python bench/loop.py --smoke                         2,000 patients; no report, no bounds

Each size has a workspace of its own: made-up patients are read (``ingest``), become tables, features, a training set,
a model beside its baselines, an approved version and an endpoint (``run readmission``), a morning list
(``predict --days``) and findings (``monitor check``). Everything runs as anyone would run it, one process a step.

With ``--engine spark`` the lake's files lie in a bucket (moto's S3 on loopback, its processor time not counted) and
the recipe is run a second time with ``--engine spark``: flat views, cohort, features and marks are Spark's then, read
from the same files at the same snapshot. The report has both refs of the training set, which are HMACs of its bytes.

Bounds: no step holds more memory than ``MEMORY``, and a patient of the largest hospital costs at most ``GROWTH``
times what one of the smallest costs; both engines give one ref. The model's figures stand beside it; made-up patients
prove plumbing only.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from _curves import drawn
from _sizes import begun, scratch, written
from _workspace import COMMAND, Home, cpu, rss
from carelake.synth import generate

RESULTS = Path(__file__).parent / "results"
MEMORY = 8 << 30
HEAP = "3g"
BUCKETS = Path(__file__).parents[1] / "tools" / "moto_buckets.py"
BUCKET = "loop-lake-{account}"
REGION = "eu-central-1"
GROWTH = 1.5
SEED = 3
DAYS = "30"


def step(home: Home, name: str, *arguments: str) -> tuple[dict[str, Any], Any]:
    """One command to its end: what it cost, and what it answered."""
    out = home.root.parent / f"{name}.json"
    before, began, peak, busy = os.times(), time.monotonic(), 0, 0.0
    with out.open("wb") as answer, (home.root.parent / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            [*COMMAND, "-w", str(home.root), *arguments, "--json"], stdout=answer, stderr=log, env=home.environment
        )
        while process.poll() is None:
            peak, busy = max(peak, rss(process.pid)), max(busy, cpu(process.pid))
            time.sleep(0.2)
    seconds, after = time.monotonic() - began, os.times()
    if process.returncode:
        raise SystemExit(f"{name} ended with {process.returncode}: {(home.root.parent / f'{name}.log').read_text()}")
    ended = after.children_user + after.children_system - before.children_user - before.children_system
    spent = max(ended, busy)  # nobody waits for Spark's Java process
    told = {"step": name, "seconds": round(seconds, 1), "cpu_seconds": round(spent, 1), "peak_rss": peak}
    print(json.dumps(told), flush=True)
    (home.root.parent / f"{name}.cost.json").write_text(json.dumps(told))
    return told, json.loads(out.read_bytes())


def ingested(folder: Path, home: Home, patients: int) -> tuple[dict[str, Any], Any]:
    """A workspace with so many patients, made unless it is there."""
    cost = folder / "ingest.cost.json"
    if home.there and cost.exists():
        return json.loads(cost.read_text()), json.loads((folder / "ingest.json").read_bytes())
    generate(folder / "hospital", patients=patients, seed=SEED)
    home.make()
    told = step(home, "ingest", "ingest", str(folder / "hospital"))
    shutil.rmtree(folder / "hospital")
    return told


@contextmanager
def bucket(folder: Path) -> Iterator[dict[str, str]]:
    """A bucket for a lake, in a server of its own: the settings by which a command finds it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    said = {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench", "AWS_EC2_METADATA_DISABLED": "true"}
    os.environ |= said
    with (folder / "moto.log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, str(BUCKETS), "-H", "127.0.0.1", "-p", str(port)], stdout=log, stderr=log
        )
    try:
        at = f"http://127.0.0.1:{port}"
        yield {**said, **_made_bucket(at), "CARELAKE_LAKE__S3__ENDPOINT_URL": at}
    finally:
        server.terminate()
        server.wait()


def _made_bucket(at: str) -> dict[str, str]:
    import boto3

    place = {"region_name": REGION, "endpoint_url": at}
    for again in range(100):
        try:
            key = boto3.client("kms", **place).create_key(Description="lake")["KeyMetadata"]["Arn"]
            break
        except Exception:  # it is not up yet
            if again == 99:
                raise
            time.sleep(0.2)
    boto3.client("s3", **place).create_bucket(
        Bucket=BUCKET.replace("{account}", "production"), CreateBucketConfiguration={"LocationConstraint": REGION}
    )
    return {
        "CARELAKE_LAKE__DRIVER": "s3",
        "CARELAKE_LAKE__S3__BUCKET": BUCKET,
        "CARELAKE_LAKE__S3__REGION": REGION,
        "CARELAKE_LAKE__S3__KMS_KEY": key,
        "CARELAKE_LAKE__SPARK__MEMORY": HEAP,
    }


def loop(folder: Path, patients: int, engine: str) -> dict[str, Any]:
    """All steps for one hospital."""
    print(f"== {patients} patients", flush=True)
    home = Home(folder)
    spent, read = ingested(folder, home, patients)
    steps = [spent]
    if engine == "duckdb":
        return _rest(home, patients, read, steps, ("duckdb",))
    with bucket(folder) as settings:
        home.environment |= settings
        return _rest(home, patients, read, steps, ("duckdb", "spark"))


def _rest(
    home: Home, patients: int, read: Any, steps: list[dict[str, Any]], engines: tuple[str, ...]
) -> dict[str, Any]:
    """All steps but the first."""
    by: dict[str, Any] = {}
    for one in engines:
        name = "run" if one == engines[0] else f"run_{one}"
        spent, made = step(home, name, "run", "readmission", "--engine", one, "--new")
        steps.append(spent)
        by[one] = {"training_set": made["training_set"], "model": made["model_version"]}
    spent, answers = step(home, "predict", "predict", "readmission", "--days", DAYS)
    steps.append(spent)
    spent, found = step(home, "monitor", "monitor", "check", "readmission")
    steps.append(spent)
    metrics = made["metrics"]
    return {
        "patients": patients,
        "resources": read["stored"],
        "load": os.getloadavg()[2],
        "labelled": made["attrition"].get("labelled"),
        "lake": "bucket" if len(engines) > 1 else "sealed",
        "engines": by,
        "predictions": len(answers if isinstance(answers, list) else answers.get("predictions", ())),
        "monitor": found.get("status"),
        "test": {name: metrics.get(name) for name in ("n", "auroc", "calibration_slope", "calibration_intercept")},
        "bytes": home.bytes(),
        "seconds": round(sum(one["seconds"] for one in steps), 1),
        "cpu_seconds": round(sum(one["cpu_seconds"] for one in steps), 1),
        "peak_rss": max(one["peak_rss"] for one in steps),
        "steps": steps,
    }


def shared(rows: list[dict[str, Any]], cost: str) -> dict[str, list[float]]:
    """What the steps that all sizes have cost, by step: a size may have been run on one engine, another on both."""
    by = [{one["step"]: one[cost] for one in row["steps"]} for row in rows]
    return {name: [row[name] for row in by] for name in by[0] if all(name in row for row in by)}


def held(rows: list[dict[str, Any]]) -> dict[str, bool]:
    """The bounds."""
    sizes = [row["patients"] for row in rows]
    spent = [sum(some) for some in zip(*shared(rows, "cpu_seconds").values(), strict=True)]
    return {
        "memory": all(row["peak_rss"] < MEMORY for row in rows),
        "linear": spent[-1] / sizes[-1] < GROWTH * spent[0] / sizes[0],
        "whole": all(row["predictions"] and row["monitor"] for row in rows),
        "same": all(len({one["training_set"] for one in row["engines"].values()}) == 1 for row in rows),
    }


def main() -> int:
    """Measure, print and keep the report; exit code 1 when a bound does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", default="3000,10000,30000", help="sizes, separated by commas")
    parser.add_argument("--engine", choices=("duckdb", "spark"), default="duckdb", help="spark: both, and compared")
    parser.add_argument("--folder", type=Path, help="where workspaces are and stay; otherwise a temporary one")
    parser.add_argument("--add", action="store_true", help="to the sizes that the report of the day has")
    parser.add_argument("--smoke", action="store_true", help="does it run; no report, no bounds")
    parser.add_argument("--out", type=Path, default=RESULTS)
    told = parser.parse_args()
    rows = []
    with scratch("loop") if told.folder is None else nullcontext(told.folder) as folder:
        for patients in [2000] if told.smoke else sorted(map(int, told.patients.split(","))):
            place = folder / str(patients)
            place.mkdir(parents=True, exist_ok=True)
            rows.append(loop(place, patients, told.engine))
            print(json.dumps(rows[-1]), flush=True)
            if told.folder is None:
                shutil.rmtree(place)
    if told.smoke:
        return 0
    report = {**begun("loop"), "python": sys.version.split()[0]}
    before = told.out / f"loop-{report['at'][:10]}.json"
    if told.add and before.exists():
        rows = sorted(json.loads(before.read_text())["rows"] + rows, key=lambda row: row["patients"])
    report |= {"rows": rows, "held": held(rows)}
    written(report, told.out)
    taken = shared(rows, "seconds")
    lines = {name: [(row["patients"], s) for row, s in zip(rows, some, strict=True)] for name, some in taken.items()}
    if len(rows) > 1:
        (told.out / f"loop-{report['at'][:10]}.svg").write_text(drawn("The loop, seconds by patients", lines))
    print(json.dumps({"held": report["held"]}))
    return 0 if all(report["held"].values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
