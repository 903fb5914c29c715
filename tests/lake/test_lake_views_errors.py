"""What is wrong with a view is told before data is read: the same on every engine, with its place, without data."""

from __future__ import annotations

from typing import Any

import pytest

from carelake.core.errors import CarelakeError, Invalid
from carelake.lake.views import run

COLUMN = {"name": "id", "path": "id"}


def view(**parts: Any) -> dict[str, Any]:
    return {"resource": "Patient", "select": [{"column": [COLUMN]}], **parts}


def of(*columns: dict[str, Any], **parts: Any) -> dict[str, Any]:
    return view(select=[{"column": list(columns), **parts}])


def col(path: Any, **more: Any) -> dict[str, Any]:
    return {"name": "v", "path": path, **more}


TWO = {"unionAll": [{"column": [col("id")]}, {"column": [{"name": "w", "path": "id"}]}]}
KINDS = {"unionAll": [{"column": [col("id")]}, {"column": [col("active")]}]}

WRONG: list[tuple[Any, str, str]] = [
    ({}, "lake.view_definition", "resource"),
    (view(resource="Patients"), "lake.view_definition", "resource"),
    (view(resource=3), "lake.view_definition", "resource"),
    (view(status="fine"), "lake.view_definition", "status"),
    (view(resourceType="Patient"), "lake.view_definition", "resourceType"),
    (view(name="1x"), "lake.view_definition", "name"),
    (view(select=[]), "lake.view_definition", "select"),
    (view(select={}), "lake.view_definition", "select"),
    (view(select=[3]), "lake.view_definition", "select[0]"),
    (view(select=[{}]), "lake.view_definition", "select[0]"),
    (view(select=[{"colunm": []}]), "lake.view_definition", "select[0]"),
    (of(COLUMN, COLUMN), "lake.view_definition", "select[0].column[1].name"),
    (of(COLUMN, select=[{"column": [COLUMN]}]), "lake.view_definition", "select[0].select[0].column[0].name"),
    (of({"name": "_id", "path": "id"}), "lake.view_definition", "select[0].column[0].name"),
    (of({"name": "i d", "path": "id"}), "lake.view_definition", "select[0].column[0].name"),
    (of({"path": "id"}), "lake.view_definition", "select[0].column[0].name"),
    (of({"name": "id"}), "lake.view_definition", "select[0].column[0].path"),
    (of(col(" ")), "lake.view_definition", "select[0].column[0].path"),
    (of(col("id", collection="yes")), "lake.view_definition", "select[0].column[0].collection"),
    (of(col("id", type="Strong")), "lake.view_definition", "select[0].column[0].type"),
    (of(col("id", tag=[{"name": "ansi/type"}])), "lake.view_definition", "select[0].column[0].tag[0]"),
    (of(COLUMN, forEach="name", forEachOrNull="name"), "lake.view_definition", "select[0]"),
    (of(COLUMN, forEach="name", repeat=["name"]), "lake.view_definition", "select[0]"),
    (of(COLUMN, repeat="name"), "lake.view_definition", "select[0].repeat"),
    (of(COLUMN, repeat=[]), "lake.view_definition", "select[0].repeat"),
    (view(select=[TWO]), "lake.view_definition", "select[0].unionAll[1]"),
    (view(select=[KINDS]), "lake.view_type", "select[0].unionAll"),
    (view(constant=[{"name": "k"}]), "lake.view_definition", "constant[0]"),
    (view(constant=[{"name": "k", "valueInteger": "1"}]), "lake.view_definition", "constant[0].valueInteger"),
    (view(constant=[{"name": "k", "valueDate": "1970-13"}]), "lake.view_definition", "constant[0].valueDate"),
    (view(constant=[{"name": "k", "valueString": "a", "valueCode": "b"}]), "lake.view_definition", "constant[0]"),
    (view(constant=[{"name": "rowIndex", "valueInteger": 1}]), "lake.view_definition", "constant[0].name"),
    (view(where=[{}]), "lake.view_definition", "where[0].path"),
    (view(where=[{"path": "name.family"}]), "lake.view_type", "where[0].path"),
    (view(where=[{"path": "1"}]), "lake.view_type", "where[0].path"),
    (of(col("@@")), "lake.view_path", "select[0].column[0].path"),
    (of(col("name.where(")), "lake.view_path", "select[0].column[0].path"),
    (of(col("%k")), "lake.view_path", "select[0].column[0].path"),
    (of(col("nmae.family")), "lake.view_path", "select[0].column[0].path"),
    (of(col("name.familie")), "lake.view_path", "select[0].column[0].path"),
    (of(col("deceasedBoolean")), "lake.view_path", "select[0].column[0].path"),
    (of(col("Observation.status")), "lake.view_path", "select[0].column[0].path"),
    (of(col("name.frist()")), "lake.view_path", "select[0].column[0].path"),
    (of(col("name.first(1)")), "lake.view_path", "select[0].column[0].path"),
    (of(col("gender.ofType(Strong)")), "lake.view_path", "select[0].column[0].path"),
    (of(col("gender > 3")), "lake.view_path", "select[0].column[0].path"),
    (of(col("link.other.getReferenceKey(Patients)")), "lake.view_path", "select[0].column[0].path"),
    (of(col("name.getReferenceKey()", collection=True)), "lake.view_path", "select[0].column[0].path"),
    (of(col("name.getResourceKey()", collection=True)), "lake.view_path", "select[0].column[0].path"),
    (of(col("maritalStatus", type="string")), "lake.view_type", "select[0].column[0].path"),
    (of(COLUMN, forEach="nmae"), "lake.view_path", "select[0].forEach"),
    (of(COLUMN, repeat=["nmae"]), "lake.view_path", "select[0].repeat[0]"),
]


@pytest.mark.parametrize("engine", ["oracle", "duckdb"])
@pytest.mark.parametrize(("wrong", "code", "place"), WRONG, ids=[str(n) for n in range(len(WRONG))])
def test_the_place_of_what_is_wrong_is_told(wrong: Any, code: str, place: str, engine: Any) -> None:
    with pytest.raises(Invalid) as told:
        run(wrong, [], engine=engine)
    assert (told.value.code, told.value.facts["path"]) == (code, place)
    assert place in told.value.message


def test_another_engine_is_refused() -> None:
    with pytest.raises(CarelakeError) as told:
        run(view(), [], engine="pandas")  # type: ignore[arg-type]
    assert told.value.code == "lake.view_engine"


def test_errors_at_run_time_hold_no_data() -> None:
    patient = {"resourceType": "Patient", "id": "zebulon", "name": [{"family": "Zebulon"}, {"family": "Quark"}]}
    for engine in ("oracle", "duckdb"):
        for path in ("name.family", "name.family = 'a' or name.family", "name.family.upper()", "name.family & 'x'"):
            with pytest.raises(CarelakeError) as told:
                run(of(col(path)), [patient], engine=engine)  # type: ignore[arg-type]
            assert told.value.code == "lake.view_cardinality"
            assert "ebulon" not in repr(told.value) + told.value.message + str(told.value.facts)


def test_metadata_is_passed_over() -> None:
    more = {
        "url": "http://x/v",
        "title": "A",
        "fhirVersion": ["4.0.1"],
        "resourceDefinition": "http://hl7.org/fhir/StructureDefinition/ViewDefinition|3.0.0-ballot",
        "contact": [{"name": "n"}],
        "_comment": "x",
    }
    tagged = {"name": "id", "path": "id", "description": "The id", "tag": [{"name": "ansi/type", "value": "TEXT"}]}
    told = {**view(select=[{"id": "s", "column": [tagged]}]), **more}
    assert run(told, [{"resourceType": "Patient", "id": "a"}]) == [{"id": "a"}]
