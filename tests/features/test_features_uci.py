"""The UCI file is read whatever became of it on the way, no feature is of after discharge, no patient is parted."""

from __future__ import annotations

import csv
import gzip
import io
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest

from carelake.core.errors import Invalid
from carelake.features import uci, uci_read

BASE = {
    "race": "Caucasian", "gender": "Female", "age": "[70-80)", "weight": "?", "admission_type_id": "1",
    "discharge_disposition_id": "1", "admission_source_id": "7", "time_in_hospital": "3", "payer_code": "MC",
    "medical_specialty": "InternalMedicine", "num_lab_procedures": "41", "num_procedures": "0",
    "num_medications": "12", "number_outpatient": "0", "number_emergency": "1", "number_inpatient": "2",
    "diag_1": "428", "diag_2": "250.42", "diag_3": "V45", "number_diagnoses": "9", "max_glu_serum": "None",
    "A1Cresult": ">8", "metformin": "Up", "insulin": "Down", "change": "Ch", "diabetesMed": "Yes", "readmitted": "NO",
}  # fmt: skip
DRUGS = [name for name in uci_read.needed() if name not in {n.lower() for n in BASE}]


def rows(*changes: dict[str, str]) -> list[dict[str, str]]:
    return [
        {"encounter_id": str(100 + at), "patient_nbr": str(7 + at), **BASE, **dict.fromkeys(DRUGS, "No"), **change}
        for at, change in enumerate(changes)
    ]


def text(found: list[dict[str, str]], *, delimiter: str = ",", order: int = 1) -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(found[0])[::order], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(found)
    return out.getvalue().encode()


def made(*changes: dict[str, str], labelled: bool = True) -> uci.Made:
    return uci.build(uci_read.read(text(rows(*changes)), labelled=labelled), labelled=labelled)


def test_a_row_becomes_the_features_that_it_says() -> None:
    row = made({}).table.to_pylist()[0]
    said = {name: row[name] for name in ("age", "number_inpatient", "insulin_down", "metformin", "drugs_given")}
    assert said == {"age": 75, "number_inpatient": 2, "insulin_down": 1, "metformin": 1, "drugs_given": 2}
    assert (row["a1cresult_high"], row["a1cresult_very_high"], row["max_glu_serum_measured"]) == (1, 1, 0)
    assert (row["primary_heart_failure"], row["any_diabetes_renal"], row["any_v_transplant_dialysis"]) == (1, 1, 1)
    assert row["any_diabetes"] == 0
    assert (row["race"], row["sex"], row["age_group"], row["label"]) == ("Caucasian", "female", "60-79", False)
    assert row["lace_like"] == 3 + 3 + 5 + 1  # 3 days, urgent, two items of 2 (4 and more count 5), a visit


def test_what_happens_after_discharge_and_who_it_was_is_no_feature() -> None:
    names = {feature.name for feature in uci.features()}
    assert not names & {"encounter_id", "patient_nbr", "readmitted", "label", "race", "subject_id"}
    other = {"encounter_id": "9", "patient_nbr": "9", "readmitted": "<30", "race": "Asian", "weight": "[75-100)"}
    one, two = (m.table.select(sorted(names)).to_pylist() for m in (made({}), made(other)))
    assert one == two
    assert [f.name for f in made({}).features] == [f.name for f in uci.features()]


@pytest.mark.parametrize(("said", "label"), [("<30", True), (">30", False), ("NO", False), (" no ", False)])
def test_only_a_return_within_30_days_is_the_outcome(said: str, label: bool) -> None:
    assert made({"readmitted": said}).table["label"].to_pylist() == [label]


def test_copies_of_the_file_are_read_as_the_file() -> None:
    found = rows({}, {"diag_1": "?", "readmitted": "<30"})
    whole = uci.build(uci_read.read(text(found), labelled=True), labelled=True).table
    spread = [{**row, "Unnamed: 0": "0", "A1Cresult": row["A1Cresult"].replace("None", "")} for row in found]
    copies = [
        b"\xef\xbb\xbf" + text(found), gzip.compress(text(found)), text(found, delimiter=";"), text(found, order=-1),
        text(spread), text(found).replace(b"\r\n", b"\n\n"), text(found).decode().encode("utf-16"),
        text([{**row, "admission_type_id": "1.0", "patient_nbr": f"{row['patient_nbr']}.0"} for row in found]),
        text([{k.upper(): v for k, v in row.items()} for row in found]),
    ]  # fmt: skip
    for copy in copies:
        assert uci.build(uci_read.read(copy, labelled=True), labelled=True).table == whole


def test_strange_values_count_as_missing_and_are_told() -> None:
    told = made(
        {
            "age": "?",
            "num_medications": "many",
            "discharge_disposition_id": "77",
            "diag_1": "XYZ",
            "insulin": "maybe",
        },
        {"number_inpatient": "-1", "gender": "Unknown/Invalid"},
    )
    assert told.odd == {
        "num_medications": 1, "number_inpatient": 1, "discharge_disposition_id": 1, "insulin": 1, "diag_1": 1,
    }  # fmt: skip
    assert told.table["age"].to_pylist() == [None, 75]
    assert told.table["sex"].to_pylist() == ["female", None]


def test_faults_name_lines_and_columns_and_no_value() -> None:
    good = text(rows({}, {}, {}))
    short = good.replace(b"101,8,Caucasian", b"SECRET,8")
    with pytest.raises(Invalid, match=r"line 3: .* fields, the header has") as caught:
        uci_read.read(short, labelled=True)
    assert "SECRET" not in str(caught.value)
    read = uci_read.read(short, labelled=False)
    assert (list(read.ids), [line for line, _ in read.unread]) == (["100", "102"], [3])
    with pytest.raises(Invalid, match="lacks the columns patient_nbr, readmitted"):
        uci_read.read(good.replace(b"patient_nbr", b"p").replace(b"readmitted", b"r"), labelled=True)
    assert len(uci_read.read(good.replace(b"patient_nbr", b"p").replace(b"readmitted", b"r"), labelled=False)) == 3
    with pytest.raises(Invalid, match="twice: age"):
        uci_read.read(good.replace(b"weight", b"age"), labelled=False)
    for name in ("patient_nbr", "encounter_id"):
        with pytest.raises(Invalid, match=f"line 2: no {name}"):  # R writes NA, others NULL
            uci_read.read(text(rows({name: "NA"}, {})), labelled=True)
    with pytest.raises(Invalid, match=r"line 2: \d+ fields, the header has"):
        uci_read.read(good.replace(b"No\r\n", b"No,\r\n"), labelled=False)
    with pytest.raises(Invalid, match="no encounter under"):
        uci_read.read(good.split(b"\n")[0], labelled=False)
    for broken in (b"", b"\xff\xfe\x00", gzip.compress(good)[:-9], b"\x80\x81,a\n1,2\n", b"\x1f\x8bnothing"):
        with pytest.raises(Invalid):
            uci_read.read(broken, labelled=False)


def test_a_quote_that_is_not_closed_costs_its_own_line() -> None:
    good = text(rows(*[{}] * 2_000))
    for at, broken in ((b"101,8,Caucasian", b'101,8,"Caucasian'), (b"101,8,Caucasian", b'101,"8"x"y,"Caucasian')):
        read = uci_read.read(good.replace(at, broken), labelled=False)
        assert len(read) + len(read.unread) == 2_000
        assert len(read) >= 1_999
    last = uci_read.read(good.replace(b"No\r\n101,", b'"No\r\n101,'), labelled=False)  # in a column at the end
    assert len(last) + len(last.unread) == 2_000
    end = uci_read.read(good[:-4] + b'"No', labelled=False)
    assert len(end) + len(end.unread) == 2_000
    long = uci_read.read(good.replace(b"Caucasian", b"C" * 70_000, 1), labelled=False)
    assert (len(long), [line for line, _ in long.unread]) == (1_999, [2])
    noted = [{**row, "notes": "one\ntwo, and\nthree"} for row in rows({}, {})]
    assert len(uci_read.read(text(noted), labelled=True)) == 2


def test_the_label_of_strangers_is_not_read() -> None:
    one, two = (made({"readmitted": said}, labelled=False).table for said in ("<30", "garbage"))
    assert one == two
    assert "label" not in one.column_names


def test_deaths_hospice_repeats_and_rows_without_a_label_train_nothing() -> None:
    dispositions = [{"discharge_disposition_id": str(code)} for code in (1, 11, 13, 14, 19, 20, 21)]
    told = made(*dispositions, {"readmitted": "?"}, {"encounter_id": "100"})
    assert told.odd == {"no_label": 1, "repeated": 1}
    assert told.table["outside"].to_pylist() == [None, "died", "hospice", "hospice", "died", "died", "died"]
    assert pc.is_valid(uci.sets(told.table)).to_pylist() == [True] + [False] * 6
    assert len(made(*dispositions, labelled=False).table) == 7  # strangers are all scored


def test_no_patient_is_in_two_sets() -> None:
    table = made(*({"patient_nbr": str(at % 60)} for at in range(240))).table
    by_patient: dict[str, set[str]] = {}
    for patient, name in zip(table["subject_id"].to_pylist(), uci.sets(table).to_pylist(), strict=True):
        by_patient.setdefault(patient, set()).add(name)
    assert all(len(found) == 1 for found in by_patient.values())
    assert set().union(*by_patient.values()) >= {"train", "test"}


def test_icd9_codes_fall_into_their_groups() -> None:
    codes = {
        "8": "infection_other", "038": "sepsis", "250.02": "diabetes", "250.13": "diabetes_acute",
        "V57": "v_rehabilitation",
        "250.7": "diabetes_complicated", "E878": "external", "584.9": "acute_renal_failure", "410.71": "infarction",
    }  # fmt: skip
    groups = [name for name, _, _ in uci._icd9_groups()]
    assert {code: groups[int(uci._group_of(code))] for code in codes} == codes
    assert all(np.isnan(uci._group_of(code)) for code in ("XYZ", None, "V99", "?"))


def test_the_public_file_is_understood_whole(shared_data: Path) -> None:
    path = shared_data / "uci-diabetes-130" / "diabetic_data.csv.gz"
    if not path.is_file():
        pytest.skip("the UCI file is not among the public data sets here")
    told = uci.build(uci_read.read(path.read_bytes(), labelled=True), labelled=True)
    assert told.odd == {}
    outside = {one["values"]: one["counts"] for one in pc.value_counts(told.table["outside"]).to_pylist()}
    assert (outside["died"], outside["hospice"]) == (1322, 622)
    assert int(pc.sum(told.table["label"]).as_py()) == 9078
