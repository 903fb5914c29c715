"""What a point-in-time join costs beside polars' bare `join_asof` and beside Feast, and how it grows.

    python bench/asof.py [--rows 1000000] [--labels 50000] [--no-feast] [--smoke]

One group of 10 features over 5,000 patients. ``polars`` joins the same Arrow tables by event time alone: it looks at
no write time, no deletion, and is told that the rows are in order, so it sorts only the labels. Feast (its own
environment, see `_peers`) reads the same rows as Parquet, by its two offline stores, without counting its import.
``curve`` is our join over 100,000 rows to 4 million, a label to every twenty rows.
Bounds (issue 7): within 2.5 times polars where writes came in order, in whichever order the rows lie; within 6 times
with a fifth of the writes late; at least 15 times faster than either store of Feast; seconds for a row at the largest
size within twice those at a million; six labels in, six out, none with a value from the future.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from _curves import drawn
from _peers import CACHE, missing
from carelake.features import asof

FEATURES = [f"f{number}" for number in range(10)]
PATIENTS = 5_000
SPAN = 3 * 365 * 86_400_000_000
START = np.datetime64("2020-01-01", "us").astype("int64")
IN_ORDER, LATE, FEAST, GROWTH = 2.5, 6.0, 15.0, 2.0
TIME = pa.timestamp("us", "UTC")


def data(rows: int, labels: int, *, late: float, order: str, seed: int = 7) -> tuple[pa.Table, pa.Table]:
    """Labels and a group; ``late`` is the share of writes that come up to 30 days after the event."""
    dice = np.random.default_rng(seed)
    event, who = START + dice.integers(0, SPAN, rows), dice.integers(0, PATIENTS, rows)
    late_by = np.where(dice.random(rows) < late, dice.integers(1, 30 * 86_400_000_000, rows), 0)
    place = np.argsort(event, kind="stable") if order == "time" else np.lexsort((event, who))
    ids = np.array([f"patient-{number:06d}" for number in range(PATIENTS)])
    group = {
        "subject_id": pa.array(ids[who[place]]),
        "event_time": pa.array(event[place]).cast(TIME),
        "write_time": pa.array((event + late_by)[place]).cast(TIME),
        "is_deleted": pa.array(np.zeros(rows, dtype=bool)),
        **{name: pa.array(dice.random(rows)) for name in FEATURES},
    }
    told = {
        "subject_id": pa.array(ids[dice.integers(0, PATIENTS, labels)]),
        "prediction_time": pa.array(START + dice.integers(0, SPAN, labels)).cast(TIME),
        "label": pa.array(dice.random(labels) < 0.2),
    }
    return pa.table(told), pa.table(group)


def bare(labels: pa.Table, group: pa.Table) -> pl.DataFrame:
    """What polars does by itself."""
    wanted, facts = pl.from_arrow(labels), pl.from_arrow(group)
    assert isinstance(wanted, pl.DataFrame)
    assert isinstance(facts, pl.DataFrame)
    return wanted.with_row_index("row").sort("prediction_time").join_asof(
        facts, left_on="prediction_time", right_on="event_time", by="subject_id", strategy="backward",
        check_sortedness=False,
    )  # fmt: skip


def timed(work: Callable[[], Any], times: int) -> float:
    """The least seconds of several."""
    seconds = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def compared(rows: int, labels: int, *, late: float, order: str, times: int) -> dict[str, Any]:
    """Ours and polars', in turns; where nothing is late and rows are in order the answers are compared too."""
    told, group = data(rows, labels, late=late, order=order)
    ours, theirs = [], []
    for _ in range(times):
        theirs.append(timed(lambda: bare(told, group), 1))
        ours.append(timed(lambda: asof.join(told, {"g": group}), 1))
    found = asof.join(told, {"g": group}).column("g__f0")
    other = bare(told, group).sort("row")["f0"].to_arrow()
    differ = int((pl.Series(found) != pl.Series(other)).sum()) + abs(found.null_count - other.null_count)
    return {
        "rows": rows, "labels": labels, "late": late, "order": order, "carelake": round(min(ours), 4),
        "polars": round(min(theirs), 4), "times_polars": round(min(ours) / min(theirs), 2),
        "labels_that_differ": differ,
    }  # fmt: skip


def six() -> tuple[pa.Table, pa.Table]:
    """A patient with future rows only, one label twice, and a value that was written five days later."""

    def at(days: list[int]) -> pa.Array:
        return pa.array([START + day * 86_400_000_000 for day in days]).cast(TIME)

    labels = {"subject_id": ["a", "a", "future", "late", "none", "a"], "prediction_time": at([5, 5, 1, 3, 9, 0])}
    group = {"subject_id": ["a", "future", "late"], "event_time": at([4, 2, 1]), "write_time": at([4, 2, 8]),
             "is_deleted": [False] * 3, "value": [1.0, 2.0, 3.0]}  # fmt: skip
    return pa.table(labels), pa.table(group)


def feast(kind: str, rows: int, labels: int, folder: Path) -> dict[str, Any]:
    """Feast's offline store of that kind over the same rows."""
    if reason := missing("feast"):
        return {"not_run": reason}
    told, group = data(rows, labels, late=0.2, order="time")
    small, facts = six()
    asked = {"kind": kind, "features": FEATURES}
    for name, table in (("rows", group), ("labels", told), ("six_rows", facts), ("six_labels", small)):
        pq.write_table(table, folder / f"{name}.parquet")
        asked[name] = str(folder / f"{name}.parquet")
    run = [str(CACHE / "feast" / "bin" / "python"), "-P", str(Path(__file__).with_name("_feast.py"))]
    done = subprocess.run(run, input=json.dumps(asked).encode(), capture_output=True, check=False, timeout=600)
    said = [one for one in done.stdout.decode(errors="replace").splitlines() if one.startswith("{")]
    if done.returncode or not said:
        return {"not_run": done.stderr.decode(errors="replace").strip()[-400:]}
    found: dict[str, Any] = json.loads(said[-1])
    return found


def main() -> int:
    """Measure, print and keep the report; exit code 1 when a bound does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--labels", type=int, default=50_000)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--curve", default="100000,300000,1000000,4000000", help="rows, separated by commas")
    parser.add_argument("--no-feast", action="store_true")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--smoke", action="store_true", help="one small size and no bound of time")
    asked = parser.parse_args()
    if asked.smoke:
        asked.rows, asked.labels, asked.curve, asked.times, asked.no_feast = 20_000, 1_000, "10000,20000", 1, True
    report: dict[str, Any] = {
        "bench": "asof", "at": datetime.now(UTC).isoformat(timespec="seconds"), "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2), "polars": pl.__version__, "joins": [], "curve": [], "feast": {},
    }  # fmt: skip
    for late in (0.0, 0.2):
        for order in ("time", "subject"):
            told = compared(asked.rows, asked.labels, late=late, order=order, times=asked.times)
            print(json.dumps(told), flush=True)
            report["joins"].append(told)
    for rows in map(int, asked.curve.split(",")):
        labels, group = data(rows, rows // 20, late=0.2, order="time")
        seconds = timed(lambda labels=labels, group=group: asof.join(labels, {"g": group}), asked.times)  # type: ignore[misc]
        report["curve"].append({"rows": rows, "labels": rows // 20, "seconds": round(seconds, 4)})
        print(json.dumps(report["curve"][-1]), flush=True)
    with tempfile.TemporaryDirectory(prefix="carelake-asof-") as place:
        for kind in () if asked.no_feast else ("dask", "duckdb"):
            report["feast"][kind] = feast(kind, asked.rows, asked.labels, Path(place))
            print(json.dumps({kind: report["feast"][kind]}), flush=True)
    small, facts = six()
    known = asof.join(small, {"g": facts}).column("g__value").to_pylist()
    report["six_labels"] = {"labels": 6, "rows": len(known), "value_from_the_future": known[3] is not None}
    report["load_after"] = round(os.getloadavg()[0], 2)
    report["held"] = held(report)
    print(json.dumps({"held": report["held"]}))
    if asked.smoke:
        return 0 if report["held"]["same_answers"] and report["held"]["six_labels"] else 1
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / f"asof-{report['at'][:10]}.json").write_text(json.dumps(report, indent=2) + "\n")
    lines = {"carelake, a fifth late": [(one["rows"], one["seconds"]) for one in report["curve"]]}
    lines |= {
        f"Feast, {kind}": [(asked.rows, one["seconds"])] for kind, one in report["feast"].items() if "seconds" in one
    }
    (asked.out / f"asof-{report['at'][:10]}.svg").write_text(
        drawn("Seconds of a point-in-time join over rows", lines)
    )
    return 0 if all(report["held"].values()) else 1


def held(report: dict[str, Any]) -> dict[str, bool]:
    """Which bounds hold; a peer that could not be run holds nothing."""
    late = [one for one in report["joins"] if one["late"]]
    prompt = [one for one in report["joins"] if not one["late"]]
    ours = max(one["carelake"] for one in late)
    curve = [one["seconds"] / one["rows"] for one in report["curve"]]
    return {
        "in_order": all(one["times_polars"] <= IN_ORDER for one in prompt),
        "late": all(one["times_polars"] <= LATE for one in late),
        "same_answers": all(one["labels_that_differ"] == 0 for one in prompt),
        "growth": curve[-1] <= GROWTH * curve[max(0, len(curve) - 2)],
        "feast": all(one.get("seconds", 0) >= FEAST * ours for one in report["feast"].values()),
        "six_labels": report["six_labels"]["rows"] == 6 and not report["six_labels"]["value_from_the_future"],
    }


if __name__ == "__main__":
    sys.exit(main())
