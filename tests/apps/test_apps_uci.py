"""``carelake run uci-readmission``: a file becomes a registered model, and strangers of another file get risks."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import forked
from carelake.features import uci_read
from carelake.models import metrics

COLUMNS = ["encounter_id", "patient_nbr", "weight", *uci_read.needed(), "readmitted"]


class Home:
    """A workspace of its own, and commands in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = {
            "PATH": "/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "HOME": str(folder),
            "CARELAKE_KEY_DIR": str(folder / "k"),
        }
        assert forked.run("init", str(folder / "ws"), env=self.env).returncode == 0

    def run(self, *words: str) -> Any:
        return forked.run("-w", str(self.folder / "ws"), *words, env=self.env, timeout=1_200.0)

    def json(self, *words: str) -> Any:
        done = self.run(*words, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


def made_up(path: Path, rows: int, seed: int) -> None:
    """Encounters whose return follows from earlier stays and where they went."""
    random = np.random.default_rng(seed)
    stays, days = random.poisson(1.0, rows), random.integers(1, 14, rows)
    score = -1.1 + 0.8 * stays + 0.05 * days
    back = random.random(rows) < 1 / (1 + np.exp(-score))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for at in range(rows):
            row = dict.fromkeys(COLUMNS, "No") | {
                "encounter_id": f"{seed}{at:05d}", "patient_nbr": str(at * 2 // 3), "weight": "?", "race": "Asian",
                "gender": "Male" if at % 2 else "Female", "age": f"[{at % 10}0-{at % 10 + 1}0)",
                "admission_type_id": "1", "admission_source_id": "7", "payer_code": "?", "medical_specialty": "?",
                "discharge_disposition_id": "11" if at % 50 == 0 else "1", "time_in_hospital": str(days[at]),
                "num_lab_procedures": "40", "num_procedures": "0", "num_medications": "10", "number_outpatient": "0",
                "number_emergency": "0", "number_inpatient": str(stays[at]), "diag_1": "428", "diag_2": "250",
                "diag_3": "?", "number_diagnoses": "5", "max_glu_serum": "None", "a1cresult": "None", "change": "Ch",
                "diabetesmed": "Yes", "readmitted": "<30" if back[at] and at % 50 else "NO",
            }  # fmt: skip
            writer.writerow(row)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    made = Home(tmp_path_factory.mktemp("uci"))
    made_up(made.folder / "train.csv", 1_200, 1)
    made_up(made.folder / "unseen.csv", 300, 2)
    lines = (made.folder / "unseen.csv").read_text().splitlines()
    lines[7] = "a line,of,another file"
    (made.folder / "unseen.csv").write_text("\n".join(line.rpartition(",")[0] for line in lines))  # no label
    return made


@pytest.mark.slow
def test_a_file_becomes_a_model_and_strangers_get_risks(home: Home) -> None:
    files = {name: str(home.folder / f"{name}.csv") for name in ("train", "unseen", "p")}
    asked = ("run", "uci-readmission", "--source", files["train"], "--score", files["unseen"], "--out", files["p"])
    told = home.json(*asked)
    assert told["metrics"]["reason"] is None
    assert 0.55 < told["metrics"]["auroc"] < 0.9
    assert told["metrics"]["not_computable"].keys() == {"lace", "hospital", "hospital_2013"}
    assert told["metrics"]["baselines"].keys() == {"logistic", "lace_like"}
    assert {s["group"] for s in told["metrics"]["subgroups"]} == {"race", "sex", "age_group"}
    assert told["attrition"]["died"] == 24
    assert told["state"] == "PendingManualApproval"
    assert told["scored"]["rows"] == 299
    assert told["scored"]["outside_cohort"] == {"died": 6}
    assert [one["line"] for one in told["scored"]["unscored"]] == [8]
    with (home.folder / "p.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["encounter_id", "probability"]
    assert [row["encounter_id"] for row in rows] == [f"2{at:05d}" for at in range(300) if at != 6]
    assert all(0 < float(row["probability"]) < 1 for row in rows)
    assert {row["probability"] for row in rows[49:50]} == {"0.001"}  # died
    shown = home.json("model", "show", told["model_version"])
    assert shown["metrics"]["auroc"] == told["metrics"]["auroc"]


@pytest.mark.slow
def test_what_is_missing_is_said(home: Home) -> None:
    kept = home.json("model", "list")
    train, unseen = (str(home.folder / name) for name in ("train.csv", "unseen.csv"))
    for words, code in (
        (("--source", str(home.folder / "nowhere.csv")), 2),
        (("--score", str(home.folder / "unseen.csv")), 2),
        (("--source", str(home.folder / "unseen.csv")), 2),
        (("--source", str(home.folder / "train.csv"), "--as-of", "2026-01-01"), 2),
        (("--source", train, "--score", unseen, "--out", str(home.folder / "nowhere" / "p.csv")), 2),
        (("--source", train, "--score", __file__, "--out", str(home.folder / "p2.csv")), 2),
    ):
        done = home.run("run", "uci-readmission", *words)
        assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
    assert home.json("model", "list") == kept  # said before anything was trained
    lines = Path(train).read_text().splitlines(keepends=True)
    (home.folder / "few.csv").write_text("".join(lines[:60]))
    few = ("--source", str(home.folder / "few.csv"), "--score", unseen, "--out", str(home.folder / "p3.csv"))
    done = home.run("run", "uci-readmission", *few, "--json")
    assert (done.returncode, json.loads(done.stdout)["scored"]) == (5, None)
    assert json.loads(done.stderr.splitlines()[-1])["error"]["code"] == "apps.uci_unscored"
    assert not (home.folder / "p3.csv").exists()
    assert "readmitted" in home.run("run", "uci-readmission", "--source", str(home.folder / "unseen.csv")).stderr
    assert home.run("run", "readmission", "--source", str(home.folder / "train.csv")).returncode == 2


@pytest.mark.soak
def test_the_public_file_is_learnt_from_and_its_strangers_are_foretold(shared_data: Path, tmp_path: Path) -> None:
    """A fifth of the patients is held back from the command altogether, and judged here."""
    source = shared_data / "uci-diabetes-130" / "diabetic_data.csv.gz"
    if not source.is_file():
        pytest.skip("the UCI file is not among the public data sets here")
    with gzip.open(source, "rt") as file:
        header, *rows = csv.reader(file)
    held = [int(row[1]) % 5 == 3 for row in rows]
    for name, keep, width in (("train.csv", False, 50), ("unseen.csv", True, 49)):
        with (tmp_path / name).open("w", newline="") as file:
            chosen = (row for row, one in zip(rows, held, strict=True) if one is keep)
            csv.writer(file).writerows(row[:width] for row in (header, *chosen))
    files = {name: str(tmp_path / f"{name}.csv") for name in ("train", "unseen", "p")}
    asked = ("run", "uci-readmission", "--source", files["train"], "--score", files["unseen"], "--out", files["p"])
    home = Home(tmp_path)
    made = home.json(*asked)
    told, first = made["metrics"], (tmp_path / "p.csv").read_bytes()
    assert home.json(*asked)["model_version"] == made["model_version"]
    assert (tmp_path / "p.csv").read_bytes() == first
    assert 0.66 <= told["auroc"] <= 0.70
    assert 0.9 <= told["calibration_slope"] <= 1.1
    with (tmp_path / "p.csv").open() as file:
        risk = {row["encounter_id"]: float(row["probability"]) for row in csv.DictReader(file)}
    inside = [
        row for row, one in zip(rows, held, strict=True) if one and row[7] not in {"11", "13", "14", "19", "20", "21"}
    ]
    y = np.asarray([row[-1] == "<30" for row in inside])
    p = np.asarray([risk[row[0]] for row in inside])
    assert 0.66 <= metrics.auroc(y, p) <= 0.70
    assert 0.9 <= metrics.calibration_line(y, p)[0] <= 1.1


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["utilisation", "mortality"])
def test_an_empty_record_gives_a_sentence_and_no_model(home: Home, recipe: str) -> None:
    told = home.json("run", recipe)
    assert (told["model_version"], told["training_set"]) == (None, None)
    assert "record is empty" in told["stopped"] == told["metrics"]["reason"]
    if recipe == "utilisation":
        assert (told["first"], told["last"], told["series"], told["too_small"]) == (None, None, [], [])
