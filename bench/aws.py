"""The doors of AWS's shape, with everything on: signatures checked, decided, and each answer an act on the disk.

    python bench/aws.py                      GetRecord and its neighbours of a group with 50 features, embedded
    python bench/aws.py --smoke              a moment of each; no report, no bounds
    python bench/aws.py --seconds 10

`carelake serve` runs as anyone would start it. Requests are made and signed by botocore before the clock starts, and
sent by the client of `bench/rest.py`; `boto3` rows are whole calls of unmodified boto3, whose own time is in them.
Records are drawn evenly. Afterwards the acts are counted: there must be as many as answers.
Bound: GetRecord of 50 features, one connection, p50 under 3 ms.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from _workspace import Home, cpu
from rest import Draw, Load, percentiles, run, serving

FEATURES, GET_P50_MS, REGION = 50, 3.0, "us-east-1"
RESULTS = Path(__file__).parent / "results"
GROUP = "bench"
Key = tuple[str, str]


def definition() -> dict[str, Any]:
    """A group of so many features, beside the identifier and the event time."""
    names = [{"FeatureName": f"feature-{number}", "FeatureType": "Fractional"} for number in range(FEATURES)]
    fixed = [{"FeatureName": "patient", "FeatureType": "String"}, {"FeatureName": "at", "FeatureType": "String"}]
    return {
        "FeatureGroupName": GROUP,
        "RecordIdentifierFeatureName": "patient",
        "EventTimeFeatureName": "at",
        "FeatureDefinitions": [*fixed, *names],
        "OnlineStoreConfig": {"EnableOnlineStore": True},
    }


def record(number: int, second: int = 0) -> list[dict[str, str]]:
    """One record; its values do not matter."""
    at = f"2026-01-01T{second // 3600 % 24:02d}:{second // 60 % 60:02d}:{second % 60:02d}Z"
    values = {f"feature-{one}": f"{(number * 31 + one * 17) % 1000 / 7:.4f}" for one in range(FEATURES)}
    said = {"patient": f"p{number}", "at": at, **values}
    return [{"FeatureName": name, "ValueAsString": value} for name, value in said.items()]


def signed(url: str, key: Key, method: str, path: str, body: bytes = b"") -> bytes:
    """One request as it goes over the line."""
    headers = {"Host": urlsplit(url).netloc, **({"Content-Type": "application/json"} if body else {})}
    made = AWSRequest(method, url + path, data=body, headers=headers)
    SigV4Auth(Credentials(*key), "sagemaker", REGION).add_auth(made)
    lines = "".join(f"{name}: {value}\r\n" for name, value in made.headers.items())
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    return f"{method} {path} HTTP/1.1\r\n{lines}{length}\r\n".encode() + body


def drawn(requests: list[tuple[bytes, bytes]]) -> Draw:
    """Evenly, again and again."""
    choice = random.Random(5).random
    return lambda: requests[int(choice() * len(requests))]


def each(requests: list[tuple[bytes, bytes]]) -> Draw:
    """One after another, each once: a change is taken once."""
    left = iter(requests)
    return lambda: next(left)


def loads(url: str, key: Key, records: int, seconds: float) -> Iterator[tuple[str, int, Draw, float]]:
    """Name, connections, what is asked and for how long."""
    path = f"/aws/FeatureGroup/{GROUP}"
    gets = [
        (signed(url, key, "GET", f"{path}?RecordIdentifierValueAsString=p{n}"), f'"p{n}"'.encode())
        for n in range(records)
    ]
    yield "GetRecord", 1, drawn(gets), seconds
    yield "GetRecord", 16, drawn(gets), seconds
    asked = [[f"p{(n * 7 + one) % records}" for one in range(10)] for n in range(200)]
    bodies = [
        json.dumps({"Identifiers": [{"FeatureGroupName": GROUP, "RecordIdentifiersValueAsString": names}]})
        for names in asked
    ]
    batches = [(signed(url, key, "POST", "/aws/BatchGetRecord", body.encode()), b'"Records"') for body in bodies]
    yield "BatchGetRecord of 10", 1, drawn(batches), seconds
    many = int(2000 * seconds)
    puts = (json.dumps({"Record": record(n % records, n // records + 1)}).encode() for n in range(many))
    yield "PutRecord", 1, each([(signed(url, key, "PUT", path, body), b"") for body in puts]), seconds


def timed(call: Callable[[int], Any], records: int, seconds: float) -> list[float]:
    """Seconds of each call of boto3, one after another."""
    rng, spent, end = random.Random(7), [], time.perf_counter() + seconds
    while (began := time.perf_counter()) < end:
        call(rng.randrange(records))
        spent.append(time.perf_counter() - began)
    return spent


def acts(home: Home) -> int:
    """How many acts of records there are."""
    with home.opened() as workspace, workspace.vault.database.ledger_reading() as connection:
        counted = "SELECT count(*) FROM act WHERE action IN ('features:read', 'features:write')"
        return int(connection.exec_driver_sql(counted).scalar_one())


def measure(home: Home, folder: Path, told: argparse.Namespace) -> list[dict[str, Any]]:
    """All of them before one server."""
    made = json.loads(
        home.run("-w", str(home.root), "--purpose", "TREAT", "principal", "key", "add", "operator", "--json")
    )
    key, rows, answers, before = (made["id"], made["secret"]), [], 0, acts(home)
    with serving(home, 1, folder / "log") as (pid, port):
        url = f"http://127.0.0.1:{port}"
        client = {"endpoint_url": f"{url}/aws", "region_name": REGION}
        client |= {"aws_access_key_id": key[0], "aws_secret_access_key": key[1]}
        boto3.client("sagemaker", **client).create_feature_group(**definition())
        store: Any = boto3.client("sagemaker-featurestore-runtime", **client)
        for first in range(0, told.records, 25):
            numbers = range(first, min(first + 25, told.records))
            store.batch_write_record(Entries=[{"FeatureGroupName": GROUP, "Record": record(n)} for n in numbers])
            answers += 1
        for name, connections, draw, seconds in loads(url, key, told.records, told.seconds):
            load, server = Load(draw, connections, seconds), cpu(pid)
            run(load, port)
            answers += len(load.spent)
            rows.append(
                {
                    "client": "signed", "operation": name, "connections": connections,
                    "per_second": round(len(load.spent) / seconds), **percentiles(load.spent or [0.0]),
                    "statuses": {status.decode(): many for status, many in load.statuses.items()},
                    "lost": load.lost, "wrong": load.wrong,
                    "server_cpu_us": round(1e6 * (cpu(pid) - server) / max(1, len(load.spent))),
                }
            )  # fmt: skip
            print(json.dumps(rows[-1]), flush=True)
        calls = {
            "GetRecord": lambda n: store.get_record(FeatureGroupName=GROUP, RecordIdentifierValueAsString=f"p{n}"),
        }
        for name, call in calls.items():
            spent = timed(call, told.records, told.seconds)
            answers += len(spent)
            rows.append({"client": "boto3", "operation": name, "connections": 1, **percentiles(spent)})
            print(json.dumps(rows[-1]), flush=True)
    if (kept := acts(home) - before) < answers:
        raise SystemExit(f"{answers} answers, and {kept} acts: an answer left without its act.")
    return rows


def main() -> int:
    """Measure, print and keep the report; exit code 1 when the bound does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each load")
    parser.add_argument("--records", type=int, default=1000)
    parser.add_argument("--smoke", action="store_true", help="does it run; no report, no bounds")
    parser.add_argument("--out", type=Path, default=RESULTS)
    told = parser.parse_args()
    if told.smoke:
        told.seconds, told.records = 0.5, 50
    folder = Path(tempfile.mkdtemp(prefix="carelake-aws-"))
    try:
        home = Home(folder)
        home.make()
        rows = measure(home, folder, told)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    good = not any(
        row.get("lost") or row.get("wrong") or set(row.get("statuses", ["200"])) != {"200"} for row in rows
    )
    if told.smoke:
        return 0 if good else 1
    one = next(row for row in rows if row["operation"] == "GetRecord" and row["connections"] == 1)
    held = {"all-right": good, "get-record-p50": one["p50"] < GET_P50_MS}
    report = {
        "bench": "aws", "at": datetime.now(UTC).isoformat(timespec="seconds"), "cores": os.cpu_count(),
        "python": sys.version.split()[0], "features": FEATURES, "records": told.records,
        "rows": rows, "held": held,
    }  # fmt: skip
    told.out.mkdir(parents=True, exist_ok=True)
    (told.out / f"aws-{report['at'][:10]}.json").write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps({"held": held}))
    return 0 if all(held.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
