"""Rows that the specification tells of, on every engine: unnesting, unions, repeat, row index, keys, bounds."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from carelake.core import canonical
from carelake.lake.views import run

sys.path.insert(0, str(Path(__file__).parent))
from test_lake_views_paths import OBSERVATION, PATIENT, PATIENT_MANY, of_columns
from views_data import RESOURCES, same

# pyspark leaves sockets to the garbage collector, which tells of them.
SPARK = [
    pytest.mark.spark,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
ENGINES = ["oracle", "duckdb", pytest.param("spark", marks=SPARK)]


@pytest.fixture(autouse=True)
def sockets(request: pytest.FixtureRequest) -> Iterator[None]:
    """Sockets of a test go while it is still that test that is told of them."""
    yield
    if "spark" in request.node.name:
        gc.collect()


PATIENTS: list[dict[str, Any]] = [
    {
        "resourceType": "Patient",
        "id": "pt1",
        "name": [{"family": "Smith", "given": ["John", "James"]}, {"family": "Jones", "given": ["Jane"]}],
        "contact": [{"telecom": [{"system": "phone"}, {"system": "email"}]}, {"telecom": [{"system": "phone"}]}],
    },
    {"resourceType": "Patient", "id": "pt2"},
]
ID = {"column": [{"name": "id", "path": "id", "type": "id"}]}


def column(name: str, path: str, **options: Any) -> dict[str, Any]:
    return {"name": name, "path": path, **options}


def tuples(resource: str, select: list[dict[str, Any]], resources: list[dict[str, Any]], engine: Any) -> Any:
    found = run({"resource": resource, "select": select}, resources, engine=engine)
    return [tuple(row.values()) for row in found]


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Any:
    if request.param == "spark":
        pytest.importorskip("pyspark")
    return request.param


def test_row_index_counts_on_each_level_alone(engine: Any) -> None:
    inner = {"forEach": "telecom", "column": [column("j", "%rowIndex"), column("s", "system")]}
    select = [ID, {"forEach": "contact", "column": [column("i", "%rowIndex")], "select": [inner]}]
    wanted = [("pt1", 0, 0, "phone"), ("pt1", 0, 1, "email"), ("pt1", 1, 0, "phone")]
    assert tuples("Patient", select, PATIENTS, engine) == wanted


def test_a_branch_of_a_union_without_rows_of_its_own_has_the_outer_row_index(engine: Any) -> None:
    branches = [
        {"forEach": "given", "column": [column("g", "%rowIndex"), column("v", "$this")]},
        {"column": [column("g", "%rowIndex"), column("v", "family")]},
    ]
    select = [ID, {"forEach": "name", "column": [column("n", "%rowIndex")], "select": [{"unionAll": branches}]}]
    assert tuples("Patient", select, PATIENTS, engine) == [
        ("pt1", 0, 0, "John"),
        ("pt1", 0, 1, "James"),
        ("pt1", 0, 0, "Smith"),
        ("pt1", 1, 0, "Jane"),
        ("pt1", 1, 1, "Jones"),
    ]


def test_row_index_is_zero_at_the_top_and_for_nothing(engine: Any) -> None:
    select = [
        {"column": [column("top", "%rowIndex"), column("next", "%rowIndex + 1")]},
        {"forEachOrNull": "photo", "column": [column("i", "%rowIndex"), column("there", "title.exists()")]},
    ]
    assert tuples("Patient", select, PATIENTS, engine) == [(0, 1, 0, None), (0, 1, 0, None)]


def test_for_each_or_null_keeps_one_row_whatever_is_inside(engine: Any) -> None:
    inner = {"forEach": "telecom", "column": [column("s", "system", collection=True), column("l", "'x'")]}
    select = [ID, {"forEachOrNull": "contact", "select": [inner, {"unionAll": [inner_of("a"), inner_of("b")]}]}]
    found = tuples("Patient", select, PATIENTS, engine)
    assert found[-1] == ("pt2", None, None, None)
    assert len(found) == 2 * 2 + 1 * 2 + 1


def inner_of(text: str) -> dict[str, Any]:
    return {"column": [column("u", f"'{text}'")]}


QUESTIONS = [one for one in RESOURCES if one["resourceType"] == "QuestionnaireResponse"]


def test_repeat_goes_down_all_paths_parents_first(engine: Any) -> None:
    columns = [column("l", "linkId"), column("t", "text"), column("i", "%rowIndex")]
    select = [ID, {"repeat": ["item", "answer.item"], "column": columns}]
    assert tuples("QuestionnaireResponse", select, QUESTIONS, engine) == [
        ("q1", "1", "Demographics", 0),
        ("q1", "1.1", "Age", 1),
        ("q1", "2", "History", 2),
        ("q1", "2.1", "Conditions", 3),
        ("q1", "2.1.1", "Type", 4),
    ]


def test_repeat_stands_where_a_select_may(engine: Any) -> None:
    inside = {"repeat": ["item", "answer.item"], "column": [column("l", "linkId"), column("i", "%rowIndex")]}
    select = [ID, {"forEach": "item", "column": [column("top", "linkId")], "select": [inside]}]
    wanted = [("q1", "1", "1.1", 0), ("q1", "2", "2.1", 0), ("q1", "2", "2.1.1", 1)]
    assert tuples("QuestionnaireResponse", select, QUESTIONS, engine) == wanted
    branches = [{"repeat": ["item"], "column": [column("l", "linkId")]}, {"column": [column("l", "'none'")]}]
    found = tuples("QuestionnaireResponse", [ID, {"unionAll": branches}], QUESTIONS, engine)
    assert found == [("q1", "1"), ("q1", "1.1"), ("q1", "2"), ("q1", "none"), ("q2", "none")]


def test_repeat_goes_as_deep_as_the_data() -> None:
    item: dict[str, Any] = {"linkId": "0"}
    for level in range(1, 40):
        item = {"linkId": str(level), "item": [item]}
    deep = [{"resourceType": "QuestionnaireResponse", "id": "d", "status": "completed", "item": [item]}]
    select = [{"repeat": ["item"], "column": [column("l", "linkId")]}]
    assert tuples("QuestionnaireResponse", select, deep, "duckdb") == [(str(n),) for n in range(39, -1, -1)]


def test_rows_of_the_resource_itself(engine: Any) -> None:
    branches = [
        {"forEach": "$this", "column": [column("v", "id")]},
        {"forEach": "name", "column": [column("v", "family")]},
    ]
    found = tuples("Patient", [{"unionAll": branches}], PATIENTS, engine)
    assert found == [("pt1",), ("Smith",), ("Jones",), ("pt2",)]


def test_keys_join(engine: Any) -> None:
    patients = [
        {"resourceType": "Patient", "id": "a", "link": [{"other": {"reference": "Patient/a"}, "type": "refer"}]},
        {
            "resourceType": "Patient",
            "id": "b",
            "link": [{"other": {"reference": "RelatedPerson/b"}, "type": "refer"}],
        },
    ]
    columns = [
        column("same", "getResourceKey() = link.other.getReferenceKey()"),
        column("patient", "getResourceKey() = link.other.getReferenceKey(Patient)"),
        column("person", "link.other.getReferenceKey(RelatedPerson)"),
    ]
    found = tuples("Patient", [{"column": columns}], patients, engine)
    assert found == [(True, True, None), (True, None, "b")]


def test_boundaries_are_of_the_digits_that_were_sent(engine: Any) -> None:
    text = """[{"resourceType":"Observation","id":"o","valueQuantity":{"value":1.0},"effectiveDateTime":"2010-10-10",
        "component":[{"valueQuantity":{"value":1.250}}]}]"""
    columns = [
        column("low", "value.ofType(Quantity).value.lowBoundary()"),
        column("high", "value.ofType(Quantity).value.highBoundary()"),
        column("first", "effective.ofType(dateTime).lowBoundary()"),
        column("last", "effective.ofType(dateTime).highBoundary()"),
    ]
    inside = [column("c", "value.ofType(Quantity).value.lowBoundary()")]
    found = tuples(
        "Observation", [{"column": columns}, {"forEach": "component", "column": inside}], canonical.load(text), engine
    )
    assert found == [(0.95, 1.05, "2010-10-10T00:00:00.000+14:00", "2010-10-10T23:59:59.999-12:00", 1.2495)]


def test_the_order_of_columns_is_the_views(engine: Any) -> None:
    names = [column("a", "'A'"), column("b", "'B'")]
    select = [
        {"unionAll": [{"column": [column("z", "'1'")]}, {"column": [column("z", "'2'")]}], "column": names},
        {"column": [column("c", "'C'")]},
    ]
    found = run({"resource": "Patient", "select": select}, PATIENTS[:1], engine=engine)
    assert [list(row.items()) for row in found] == [
        [("a", "A"), ("b", "B"), ("z", "1"), ("c", "C")],
        [("a", "A"), ("b", "B"), ("z", "2"), ("c", "C")],
    ]


@pytest.mark.spark
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("resource", "paths", "options"),
    [("Patient", PATIENT, {}), ("Patient", PATIENT_MANY, {"collection": True}), ("Observation", OBSERVATION, {})],
    ids=["patient", "patient-many", "observation"],
)
def test_every_path_gives_the_same_on_spark(resource: str, paths: list[str], options: dict[str, Any]) -> None:
    pytest.importorskip("pyspark")
    view = of_columns(resource, paths, **options)
    wanted, found = run(view, RESOURCES, engine="oracle"), run(view, RESOURCES, engine="spark")
    assert len(wanted) == len(found)
    for one_row, other in zip(wanted, found, strict=True):
        names = [f"c{n}" for n in range(len(paths))]
        different = [
            (path, one_row[n], other[n])
            for n, path in zip(names, paths, strict=True)
            if not same(one_row[n], other[n])
        ]
        assert different == []


def test_what_looks_like_a_variable_of_the_process_is_a_text(engine: Any) -> None:
    wanted = "${env:PATH}${system:user.home}'"
    constant = [{"name": "k", "valueString": wanted}]
    view = {"resource": "Patient", "constant": constant, "select": [{"column": [column("v", "%k")]}]}
    assert run(view, PATIENTS[:1], engine=engine) == [{"v": wanted}]
