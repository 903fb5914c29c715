"""A view is bounded: a short path does not become endless SQL, and what has no SQL of the same meaning is refused."""

from __future__ import annotations

import re
import time
from decimal import Decimal
from typing import Any

import duckdb
import pytest

from carelake.core.errors import Unavailable, Unsupported
from carelake.core.settings import LakeSettings
from carelake.lake.engines.engine import connect
from carelake.lake.engines.spark import _CONF
from carelake.lake.statements import bounded
from carelake.lake.views import run


def view(path: str, resource: str = "Patient", **more: Any) -> dict[str, Any]:
    return {"resource": resource, "select": [{"column": [{"name": "v", "path": path}]}], **more}


@pytest.mark.parametrize(
    "path",
    [
        "maritalStatus" + ".where(text.exists())" * 40 + ".text",
        "maritalStatus" + ".where(text.exists())" * 40 + ".coding.where($index = 0).code",
        "1" + ".lowBoundary().floor()" * 12,
        "coalesce(" * 30 + "gender" + ", gender)" * 30,
    ],
)
def test_a_short_path_does_not_become_endless_sql(path: str) -> None:
    began = time.monotonic()
    with pytest.raises(Unsupported, match=re.escape("select[0].column[0].path")) as refused:
        run(view(path), [{"resourceType": "Patient", "id": "a", "gender": "male"}])
    assert refused.value.code == "lake.view_sql"
    assert time.monotonic() - began < 10


def test_a_variable_of_the_process_is_no_text_of_spark() -> None:
    assert _CONF["spark.sql.variable.substitute"] == "false"


QUANTITY = {"value": Decimal("120")}
OBSERVATION = {
    "resourceType": "Observation",
    "id": "a",
    "valueQuantity": QUANTITY,
    "component": [{"valueQuantity": QUANTITY}],
    "subject": {"reference": "Patient/7"},
    "extension": [{"url": "u", "valueDecimal": Decimal("1.50")}],
}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("component.value.ofType(Quantity).value.lowBoundary()", None),
        ("component.value.ofType(Quantity).value.first().highBoundary()", None),
        ("extension('u').value.ofType(decimal).lowBoundary()", None),
        ("component.first().value.ofType(Quantity).value.lowBoundary()", 119.5),
        ("value.ofType(Quantity).value.lowBoundary()", 119.5),
        ("5.toDecimal().lowBoundary()", 4.5),
    ],
)
def test_a_boundary_is_of_the_digits_or_refused(path: str, value: float | None) -> None:
    assert run(view(path, "Observation"), [OBSERVATION], engine="oracle")[0]["v"] == (
        value or pytest.approx(120, abs=119)
    )
    if value is not None:
        for engine in ("oracle", "duckdb"):
            assert run(view(path, "Observation"), [OBSERVATION], engine=engine) == [{"v": value}]
        return
    with pytest.raises(Unsupported, match="digits"):
        run(view(path, "Observation"), [OBSERVATION])


def test_a_boundary_of_what_is_filtered_away_is_nothing() -> None:
    path = "value.ofType(Quantity).value.where(false).lowBoundary()"
    assert run(view(path, "Observation"), [OBSERVATION]) == [{"v": None}]


@pytest.mark.parametrize("kind", ["Resource", "DomainResource", "Patient"])
@pytest.mark.parametrize("engine", ["oracle", "duckdb"])
def test_a_key_of_any_resource(kind: str, engine: Any) -> None:
    made = run(view(f"subject.getReferenceKey({kind})", "Observation"), [OBSERVATION], engine=engine)
    assert made == [{"v": "7"}]


def test_an_integer_that_is_too_large_is_refused() -> None:
    large = view("%k", constant=[{"name": "k", "valueInteger64": "3000000000"}])
    with pytest.raises(Unsupported, match="32 bits"):
        run(large, [])


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("SELECT * FROM range(10000000000)", "lake.too_large"),
        ("SELECT NULL AS x FROM range(10000000000)", "lake.too_large"),
        ("SELECT count(*) FROM range(1000000000000)", "lake.too_long"),
    ],
)
def test_a_statement_ends(text: str, code: str) -> None:
    limits = LakeSettings(result_bytes=1_000_000, seconds=3.0)
    with connect(limits) as connection, pytest.raises(Unavailable) as ended:
        bounded.select(connection, text, limits)
    assert ended.value.code == code


def test_an_error_in_the_middle_of_a_result_is_duckdbs() -> None:
    text = "SELECT CASE WHEN i > 500000 THEN error('late') ELSE 'a' END AS c FROM range(1000000) t(i)"
    with connect() as connection, pytest.raises(duckdb.InvalidInputException, match="late"):
        bounded.select(connection, text, LakeSettings())


def test_rows_come_in_order_in_however_many_batches() -> None:
    with connect() as connection:
        made = bounded.select(connection, "SELECT i FROM range(100000) t(i) ORDER BY -i", LakeSettings())
        none = bounded.select(connection, "SELECT i FROM range(10) t(i) LIMIT 0", LakeSettings())
    assert made["i"].to_pylist() == list(range(99999, -1, -1))
    assert none.column_names == ["i"]
    assert not len(none)
