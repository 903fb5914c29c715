"""The leak report finds what was leaked on purpose, and the proof sees every value."""

from __future__ import annotations

import hmac
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from carelake.features import asof, leaks, proof

DAY0 = datetime(2022, 1, 1)  # noqa: DTZ001 - UTC without a zone
COUNT = 200


def mac(data: bytes) -> bytes:
    return hmac.digest(b"k" * 32, data, "sha256")


def rows(**more: Any) -> pa.Table:
    dice = np.random.default_rng(3)
    when = [DAY0 + timedelta(hours=n) for n in range(COUNT)]
    label = pa.array(dice.random(COUNT) < 0.3)
    plain = {
        "subject_id": [f"p{n}" for n in range(COUNT)],
        "prediction_time": pa.array(when, pa.timestamp("us")),
        "label": label,
        "set": ["train" if n % 2 else "test" for n in range(COUNT)],
        "x": pa.array(dice.random(COUNT)),
    }
    return pa.table({**plain, **more})


def marks(table: pa.Table, after: timedelta) -> pa.Table:
    times = [one + after for one in table.column("prediction_time").to_pylist()]
    said = pa.array(times, pa.timestamp("us", "UTC"))
    early = pa.array([one - timedelta(days=2) for one in times], pa.timestamp("us", "UTC"))
    values = ["x"]
    return proof.proof(table, mac, {"g": proof.Marks(early, said)}, values=values)


def found(table: pa.Table, features: list[str], after: timedelta = timedelta(hours=-1)) -> set[tuple[str, str, str]]:
    told = leaks.report(table, marks(table, after), features, outcomes=["outcome_time"])
    return {(one["check"], one["severity"], one["where"]) for one in told}


def test_an_honest_table_has_no_findings() -> None:
    assert found(rows(), ["x"]) == set()


def test_each_leak_is_found() -> None:
    honest = rows()
    y = honest.column("label").to_numpy(zero_copy_only=False).astype(float)
    noise = np.random.default_rng(5).random(COUNT)
    assert ("after_prediction", "leak", "g__write_time") in found(honest, ["x"], timedelta(minutes=1))
    assert ("outcome_as_feature", "leak", "z") in found(rows(z=pa.array(1 - y)), ["z"])
    assert ("outcome_as_feature", "leak", "outcome_time") in found(
        rows(outcome_time=pa.array(noise)), ["outcome_time"]
    )
    assert ("predicts_alone", "suspect", "z") in found(rows(z=pa.array(y * 0.7 + noise * 0.8)), ["z"])
    there = pa.array(noise, mask=y == 0)
    assert ("presence_predicts", "suspect", "z") in found(rows(z=there), ["z"])
    same = pa.array(["p0" if n < 2 else f"p{n}" for n in range(COUNT)])
    assert ("subject_across_sets", "leak", "set") in found(honest.set_column(0, "subject_id", same), ["x"])
    at = honest.column("prediction_time").to_pylist()
    twice = honest.set_column(1, "prediction_time", pa.array([at[0], at[0], *at[2:]])).set_column(
        0, "subject_id", same
    )
    assert ("same_row_twice", "suspect", "prediction_time") in found(twice, ["x"])


def test_auroc_counts_ties_half() -> None:
    y = np.array([True] * 30 + [False] * 30)
    assert leaks.auroc(y, np.zeros(60)) == pytest.approx(0.5)
    assert leaks.auroc(y, y.astype(float)) == 1.0
    assert leaks.auroc(y, np.arange(60.0)) == 0.0


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("number", pa.array([1.0, 2.5])),
        ("whole", pa.array([1, 3])),
        ("flag", pa.array([True, True])),
        ("text", pa.array(["a", "c"])),
        ("moment", pa.array([DAY0, DAY0 + timedelta(microseconds=1)], pa.timestamp("us"))),
        ("list", pa.array([[1, 2], [3, 4]])),
        ("number", pa.array([1.0, None])),
        ("text", pa.array([None, "b"], pa.string())),
    ],
)
def test_a_change_of_any_value_changes_its_rows_hash_and_no_other(column: str, value: pa.Array) -> None:
    table = pa.table(
        {
            "number": [1.0, 2.0], "whole": [1, 2], "flag": [True, False], "text": ["a", "b"],
            "moment": pa.array([DAY0, DAY0], pa.timestamp("us")), "list": [[1, 2], [3]],
        }
    )  # fmt: skip
    keys = pa.array([b"a" * 32, b"b" * 32], pa.binary(32))
    before = proof.row_hashes(table, mac, keys).to_pylist()
    at = table.column_names.index(column)
    changed = [a != b for a, b in zip(table.column(at).to_pylist(), value.to_pylist(), strict=True)]
    after = proof.row_hashes(table.set_column(at, column, value), mac, keys).to_pylist()
    assert [a != b for a, b in zip(before, after, strict=True)] == changed


def test_types_of_one_kind_have_one_hash() -> None:
    keys = pa.array([b"a" * 32], pa.binary(32))
    plain = pa.table(
        {"x": pa.array([1.5]), "t": pa.array(["a"]), "m": pa.array([DAY0], pa.timestamp("us")), "n": [7]}
    )
    other = pa.table(
        {
            "x": pa.array([1.5], pa.float32()),
            "t": pa.array(["a"]).dictionary_encode(),
            "m": pa.array([DAY0], pa.timestamp("ns", "UTC")),
            "n": pa.array([7], pa.int16()),
        }
    )
    assert proof.row_hashes(plain, mac, keys) == proof.row_hashes(other, mac, keys)


def test_marks_are_those_of_what_was_known() -> None:
    def at(days: list[float | None]) -> pa.Array:
        said = [None if one is None else DAY0 + timedelta(days=one) for one in days]
        return pa.array(said, pa.timestamp("us"))

    table = pa.table({"subject_id": ["a", "b", "a"], "prediction_time": at([5, 5, 5])})
    source = pa.table({"subject_id": ["a"] * 3, "event_time": at([1, 2, 4]), "write_time": at([3, None, 9])})
    told = proof.view_marks(table, {"v": source})["v"]
    utc = [one.replace(tzinfo=None) for one in told.event.take([0]).to_pylist()]
    assert utc == [DAY0 + timedelta(days=2)], "the row of day 4 was written later"
    assert told.write[0].as_py().replace(tzinfo=None) == DAY0 + timedelta(days=3)
    assert told.event.is_valid().to_pylist() == [True, False, True]
    group = source.append_column("is_deleted", pa.array([False, True, False])).append_column("x", pa.array([1, 2, 3]))
    best = asof.best(table, {"g": group})
    joined = proof.joined_marks({"g": group}, best)["g"]
    assert joined.event.is_valid().to_pylist() == [True, False, True], "a deletion has its marks"
    keys = proof.keyed(table, mac).to_pylist()
    assert len(set(keys)) == 3, "rows of one subject and time are told apart"
