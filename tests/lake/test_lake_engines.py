"""One recipe, two engines: the same row hashes on every view that ships and on generated ones."""

from __future__ import annotations

import gc
import gzip
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from carelake.core import canonical
from carelake.core.errors import CarelakeError
from carelake.lake import flat
from carelake.lake.engines.portable import flat_on_spark
from carelake.lake.engines.rowhash import row_hash, together
from carelake.lake.ready import shelf
from carelake.lake.views.definition import read
from carelake.lake.views.execute import deepening, on_duckdb, on_spark
from carelake.lake.views.tables import in_memory, named

sys.path.insert(0, str(Path(__file__).parent))
from test_lake_views_same import PATIENTS, views
from views_data import RESOURCES

pytest.importorskip("pyspark")
SPARK = pytest.mark.spark
pytestmark = [
    # pyspark leaves sockets to the garbage collector, which tells of them.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

ODD = """[
 {"resourceType":"Patient","id":"a","birthDate":"1970-06","deceasedDateTime":"2020-01-01T10:00:00.123456+02:00"},
 {"resourceType":"Patient","id":"b","birthDate":"1980","deceasedDateTime":"2020","deceasedBoolean":true,"extension":[
  {"url":"http://hl7.org/fhir/us/core/StructureDefinition/us-core-race","extension":[{"url":"text","valueString":"É"}]},
  {"url":"http://hl7.org/fhir/us/core/StructureDefinition/us-core-ethnicity","extension":[
   {"url":"ombCategory","valueCoding":{"system":"s","code":"2186-5"}}]}]},
 {"resourceType":"Observation","id":"o","status":"final","code":{"coding":[{"code":"z"},
  {"system":"http://loinc.org","code":"1-1"}]},"subject":{"reference":"http://x/fhir/Patient/p1/_history/2"},
  "encounter":{"reference":"Encounter/e/extra"},"issued":"2020-02-30T00:00:00Z","effectivePeriod":{"end":"2020-02"},
  "component":[{"code":{"text":"t"},"valueInteger":7},{"code":{"text":"u"}},
   {"code":{"text":"v"},"valueQuantity":{"value":1.50,"comparator":"<","unit":"u"}}]},
 {"resourceType":"Observation","id":"q","status":"final","code":{"text":"x"},"valueInteger":-0,"component":[],
  "subject":{"reference":"urn:uuid:0"}},
 {"resourceType":"Encounter","id":"e","status":"finished","class":{"code":"IMP"},"type":[{"text":"x"},{"text":"y"}],
  "period":{"start":"2020-01-01T00:00:00-05:00","end":"2020"}},
 {"resourceType":"MedicationRequest","id":"m","status":"active","intent":"order",
  "medicationReference":{"reference":"Medication/1"},"subject":{"reference":"Patient/p\\n"}}
]"""


@pytest.fixture(autouse=True)
def sockets() -> Iterator[None]:
    yield
    gc.collect()


def both(view: dict[str, Any], resources: list[dict[str, Any]]) -> tuple[Any, Any]:
    """Hash of the rows, or the code of the error, on DuckDB and on Spark."""
    found = []
    for engine in (on_duckdb, on_spark):
        try:
            found.append(
                deepening(
                    read(view), lambda plan, on=engine: row_hash(named(plan, on(plan, in_memory(plan, resources))))
                )
            )
        except CarelakeError as error:
            found.append(error.code)
    return found[0], found[1]


@pytest.fixture(scope="module")
def resources(shared_data: Path) -> list[dict[str, Any]]:
    """The examples of R4, of all types, and some that are odd."""
    with gzip.open(shared_data / "fhir-r4-examples" / "examples.ndjson.gz") as lines:
        found = [canonical.load(line) for line in lines]
    return [*found, *RESOURCES, *canonical.load(ODD.encode())]


@SPARK
@pytest.mark.parametrize("name", flat.names())
def test_flat_views_are_the_same(name: str, resources: list[dict[str, Any]]) -> None:
    wanted = flat.view(name)
    bodies = [
        (one["id"], canonical.dump(one).decode()) for one in resources if one["resourceType"] == wanted.resource
    ]
    table = flat._parsed(wanted, bodies, None)
    on_duck, found = flat.run_view(wanted, table), flat_on_spark(wanted, table)
    assert found.schema.equals(on_duck.schema)
    assert row_hash(found) == row_hash(on_duck)
    assert len(on_duck) > 1


@SPARK
@pytest.mark.parametrize("names", [shelf.names()[::4], pytest.param(shelf.names(), marks=pytest.mark.soak)])
def test_ready_made_views_are_the_same(resources: list[dict[str, Any]], names: Sequence[str]) -> None:
    rows = 0
    for name in names:
        view = dict(shelf.find(name))
        mine = [one for one in resources if one["resourceType"] == view["resource"]]
        on_duck, on_sp = both(view, mine)
        assert on_duck == on_sp, name
        rows += int(on_duck.partition(":")[0])
    assert rows > len(names)


@SPARK
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(view=views(), some=st.lists(PATIENTS, min_size=2, max_size=5))
def test_generated_views_are_the_same(view: dict[str, Any], some: list[dict[str, Any]]) -> None:
    on_duck, on_sp = both(view, some)
    assert on_duck == on_sp


def test_a_hash_minds_neither_order_nor_batches_and_minds_all_else() -> None:
    rows = [{"a": 1, "b": [{"x": 1.5, "y": None}]}, {"a": None, "b": []}, {"a": 1, "b": [{"x": 1.5, "y": None}]}]
    shape = pa.schema([("a", pa.int32()), ("b", pa.list_(pa.struct([("x", pa.float64()), ("y", pa.string())])))])
    table = pa.Table.from_pylist(rows, shape)
    wanted = row_hash(table)
    assert wanted.startswith("3:")
    assert row_hash(table.take([2, 0, 1])) == wanted
    assert row_hash(pa.concat_tables([table.slice(0, 1), table.slice(1)])) == wanted
    assert together([row_hash(table.slice(0, 2)), row_hash(table.slice(2))]) == wanted
    assert row_hash(table.slice(0, 2)) != wanted
    assert row_hash(table.rename_columns(["a", "c"])) != wanted
    swapped = pa.Table.from_pylist(
        rows, pa.schema([("a", pa.int32()), ("b", pa.list_(pa.struct([("y", pa.string()), ("x", pa.float64())])))])
    )
    assert row_hash(swapped) == wanted
    other = pa.Table.from_pylist([{"a": 1, "b": None}, *rows[1:]], shape)
    assert row_hash(other) != wanted
