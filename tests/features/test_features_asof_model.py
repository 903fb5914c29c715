"""The join against a reference that looks at every row for every label: whatever the times, types and orders."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carelake.core.errors import Invalid
from carelake.features import asof

START = datetime(2020, 1, 1, tzinfo=UTC)
EAST = timezone(timedelta(hours=5, minutes=30))
Moment = int | None
Fact = tuple[Any, Moment, Moment, bool | None, int]
SUBJECTS: dict[str, tuple[list[Any], list[pa.DataType]]] = {
    "text": (["a", "b", "c", "é"], [pa.string(), pa.large_string(), pa.dictionary(pa.int16(), pa.string())]),
    "number": ([1, 2, 3, 2**40], [pa.int64(), pa.uint64(), pa.dictionary(pa.int8(), pa.int64())]),
}
TIMES = [
    pa.timestamp("us"),
    pa.timestamp("us", "UTC"),
    pa.timestamp("us", "Asia/Kolkata"),
    pa.timestamp("ns"),
    pa.timestamp("ms"),
]


def moment(number: Moment) -> datetime | None:
    """Hours from the start; a naive column gets the same moment in UTC."""
    return None if number is None else START + timedelta(hours=number)


def times(numbers: list[Moment], kind: pa.DataType) -> pa.Array:
    said = [moment(one) for one in numbers]
    if kind.tz is None:
        return pa.array([None if one is None else one.replace(tzinfo=None) for one in said], kind)
    return pa.array([None if one is None else one.astimezone(EAST) for one in said], kind)


def reference(labels: list[tuple[Any, Moment]], facts: list[Fact], limit: int | None) -> list[int | None]:
    """For each label, by looking at every fact."""
    out: list[int | None] = []
    for who, at in labels:
        best: tuple[tuple[int, int, int], bool, int, int] | None = None
        for place, (subject, event, write, deleted, value) in enumerate(facts):
            if who is None or at is None or subject != who or event is None:
                continue
            then = event if write is None else write
            if event > at or then > at:
                continue
            if best is None or (event, then, place) > best[0]:
                best = ((event, then, place), bool(deleted), event, value)
        gone = best is None or best[1] or (limit is not None and at is not None and at - best[2] > limit)
        out.append(None if gone or best is None else best[3])
    return out


@st.composite
def worlds(draw: st.DrawFn) -> dict[str, Any]:
    people, kinds = SUBJECTS[draw(st.sampled_from(sorted(SUBJECTS)))]
    who = st.none() | st.sampled_from(people)
    when = st.none() | st.integers(0, 12)
    facts = st.lists(st.tuples(who, when, when, st.none() | st.booleans(), st.integers(0, 99)), max_size=30)
    order = draw(st.sampled_from(["any", "time", "subject"]))
    rows: list[Fact] = draw(facts)
    if order != "any":
        rows.sort(key=lambda r: ((str(r[0]) if order == "subject" else ""), -1 if r[1] is None else r[1]))
    labels = draw(st.lists(st.tuples(who, when), max_size=14))
    return {
        "labels": labels + draw(st.sampled_from([[], labels[:3]])),  # some of them twice
        "facts": rows,
        "limit": draw(st.none() | st.integers(0, 6)),
        "kinds": [draw(st.sampled_from(kinds)) for _ in range(2)],
        "times": [draw(st.sampled_from(TIMES)) for _ in range(3)],
        "chunks": draw(st.integers(1, 4)),
    }


def tables(world: dict[str, Any]) -> tuple[pa.Table, pa.Table]:
    labels, facts = world["labels"], world["facts"]
    told = pa.table(
        {
            "subject_id": subjects([one[0] for one in labels], world["kinds"][0]),
            "prediction_time": times([one[1] for one in labels], world["times"][0]),
            "y": pa.array(range(len(labels)), pa.int32()),
        }
    )
    group = pa.table(
        {
            "value": pa.array([one[4] for one in facts], pa.int64()),
            "subject_id": subjects([one[0] for one in facts], world["kinds"][1]),
            "event_time": times([one[1] for one in facts], world["times"][1]),
            "write_time": times([one[2] for one in facts], world["times"][2]),
            "is_deleted": pa.array([one[3] for one in facts], pa.bool_()),
        }
    )
    size = max(1, len(group) // world["chunks"])
    parts = [group.slice(at, size) for at in range(0, len(group), size)]
    return told, pa.concat_tables(parts) if parts else group


def subjects(said: list[Any], kind: pa.DataType) -> pa.Array:
    if pa.types.is_dictionary(kind):
        return pa.array(said, kind.value_type).dictionary_encode()
    return pa.array(said, kind)


@settings(max_examples=200, deadline=None)
@given(world=worlds())
def test_the_join_is_the_reference_row_by_row(world: dict[str, Any]) -> None:
    labels, group = tables(world)
    limit = world["limit"]
    staleness = None if limit is None else timedelta(hours=limit)
    out = asof.join(labels, {"g": group}, staleness=staleness)
    assert out.drop_columns(["g__value"]).equals(labels), "one row for each label, unchanged, in its place"
    assert out.column("g__value").to_pylist() == reference(world["labels"], world["facts"], limit)


@settings(max_examples=50, deadline=None)
@given(world=worlds())
def test_what_was_used_was_known_then(world: dict[str, Any]) -> None:
    labels, group = tables(world)
    found = asof.best(labels, {"g": group})["g"]
    for (who, at), place in zip(world["labels"], found.rows.tolist(), strict=True):
        if place >= 0:
            subject, event, write, *_ = world["facts"][place]
            assert subject == who
            assert max(event, event if write is None else write) <= at


def test_many_subjects_are_told_apart_beyond_sixteen_bits() -> None:
    count = 70_000
    at = pa.array([START] * count, pa.timestamp("us", "UTC"))
    labels = pa.table({"subject_id": pa.array(range(count)), "prediction_time": at})
    who = pa.array(reversed(range(count)), pa.int64())
    group = pa.table(
        {"subject_id": who, "event_time": at, "write_time": at, "is_deleted": [False] * count, "value": who}
    )
    assert asof.join(labels, {"g": group}).column("g__value").equals(labels.column("subject_id"))


def test_a_nanosecond_after_is_after() -> None:
    kind = pa.timestamp("ns")
    labels = pa.table({"subject_id": ["a", "a"], "prediction_time": pa.array([1_000_001, 1_000_002], kind)})
    moments = pa.array([1_000_002], kind)
    group = pa.table(
        {"subject_id": ["a"], "event_time": moments, "write_time": moments, "is_deleted": [False], "v": [7]}
    )
    assert asof.join(labels, {"g": group}).column("g__v").to_pylist() == [None, 7]
    # The far future in microseconds does not fit into nanoseconds; it is still after.
    far = group.set_column(2, "write_time", pa.array([datetime(9999, 1, 1)], pa.timestamp("us")))  # noqa: DTZ001
    assert asof.join(labels, {"g": far}).column("g__v").to_pylist() == [None, None]


def test_days_are_their_beginnings_and_no_rows_are_no_rows() -> None:
    labels = pa.table({"subject_id": ["a"], "prediction_time": [date(2020, 1, 2)]})
    group = pa.table(
        {"subject_id": ["a"], "event_time": [date(2020, 1, 2)], "write_time": pa.nulls(1), "is_deleted": pa.nulls(1),
         "v": [1]}
    )  # fmt: skip
    assert asof.join(labels, {"g": group}).column("g__v").to_pylist() == [1]
    assert asof.join(labels, {"g": group.slice(0, 0)}).column("g__v").to_pylist() == [None]
    assert asof.join(labels.slice(0, 0), {"g": group}).num_rows == 0


def test_what_cannot_be_compared_is_refused() -> None:
    labels, group = tables({"labels": [("a", 1)], "facts": [("a", 1, 1, False, 1)], "kinds": [pa.string()] * 2,
                            "times": [pa.timestamp("us")] * 3, "chunks": 1})  # fmt: skip
    number = group.set_column(1, "subject_id", pa.array([1]))
    for bad, wrong, code in (
        (labels, number, "features.asof_subject"),
        (labels, group.set_column(1, "subject_id", pa.array([1.5])), "features.asof_subject"),
        (labels, group.set_column(2, "event_time", pa.array(["2020-01-01"])), "features.asof_time"),
        (labels.set_column(1, "prediction_time", pa.array([5])), group, "features.asof_time"),
        (labels, group.append_column("value", pa.array([1])), "features.asof_column"),
    ):
        with pytest.raises(Invalid) as refused:
            asof.join(bad, {"g": wrong})
        assert refused.value.code == code
    for staleness in ({"h": timedelta(1)}, timedelta(-1)):
        with pytest.raises(Invalid) as refused:
            asof.join(labels, {"g": group}, staleness=staleness)
        assert refused.value.code == "features.asof_staleness"
