"""What objects cost beside plain files: large ones as a share of a file's throughput, small ones in milliseconds.

    python bench/objects.py [--megabytes 100] [--rounds 7] [--small 1000] [--out bench/results]

Everything is on: sealed, hashed, in the table, the act of the permit with it, every answer durable. A plain file is
written, synced, renamed and its folder synced, which is what an object is compared with; both take turns in the same
run, since a machine's disk is not the same from one minute to the next. Reads come from the page cache for both.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from carelake.apps.wiring import Workspace
from carelake.vault.disk import publish

ZONE = "landing"
SHARE, SMALL_MS = 0.60, 1.0
SMALL_BYTES = 4096


def plain_write(path: Path, data: bytes) -> None:
    """A file, durable under its name."""
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    publish(temporary, path)


def timed(call: Callable[[], object]) -> float:
    """Seconds."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def large(objects: Any, permit: Any, folder: Path, size: int, rounds: int) -> dict[str, Any]:
    """Throughput of one large object, and of one in parts, beside a file's."""
    data = os.urandom(size)
    part = 32 << 20
    took: dict[str, list[float]] = {name: [] for name in ("file_write", "write", "parts", "file_read", "read")}

    def in_parts() -> None:
        begun = objects.uploads.begin(permit, ZONE, "parts", part_bytes=part)
        for number, start in enumerate(range(0, size, part), 1):
            objects.uploads.put(permit, ZONE, begun.id, number, memoryview(data)[start : start + part])
        objects.uploads.complete(permit, ZONE, begun.id)

    for number in range(rounds + 1):
        file = folder / f"plain-{number}"
        round_ = {
            "file_write": timed(lambda file=file: plain_write(file, data)),
            "write": timed(lambda: objects.put(permit, ZONE, "large", data)),
            "parts": timed(in_parts),
            "file_read": timed(file.read_bytes),
            "read": timed(lambda: objects.get(permit, ZONE, "large")),
        }
        file.unlink()
        for name in ("large", "parts"):
            objects.delete(permit, ZONE, name)
        if number:  # the first round warms up
            for name, seconds in round_.items():
                took[name].append(seconds)
    rates = {f"{name}_mb_s": round(size / statistics.median(all_) / 1e6) for name, all_ in took.items()}
    return {
        "bytes": size,
        **rates,
        "write_share": round(rates["write_mb_s"] / rates["file_write_mb_s"], 2),
        "parts_share": round(rates["parts_mb_s"] / rates["file_write_mb_s"], 2),
        "read_share": round(rates["read_mb_s"] / rates["file_read_mb_s"], 2),
    }


def small(objects: Any, permit: Any, folder: Path, count: int) -> dict[str, Any]:
    """Milliseconds of one small object, written and read, beside a file's and the syncs it is made of."""
    data = os.urandom(SMALL_BYTES)
    took: dict[str, list[float]] = {name: [] for name in ("file_write", "append_sync", "write", "read")}
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def append() -> None:
        os.write(log, data)
        os.fdatasync(log)

    for number in range(count):
        name = f"small/{number}"
        took["file_write"].append(timed(lambda number=number: plain_write(folder / f"small-{number}", data)))
        took["append_sync"].append(timed(append))
        took["write"].append(timed(lambda name=name: objects.put(permit, ZONE, name, data)))
        took["read"].append(timed(lambda name=name: objects.get(permit, ZONE, name)))
    os.close(log)
    return {"bytes": SMALL_BYTES, "count": count, **{name: spread(all_) for name, all_ in took.items()}}


def spread(seconds: list[float]) -> dict[str, float]:
    """Median and 99th percentile, in milliseconds."""
    ordered = sorted(seconds)
    return {
        "p50_ms": round(1000 * statistics.median(ordered), 3),
        "p99_ms": round(1000 * ordered[int(0.99 * len(ordered))], 3),
    }


def main() -> int:
    """Measure, print and keep the report; exit code 1 when a bound does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--small", type=int, default=1000)
    parser.add_argument("--folder", type=Path, default=None, help="where to work; default the temporary folder")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    told = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="carelake-objects-", dir=told.folder))
    report: dict[str, Any] = {
        "bench": "objects",
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
    }
    try:
        workspace = Workspace.create(folder / "ws", {"CARELAKE_KEY_DIR": str(folder / "keys")})
        caller = workspace.local(None, None, None)
        with workspace.enter(caller, f"object:write@{ZONE}", f"zone/{ZONE}") as permit:
            objects = workspace.vault.objects
            report["large"] = large(objects, permit, folder, told.megabytes * 1_000_000, told.rounds)
            report["small"] = small(objects, permit, folder, told.small)
        workspace.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    report["held"] = {
        "large_write": report["large"]["write_share"] >= SHARE,
        "large_read": report["large"]["read_share"] >= SHARE,
        "small_write": report["small"]["write"]["p50_ms"] < SMALL_MS,
        "small_read": report["small"]["read"]["p50_ms"] < SMALL_MS,
    }
    told.out.mkdir(parents=True, exist_ok=True)
    (told.out / f"objects-{report['at'][:10]}.json").write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report))
    return 0 if all(report["held"].values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
