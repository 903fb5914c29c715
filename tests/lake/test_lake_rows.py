"""Columns hold everything of a resource: JSON in, columns, JSON out."""

from __future__ import annotations

import gzip
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from duckdb import DuckDBPyConnection as Connection
from hypothesis import given, settings
from hypothesis import strategies as st

from carelake.core import canonical
from carelake.core.errors import Corrupt
from carelake.fhir import definitions
from carelake.lake import rows, schema
from carelake.lake.engines.engine import connect

MOMENT = datetime(2025, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def connection() -> Iterator[Connection]:
    with connect() as opened:
        yield opened


def changes(bodies: list[bytes], ids: list[str]) -> pa.Table:
    count = len(bodies)
    columns = [
        list(range(1, count + 1)),
        ids,
        [1] * count,
        [MOMENT] * count,
        [None] * count,
        [False] * count,
        [None] * count,
        [body.decode() for body in bodies],
    ]
    return pa.table([pa.array(c, f.type) for c, f in zip(columns, rows.CHANGES, strict=True)], schema=rows.CHANGES)


def there_and_back(connection: Connection, kind: str, resources: list[dict[str, Any]]) -> list[bytes]:
    table = changes([canonical.dump(r) for r in resources], [r["id"] for r in resources])
    record = rows.occurs(connection, kind, table)
    made = rows.rows(connection, record, table)
    assert schema.of_arrow(kind, made.schema) == record
    return [canonical.dump(body) for body in rows.restore(kind, record, made)]


def observation(**more: Any) -> dict[str, Any]:
    return {"resourceType": "Observation", "id": "o", "status": "final", "code": {"text": "x"}, **more}


NUMBERS = ["1.10", "-0.0", "1e2", "0.0000001", "120", "1.0E-5", "99999999999999999999.5"]
TRICKY = st.text(min_size=1, max_size=20) | st.sampled_from(
    [
        '"value":1.10',
        '\\"value\\":2.0,',
        "a:5",
        '"x":"y"',
        "{",
        "[1.0]",
        "\\",
        ":",
        "é\u2028",
        '","value_text":"3"',
        ":-1",
    ]
)


@settings(max_examples=60, deadline=None)
@given(
    number=st.sampled_from(NUMBERS),
    low=st.sampled_from(NUMBERS),
    text=TRICKY.filter(lambda t: "\x00" not in t),
    inner=st.sampled_from(NUMBERS),
    names=st.lists(st.none() | TRICKY.filter(lambda t: "\x00" not in t), min_size=1, max_size=3),
)
def test_numbers_keep_their_digits_and_texts_their_characters(
    connection: Connection, number: str, low: str, text: str, inner: str, names: list[str | None]
) -> None:
    extension = [{"url": text, "valueDecimal": canonical.load(inner), "valueInteger": 3}]
    resources = [
        observation(
            valueQuantity={"value": canonical.load(number), "unit": text, "extension": extension},
            referenceRange=[{"low": {"value": canonical.load(low)}, "text": text}, {"text": "y"}],
            note=[{"text": text}],
            _status={"extension": extension},
            extension=extension,
        ),
        observation(id="plain"),
        observation(
            id="deep",
            component=[{"code": {"coding": [{"display": text}, {"extension": extension}]}, "valueInteger": 7}],
            contained=[
                {"resourceType": "Patient", "id": "c", "name": [{"given": names}], "x": canonical.load(inner)}
            ],
        ),
    ]
    assert there_and_back(connection, "Observation", resources) == [canonical.dump(r) for r in resources]


def test_repeating_types_and_aligned_lists_come_back(connection: Connection) -> None:
    patient = {
        "resourceType": "Patient",
        "id": "p",
        "name": [{"given": ["a", None, "c"], "_given": [None, {"id": "g"}, None]}],
        "identifier": [{"value": "1", "assigner": {"identifier": {"value": "2", "assigner": {"display": "d"}}}}],
        "multipleBirthInteger": 2,
        "_birthDate": {"extension": [{"url": "u", "valueDecimal": canonical.load("3.20")}]},
        "link": [{"other": {"reference": "Patient/q"}, "type": "refer"}],
    }
    assert there_and_back(connection, "Patient", [patient]) == [canonical.dump(patient)]


def test_key_names_do_not_hide_elements() -> None:
    claim = {"resourceType": "Claim", "id": "c", "patient": {"reference": "Patient/p"}, "status": "active"}
    table = changes([canonical.dump(claim)], ["c"])
    with connect() as connection:
        made = rows.rows(connection, rows.occurs(connection, "Claim", table), table)
    assert made.column("patient_element").to_pylist() == [{"reference": "Patient/p"}]
    assert made.column("patient").to_pylist() == [None]


def test_the_primary_code_and_its_system_are_of_one_coding() -> None:
    procedure = {
        "resourceType": "Procedure",
        "id": "x",
        "code": {"coding": [{"code": "A1"}]},
        "category": {"coding": [{"system": "s", "code": "B"}]},
        "performedPeriod": {"start": "2024-02"},
    }
    table = changes([canonical.dump(procedure)], ["x"])
    with connect() as connection:
        made = rows.rows(connection, rows.occurs(connection, "Procedure", table), table)
    assert made.select(["code", "code_system"]).to_pylist() == [{"code": "A1", "code_system": ""}]
    assert made.column("time").to_pylist()[0] == datetime(2024, 2, 1, tzinfo=UTC)


def test_what_r4_does_not_define_is_damage_and_not_dropped() -> None:
    with connect() as connection, pytest.raises(Corrupt):
        rows.occurs(connection, "Patient", changes([b'{"id":"p","shoe":1,"resourceType":"Patient"}'], ["p"]))
    with connect() as connection, pytest.raises(Corrupt):
        rows.occurs(connection, "Patient", changes([b"{nonsense"], ["p"]))


def test_every_resource_type_has_a_shape() -> None:
    for kind in sorted(definitions.resource_types()):
        everything = {name: None for item in definitions.element(kind).values() for name in item.keys}
        record = schema.occurring(kind, everything)
        assert schema.table_schema(record).names[: len(schema.KEYS)] == schema.KEYS.names
        assert len(set(schema.table_schema(record).names)) == len(schema.table_schema(record).names), kind


def test_the_published_examples_come_back_whole(connection: Connection, shared_data: Path) -> None:
    by_type: dict[str, list[dict[str, Any]]] = defaultdict(list)
    with gzip.open(shared_data / "fhir-r4-examples" / "examples.ndjson.gz") as lines:
        for line in lines:
            resource = canonical.load(line)
            resource.get("text", {}).pop("div", None)  # narrative is most of the bytes, and text like any other
            by_type[resource["resourceType"]].append(resource)
    count = 0
    for kind, resources in by_type.items():
        if kind in ("Bundle", "Parameters") or not definitions.is_resource(kind):
            continue
        kept = [r for r in resources if "id" in r]
        assert there_and_back(connection, kind, kept) == [canonical.dump(r) for r in kept], kind
        count += len(kept)
    assert count > 300
