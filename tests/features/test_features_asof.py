"""The point-in-time join against a brute-force reference, and the cases that other stores get wrong."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carelake.core.errors import Invalid
from carelake.features import asof

DAY0 = datetime(2020, 1, 1)  # noqa: DTZ001 - UTC without a zone
TIME = pa.timestamp("us")


def day(number: int | None) -> datetime | None:
    return None if number is None else DAY0 + timedelta(days=number)


def labels_of(rows: list[tuple[str, int]]) -> pa.Table:
    return pa.table(
        {
            "subject_id": pa.array([s for s, _ in rows], pa.string()),
            "prediction_time": pa.array([day(t) for _, t in rows], TIME),
            "label": pa.array(range(len(rows)), pa.int64()),
        }
    )


def group_of(rows: list[tuple[str, int, int | None, bool, int]]) -> pa.Table:
    return pa.table(
        {
            "subject_id": pa.array([r[0] for r in rows], pa.string()),
            "event_time": pa.array([day(r[1]) for r in rows], TIME),
            "write_time": pa.array([day(r[2]) for r in rows], TIME),
            "is_deleted": pa.array([r[3] for r in rows], pa.bool_()),
            "value": pa.array([r[4] for r in rows], pa.int64()),
        }
    )


def brute_force(
    labels: list[tuple[str, int]], rows: list[tuple[str, int, int | None, bool, int]], limit: int | None
) -> list[int | None]:
    out: list[int | None] = []
    for who, at in labels:
        known = [
            (event, event if write is None else write, place, deleted, value)
            for place, (subject, event, write, deleted, value) in enumerate(rows)
            if subject == who and event <= at and (event if write is None else write) <= at
        ]
        best = max(known, default=None, key=lambda k: k[:3])
        stale = best is not None and limit is not None and at - best[0] > limit
        out.append(None if best is None or best[3] or stale else best[4])
    return out


subjects = st.sampled_from(["a", "b", "c"])
days = st.integers(0, 9)


@settings(max_examples=150, deadline=None)
@given(
    labels=st.lists(st.tuples(subjects, days), max_size=12),
    rows=st.lists(
        st.tuples(subjects, days, st.none() | st.integers(0, 12), st.booleans(), st.integers(0, 99)), max_size=25
    ),
    limit=st.none() | st.integers(0, 5),
)
def test_join_equals_brute_force_row_by_row(labels: Any, rows: Any, limit: int | None) -> None:
    out = asof.join(
        labels_of(labels), {"g": group_of(rows)}, staleness=None if limit is None else timedelta(days=limit)
    )
    assert out.num_rows == len(labels)
    assert out.select(["subject_id", "prediction_time", "label"]).equals(labels_of(labels))
    assert out.column("g__value").to_pylist() == brute_force(labels, rows, limit)


def test_six_labels_in_six_labels_out() -> None:
    # A patient with future rows only, two identical labels, and a late write: the case that Feast's default drops.
    labels = labels_of([("a", 5), ("a", 5), ("future", 1), ("late", 3), ("none", 9), ("a", 0)])
    group = group_of([("a", 4, 4, False, 1), ("future", 2, 2, False, 2), ("late", 1, 8, False, 3)])
    assert asof.join(labels, {"g": group}).column("g__value").to_pylist() == [1, 1, None, None, None, None]


def test_a_delete_holds_from_its_time_on_only() -> None:
    group = group_of([("a", 1, 1, False, 10), ("a", 5, 5, True, 0), ("a", 7, 7, False, 30)])
    out = asof.join(labels_of([("a", 4), ("a", 5), ("a", 8)]), {"g": group})
    assert out.column("g__value").to_pylist() == [10, None, 30]


def test_times_with_zones_and_coarser_units_are_compared_in_utc() -> None:
    labels = labels_of([("a", 1)])
    group = group_of([("a", 1, 1, False, 7)])
    for name in ("event_time", "write_time"):
        at = group.column_names.index(name)
        group = group.set_column(at, name, group.column(name).cast(pa.timestamp("ms", "UTC")))
    assert asof.join(labels, {"g": group}).column("g__value").to_pylist() == [7]


def test_staleness_may_differ_by_group() -> None:
    group = group_of([("a", 1, 1, False, 7)])
    out = asof.join(labels_of([("a", 5)]), {"x": group, "y": group}, staleness={"x": timedelta(days=2)})
    assert out.column("x__value").to_pylist() == [None]
    assert out.column("y__value").to_pylist() == [7]


def test_missing_and_clashing_columns_are_refused() -> None:
    with pytest.raises(Invalid, match="lacks the columns"):
        asof.join(labels_of([]), {"g": pa.table({"subject_id": pa.array([], pa.string())})})
    labels = labels_of([("a", 1)]).append_column("g__value", pa.array([1]))
    with pytest.raises(Invalid, match="hide another"):
        asof.join(labels, {"g": group_of([("a", 1, 1, False, 7)])})


def test_the_greatest_staleness_is_none() -> None:
    group = group_of([("a", 1, 1, False, 7)])
    out = asof.join(labels_of([("a", 5)]), {"g": group}, staleness=timedelta.max)
    assert out.column("g__value").to_pylist() == [7]


def test_views_of_texts_are_joined() -> None:
    group = group_of([("a", 1, 1, False, 7)])
    for kind, value in ((pa.string_view(), "x"), (pa.binary_view(), b"x")):
        out = asof.join(labels_of([("a", 5), ("b", 5)]), {"g": group.append_column("t", pa.array([value], kind))})
        assert out.column("g__t").to_pylist() == [value, None]
    nested = pa.list_(pa.struct([("text", pa.string_view())]))
    group = group.append_column("t", pa.array([[{"text": "x"}]], nested))
    assert asof.join(labels_of([("a", 5)]), {"g": group}).column("g__t").to_pylist() == [[{"text": "x"}]]


@pytest.mark.parametrize("stored", [pc.run_end_encode, pc.dictionary_encode])
def test_values_are_what_they_are_however_they_are_stored(stored: Any) -> None:
    labels, group = labels_of([("a", 5), ("b", 5)]), group_of([("a", 1, 1, False, 7), ("b", 1, 1, True, 8)])
    for table in (labels, group):
        names = [name for name in table.column_names if name != "label"]
        packed = pa.table({name: stored(table.column(name).combine_chunks()) for name in names})
        labels, group = (packed, group) if table is labels else (labels, packed)
    assert asof.join(labels, {"g": group}).column("g__value").to_pylist() == [7, None]


def test_the_time_of_a_call_is_no_feature() -> None:
    group = group_of([("a", 1, 1, False, 7)])
    group = group.append_column("api_invocation_time", group.column("event_time"))
    assert asof.join(labels_of([("a", 5)]), {"g": group}).column_names[-2:] == ["label", "g__value"]


def test_what_is_no_age_and_no_deletion_is_refused_without_its_value() -> None:
    group = group_of([("a", 1, 1, False, 7)])
    with pytest.raises(Invalid, match="expected a timedelta"):
        asof.join(labels_of([("a", 5)]), {"g": group}, staleness=5)  # type: ignore[arg-type]
    wrong = group.set_column(3, "is_deleted", pa.array(["rubella"]))
    with pytest.raises(Invalid, match="expected booleans") as told:
        asof.join(labels_of([("a", 5)]), {"g": wrong})
    assert "rubella" not in str(told.value)
