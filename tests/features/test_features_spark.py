"""The point-in-time join gives the same rows on Spark as in memory."""

from __future__ import annotations

import gc
import hashlib
import random
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from carelake.core.errors import Invalid
from carelake.features import asof, cohort, featureset, readmission
from carelake.features.proof import row_hashes
from carelake.lake.engines.spark import session
from carelake.lake.flat import view

pytest.importorskip("pyspark")
from carelake.features import spark as on_spark
from carelake.features.datasets.on_spark import marks_of
from carelake.features.engines import Frame, OnSpark

pytestmark = [
    pytest.mark.spark,
    # pyspark leaves sockets to the garbage collector, which tells of them.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
AT = datetime(2025, 1, 1, tzinfo=UTC)
TIME = pa.timestamp("us", "UTC")


@pytest.fixture(autouse=True)
def sockets() -> Iterator[None]:
    yield
    gc.collect()


def tables(seed: int) -> tuple[pa.Table, dict[str, pa.Table]]:
    dice = random.Random(seed)

    def when() -> datetime | None:
        return (
            None if dice.random() < 0.1 else AT + timedelta(hours=dice.randrange(12), microseconds=dice.randrange(2))
        )

    def who() -> str | None:
        return None if dice.random() < 0.05 else f"p{dice.randrange(4)}"

    labels = {"subject_id": [who() for _ in range(40)], "prediction_time": [when() for _ in range(40)]}
    shape = pa.schema([("subject_id", pa.string()), ("prediction_time", TIME), ("y", pa.int32())])
    made = pa.table({**labels, "y": list(range(40))}, schema=shape)
    groups = {}
    for name in ("a", "b"):
        rows = [
            {
                "subject_id": who(),
                "event_time": when(),
                "write_time": when(),
                "is_deleted": dice.choice([True, False, False, None]),
                "x": dice.random(),
                "t": dice.choice(["é", None]),
            }
            for _ in range(60)
        ]
        kinds = [pa.string(), TIME, TIME, pa.bool_(), pa.float64(), pa.string()]
        groups[name] = pa.Table.from_pylist(rows, pa.schema(list(zip(rows[0], kinds, strict=True))))
    return made, groups


@pytest.mark.parametrize(("seed", "staleness"), [(1, None), (2, timedelta(hours=3)), (3, {"a": timedelta(0)})])
def test_spark_gives_the_same_rows(seed: int, staleness: Any) -> None:
    labels, groups = tables(seed)
    wanted = asof.join(labels, groups, staleness=staleness)
    found = on_spark.join(labels, groups, staleness=staleness)
    assert found.combine_chunks().equals(wanted.combine_chunks())
    keys = pa.array([number.to_bytes(32, "big") for number in range(len(wanted))], pa.binary(32))
    assert row_hashes(found, sha256, keys) == row_hashes(wanted, sha256, keys), "and so the proofs"
    assert wanted.column("a__x").null_count < len(wanted)


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def test_columns_are_checked() -> None:
    labels, groups = tables(1)
    fine = labels.column("prediction_time").cast(pa.timestamp("ns", "UTC"))
    with pytest.raises(Invalid) as refused:
        on_spark.join(labels.set_column(1, "prediction_time", fine), groups)
    assert refused.value.code == "features.asof_time"
    with pytest.raises(Invalid):
        on_spark.join(labels, {"a": groups["a"].drop_columns(["is_deleted"])})
    with pytest.raises(Invalid):
        on_spark.join(labels.append_column("a__x", labels.column("y")), groups)


CODES = cohort.rules()["codes"]
NAIVE = AT.replace(tzinfo=None)
BORN = (date(2000, 2, 29), date(2004, 2, 29), date(2007, 1, 1), date(2007, 3, 1), date(1950, 6, 30), None)
NORMAL = {
    "encounters": {"status": "finished", "class": "IMP"},
    "conditions": {"system": "http://hl7.org/fhir/sid/icd-10-cm"},
    "observations": {"system": "http://loinc.org", "status": "final"},
}
LISTS = {
    "class": [*CODES["inpatient"], *CODES["emergency"], *CODES["ambulatory"], None],
    "admission_type": [*CODES["unplanned"][:2], *CODES["planned"], None],
    "admit_source": [*CODES["through_emergency"], "x", None],
    "discharge_disposition": [
        "home", "06", "snf", "62", "hosp", "07", "oth", "exp", "02", "it's \\ new", None, None, None
    ],
    "status": ["finished", "final", "entered-in-error", "in-progress", None],
    "verification_status": ["confirmed", "refuted", None],
    "system": ["x", None],
    "service": ["175", "x", None],
    "service_text": ["Oncology", "É", None],
    "comparator": [None, None, None, "<"],
    "sex": ["female", "male", "other", None],
}  # fmt: skip
CODED = {
    "conditions": ["I21.4", "e11.9", "E11.2", "C78", "B20", "F10.1", "x", None],
    "observations": ["718-7", "2951-2", "2160-0", "8867-4", "x", None],
    "medications": ["1", "2", None],
}
UNITS = {"718-7": ["g/dL", "g/L"], "2951-2": ["mmol/L"], "2160-0": ["mg/dL", "umol/L"], "8867-4": ["/min"]}


def hospital(seed: int) -> dict[str, pa.Table]:
    """The flat views of a few patients to whom everything happens, at the same times and out of order too."""
    dice = random.Random(seed)
    people = [f"p{n}" for n in range(60)]

    def cell(name: str, field: pa.Field, row: dict[str, Any], n: int) -> Any:
        column = field.name
        if column == "subject_id":
            return people[n] if name == "patients" else dice.choice([*people, *people, None])
        if column.endswith("_id"):
            return f"{name}{n}"
        if column == "code" and name in CODED:
            return dice.choice(CODED[name])
        if column == "unit":
            return dice.choice(UNITS.get(row["code"] or "", ["x"]))
        if column == "birth_date":
            return dice.choice(BORN)
        if column in LISTS:
            return dice.choice([*LISTS[column], *[NORMAL.get(name, {}).get(column)] * 3])
        if column == "end_time" and row.get("start_time") is not None:
            return row["start_time"] + timedelta(hours=dice.choice([-1, 0, 5, 24, 50, 90, 90]))
        if pa.types.is_timestamp(field.type):
            when = NAIVE + timedelta(hours=12 * dice.randrange(200), microseconds=dice.choice([0, 0, 1]))
            return dice.choice([when, when, when, NAIVE + timedelta(days=58), None])
        if pa.types.is_boolean(field.type):
            return dice.choice([True, False])
        if pa.types.is_floating(field.type):
            return dice.choice([0.1, 7.3, 13.37, 141.0, -0.0, None])
        return dice.randrange(3) if pa.types.is_integer(field.type) else None

    made: dict[str, list[dict[str, Any]]] = {}
    for name, count in (("patients", 60), *((one, 900) for one in featureset.MARKED)):
        made[name] = []
        for n in range(count):
            row: dict[str, Any] = {}
            for field in view(name).empty.schema:
                row[field.name] = cell(name, field, row, n)
            made[name].append(row)
    stays = [row for row in made["encounters"] if row["class"] == "IMP" and row["start_time"]]
    for row in made["observations"]:
        stay = dice.choice(stays)
        row["subject_id"] = stay["subject_id"]
        row["time"] = stay["start_time"] + timedelta(hours=dice.randrange(-30, 60, 6))
        row["issued"] = dice.choice([None, row["time"] + timedelta(hours=dice.randrange(12))])
    return {name: pa.Table.from_pylist(rows, view(name).empty.schema) for name, rows in made.items()}


def test_the_rows_and_marks_of_readmission_are_the_same_on_spark() -> None:
    tables = hospital(5)
    spark = session()
    end = NAIVE + timedelta(days=80)
    wanted = readmission.build(tables, data_end=end)
    found = readmission.build(tables, data_end=end, on=OnSpark(spark).run)
    assert found.schema.equals(wanted.schema, check_metadata=True)
    for name in wanted.column_names:
        assert found.column(name).to_pylist() == wanted.column(name).to_pylist(), name
    assert len(wanted) > 50
    seen = ("hemoglobin_last", "hemoglobin_change", "oncology_service", "days_since_discharge")
    assert not [name for name in seen if wanted.column(name).null_count == len(wanted)]
    told = readmission.attrition(wanted)["attrition"]
    assert all(
        told[one] for one in ("under_age", "died_in_stay", "transferred", "censored", "readmitted", "died_first")
    )
    frames = {name: Frame(spark.createDataFrame(tables[name]), tables[name].schema) for name in ("conditions",)}
    made = marks_of(OnSpark(spark), wanted, frames)
    assert made == {"conditions": featureset.marks_of(wanted, tables)["conditions"]}
