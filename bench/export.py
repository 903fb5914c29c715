"""How fast the record leaves in bulk: files in a folder, sealed files of a job, patients' parts, and how that grows.

    python bench/export.py [--resources 20000,100000,300000] [--databases embedded,postgresql] [--smoke]

For each size a hospital is made and read. ``command`` is ``carelake export`` as anyone runs it, ``seconds`` those of
its work, ``command_seconds`` interpreter and all. ``job`` is what the server does: the choice of what is exported,
which the kick-off waits for, and the sealed files. ``filtered`` exports what one search matches. Bound: 30,000
resources a second (issue 5), and time that grows as the resources do.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from _postgres import PostgresServer
from _sizes import begun, hospitals, present, scratch, served, written
from _workspace import COMMAND, Home, rss

RATE = 30_000
GROWTH = 1.5
PER_PATIENT = 55


def command(home: Home, out: Path, *more: str) -> dict[str, Any]:
    """One ``carelake export``."""
    words = [*COMMAND, "-w", str(home.root), "export", "--out", str(out), "--json", *more]
    began = time.monotonic()
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=home.environment) as process:
        peak = 0
        while process.poll() is None:
            peak = max(peak, rss(process.pid))
            time.sleep(0.02)
        assert process.stdout is not None
        told = json.loads(process.stdout.read())
    shutil.rmtree(out)
    whole = time.monotonic() - began
    kept = {name: told[name] for name in ("resources", "bytes", "seconds")}
    rate = round(told["resources"] / told["seconds"])
    return {**kept, "command_seconds": round(whole, 2), "per_second": rate, "peak_rss": peak}


def job(home: Home, **asked: Any) -> dict[str, Any]:
    """A job as the server carries it out, in this process."""
    from carelake.pipelines.export import ACTION, Asked, VaultSink, begin, carry_out
    from carelake.store.jobs import Jobs

    with home.opened() as workspace:
        caller = workspace.local(None, None, None)
        vault, resources = workspace.vault, workspace.resources

        def enter(target: str) -> Any:
            return workspace.enter(caller, ACTION, target)

        gc.collect()
        began, busy = time.monotonic(), time.process_time()
        with enter("record") as permit:
            told = begin(vault, workspace.gate, permit, resources, Asked(request="bench", **asked))
        chosen = time.monotonic()
        carry_out(vault, enter, resources, told, VaultSink(vault))
        done, busy = time.monotonic(), time.process_time() - busy
        with enter("record") as permit, vault.database.transaction(permit) as tx:
            lines = sum(part.lines for part in Jobs(vault).parts(tx, told))
            Jobs(vault).drop(permit, tx, told, "expired")
    return {
        "resources": lines, "choosing_seconds": round(chosen - began, 3), "writing_seconds": round(done - chosen, 3),
        "per_second": round(lines / (done - began)), "cpu_seconds": round(busy, 3),
    }  # fmt: skip


def measure(folder: Path, server: PostgresServer | None, sources: list[Path]) -> list[dict[str, Any]]:
    """All sizes on one database."""
    found = []
    for number, source in enumerate(sources):
        home = Home(folder / f"home{number}", server, f"export{number}")
        home.make()
        stored = home.ingest(source)["stored"]
        home.settle()
        told: dict[str, Any] = {"resources": stored}
        told["command"] = max((command(home, folder / "out") for _ in range(3)), key=lambda one: one["per_second"])
        told["job"] = job(home)
        told["patients"] = job(home, within=True)
        told["filtered"] = job(home, types=("Observation",), filters=("Observation?code=8867-4",))
        told["lost"] = stored - told["command"]["resources"]
        print(json.dumps(told), flush=True)
        found.append(told)
        shutil.rmtree(home.root.parent)
    return found


def held(report: dict[str, Any]) -> dict[str, bool]:
    """The bounds."""
    found = {}
    for name in ("embedded", "postgresql"):
        runs = report.get(name, [])
        if runs:
            rates = [one["command"]["per_second"] for one in runs]
            found[f"rate_{name}"] = max(rates) >= RATE and runs[-1]["job"]["per_second"] >= RATE
            found[f"linear_{name}"] = rates[-1] * GROWTH >= max(rates[-2:])
            found[f"nothing_lost_{name}"] = all(
                one["lost"] == 0 == one["resources"] - one["job"]["resources"] for one in runs
            )
    return found


def main() -> int:
    """Measure, print and keep the report; exit code 1 when a bound does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--resources", default="20000,100000,300000", help="sizes, separated by commas; about")
    parser.add_argument("--databases", default="embedded,postgresql")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--smoke", action="store_true", help="one small size, embedded, and no bound of time")
    asked = parser.parse_args()
    if asked.smoke:
        asked.resources, asked.databases = "5000", "embedded"
    report = begun("export")
    with scratch("export") as folder:
        sources = hospitals(folder, asked.resources, PER_PATIENT)
        for name in present(asked.databases):
            with served(folder, name) as server:
                report[name] = measure(folder / name, server, sources)
    report["load_after"] = round(os.getloadavg()[0], 2)
    report["held"] = held(report)
    if asked.smoke:
        return 0 if report["held"]["nothing_lost_embedded"] else 1
    written(report, asked.out)
    print(json.dumps({"held": report["held"]}))
    return 0 if all(report["held"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
