"""What a model of the public UCI file is worth: on patients that the command never saw, and cross-validated.

    python bench/training.py [--data FOLDER] [--folds 5] [--smoke]

Two readings of the same recipe. **strangers**: `carelake run uci-readmission` learns from four fifths of the patients
(it holds back a fifth of those for its own report) and scores a file of the rest without their label; the figures of
both are told. **folds**: the recipe's plan (without tuning) fitted on four fifths and judged on the last fifth, five
times, so that every patient is judged once; one split alone is off by as much as 0.02 AUROC and 0.1 of slope, since
few patients come again very often. Deaths and hospice are left out, patients are never parted.
Bounds (issue 7): AUROC 0.66 to 0.70 (more means a leak), calibration slope 0.9 to 1.1.
The file is not part of the project: without it (``CARELAKE_TEST_DATA``) this bench says so and measures nothing.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import lightgbm
import msgspec
import numpy as np

from _sizes import scratch
from _workspace import Home
from carelake.features import uci, uci_read
from carelake.models import bootstrap, matrix, metrics, train, tuning
from carelake.pipelines.uci import PLAN

RESULTS = Path(__file__).with_name("results")
BOUNDS = {"auroc": (0.66, 0.70), "calibration_slope": (0.9, 1.1)}
LEFT_OUT = {"11", "13", "14", "19", "20", "21"}
FIGURES = ("auroc", "calibration_slope", "calibration_intercept", "ici", "brier")


def figures(y: np.ndarray, p: np.ndarray, subject: np.ndarray) -> dict[str, Any]:
    slope, intercept = metrics.calibration_line(y, p)
    drawn = bootstrap.draw(y, p, subject, 200)
    return {
        "n": len(y),
        "events": int(y.sum()),
        "auroc": round(metrics.auroc(y, p), 4),
        "auroc_interval": [round(v, 4) for v in bootstrap.interval(drawn[:, 0]) or []],
        "calibration_slope": round(slope, 4),
        "calibration_slope_interval": [round(v, 4) for v in bootstrap.interval(drawn[:, 2]) or []],
        "calibration_intercept": round(intercept, 4),
        "ici": round(metrics.ici(y, p), 4),
        "brier": round(metrics.brier(y, p)[0], 4),
    }


def strangers(rows: list[list[str]], header: list[str], folder: Path) -> dict[str, Any]:
    """The command, end to end."""
    held = [int(row[1]) % 5 == 3 for row in rows]
    for name, keep, width in (("train", False, len(header)), ("unseen", True, len(header) - 1)):
        with (folder / f"{name}.csv").open("w", newline="") as file:
            chosen = (row[:width] for row, one in zip(rows, held, strict=True) if one is keep)
            csv.writer(file).writerows([header[:width], *chosen])
    home = Home(folder)
    home.make()
    paths = {name: str(folder / f"{name}.csv") for name in ("train", "unseen", "p")}
    asked = ("--source", paths["train"], "--score", paths["unseen"], "--out", paths["p"], "--json")
    told = json.loads(home.run("-w", str(home.root), "run", "uci-readmission", *asked))
    with open(paths["p"]) as file:
        risk = {row["encounter_id"]: float(row["probability"]) for row in csv.DictReader(file)}
    inside = [row for row, one in zip(rows, held, strict=True) if one and row[7] not in LEFT_OUT]
    y = np.asarray([row[-1] == "<30" for row in inside])
    p = np.asarray([risk[row[0]] for row in inside])
    own = told["metrics"]
    return {
        "report": {name: own[name] for name in ("n", "events", *FIGURES)},
        "grouped_cross_validation": own["validation"]["grouped"],
        "logistic": own["baselines"]["logistic"]["auroc"],
        "lace_like": own["baselines"]["lace_like"]["auroc"],
        "alert": own["alert"],
        "unseen": figures(y, p, np.unique([row[1] for row in inside], return_inverse=True)[1]),
        "scored": told["scored"]["rows"],
    }


def folds(data: bytes, number: int) -> dict[str, Any]:
    """Every patient judged by a model that did not see them."""
    made = uci.build(uci_read.read(data, labelled=True), labelled=True)
    table = made.table.append_column("set", uci.sets(made.table))
    names = [feature.name for feature in made.features]
    rows = matrix.rows(table, names, points=uci.SCORES, groups=uci.GROUPS)
    outer = tuning.folds_of(rows.subject, number, 99)
    plan = msgspec.structs.replace(PLAN, candidates=0)
    risk, each = np.zeros(len(rows)), []
    for at in range(number):
        inner = tuning.folds_of(rows.subject, 20, at)
        sets = np.where(outer == at, "test", np.where(inner == 0, "calibration", "train"))
        scorer = train.train(shared_out(rows, sets), plan, training_set="bench")
        mine = outer == at
        risk[mine] = scorer.risk(rows.x[mine])
        slope, intercept = metrics.calibration_line(rows.y[mine], risk[mine])
        auroc = metrics.auroc(rows.y[mine], risk[mine])
        each.append({"auroc": round(auroc, 4), "slope": round(slope, 4), "intercept": round(intercept, 4)})
        print(json.dumps(each[-1]), flush=True)
    return {"pooled": figures(rows.y, risk, rows.subject), "folds": each, "features": len(names)}


def shared_out(rows: matrix.Rows, sets: np.ndarray) -> matrix.Rows:
    return matrix.Rows(rows.names, rows.x, rows.y, rows.subject, sets, rows.scores, rows.groups)


def held_bounds(found: dict[str, Any]) -> dict[str, bool]:
    return {name: low <= found[name] <= high for name, (low, high) in BOUNDS.items()}


def main() -> int:
    """Measure, print and keep the report; exit code 1 when a bound does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared = Path(__file__).resolve().parents[2] / "shared" / "data"
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("CARELAKE_TEST_DATA", shared)))
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--smoke", action="store_true", help="a fifth of the patients, no folds, no bounds")
    asked = parser.parse_args()
    source = asked.data / "uci-diabetes-130" / "diabetic_data.csv.gz"
    if not source.is_file():
        print("The UCI file is not here; set CARELAKE_TEST_DATA to the folder of public data sets. Nothing measured.")
        return 0
    data = source.read_bytes()
    header, *rows = csv.reader(gzip.decompress(data).decode().splitlines())
    if asked.smoke:
        rows = [row for row in rows if int(row[1]) % 10 in (2, 3)]
    with scratch("training") as folder:
        told: dict[str, Any] = {"strangers": strangers(rows, header, folder)}
    if asked.smoke:
        print(json.dumps(told, indent=2))
        return 0
    told["folds"] = folds(data, asked.folds)
    bounds = {"report": held_bounds(told["strangers"]["report"]), "folds": held_bounds(told["folds"]["pooled"])}
    at = datetime.now(UTC).isoformat(timespec="seconds")
    versions = {"python": platform.python_version(), "lightgbm": lightgbm.__version__, "numpy": np.__version__}
    report = {"bench": "training", "at": at, "encounters": len(rows), **told, "held": bounds, **versions}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"training-{at[:10]}.json").write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))
    return 0 if all(all(one.values()) for one in bounds.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
