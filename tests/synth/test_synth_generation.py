"""The same arguments give the same bytes; the folder is ours or is left alone."""

from __future__ import annotations

import hashlib
from datetime import date
from pathlib import Path

import pytest

from carelake import synth
from carelake.core.errors import Conflict, Invalid


def digests(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_bytes_do_not_depend_on_workers_and_patients_do_not_depend_on_their_number(hospital, generated):
    alone = generated(patients=510, workers=1)
    assert alone.lines("0001") == hospital.lines("0001")
    assert alone.lines("0002") == hospital.lines("0002")[: len(alone.lines("0002"))]
    pair = generated(patients=510, workers=2)
    assert digests(alone.root) == digests(pair.root)


def test_a_second_run_writes_the_same_bytes_and_leaves_no_draft(generated):
    once = generated(patients=40)
    before = digests(once.root)
    (once.root / "fhir" / "0001.ndjson").unlink()
    again = generated(patients=40, out=once.root)
    assert digests(again.root) == before
    assert again.summary == once.summary
    assert not [name for name in before if name.endswith(".part")]


@pytest.mark.parametrize("other", [{"patients": 41}, {"seed": 3}, {"shift": "older"}, {"years": 2.0}])
def test_a_folder_of_other_arguments_is_refused(generated, other):
    once = generated(patients=40)
    before = digests(once.root)
    with pytest.raises(Conflict) as caught:
        generated(**{"patients": 40, "out": once.root, **other})
    assert caught.value.code == "synth.not_empty"
    assert digests(once.root) == before


def test_a_folder_of_somebody_else_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(Conflict):
        synth.generate(tmp_path, patients=1, seed=1)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"patients": 0}, "synth.arguments"),
        ({"years": 0.0}, "synth.arguments"),
        ({"years": float("nan")}, "synth.arguments"),
        ({"workers": 0}, "synth.arguments"),
        ({"shift": "sideways"}, "synth.shift"),
    ],
)
def test_wrong_arguments_write_nothing(tmp_path, wrong, code):
    with pytest.raises(Invalid) as caught:
        synth.generate(tmp_path / "out", **{"patients": 1, "seed": 1, **wrong})
    assert caught.value.code == code
    assert not (tmp_path / "out").exists()


def test_only_fhir_files_look_like_fhir_and_no_name_tells_of_a_person(hospital):
    for path in hospital.root.rglob("*"):
        if path.suffix in {".json", ".ndjson", ".jsonl"}:
            assert path.parent.name == "fhir"
            assert path.stem.isdigit()
    outside = {
        str(path.relative_to(hospital.root)) for path in hospital.root.rglob("*") if path.parent.name != "fhir"
    }
    assert outside == {
        "README.txt", "fhir", "truth",
        "truth/admissions.parquet", "truth/patients.parquet", "truth/notes.parquet",
    }  # fmt: skip
    readme = (hospital.root / "README.txt").read_text()
    assert "SYNTHETIC" in readme
    assert "seed: 20" in readme


def test_summary_counts_what_is_there(hospital):
    lines = sum(len(hospital.lines(path.stem)) for path in hospital.summary.files)
    assert lines == hospital.summary.resources
    assert hospital.summary.counts["Patient"] == hospital.summary.patients == 2000
    assert hospital.summary.admissions == len(hospital.truth("admissions"))
    assert hospital.summary.size == sum(path.stat().st_size for path in hospital.summary.files)


def test_progress_counts_up_to_the_number_of_patients(generated):
    seen: list[int] = []
    generated(patients=520, start=date(2019, 7, 1), years=1.0, progress=seen.append)
    assert seen == [500, 520]


def test_ten_thousand_patients_take_about_a_minute_at_most(hospital, record_property):
    rate = hospital.summary.patients / hospital.seconds
    record_property("patients_per_second", round(rate))
    assert rate > 165  # 10,000 in a minute; measured 1,000 to 1,800 on two quiet cores


def test_vital_signs_come_beside_the_same_record(tmp_path):
    plain = synth.generate(tmp_path / "plain", patients=40, seed=6, workers=1)
    watched = synth.generate(tmp_path / "watched", patients=40, seed=6, workers=1, vitals=True)
    lines = [{line for file in one.files for line in file.read_bytes().splitlines()} for one in (plain, watched)]
    assert lines[0] < lines[1]
    more = lines[1] - lines[0]
    assert all(b'"vital-signs"' in line for line in more)
    assert len(more) == watched.counts["Observation"] - plain.counts["Observation"] > 1000
    for name, path in plain.truth.items():
        assert path.read_bytes() == watched.truth[name].read_bytes()
    with pytest.raises(Conflict):
        synth.generate(tmp_path / "plain", patients=40, seed=6, workers=1, vitals=True)
