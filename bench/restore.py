"""What safety costs: backups full and incremental, how long writers wait, how soon a restore is open and verified.

    python bench/restore.py [--patients 500 1000 2000] [--out bench/results]

For each size a hospital is made and read. Then: a first backup; one with nothing new; one after a small ingest; three
while a larger ingest runs, with the longest that any writer waited for the standstill; a drill; a restore on another
machine (nothing but the root key's file), with its RPO and RTO. ``seconds`` are
those of the work, ``command_seconds`` those of the whole command, interpreter and all.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

SMALL = 10
STALL_SECONDS, UNCHANGED_SHARE = 0.1, 0.05


class Place:
    """A workspace with its keys, below one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.script = folder / "command.py"
        self.script.write_text("from carelake.apps.cli.main import main\nif __name__ == '__main__':\n    main()\n")

    def start(self, *arguments: object) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "CARELAKE_KEY_DIR": str(self.folder / "keys")}
        environment["CARELAKE_WORKSPACE"] = str(self.folder / "ws")
        command = [sys.executable, str(self.script), *map(str, arguments), "--json"]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def run(self, *arguments: object) -> dict[str, Any]:
        """What the command says, with the seconds that all of it took."""
        began = time.perf_counter()
        done = self.start(*arguments)
        out, err = done.communicate()
        if done.returncode:
            raise SystemExit(f"{arguments}: {err.decode()[-2000:]}")
        told: dict[str, Any] = json.loads(out)
        return {**told, "command_seconds": round(time.perf_counter() - began, 2)}


def folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def shipped(told: dict[str, Any]) -> dict[str, Any]:
    kept = ("new_bytes", "new_pieces", "seconds", "command_seconds", "writers_waited_seconds", "objects", "digests")
    return {name: told[name] for name in kept}


def measure(folder: Path, patients: int) -> dict[str, Any]:
    place, out = Place(folder / "first"), folder / "out"
    for name, number, seed in (("src", patients, 1), ("more", SMALL, 2), ("during", max(50, patients // 4), 3)):
        place.run("synth", "--patients", number, "--seed", seed, "--out", folder / name)
    place.run("init", folder / "first" / "ws")
    told: dict[str, Any] = {"patients": patients, "resources": place.run("ingest", folder / "src")["stored"]}
    told["workspace_bytes"] = folder_bytes(folder / "first" / "ws")
    told["database_bytes"] = (folder / "first" / "ws" / "carelake.db").stat().st_size
    told["full"] = shipped(place.run("backup", out))
    told["nothing_new"] = shipped(place.run("backup", out))
    place.run("ingest", folder / "more")
    told["small_ingest"] = shipped(place.run("backup", out))
    running = place.start("ingest", folder / "during")
    time.sleep(1.0)
    during = []
    while running.poll() is None and len(during) < 3:
        during.append(shipped(place.run("backup", out)))
    running.communicate()
    told["while_ingesting"] = during
    told["backup_bytes"] = folder_bytes(out)
    last = place.run("backup", out, "--keep", 1)
    told["pruned"] = last["pruned"]
    told["drill"] = restored(place.run("drill", out))
    other = Place(folder / "other")
    (folder / "other" / "keys").mkdir()
    for key in (folder / "first" / "keys").glob("*.key"):
        shutil.copy(key, folder / "other" / "keys")
    told["restore"] = restored(other.run("restore", out, folder / "other" / "ws"))
    return told


def restored(told: dict[str, Any]) -> dict[str, Any]:
    kept = {name: told[name] for name in ("rto_seconds", "command_seconds", "objects", "acts", "rpo", "digests")}
    return {**kept, "intact": told["verified"]["intact"]}


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--patients", type=int, nargs="+", default=[500, 1000, 2000])
    parser.add_argument("--out", type=Path, default=Path("bench/results"))
    asked = parser.parse_args()
    curve = []
    for patients in asked.patients:
        with tempfile.TemporaryDirectory(prefix="carelake-bench-") as folder:
            curve.append(measure(Path(folder), patients))
        print(json.dumps(curve[-1]), flush=True)
    waited = [one["writers_waited_seconds"] for told in curve for one in told["while_ingesting"]]
    held = {
        "writers_waited": max(waited, default=0.0) < STALL_SECONDS,
        "nothing_new_ships_little": all(
            told["nothing_new"]["new_bytes"] < UNCHANGED_SHARE * told["full"]["new_bytes"] for told in curve
        ),
        "intact": all(told[name]["intact"] for told in curve for name in ("drill", "restore")),
    }
    report = {
        "bench": "restore",
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "curve": curve,
        "held": held,
    }
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / f"restore-{report['at'][:10]}.json").write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(held))
    return 0 if all(held.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
