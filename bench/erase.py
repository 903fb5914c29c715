"""How fast patients are erased, what each step costs, what is left of them, and whether all others are as before.

    python bench/erase.py [--patients 1250,5000,20000] [--databases embedded] [--smoke]

For each size a hospital is made, read, synced into the lake and backed up. Then 1 % of its patients are erased by one
``Erasures.erase``, as ``carelake erase --patients FILE`` does it, in a process of its own. Every byte that the
workspace can give is looked through before and after, and in a copy restored afterwards from the backup (`_erased`).

Bounds: no word of theirs is found anywhere, everything else has the sums of before, and the seconds for one erased
patient do not grow with the record. 20,000 patients need 20 GB of disk.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from _erased import Look, plant
from _postgres import PostgresServer, postgres_missing
from _workspace import Home, cpu, rss

SHARE = 0.01
GROWTH = 1.5
CONTROL = ("table resource", "versions", "objects of landing", "rows of lake")
"""Where words are found before, or the look is blind."""


# -- in a process of its own -----------------------------------------------------------------------------------------


def child(asked: list[str]) -> None:
    """``erase ROOT IDS`` or ``look ROOT WORDS GONE``: JSON on stdout."""
    from carelake.apps.wiring import Workspace

    workspace = Workspace.open(Path(asked[1]), dict(os.environ))
    try:
        told = _erase(workspace, Path(asked[2])) if asked[0] == "erase" else _look(workspace, *map(Path, asked[2:]))
    finally:
        workspace.close()
    print(json.dumps(told))


def _erase(workspace: Any, ids: Path) -> dict[str, Any]:
    stages: dict[str, list[float]] = {}
    at = [time.monotonic(), _cpu(), ""]

    def shown(step: str, done: int, of: int) -> None:
        if step != at[2]:
            _mark(stages, at)
            at[2] = step

    began, busy = time.monotonic(), _cpu()
    with workspace.enter(workspace.local(None, None, None), "record:erase", "record", job=True) as permit:
        proof = workspace.erasures.erase(permit, ids.read_text().split(), "bench", progress=shown)
    _mark(stages, at)
    return {
        "seconds": round(time.monotonic() - began, 2), "cpu_seconds": round(_cpu() - busy, 2),
        "stages": {name: {"seconds": round(s, 2), "cpu_seconds": round(c, 2)} for name, (s, c) in stages.items()},
        "max_rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10,
        **{name: proof[name] for name in ("counts", "residue", "complete")},
    }  # fmt: skip


def _mark(stages: dict[str, list[float]], at: list[Any]) -> None:
    """What went by since the last mark belongs to the stage that was under way."""
    now, busy = time.monotonic(), _cpu()
    held = stages.setdefault(at[2] or "begin", [0.0, 0.0])
    held[0] += now - at[0]
    held[1] += busy - at[1]
    at[:2] = now, busy


def _cpu() -> float:
    return cpu(os.getpid())


def _look(workspace: Any, words: Path, gone: Path | None = None) -> dict[str, Any]:
    known = None if gone is None else set(json.loads(gone.read_text())["gone"])
    return Look(workspace, words.read_text().split()).all(known)


# -- the measurement -------------------------------------------------------------------------------------------------


class Run:
    """One size on one database."""

    def __init__(self, folder: Path, server: PostgresServer | None, name: str, patients: int) -> None:
        self.folder, self.name, self.patients = folder, name, patients
        self.home, self.back = Home(folder / "home", server, name), Home(folder / "back", server, f"{name}back")
        self.back.environment["CARELAKE_KEY_DIR"] = self.home.environment["CARELAKE_KEY_DIR"]
        self.server = server
        self.peak = 0

    def call(self, what: str, home: Home, *words: Path) -> dict[str, Any]:
        """This file in a process of its own; the most memory that it and its children held is in ``peak``."""
        command = [sys.executable, __file__, "--child", what, str(home.root), *map(str, words)]
        environment = {**home.environment, "PYTHONHASHSEED": "0"}
        with TemporaryFile("w+") as out:  # a pipe would have to be read while it is written
            process = subprocess.Popen(command, stdout=out, env=environment)
            self.peak = 0
            while process.poll() is None:
                self.peak = max(self.peak, rss(process.pid))
                time.sleep(0.05)
            out.seek(0)
            said = out.read()
        if process.returncode:
            raise SystemExit(f"{what} ended with {process.returncode}")
        told: dict[str, Any] = json.loads(said.splitlines()[-1])
        return told

    def timed(self, *arguments: Any) -> float:
        """Seconds of one command."""
        began = time.monotonic()
        self.home.run("-w", str(self.home.root), *map(str, arguments))
        return round(time.monotonic() - began, 2)

    def measure(self) -> dict[str, Any]:
        """Make, erase, look, restore, look."""
        from carelake.synth import generate

        folder, home = self.folder, self.home
        source, more, words = folder / "source", folder / "more", folder / "words"
        generate(source, patients=self.patients, seed=3)
        chosen, needles = plant(source, SHARE, more)
        words.write_text("\n".join(sorted(needles)))
        (folder / "ids").write_text("\n".join(chosen))
        home.make()
        told: dict[str, Any] = {"patients": self.patients, "erased": len(chosen)}
        told["resources"] = home.ingest(source)["stored"] + home.ingest(more)["stored"]
        shutil.rmtree(source)
        shutil.rmtree(more)
        told["sync_seconds"] = self.timed("lake", "sync")
        home.settle()
        told["bytes"] = home.bytes()
        return {**told, **self.erased(chosen, words)}

    def erased(self, chosen: list[str], words: Path) -> dict[str, Any]:
        """From the synced workspace on. A look goes on beside the backup and beside the restore."""
        folder, home, told = self.folder, self.home, dict[str, Any]()
        with ThreadPoolExecutor(1) as beside:
            looking = beside.submit(self.call, "look", home, words)
            told["backup_seconds"] = self.timed("backup", folder / "backup")
            before = looking.result()
        (folder / "before").write_text(json.dumps(before))
        told |= self.call("erase", home, folder / "ids")
        told["peak_rss"] = self.peak
        told["seconds_for_one"] = round(told["seconds"] / len(chosen), 3)
        told["cpu_seconds_for_one"] = round(told["cpu_seconds"] / len(chosen), 3)
        told["found_before"] = {name: number for name, number in before["found"].items() if number}
        print(json.dumps(told), flush=True)
        with ThreadPoolExecutor(1) as beside:
            looking = beside.submit(self.call, "look", home, words, folder / "before")
            if self.server is not None:
                self.server.create(f"{self.name}back")
            began = time.monotonic()
            said = json.loads(self.back.run("restore", str(folder / "backup"), str(self.back.root), "--json"))
            told["restore_seconds"] = round(time.monotonic() - began, 2)
            told["after"] = self.compared(before, looking.result())
        told["restored"] = {
            "erasures_replayed": said["erasures_replayed"], "intact": said["verified"]["intact"],
            **self.compared(before, self.call("look", self.back, words, folder / "before")),
        }  # fmt: skip
        return told

    @staticmethod
    def compared(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
        """Words that are left, and what of the others is not as it was."""
        names = sorted({*before["sums"], *after["sums"]} - {"table display"})
        none = [0, 0]
        changed = [name for name in names if before["sums"].get(name, none) != after["sums"].get(name, none)]
        left = {name: number for name, number in after["found"].items() if number}
        compared = sum(after["sums"].get(name, [0])[0] for name in names)
        return {"left": left, "changed": changed, "compared": compared}


def held(report: dict[str, Any]) -> dict[str, bool]:
    """The bounds."""
    found = {}
    for name in ("embedded", "postgresql"):
        runs = report.get(name, [])
        if runs:
            found[f"look_sees_{name}"] = all(one["found_before"].get(place) for one in runs for place in CONTROL)
            found[f"nothing_left_{name}"] = all(
                one["complete"] and not one[look]["left"] for one in runs for look in ("after", "restored")
            )
            found[f"others_unchanged_{name}"] = all(
                not one[look]["changed"] for one in runs for look in ("after", "restored")
            )
            found[f"restored_intact_{name}"] = all(one["restored"]["intact"] for one in runs)
            cost = [one["cpu_seconds_for_one"] for one in runs]
            found[f"does_not_grow_{name}"] = cost[-1] <= GROWTH * min(cost)
    return found


def main() -> int:
    """Measure, print and keep the report; exit code 1 when a bound does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", default="1250,5000,20000", help="sizes, separated by commas")
    parser.add_argument("--databases", default="embedded")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--smoke", action="store_true", help="one small size, embedded; no bound of time, no report")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        child(asked.child)
        return 0
    if asked.smoke:
        asked.patients, asked.databases = "100", "embedded"
    folder = Path(tempfile.mkdtemp(prefix="carelake-erase-"))
    folder.chmod(0o711)  # PostgreSQL runs as another user when we are root
    report: dict[str, Any] = {
        "bench": "erase", "at": datetime.now(UTC).isoformat(timespec="seconds"), "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2), "share": SHARE,
    }  # fmt: skip
    try:
        for name in asked.databases.split(","):
            if name == "postgresql" and (reason := postgres_missing()):
                print(reason)
                continue
            server = PostgresServer(folder / "server") if name == "postgresql" else None
            try:
                for size in map(int, asked.patients.split(",")):
                    run = Run(folder / f"{name}{size}", server, f"erase{size}", size)
                    run.folder.mkdir(parents=True)
                    run.folder.chmod(0o711)
                    report.setdefault(name, []).append(run.measure())
                    print(json.dumps(report[name][-1]), flush=True)
                    shutil.rmtree(run.folder)
            finally:
                if server is not None:
                    server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    report["load_after"] = round(os.getloadavg()[0], 2)
    report["held"] = held(report)
    print(json.dumps({"held": report["held"]}))
    if asked.smoke:
        return 0 if all(fine for name, fine in report["held"].items() if not name.startswith("does_not")) else 1
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / f"erase-{report['at'][:10]}.json").write_text(json.dumps(report, indent=2) + "\n")
    return 0 if all(report["held"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
