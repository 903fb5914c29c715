"""What reading costs: the rate of `carelake ingest` with everything on, each stage alone, and memory on a large file.

    python bench/ingest.py [--patients 3000] [--gigabytes 2] [--out bench/results]

The rate is that of the whole command: landing sealed and hashed, parsed, validated, indexed, compressed, sealed under
patients' keys, written in transactions with their acts and events. Stages are timed alone on one core over the same
resources, so that their shares can be seen; they overlap in the real run. Memory is the sum over the command's
processes, sampled from /proc (Linux).
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import shutil
import subprocess
import tempfile
import time
from base64 import b64encode
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import zstandard
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from _workspace import COMMAND, rss
from carelake.core import canonical
from carelake.fhir import compartment
from carelake.fhir.search import extract
from carelake.fhir.structure import check
from carelake.synth import generate

RATE, RSS = 3_000, 1_000_000_000


def ingest(folder: Path, source: Path) -> dict[str, Any]:
    """One run of the command: its report and its peak memory."""
    os.environ["CARELAKE_KEY_DIR"] = str(folder / "keys")
    home = Path(tempfile.mkdtemp(dir=folder)) / "workspace"
    subprocess.run([*COMMAND, "init", str(home)], check=True, capture_output=True)
    process = subprocess.Popen([*COMMAND, "-w", str(home), "ingest", str(source), "--json"], stdout=subprocess.PIPE)
    peak = 0
    while process.poll() is None:
        peak = max(peak, rss(process.pid))
        time.sleep(0.1)
    assert process.stdout is not None
    report: dict[str, Any] = json.loads(process.stdout.read())
    shutil.rmtree(home.parent)
    return {"read": report["read"], "stored": report["stored"], "seconds": report["seconds"],
            "per_second": round(report["read"] / report["seconds"]), "peak_rss": peak}  # fmt: skip


def stages(lines: list[bytes]) -> dict[str, int]:
    """Resources a second of each stage alone, on one core, collector off as in the workers."""
    gc.disable()
    parsed = [canonical.load(line) for line in lines]
    texts = [canonical.dump(resource) for resource in parsed]
    squeeze = zstandard.ZstdCompressor(level=1)
    bodies = [squeeze.compress(text) for text in texts]
    key = AESGCM(AESGCM.generate_key(256))

    def seal(body: bytes) -> None:
        key.encrypt(os.urandom(12), body, b"context")

    work: dict[str, tuple[Callable[[Any], object], list[Any]]] = {
        "parse": (canonical.load, lines),
        "validate": (check, parsed),
        "owner": (compartment.owner, parsed),
        "extract": (extract, parsed),
        "canonical": (canonical.dump, parsed),
        "compress": (squeeze.compress, texts),
        "seal": (seal, bodies),
    }
    found = {name: round(len(lines) / timed(function, values)) for name, (function, values) in work.items()}
    gc.enable()
    return found


def timed(function: Callable[[Any], object], values: list[Any]) -> float:
    """Seconds of the best of three passes."""
    best = float("inf")
    for _ in range(3):
        began = time.perf_counter()
        for value in values:
            function(value)
        best = min(best, time.perf_counter() - began)
    return best


def main() -> int:
    """Measure, print and keep the report; exit code 1 when a bound does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, default=3000)
    parser.add_argument("--gigabytes", type=float, default=2.0, help="size of the large file; 0 leaves it out")
    parser.add_argument(
        "--large", choices=("mixed", "notes"), default="mixed", help="what the large file holds; notes are 20 KB each"
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    told = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="carelake-ingest-"))
    try:
        made = generate(folder / "hospital", patients=told.patients, seed=3)
        lines = [line for file in made.files[:3] for line in file.read_bytes().splitlines()][:20_000]
        report: dict[str, Any] = {
            "bench": "ingest",
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "cores": os.cpu_count(),
            "load": round(os.getloadavg()[0], 2),
            "stages_per_second_one_core": stages(lines),
            "whole": ingest(folder, folder / "hospital"),
        }
        print(json.dumps(report), flush=True)
        if told.gigabytes:
            report["large_file"] = {"holds": told.large, **_large(folder, made.files, told.gigabytes, told.large)}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    held = {"rate": report["whole"]["per_second"] >= RATE}
    if told.gigabytes:
        held["memory"] = report["large_file"]["peak_rss"] < RSS
    report["held"] = held
    told.out.mkdir(parents=True, exist_ok=True)
    (told.out / f"ingest-{report['at'][:10]}.json").write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report))
    return 0 if all(held.values()) else 1


def _large(folder: Path, files: tuple[Path, ...], gigabytes: float, holds: str) -> dict[str, Any]:
    """One file of that size: patients' resources again and again under other ids, or long notes of theirs."""
    source = folder / "large.ndjson"
    size, again = 0, 0
    with source.open("wb") as out:
        while size < gigabytes * 1e9:
            for file in files[1:]:
                data = file.read_bytes()
                if holds == "notes":
                    data = _notes(data, again)
                elif again:
                    data = _renamed(data, again)
                size += out.write(data)
            again += 1
    return {**ingest(folder, source), "bytes": size}


def _notes(data: bytes, again: int) -> bytes:
    """A note of about 20 KB for each encounter of a file."""
    lines = []
    for line in data.splitlines():
        encounter = canonical.load(line)
        if encounter["resourceType"] == "Encounter":
            text = f"Synthetic note {again} of {encounter['id']}. ".encode() * 200
            note = {
                "resourceType": "DocumentReference",
                "id": f"n{again:03d}-{encounter['id']}"[:64],
                "status": "current",
                "subject": encounter["subject"],
                "content": [{"attachment": {"contentType": "text/plain", "data": b64encode(text).decode()}}],
            }
            lines.append(canonical.dump(note))
    return b"\n".join(lines) + b"\n"


def _renamed(data: bytes, again: int) -> bytes:
    lines = []
    for line in data.splitlines():
        resource = canonical.load(line)
        _rename(resource, f"c{again:03d}-")
        lines.append(canonical.dump(resource))
    return b"\n".join(lines) + b"\n"


def _rename(resource: Any, prefix: str) -> None:
    stack = [resource]
    resource["id"] = prefix + resource["id"]
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            reference = value.get("reference")
            if isinstance(reference, str) and "/" in reference:
                kind, _, key = reference.partition("/")
                value["reference"] = f"{kind}/{prefix}{key}"
            stack += value.values()
        elif isinstance(value, list):
            stack += value


if __name__ == "__main__":
    raise SystemExit(main())
