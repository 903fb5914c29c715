"""The official suite of SQL on FHIR: every case of the files that are here, on every engine."""

from __future__ import annotations

import gc
import json
from pathlib import Path
from typing import Any

import pytest

from carelake.lake.views.report import passes, report

# pyspark leaves sockets to the garbage collector, which tells of them.
SPARK = [
    pytest.mark.spark,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
ENGINES = ["oracle", "duckdb", pytest.param("spark", marks=SPARK)]


@pytest.fixture(scope="module")
def suite(shared_data: Path) -> dict[str, Any]:
    folder = shared_data / "sql-on-fhir-v2"
    if not folder.is_dir():
        pytest.skip("the official view cases are not here")
    return {file.name: json.loads(file.read_bytes()) for file in sorted(folder.glob("*.json"))}


@pytest.mark.parametrize("engine", ENGINES)
def test_every_case_passes(suite: dict[str, Any], engine: Any) -> None:
    if engine == "spark":
        pytest.importorskip("pyspark")
    told = report(suite, engine)
    cases = [(name, case) for name, file in told.items() for case in file["tests"]]
    assert [(name, case) for name, case in cases if not case["result"]["passed"]] == []
    assert len(cases) == 77
    gc.collect()


def test_a_wrong_answer_is_told() -> None:
    view = {"resource": "Patient", "select": [{"column": [{"name": "id", "path": "id"}]}]}
    patients = [{"resourceType": "Patient", "id": "a"}, {"resourceType": "Patient", "id": "b"}]
    assert passes({"view": view, "expect": [{"id": "b"}, {"id": "a"}]}, patients, "oracle") == ""
    assert passes({"view": view, "expect": [{"id": "a"}]}, patients, "oracle")
    assert passes({"view": view, "expect": [{"id": "a"}, {"id": "a"}]}, patients, "oracle")
    assert passes({"view": view, "expect": [{"id": "a"}, {"id": None}]}, patients, "oracle")
    assert passes({"view": view, "expectError": True}, patients, "oracle")
    assert passes({"view": {}, "expect": []}, patients, "oracle")
    assert passes({"view": {}, "expectError": True}, patients, "oracle") == ""


def test_order_of_columns_is_checked() -> None:
    columns = [{"name": "b", "path": "id"}, {"name": "a", "path": "id"}]
    case = {"view": {"resource": "Patient", "select": [{"column": columns}]}, "expect": [{"a": "p", "b": "p"}]}
    patients = [{"resourceType": "Patient", "id": "p"}]
    assert passes({**case, "expectColumns": ["b", "a"]}, patients, "oracle") == ""
    assert passes({**case, "expectColumns": ["a", "b"]}, patients, "oracle")
