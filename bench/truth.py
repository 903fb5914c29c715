"""How near the readmission model comes to the true risks of the synthetic hospital, over five fixed seeds.

    python bench/truth.py [--patients 24500] [--seeds 11,12,13,14,15] [--out bench/results]

Each seed goes the product's whole way in a workspace of its own: `synth`, `ingest`, `run readmission`. The model's
AUROC on its test set is then compared with the AUROC of the true risk on the same rows (issue: within 0.03, with at
least 10,000 test admissions; calibration slope 0.9 to 1.1; medians of five seeds). Synthetic data: this shows that
the pipeline loses nothing on its way, and says nothing about patients.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from sklearn.metrics import roc_auc_score

from carelake.apps.wiring import Workspace
from carelake.features import trainingset

BOUNDS = {"auroc_gap": (None, 0.03), "calibration_slope": (0.9, 1.1), "n": (10_000, None)}


def carelake(home: Path, *arguments: str) -> dict[str, Any]:
    """Run a command of the product and read its JSON."""
    command = [sys.executable, "-c", "from carelake.apps.cli.main import main; main()", "-w", str(home), *arguments]
    done = subprocess.run([*command, "--json"], check=True, capture_output=True, text=True)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def one(seed: int, patients: int, folder: Path) -> dict[str, Any]:
    """One seed's figures."""
    home, sources = folder / "workspace", folder / "sources"
    os.environ["CARELAKE_KEY_DIR"] = str(folder / "keys")
    began = time.monotonic()
    Workspace.create(home, os.environ).close()
    carelake(home, "synth", "--patients", str(patients), "--seed", str(seed), "--out", str(sources))
    ingest = carelake(home, "ingest", str(sources))
    run = carelake(home, "run", "readmission")
    truth = pq.read_table(sources / "truth" / "admissions.parquet", columns=["encounter_id", "true_risk"])
    risks = dict(zip(truth.column(0).to_pylist(), truth.column(1).to_pylist(), strict=True))
    test = _test_rows(home, run["training_set"])
    label = np.array([y for _, y in test])
    true = roc_auc_score(label, [risks[encounter] for encounter, _ in test])
    metrics = run["metrics"]
    return {
        "seed": seed,
        "n": metrics["n"],
        "events": metrics["events"],
        "auroc": metrics["auroc"],
        "true_auroc": round(float(true), 4),
        "auroc_gap": round(float(true) - metrics["auroc"], 4),
        "calibration_slope": metrics["calibration_slope"],
        "calibration_intercept": metrics["calibration_intercept"],
        "logistic": metrics["baselines"]["logistic"]["auroc"],
        "lace": metrics["baselines"]["lace"]["auroc"],
        "hospital": metrics["baselines"]["hospital"]["auroc"],
        "resources": ingest["read"],
        "ingest_seconds": ingest["seconds"],
        "seconds": round(time.monotonic() - began, 1),
    }


def _test_rows(home: Path, ref: str) -> list[tuple[str, bool]]:
    workspace = Workspace.open(home, os.environ)
    try:
        caller = workspace.local(None, None, None)
        with workspace.enter(caller, "features:build", "bench") as permit:
            with workspace.vault.database.reading(permit) as connection:
                noun = workspace.nouns.get(connection, ref)
            table = trainingset.load(permit, workspace.vault, noun).table
        rows = zip(*(table.column(c).to_pylist() for c in ("encounter_id", "label", "set")), strict=True)
        return [(encounter, bool(label)) for encounter, label, part in rows if part == "test"]
    finally:
        workspace.close()


def main() -> int:
    """Run the seeds, print and keep the report; exit code 1 when a bound does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, default=24_500)
    parser.add_argument("--seeds", default="11,12,13,14,15")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    told = parser.parse_args()
    rows = []
    for seed in map(int, told.seeds.split(",")):
        folder = Path(tempfile.mkdtemp(prefix="carelake-truth-"))
        try:
            rows.append(one(seed, told.patients, folder))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        print(json.dumps(rows[-1]), flush=True)
    medians = {name: statistics.median(row[name] for row in rows) for name in BOUNDS}
    held = {name: (low is None or medians[name] >= low) and (high is None or medians[name] <= high)
            for name, (low, high) in BOUNDS.items()}  # fmt: skip
    report = {"bench": "truth", "at": datetime.now(UTC).isoformat(timespec="seconds"), "patients": told.patients,
              "seeds": rows, "medians": medians, "held": held}  # fmt: skip
    told.out.mkdir(parents=True, exist_ok=True)
    (told.out / f"truth-{report['at'][:10]}.json").write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps({"medians": medians, "held": held}))
    return 0 if all(held.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
