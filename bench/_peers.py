"""Other implementations of SQL on FHIR, each in an environment of its own, made here and never in the project's lock.

Run by an environment's own interpreter this file is the peer's side: it reads what to do as JSON on stdin, tells what
it measured as a line of JSON on stdout, and writes each view's rows as lines of JSON, sorted, for a comparison.
Nothing of carelake is imported there.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

__all__ = ["PEERS", "line", "missing", "run"]

PEERS = {
    "sqlonfhir": "sqlonfhir==0.0.2",
    "fhir4ds": "fhir4ds-v2==0.0.17",
    "pathling": "pathling==10.0.0",
    "feast": "feast[duckdb]==0.67.0",
    "evidently": "evidently==0.7.23 pandas<3",
    "mlflow": "mlflow==3.17.2 lightgbm==4.7.0 pandas<3",
}
"""By name what pip installs."""
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "carelake-bench"


def line(row: dict[str, Any], columns: list[str]) -> str:
    """A row as text: numbers as numbers, nothing as null, and of keys the id alone."""
    return json.dumps([_plain(row.get(name)) for name in columns])


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        head, _, tail = value.partition("/")
        if tail and head in ("Patient", "Observation", "Condition", "Encounter", "MedicationRequest", "Organization"):
            return tail  # a key may be an id or a reference: the specification leaves it open
        try:
            return float(value) if value.replace(".", "", 1).replace("-", "", 1).isdigit() else value
        except ValueError:
            return value
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        return float(value)
    return None if value is None else str(value) if not isinstance(value, bool) else value


# -- our side


def missing(name: str) -> str:
    """Why a peer cannot be run; "" when its environment is there."""
    place = CACHE / name
    if (place / "ready").exists():
        return ""
    if name == "pathling" and not shutil.which("java"):
        return "no Java on the path"
    shutil.rmtree(place, ignore_errors=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    for command in (
        [sys.executable, "-m", "venv", str(place)],
        [str(place / "bin" / "python"), "-m", "pip", "install", "-q", *PEERS[name].split()],
    ):
        done = subprocess.run(command, capture_output=True, check=False, timeout=900)
        if done.returncode:
            return f"{PEERS[name]} could not be installed: {done.stderr.decode(errors='replace').strip()[-300:]}"
    (place / "ready").write_text("")
    return ""


def run(name: str, asked: dict[str, Any], seconds: float = 1800.0) -> dict[str, Any]:
    """What a peer measured, or why it did not: ``{"not_run": REASON}``."""
    if reason := missing(name):
        return {"not_run": reason}
    interpreter = CACHE / name / "bin" / "python"
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        try:
            code = subprocess.run(
                [str(interpreter), "-P", __file__, name], input=json.dumps(asked).encode(), stdout=out, stderr=err,
                check=False, timeout=seconds,
            ).returncode  # fmt: skip
        except subprocess.TimeoutExpired:
            return {"not_run": f"it took longer than {seconds:g} seconds"}
        out.seek(0)
        err.seek(0)
        said = [one for one in out.read().decode(errors="replace").splitlines() if one.startswith("{")]
        if code or not said:
            return {"not_run": _reason(err.read().decode(errors="replace"))}
    told: dict[str, Any] = json.loads(said[-1])
    return told


def _reason(text: str) -> str:
    """The line of an error that tells most."""
    lines = [one.strip() for one in text.splitlines() if one.strip()]
    return next((one for one in lines if "not found" in one and "module" in one), lines[-1] if lines else "it died")[
        :300
    ]


# -- the peer's side


def _lines(folder: str) -> Iterator[str]:
    for path in sorted(Path(folder).glob("*.ndjson")):
        with path.open(encoding="utf-8") as text:
            yield from text


def _timed(asked: dict[str, Any], count: Callable[[str], int], work: Callable[[dict[str, Any]], Any],
           rows: Callable[[Any], Iterable[dict[str, Any]]]) -> dict[str, Any]:  # fmt: skip
    told: dict[str, Any] = {}
    for view in asked["views"]:
        seconds = []
        for _ in range(asked["times"]):
            began = time.monotonic()
            found = work(view)
            seconds.append(time.monotonic() - began)
        columns = asked["columns"][view["name"]]
        lines = sorted(line(one, columns) for one in rows(found))
        Path(asked["out"], f"{view['name']}.rows").write_text("\n".join(lines))
        told[view["name"]] = {
            "resources": count(view["resource"]), "rows": len(lines), "cold": round(seconds[0], 3),
            "warm": round(min(seconds[1:] or seconds), 3),
        }  # fmt: skip
    return told


def _sqlonfhir(asked: dict[str, Any]) -> dict[str, Any]:
    from sqlonfhir import evaluate

    held: dict[str, list[dict[str, Any]]] = {}
    for text in _lines(asked["source"]):
        one = json.loads(text)
        held.setdefault(one["resourceType"], []).append(one)
    return _timed(
        asked, lambda kind: len(held.get(kind, ())), lambda view: evaluate(held.get(view["resource"], []), view), list
    )


def _fhir4ds(asked: dict[str, Any]) -> dict[str, Any]:
    import fhir4ds
    from fhir4ds import FHIRDataLoader

    connection = fhir4ds.create_connection()
    connection.execute("SET threads = 2")
    loader = FHIRDataLoader(connection)
    for path in sorted(Path(asked["source"]).glob("*.ndjson")):
        loader.load_ndjson(str(path))
    kinds = dict(connection.execute("SELECT resourceType, count(*) FROM resources GROUP BY 1").fetchall())

    def work(view: dict[str, Any]) -> Any:
        made = connection.execute(fhir4ds.generate_view_sql(json.dumps(view)))
        return made.to_arrow_table()

    return _timed(asked, lambda kind: kinds.get(kind, 0), work, lambda table: table.to_pylist())


def _pathling(asked: dict[str, Any]) -> dict[str, Any]:
    from pathling import PathlingContext

    place = Path(asked["out"], "pathling")
    by_type = place / "ndjson"
    by_type.mkdir(parents=True)
    files: dict[str, Any] = {}
    counts: dict[str, int] = {}
    for text in _lines(asked["source"]):
        kind = json.loads(text)["resourceType"]
        counts[kind] = counts.get(kind, 0) + 1
        if kind not in files:
            files[kind] = (by_type / f"{kind}.ndjson").open("w", encoding="utf-8")
        files[kind].write(text)
    for file in files.values():
        file.close()
    from pathling._spark_defaults import managed_spark_defaults
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.master("local[2]")
    ours = {"spark.driver.memory": "4g", "spark.ui.enabled": "false", "spark.driver.host": "127.0.0.1"}
    for key, value in {**managed_spark_defaults(), **ours}.items():
        builder = builder.config(key, value)
    context = PathlingContext.create(builder.getOrCreate(), enable_terminology=False)
    context.read.ndjson(str(by_type)).write.parquet(str(place / "parquet"))  # what it recommends to keep
    data = context.read.parquet(str(place / "parquet"))
    return _timed(
        asked, lambda kind: counts.get(kind, 0), lambda view: data.view(json=json.dumps(view)).toArrow(),
        lambda table: table.to_pylist(),
    )  # fmt: skip


def _evidently(asked: dict[str, Any]) -> dict[str, Any]:
    import numpy as np
    import pandas as pd
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    names = [f"c{at}" for at in range(asked["columns"])]

    def frame(seed: int, moved: float) -> Any:
        random, rows = np.random.default_rng(seed), asked["rows"]
        made = {}
        for at, name in enumerate(names):
            shift = moved if at % 2 else 0.0
            if at % 4 == 2:
                made[name] = random.poisson(2 + shift, rows).astype(float)
            elif at % 4 == 3:
                made[name] = np.where(random.random(rows) < 0.2, np.nan, random.lognormal(shift, 1, rows))
            else:
                made[name] = random.normal(shift, 1, rows)
        return pd.DataFrame(made)

    definition = DataDefinition(numerical_columns=names)
    then, now = (Dataset.from_pandas(frame(*one), data_definition=definition) for one in ((1, 0.0), (2, 0.33)))
    Report([DataDriftPreset()]).run(
        *(Dataset.from_pandas(frame(*one).head(100), data_definition=definition) for one in ((3, 0.0), (4, 0.0)))
    ).dict()
    began = time.monotonic()
    found = Report([DataDriftPreset()]).run(now, then).dict()
    return {"seconds": round(time.monotonic() - began, 3), "metrics": len(found["metrics"])}


if __name__ == "__main__":
    sides = {"sqlonfhir": _sqlonfhir, "fhir4ds": _fhir4ds, "pathling": _pathling, "evidently": _evidently}
    print(json.dumps(sides[sys.argv[1]](json.load(sys.stdin))))
