"""The point-in-time join gives the same rows on Spark as in memory."""

from __future__ import annotations

import gc
import hashlib
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from carelake.core.errors import Invalid
from carelake.features import asof
from carelake.features.proof import row_hashes

pytest.importorskip("pyspark")
from carelake.features import spark as on_spark

pytestmark = [
    pytest.mark.slow,
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
