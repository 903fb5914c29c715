"""Counts add up exactly, hold no single patient, and become SageMaker's files; sketches agree with sorting."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from carelake.core.errors import Invalid
from carelake.monitor import spread
from carelake.monitor.baseline import Baseline, counted_table, of_shards, of_table
from carelake.monitor.drift import judge
from carelake.monitor.spread import Column, count, measure, measure_words
from carelake.monitor.statistics import statistics

_NUMBERS = st.lists(
    st.one_of(st.just(float("nan")), st.integers(-5, 5).map(float), st.floats(-1e6, 1e6)), max_size=80
)


@given(_NUMBERS, _NUMBERS, _NUMBERS)
def test_counts_of_parts_are_the_count_of_the_whole(base: list[float], one: list[float], other: list[float]) -> None:
    column = measure(np.asarray(base * 12, dtype=np.float64))
    first, second = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    both, whole = count(column, first) + count(column, second), count(column, np.concatenate([first, second]))
    assert both.cells.tolist() == whole.cells.tolist()
    assert len(whole.cells) == column.cells
    assert (both.missing, both.rows, both.broken, both.negative) == (
        whole.missing, whole.rows, whole.broken, whole.negative,
    )  # fmt: skip
    assert both.total == pytest.approx(whole.total, rel=1e-9, abs=1e-3)


@given(st.lists(st.one_of(st.integers(0, 3).map(float), st.floats(-1e3, 1e3)), max_size=400))
def test_between_two_points_lie_at_least_ten_rows(values: list[float]) -> None:
    known = np.sort(np.asarray(values, dtype=np.float64))
    points, below = spread.placed(known)
    assert len(points) <= 257
    upto = [round(share * len(known)) for share in below]
    assert all(b - a >= spread.FEW for a, b in zip([0, *upto], upto, strict=False))
    assert all((known >= point).sum() >= spread.FEW for point in points)


def test_a_rare_value_of_few_is_not_kept() -> None:
    values = np.concatenate([np.zeros(500), np.ones(400), [47.0, 48.0, -3.0]])
    assert measure(values).points == [0.0, 1.0]
    words = measure_words(["a"] * 50 + ["b"] * 20 + ["Mrs Rare"] * 2 + [None])
    assert (words.words, words.missing) == (["a", "b"], 1)


def test_counts_over_other_cells_do_not_add_up() -> None:
    one, other = measure(np.arange(100.0)), measure(np.arange(300.0))
    with pytest.raises(Invalid):
        count(one, np.zeros(3)) + count(other, np.zeros(3))


def test_the_sketch_has_sagemakers_shape_and_ranks() -> None:
    random = np.random.default_rng(1)
    values = random.normal(size=20_000)
    column = measure(values)
    seen = count(column, random.normal(size=30_000))
    [told] = statistics({"x": column}, {"x": seen}, 30_000)["features"]
    kll = told["numerical_statistics"]["distribution"]["kll"]
    assert kll["sketch"]["parameters"] == {"c": 0.64, "k": 2048.0}
    assert len(kll["buckets"]) == 10
    assert sum(bucket["count"] for bucket in kll["buckets"]) == 30_000
    items = sorted((value, 2**level) for level, found in enumerate(kll["sketch"]["data"]) for value in found)
    assert all(weight >= 16 for _, weight in items)
    total = sum(weight for _, weight in items)
    assert 30_000 - total < 16
    values, weights = zip(*items, strict=True)
    assert abs(values[int(np.searchsorted(np.cumsum(weights), total / 2))]) < 0.05


def test_merged_sketches_of_shards_give_the_column_that_sorting_gives() -> None:
    pytest.importorskip("datasketches")
    from carelake.monitor.sketch import RANK_ERROR, Sketch

    random = np.random.default_rng(2)
    shards = [random.lognormal(size=20_000) for _ in range(4)]
    shards[0][:500] = np.nan
    total = Sketch()
    for shard in shards:
        one = Sketch()
        one.add(shard)
        total.merge(one)
    column, values = total.column(), np.concatenate(shards)
    known = np.sort(values[~np.isnan(values)])
    assert (column.present, column.missing, total.rows) == (len(known), 500, 80_000)
    real = np.searchsorted(known, column.points, side="right") / len(known)
    assert np.abs(real - column.below).max() < 2 * RANK_ERROR
    flags = Sketch()
    flags.add((random.random(3_000) < 0.3).astype(float))
    assert flags.column().points == [0.0, 1.0]
    assert flags.column().whole


def _table(rows: int, seed: int, *, unit: str = "mg", odd: float = 0.0) -> pa.Table:
    random = np.random.default_rng(seed)
    words = np.where(random.random(rows) < 0.7, unit, "g").astype(object)
    words[random.random(rows) < odd] = "stone"
    return pa.table(
        {
            "days": random.poisson(4, rows) + (0.5 if unit == "half" else 0.0),
            "unit": pa.array(words.tolist(), pa.string()),
            "flag": random.random(rows) < 0.2,
            "when": pa.array([None] * rows, pa.timestamp("us")),
        }
    )


def _judged(base: Baseline, table: pa.Table) -> set[tuple[str, str]]:
    found = judge(base, counted_table(base.spread, table), table.num_rows, patients=table.num_rows)
    return {(one["feature_name"], one["constraint_check_type"]) for one in found.violations}


def test_text_has_categories_and_is_compared_by_shares() -> None:
    base = of_table(_table(2_000, 1), "test")
    assert set(base.spread) == {"days", "unit", "flag"}
    told = next(one for one in base.statistics["features"] if one["name"] == "unit")
    assert told["inferred_type"] == "String"
    buckets = told["string_statistics"]["distribution"]["categorical"]["buckets"]
    assert {one["value"] for one in buckets} == {"mg", "g"}
    [said] = [one for one in base.constraints["features"] if one["name"] == "unit"]
    assert said["string_constraints"] == {"domains": ["mg", "g"]}
    assert _judged(base, _table(1_000, 2)) == set()
    assert ("unit", "categorical_values_check") in _judged(base, _table(1_000, 3, odd=0.3))
    assert ("unit", "baseline_drift_check") in _judged(base, _table(1_000, 4, unit="ng"))
    assert ("days", "data_type_check") in _judged(base, _table(1_000, 5, unit="half"))
    assert ("flag", "missing_column_check") in _judged(base, _table(1_000, 6).drop_columns(["flag"]))


def test_an_old_baseline_is_read_as_it_is() -> None:
    old = {"points": [0.0, 1.0], "below": [0.5, 1.0], "present": 100, "missing": 0}
    base = Baseline.from_json(
        {"statistics": {}, "constraints": {}, "spread": {"x": old}, "rows": 100, "source": "test rows", "format": 1}
    )
    assert base.spread["x"] == Column([0.0, 1.0], [0.5, 1.0], 100, 0)
    assert (base.quality, base.bias) == ({}, {})


def test_shards_give_what_the_whole_table_gives() -> None:
    pytest.importorskip("datasketches")
    whole = _table(30_000, 7)
    shards = [whole.slice(at, 5_000) for at in range(0, 30_000, 5_000)]
    one, many = of_table(whole, "test"), of_shards(shards, "test")
    assert many.spread.keys() == one.spread.keys()
    assert many.spread["unit"] == one.spread["unit"]
    days, sketched = one.spread["days"], many.spread["days"]
    assert len(sketched.points) >= 8
    exact = dict(zip(days.points, days.below, strict=True))
    assert all(abs(exact[v] - share) < 0.003 for v, share in zip(sketched.points, sketched.below, strict=True))
    whole_by_name = {told["name"]: told for told in one.statistics["features"]}
    for told in many.statistics["features"]:
        part = "string_statistics" if told["name"] == "unit" else "numerical_statistics"
        assert told[part]["common"] == whole_by_name[told["name"]][part]["common"]
    assert _judged(many, _table(2_000, 8)) == set()
    assert ("unit", "baseline_drift_check") in _judged(many, _table(2_000, 9, unit="ng"))
