"""One row to an endpoint over HTTP, scored in this process and in an attested sandbox, in the same run.

    python bench/sandbox.py            one connection, 8 s each way, twice by turns; then one is killed under load
    python bench/sandbox.py --smoke    does it run; no report

The server, the requests and the model are those of `bench/serving.py`. What is told of the sandbox: the time from the
start of ``endpoint deploy --sandbox`` to its end (start, measure, attest, release, load), the memory of its process,
and what `kill -9` of it costs under load: how many requests fail, and how long it takes until the next good answer.

Bounds: p50 in the sandbox under 3 ms by one connection; every request that was answered is captured, none more.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from _workspace import Home
from rest import RESULTS, serving, token_of
from serving import P50_MS, measured, ours, versions


def sandboxes() -> list[int]:
    """Process ids of the sandboxes that run, by their command line: those of Python, not of what is around."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"carelake.serving.sandbox.child" in words and not words[0].endswith(b"bwrap"):
                found.append(int(entry.name))
    return found


def resident(pid: int) -> float:
    """Megabytes that a process holds."""
    status = (Path("/proc") / str(pid) / "status").read_text()
    return round(int(status.partition("VmRSS:")[2].split()[0]) / 1024, 1)


def deployed(home: Home, model: str, *more: str) -> float:
    """Seconds that the command takes."""
    began = time.perf_counter()
    home.run("-w", str(home.root), "endpoint", "deploy", "readmission", "--model", model, *more)
    return round(time.perf_counter() - began, 3)


def killed(token: str, port: int, seconds: float) -> dict[str, Any]:
    """A load in whose midst the sandbox is killed."""
    pids = sandboxes()

    def kill() -> None:
        time.sleep(min(1.0, seconds) + seconds / 2)  # `measured` warms first
        for pid in pids:
            os.kill(pid, signal.SIGKILL)

    killing = threading.Thread(target=kill)
    killing.start()
    load = measured(ours(token), port, 2, seconds)
    killing.join()
    again = bool(set(sandboxes()) - set(pids))
    answered = load["requests"] - load["bad"]
    return {"failed": load["bad"], "longest_ms": load["most"], "answered": answered, "another_began": again}


def measure(folder: Path, seconds: float, turns: int) -> dict[str, Any]:
    """All of it."""
    home = Home(folder)
    home.make()
    (model,), _ = versions(home, 1)
    deployed(home, model)
    token = token_of(home)
    said: dict[str, Any] = {"plain": [], "sandbox": [], "deploy_seconds": []}
    with serving(home, 1, folder / "log") as (_, port):
        for _ in range(turns):
            deployed(home, model, "--no-sandbox")
            said["plain"].append(measured(ours(token), port, 1, seconds))
            said["deploy_seconds"].append(deployed(home, model, "--sandbox"))
            said["sandbox"].append(measured(ours(token), port, 1, seconds))
            print(json.dumps({"plain": said["plain"][-1], "sandbox": said["sandbox"][-1]}), flush=True)
        said["resident_mb"] = max(map(resident, sandboxes()), default=0.0)
        said["killed"] = killed(token, port, seconds)
        status = json.loads(home.run("-w", str(home.root), "endpoint", "status", "readmission", "--json"))
        [told] = status["sandbox"].values()
        said["trust"], said["outer"] = told["trust"], told.get("outer")
    verified = home.run("-w", str(home.root), "endpoint", "captures", "verify", "readmission", "--json")
    said["captures"] = json.loads(verified)
    return said


def main() -> int:
    """Measure, print and keep the report; exit code 1 when a bound does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each load")
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULTS)
    told = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="carelake-sandbox-"))
    try:
        said = measure(folder, 1.0 if told.smoke else told.seconds, 1 if told.smoke else 2)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    loads = [*said["plain"], *said["sandbox"]]
    held = {
        "p50": all(row["p50"] < P50_MS for row in said["sandbox"]),
        "captures": said["captures"]["whole"],
        "answers": not any(row["bad"] or row["wrong"] or row["lost"] for row in loads),
        "killed": said["killed"]["failed"] <= 2 and said["killed"]["another_began"],
    }
    print(json.dumps({**{name: said[name] for name in ("deploy_seconds", "resident_mb", "killed")}, "held": held}))
    if told.smoke:
        return 0 if held["captures"] and held["answers"] and held["killed"] else 1
    report = {
        "bench": "sandbox", "at": datetime.now(UTC).isoformat(timespec="seconds"), "cores": os.cpu_count(),
        "python": sys.version.split()[0], **said, "held": held,
    }  # fmt: skip
    told.out.mkdir(parents=True, exist_ok=True)
    (told.out / f"sandbox-{report['at'][:10]}.json").write_text(json.dumps(report, indent=2) + "\n")
    return 0 if all(held.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
