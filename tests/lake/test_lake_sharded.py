"""Work by shards of patients: the same parts whatever the number of workers, errors and ends told."""

from __future__ import annotations

import io
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from carelake.audit.nouns import Nouns
from carelake.core.errors import Invalid, Refused
from carelake.core.permit import Permit
from carelake.lake import query
from carelake.lake.engines import sharded
from carelake.lake.engines.rowhash import row_hash, together
from carelake.lake.following.sync import sync
from carelake.lake.views.over import over
from carelake.vault.workspace import Vault

VIEW: dict[str, Any] = {
    "resource": "Observation",
    "name": "values",
    "status": "active",
    "select": [
        {
            "column": [
                {"name": "id", "path": "getResourceKey()"},
                {"name": "value", "path": "value.ofType(Quantity).value"},
            ]
        }
    ],
}


def observation(n: int) -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "id": f"o{n}",
        "status": "final",
        "code": {"text": "x"},
        "valueQuantity": {"value": n},
    }


@pytest.fixture
def snapshot(vault: Vault, nouns: Nouns, permit: Permit, feed: Any) -> Any:
    for n in range(120):
        feed.put(observation(n), owner=f"p{n % 17}" if n % 10 else "")
    feed.put(observation(7), owner="p7", deleted=True)
    sync(permit, vault, feed, nouns, sources=())
    return query.snapshot_of(permit, vault, nouns)


def test_shards_have_every_row_once(vault: Vault, permit: Permit, snapshot: Any) -> None:
    found = sharded.shards(permit, vault, snapshot, "Observation", rows=12)
    assert len(found) > 8
    assert [one.key for one in found] == [f"{n:05d}" for n in range(1, len(found) + 1)]
    assert found == sharded.shards(permit, vault, snapshot, "Observation", rows=12)
    parts = [query.current(permit, vault, snapshot, "Observation", patient=one.patients) for one in found]
    assert all(part is not None and 1 <= len(part) <= 12 for part in parts)
    whole = query.current(permit, vault, snapshot, "Observation")
    assert together([row_hash(part) for part in parts if part is not None]) == row_hash(whole)
    assert sharded.shards(permit, vault, snapshot, "Patient") == []


def test_a_view_by_shards_is_the_view_whatever_the_workers(vault: Vault, permit: Permit, snapshot: Any) -> None:
    made = [
        {one.key: one for one in sharded.view_shards(permit, vault, snapshot, VIEW, "parquet", workers=n, rows=20)}
        for n in (1, 2)
    ]
    assert made[0] == made[1]
    tables = [pq.read_table(io.BytesIO(one.data)) for one in made[0].values()]
    assert together([row_hash(one) for one in tables]) == row_hash(over(permit, vault, snapshot, VIEW))
    left = list(
        sharded.view_shards(permit, vault, snapshot, VIEW, "parquet", rows=20, done=lambda key: key != "00002")
    )
    assert left == [made[0]["00002"]]


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_of_the_work_is_the_callers(vault: Vault, permit: Permit, snapshot: Any, workers: int) -> None:
    wrong = {**VIEW, "select": [{"column": [{"name": "x", "path": "category.coding.code"}]}]}
    there = sharded.shards(permit, vault, snapshot, "Observation")
    many = pa.table({"id": ["a"], "category": [[{"coding": [{"code": "1"}, {"code": "2"}]}]]})
    said = {"view": wrong, "form": "csv", "seconds": "60", "result_bytes": 1000}
    with pytest.raises(Invalid) as told:
        list(sharded.run("carelake.lake.engines.sharded:view_part", said, there, lambda _: many, workers=workers))
    assert told.value.code == "lake.view_cardinality"


def test_what_is_refused(vault: Vault, permit_for: Any, permit: Permit, snapshot: Any) -> None:
    for work, workers in (("os:system", 1), ("carelake.lake.engines.sharded:view_part", 0)):
        with pytest.raises(Invalid):
            list(sharded.run(work, {}, [], lambda _: pa.table({}), workers=workers))
    grants = ("lake:read", "rows:read", "clinical:read")
    only = permit_for(*grants, scope=("patient:p3",))
    found = sharded.shards(only, vault, snapshot, "Observation")
    assert [one.patients for one in found] == [frozenset({"p3"})]
    with pytest.raises(Refused):
        query.current(only, vault, snapshot, "Observation", patient="")
