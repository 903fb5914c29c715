"""One row to an endpoint over HTTP, everything on, beside MLflow's scoring server; and how soon one is ready.

    python bench/serving.py                          one connection, then 8, 8 s each; MLflow in the same run
    python bench/serving.py --smoke                  does it run; no peer, no report
    python bench/serving.py --no-peer

`carelake serve` and the commands run as anyone would start them. A request has a token, is decided, scored with its
reasons, numbered, and captured under its patient's key; its act is durable before the answer leaves. Afterwards the
captures are verified: as many requests as answers, no gap. MLflow's server scores the same trees, and keeps nothing.
Ready is from the start of the command `carelake endpoint deploy` to the first good answer of a server that runs.

Bounds: p50 under 3 ms and p99 under 8 ms by one connection, ready within 1.5 s. It must be a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from _peers import CACHE, missing
from _postgres import end_with_parent
from _workspace import COMMAND, Home
from carelake.core.nouns import Noun
from rest import RESULTS, Draw, Load, percentiles, run, serving, token_of

P50_MS, P99_MS, READY_SECONDS = 3.0, 8.0, 1.5
FEATURES = 60
NAMES = [f"f{number}" for number in range(FEATURES)]
COLUMNS = [f"Column_{number}" for number in range(FEATURES)]
"""The same, by the names that the text of a model has where it was trained on a matrix."""

TRAINING_SET = "trainingset:" + "0" * 64


def rows_of(count: int, seed: int) -> pa.Table:
    """A training set whose risk rests on a few of its features; a tenth of the values is missing."""
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(count, FEATURES))
    risk = 1 / (1 + np.exp(-(x[:, :8] @ np.linspace(0.8, 0.1, 8) - 2.0)))
    part = np.arange(count) / count
    columns: dict[str, Any] = {
        "encounter_id": [f"e{number}" for number in range(count)],
        "subject_id": [f"p{number}" for number in range(count)],
        "prediction_time": np.full(count, np.datetime64("2026-01-01T00:00:00", "us")),
        "label": draw.random(count) < risk,
        "sex": np.where(np.arange(count) % 2, "female", "male"),
        "set": np.where(part < 0.5, "train", np.where(part < 0.65, "calibration", "test")),
    }
    for at, name in enumerate(NAMES):
        columns[name] = np.where(draw.random(count) < 0.1, np.nan, x[:, at])
    return pa.table({name: pa.array(values, from_pandas=True) for name, values in columns.items()})


def versions(home: Home, many: int) -> tuple[list[str], str]:
    """Approved model versions under one name, and the trees as text."""
    from carelake.models import artifact, card, evaluate, matrix, train
    from carelake.monitor import baseline

    data, plan = matrix.rows(rows_of(6_000, 1), NAMES), train.Plan(replicates=20)
    scorer = train.train(data, plan, training_set=TRAINING_SET)
    metrics = evaluate.evaluate(data, scorer, plan)
    content = card.card(scorer, metrics, plan, card.About(TRAINING_SET, "pipeline"))
    spread = baseline.of_model(data, scorer).to_bytes()
    files = artifact.pack(scorer, metrics, content, card.html(content, {}), spread)
    made = []
    with home.opened() as workspace:
        caller, platform = workspace.local(None, None, None), workspace.platform
        for number in range(many):
            with platform.acting("pipeline", caller, "model:train", "readmission") as permit:
                training_set = f"trainingset:{number:064x}"
                with workspace.vault.database.transaction(permit) as tx:
                    workspace.nouns.write(tx, Noun(training_set, permit.account, "made", permit.act))
                ref = platform.registry.register(permit, "readmission", training_set, files).ref
            with platform.acting("reviewer", caller, "model:approve", ref) as permit:
                platform.registry.approve(permit, ref)
            made.append(ref)
    return made, scorer.text


def ours(token: str) -> Draw:
    """Requests of a row each, of 500 patients, each of another stay."""
    draw, number = random.Random(7), iter(range(10**9))

    def ask() -> tuple[bytes, bytes]:
        ids = {"subject_id": f"p{draw.randrange(500)}", "encounter_id": f"s{next(number)}"}
        row = {**ids, "features": _values(draw)}
        body = json.dumps({"instances": [row]}).encode()
        head = (
            f"POST /endpoints/readmission/invocations HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            f"Authorization: Bearer {token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body, b'"score"'

    return ask


def _values(draw: random.Random) -> list[float | None]:
    return [None if draw.random() < 0.1 else round(draw.gauss(0, 1), 4) for _ in NAMES]


def theirs(kind: str) -> Draw:
    """The same for MLflow's ``/invocations``: named columns, as its documentation has them, or a bare matrix."""
    draw = random.Random(7)

    def ask() -> tuple[bytes, bytes]:
        values = _values(draw)
        said = (
            {"dataframe_split": {"columns": COLUMNS, "data": [values]}} if kind == "named" else {"inputs": [values]}
        )
        body = json.dumps(said).replace("null", "NaN" if kind == "matrix" else "null").encode()
        head = (
            "POST /invocations HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body, b"predictions"

    return ask


def measured(draw: Draw, port: int, connections: int, seconds: float) -> dict[str, Any]:
    """One load, after a short one that warms."""
    run(Load(draw, connections, min(1.0, seconds)), port)
    load = Load(draw, connections, seconds)
    run(load, port)
    good = sum(many for status, many in load.statuses.items() if status == b"200")
    told = {"connections": connections, "requests": len(load.spent), "per_second": round(good / seconds)}
    return {
        **told,
        **percentiles(load.spent or [0.0]),
        "bad": len(load.spent) - good,
        "wrong": load.wrong,
        "lost": load.lost,
    }


def ready(home: Home, port: int, token: str, model: str) -> float:
    """Seconds from the start of ``endpoint deploy`` to the first good answer."""
    body = json.dumps({"instances": [[0.0] * FEATURES]}).encode()
    asked = urllib.request.Request(
        f"http://127.0.0.1:{port}/endpoints/other/invocations", body,
        {"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
    )  # fmt: skip
    began = time.perf_counter()
    command = [*COMMAND, "-w", str(home.root), "endpoint", "deploy", "other", "--model", model, "--json"]
    deploying = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=home.environment)
    try:
        while time.perf_counter() - began < 30:
            try:
                with urllib.request.urlopen(asked, timeout=10) as answer:
                    if answer.status == 200:
                        return time.perf_counter() - began
            except urllib.error.HTTPError:
                time.sleep(0.02)
    finally:
        deploying.wait(60)
    raise SystemExit("The endpoint did not become ready.")


@contextmanager
def mlflow(folder: Path, text: str, kind: str) -> Iterator[int]:
    """MLflow's scoring server over the same trees: its port."""
    python = CACHE / "mlflow" / "bin" / "python"
    (folder / "model.txt").write_text(text)
    here = Path(__file__).with_name("_mlflow.py")
    subprocess.run([str(python), "-P", str(here), str(folder / "model.txt"), str(folder / kind), kind], check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(python), "-m", "mlflow", "models", "serve", "-m", str(folder / kind), "--env-manager", "local"]
    environment = {**os.environ, "PATH": f"{python.parent}:{os.environ['PATH']}"}
    with (folder / "mlflow.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "-h", "127.0.0.1", "-p", str(port)], stdout=log, stderr=log, env=environment,
            start_new_session=True, preexec_fn=end_with_parent,
        )  # fmt: skip
        try:
            _wait(port)
            yield port
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(30)


def _wait(port: int) -> None:
    for _ in range(300):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=2):
                return
        except OSError:
            time.sleep(0.2)
    raise SystemExit("MLflow's server did not begin.")


def measure(folder: Path, seconds: float, *, peer: bool, connections: list[int]) -> dict[str, Any]:
    """All of it."""
    home = Home(folder)
    home.make()
    (one, two), text = versions(home, 2)
    home.run("-w", str(home.root), "endpoint", "deploy", "readmission", "--model", one)
    token = token_of(home)
    said: dict[str, Any] = {"carelake": [], "mlflow": []}
    with serving(home, 1, folder / "log") as (_, port):
        for many in connections:
            said["carelake"].append(measured(ours(token), port, many, seconds))
            print(json.dumps({"carelake": said["carelake"][-1]}), flush=True)
        said["ready_seconds"] = round(ready(home, port, token, two), 3)
    found = json.loads(home.run("-w", str(home.root), "endpoint", "captures", "verify", "readmission", "--json"))
    said["captures"] = found
    if peer and not (reason := missing("mlflow")):
        for kind in ("named", "matrix"):
            with mlflow(folder, text, kind) as port:
                for many in connections:
                    said["mlflow"].append({"rows": kind, **measured(theirs(kind), port, many, seconds)})
                    print(json.dumps({"mlflow": said["mlflow"][-1]}), flush=True)
    elif peer:
        said["mlflow"] = {"not_run": reason}
    return said


def main() -> int:
    """Measure, print and keep the report; exit code 1 when a bound does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each load")
    parser.add_argument("--connections", default="1,8")
    parser.add_argument("--no-peer", action="store_true")
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULTS)
    told = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="carelake-serving-"))
    connections = [int(one) for one in told.connections.split(",")]
    try:
        peer = not (told.no_peer or told.smoke)
        said = measure(folder, 1.0 if told.smoke else told.seconds, peer=peer, connections=connections)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    alone = said["carelake"][0]
    held = {
        "p50": alone["p50"] < P50_MS,
        "p99": alone["p99"] < P99_MS,
        "ready": said["ready_seconds"] <= READY_SECONDS,
        "captures": said["captures"]["whole"],
        "answers": not any(row["bad"] or row["wrong"] or row["lost"] for row in said["carelake"]),
    }
    print(json.dumps({"ready_seconds": said["ready_seconds"], "held": held}))
    if told.smoke:
        return 0 if held["captures"] and held["answers"] else 1
    report = {
        "bench": "serving", "at": datetime.now(UTC).isoformat(timespec="seconds"), "cores": os.cpu_count(),
        "python": sys.version.split()[0], "features": FEATURES, **said, "held": held,
    }  # fmt: skip
    told.out.mkdir(parents=True, exist_ok=True)
    (told.out / f"serving-{report['at'][:10]}.json").write_text(json.dumps(report, indent=2) + "\n")
    return 0 if all(held.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
