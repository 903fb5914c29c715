"""What a record of a feature group costs to read and to write, in one process.

    python bench/online.py [--features 50] [--patients 20000] [--rounds 3000] [--rows 1000000] [--out bench/results]
    python bench/online.py --smoke

A workspace as any (SQLCipher, records sealed under their patients' keys, permits from the gate), with the operator as
the caller:

    get       GetRecord of one patient by chance, all features; within one permit, as a door reads a batch
    act       the same with a permit, and so an act, of its own, as a door reads one
    batch     BatchGetRecord of 100 patients
    put       PutRecord of a later record, online and offline, committed
    redis     get and put of an InMemory group: `sql` without and `copy` with a Redis on loopback, on each database
    ingest    `features ingest` of a Parquet file with 10 features into both stores: rows a second
    offline   reading that offline store whole: rows a second

Milliseconds, median and 99th percentile. The bound is of `get`: p50 below 0.5 ms.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from _sizes import present, scratch, served
from carelake.apps.wiring import Workspace
from carelake.features.groups import FeatureGroups, Records, offline
from carelake.features.groups.ingest import ingest

RESULTS = Path(__file__).parent / "results"
TARGET = 0.5
START = np.datetime64("2025-01-01T00:00:00", "us")


def request(name: str, features: int) -> dict[str, Any]:
    """CreateFeatureGroup's."""
    numbers = [{"FeatureName": f"f{n}", "FeatureType": "Fractional"} for n in range(features)]
    named = [{"FeatureName": one, "FeatureType": "String"} for one in ("subject_id", "at")]
    return {
        "FeatureGroupName": name,
        "RecordIdentifierFeatureName": "subject_id",
        "EventTimeFeatureName": "at",
        "FeatureDefinitions": [*named, *numbers],
        "OnlineStoreConfig": {"EnableOnlineStore": True},
        "OfflineStoreConfig": {"S3StorageConfig": {"S3Uri": "s3://bench"}},
    }


def table(rows: int, patients: int, features: int, seed: int) -> pa.Table:
    """Records of patients over a year."""
    draw = np.random.default_rng(seed)
    seconds = draw.integers(0, 365 * 86_400, rows).astype("timedelta64[s]")
    made = {"subject_id": [f"p{n % patients}" for n in range(rows)], "at": pa.array(START + seconds)}
    return pa.table({**made, **{f"f{n}": draw.random(rows) for n in range(features)}})


def timed(work: Callable[[int], Any], rounds: int) -> dict[str, float]:
    """Milliseconds."""
    taken = []
    for number in range(rounds + 20):
        began = time.perf_counter()
        work(number)
        taken.append((time.perf_counter() - began) * 1e3)
    p50, p99 = np.quantile(taken[20:], [0.5, 0.99])
    return {"p50": round(float(p50), 4), "p99": round(float(p99), 4)}


def measure(workspace: Workspace, folder: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """All figures."""
    vault = workspace.vault
    caller = workspace.local(None, None, None)
    groups, records = FeatureGroups(vault, workspace.nouns, workspace.outbox), Records(vault)
    draw = random.Random(7)
    with workspace.enter(caller, "features:define", "features") as permit:
        groups.create(permit, request("wide", asked.features))
        groups.create(permit, request("many", 10))
    wide, many = folder / "wide.parquet", folder / "many.parquet"
    pq.write_table(table(asked.patients, asked.patients, asked.features, 1), wide)
    pq.write_table(table(asked.rows, asked.patients, 10, 2), many)
    with workspace.enter(caller, "features:write", "features", job=True) as permit:
        ingest(permit, vault, workspace.outbox, "wide", wide)
        began = time.perf_counter()
        ingest(permit, vault, workspace.outbox, "many", many)
        found: dict[str, Any] = {"ingest_rows_a_second": round(asked.rows / (time.perf_counter() - began))}

    def who() -> str:
        return f"p{draw.randrange(asked.patients)}"

    def get(permit: Any) -> None:
        read = records.get_record(permit, feature_group_name="wide", record_identifier_value_as_string=who())
        assert len(read["Record"]) == asked.features + 2

    def act(_: int) -> None:
        with workspace.enter(caller, "features:read", "features") as permit:
            get(permit)

    with workspace.enter(caller, "features:read", "features") as permit:
        found["get_ms"] = timed(lambda _: get(permit), asked.rounds)
        names = [{"FeatureGroupName": "wide", "RecordIdentifiersValueAsString": [who() for _ in range(100)]}]
        found["batch_ms"] = timed(lambda _: records.batch_get_record(permit, identifiers=names), asked.rounds // 20)
        began = time.perf_counter()
        rows = len(offline.table(permit, vault, "many"))
        found["offline_rows_a_second"] = round(rows / (time.perf_counter() - began))
    found["act_ms"] = timed(act, asked.rounds // 10)
    values = [{"FeatureName": f"f{n}", "ValueAsString": str(n / 3)} for n in range(asked.features)]

    def put(number: int) -> None:
        told = {
            "subject_id": who(),
            "at": f"2026-06-01T{number // 3600 % 24:02}:{number // 60 % 60:02}:{number % 60:02}Z",
        }
        named = [{"FeatureName": name, "ValueAsString": value} for name, value in told.items()]
        records.put_record(permit, feature_group_name="wide", record=[*named, *values])

    with workspace.enter(caller, "features:write", "features") as permit:
        found["put_ms"] = timed(put, asked.rounds // 10)
    return found


def copied(folder: Path, asked: argparse.Namespace) -> dict[str, Any] | None:
    """GetRecord and PutRecord of a group that is copied to Redis, and of one that is not; None without a server."""
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    if program is None:
        return None
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    said = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(folder)]
    server = subprocess.Popen([program, *said], stdout=subprocess.DEVNULL)
    found: dict[str, Any] = {
        "server": subprocess.run([program, "--version"], capture_output=True, text=True).stdout.split()[2]
    }
    try:
        for database in present("sqlite,postgresql"):
            with served(folder, database) as postgres:
                for name, url in (("sql", ""), ("copy", f"redis://127.0.0.1:{port}/0")):
                    env = {"CARELAKE_KEY_DIR": str(folder / "keys"), "CARELAKE_FEATURES__REDIS": url}
                    if postgres is not None:
                        postgres.create(name)
                        env["CARELAKE_DATABASE__URL"] = postgres.url(name)
                        env["CARELAKE_DATABASE__PASSWORD_FILE"] = str(postgres.password_file)
                    workspace = Workspace.create(folder / f"ws-{database}-{name}", env)
                    try:
                        told = reads(workspace, folder, asked)
                    finally:
                        workspace.close()
                    found |= {f"{database}_{name}_{key}": value for key, value in told.items()}
    finally:
        server.terminate()
        server.wait()
    return found


def reads(workspace: Workspace, folder: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """Of an InMemory group, every record read once before."""
    vault, caller, draw = workspace.vault, workspace.local(None, None, None), random.Random(7)
    records = Records(vault)
    memory = {"OnlineStoreConfig": {"EnableOnlineStore": True, "StorageType": "InMemory"}}
    with workspace.enter(caller, "features:define", "features") as permit:
        groups = FeatureGroups(vault, workspace.nouns, workspace.outbox)
        groups.create(permit, {**request("wide", asked.features), **memory})
    with workspace.enter(caller, "features:write", "features", job=True) as permit:
        ingest(permit, vault, workspace.outbox, "wide", folder / "wide.parquet")
    names = [f"p{number}" for number in range(asked.patients)]

    def get(permit: Any, who: str) -> None:
        read = records.get_record(permit, feature_group_name="wide", record_identifier_value_as_string=who)
        assert len(read["Record"]) == asked.features + 2

    values = [{"FeatureName": f"f{n}", "ValueAsString": str(n / 3)} for n in range(asked.features)]

    def put(number: int) -> None:
        at = f"2026-06-01T{number // 3600 % 24:02}:{number // 60 % 60:02}:{number % 60:02}Z"
        named = [
            {"FeatureName": name, "ValueAsString": said}
            for name, said in (("subject_id", draw.choice(names)), ("at", at))
        ]
        records.put_record(permit, feature_group_name="wide", record=[*named, *values])

    with workspace.enter(caller, "features:read", "features") as permit:
        for who in names:
            get(permit, who)
        found = {"get_ms": timed(lambda _: get(permit, draw.choice(names)), asked.rounds)}
    with workspace.enter(caller, "features:write", "features") as permit:
        return {**found, "put_ms": timed(put, asked.rounds // 10)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", type=int, default=50)
    parser.add_argument("--patients", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3_000)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--smoke", action="store_true")
    asked = parser.parse_args()
    if asked.smoke:
        asked.features, asked.patients, asked.rounds, asked.rows = 5, 50, 40, 500
    with scratch("online") as folder:
        workspace = Workspace.create(folder / "ws", {"CARELAKE_KEY_DIR": str(folder / "keys")})
        try:
            found = measure(workspace, folder, asked)
        finally:
            workspace.close()
        found["redis"] = copied(folder, asked)
    told = {name: value for name, value in vars(asked).items() if name != "out"}
    machine = {"cores": os.cpu_count(), "python": platform.python_version(), "dialect": "sqlite"}
    report = {"bench": "online", "asked": told, "machine": machine, "target_get_p50_ms": TARGET, **found}
    print(json.dumps(report, indent=1))
    if not asked.smoke:
        day = datetime.now(UTC).date().isoformat()
        asked.out.mkdir(parents=True, exist_ok=True)
        (asked.out / f"online-{day}.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if not asked.smoke and found["get_ms"]["p50"] >= TARGET:
        raise SystemExit("GetRecord is slower than its bound")


if __name__ == "__main__":
    main()
