"""Labels of a design against a reference that follows each moment by hand."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carelake.core.errors import Invalid
from carelake.features.datasets.design import Design, Exclusion
from carelake.features.datasets.labels import build

DAY0 = datetime(2022, 1, 1)  # noqa: DTZ001 - UTC without a zone
TIME = pa.timestamp("us")
Hours = int | None


def at(hours: Hours) -> datetime | None:
    return None if hours is None else DAY0 + timedelta(hours=hours)


def periods(rows: list[tuple[Any, Hours, Hours]]) -> pa.Table:
    return pa.table(
        {
            "subject_id": pa.array([one[0] for one in rows], pa.string()),
            "start_time": pa.array([at(one[1]) for one in rows], TIME),
            "end_time": pa.array([at(one[2]) for one in rows], TIME),
            "nth": pa.array(range(len(rows)), pa.int64()),
        }
    )


def events(rows: list[tuple[Any, Hours]]) -> pa.Table:
    who = pa.array([one[0] for one in rows], pa.string())
    return pa.table({"subject_id": who, "time": pa.array([at(one[1]) for one in rows], TIME)})


def moments(design: Design, start: Hours, end: Hours, last: int) -> list[Hours]:
    if design.every_hours:
        if start is None:
            return []
        first = start + (design.offset_hours or design.every_hours)
        return list(range(first, min(last if end is None else end, last), design.every_hours))
    base = end if design.predict == "end" else start
    return [None if base is None else base + design.offset_hours]


def reference(design: Design, world: dict[str, Any], last: int) -> tuple[list[tuple[Any, ...]], dict[str, int]]:
    """Rows as (subject, time, label, event, nth), and reasons."""
    rows, reasons = [], {}
    entries = list(enumerate(world["target"]))
    for nth, (who, start, end) in entries:
        before = [
            (s, n)
            for n, (w, s, _) in entries
            if w == who and ((s is None, s or 0), n) < ((start is None, start or 0), nth)
        ]
        for t in moments(design, start, end, last):
            reason = _reason(design, world, who, start, t, before, last)
            if reason:
                reasons[reason] = reasons.get(reason, 0) + 1
                continue
            rows.append((who, t, *_outcome(design, world, who, t, last), nth))
    return sorted(rows, key=lambda r: (r[0], r[1], r[4])), reasons


def _reason(design: Design, world: dict[str, Any], who: Any, start: Hours, t: Hours, before: Any, last: int) -> str:
    if who is None or t is None:
        return "no_prediction_time"
    if t > last or (start is not None and start > last):
        return "after_data_end"
    if design.take == "first" and before:
        return "not_first"
    lately = max((s for s, _ in before if s is not None), default=None)
    if design.washout_days and lately is not None and start is not None and lately > start - 24 * design.washout_days:
        return "washout"
    prior = [o for w, o in world["outcome"] if w == who and o is not None and o <= t]
    days = design.prior_outcome_days
    if days and any(days == -1 or o > t - 24 * days for o in prior):
        return "prior_outcome"
    if any(w == who and c is not None and c <= t for w, c in world["competing"]):
        return "competing_before"
    for one in design.exclusions:
        if any(
            w == who and x is not None and x <= t and (not one.days or x > t - 24 * one.days) for w, x in world["x"]
        ):
            return one.name
    return ""


def _outcome(design: Design, world: dict[str, Any], who: Any, t: int, last: int) -> tuple[bool | None, str]:
    until = t + design.to_hours
    coming = [o for w, o in world["outcome"] if w == who and o is not None and t + design.from_hours < o <= until]
    outcome = min(coming, default=None)
    outcome = None if outcome is None or outcome > last else outcome
    death = min((c for w, c in world["competing"] if w == who and c is not None), default=None)
    if death is not None and death > min(until, last):
        death = None
    seen = until <= last
    first = outcome is not None and (death is None or outcome <= death)
    if first:
        return (True if seen or design.censoring == "events" else None), "outcome"
    if death is not None:
        known = design.competing_label == "negative" and (seen or design.censoring == "events")
        return (False if known else None), "competing"
    return (False if seen else None), "none" if seen else "censored"


who = st.sampled_from(["a", "b", "c"])
hour = st.none() | st.integers(0, 200)
worlds = st.fixed_dictionaries(
    {
        "target": st.lists(st.tuples(st.none() | who, hour, hour), max_size=6),
        "outcome": st.lists(st.tuples(who, hour), max_size=6),
        "competing": st.lists(st.tuples(who, hour), max_size=3),
        "x": st.lists(st.tuples(who, hour), max_size=4),
    }
)
designs = st.builds(
    Design,
    target=st.just(""),
    outcome=st.just(""),
    from_hours=st.integers(0, 10),
    to_hours=st.integers(11, 80),
    predict=st.sampled_from(["start", "end"]),
    offset_hours=st.sampled_from([0, 5]),
    every_hours=st.sampled_from([0, 0, 17]),
    take=st.sampled_from(["all", "first"]),
    washout_days=st.sampled_from([0, 2]),
    prior_outcome_days=st.sampled_from([0, -1, 1]),
    competing=st.just("SELECT"),
    competing_label=st.sampled_from(["negative", "unknown"]),
    censoring=st.sampled_from(["unknown", "events"]),
    exclusions=st.sampled_from([(), (Exclusion("x", "", 1),), (Exclusion("x", "", 0),)]),
)


@settings(max_examples=40, deadline=None)
@given(design=designs, world=worlds)
def test_labels_are_the_reference(design: Design, world: dict[str, Any]) -> None:
    last = 150
    told = {name: events(world[name]) for name in ("outcome", "competing")}
    made = build(design, {"target": periods(world["target"]), **told, "exclusion.x": events(world["x"])}, at(last))  # type: ignore[arg-type]
    rows, reasons = reference(design, world, last)
    found = [
        (r["subject_id"], (r["prediction_time"] - DAY0) // timedelta(hours=1), r["label"], r["event"], r["nth"])
        for r in made.table.to_pylist()
    ]
    assert found == rows
    assert {name: count for name, count in made.attrition.items() if name in reasons} == reasons
    assert sum(reasons.values()) + len(rows) == made.attrition["moments"]
    assert all(r["days_at_risk"] <= design.to_hours / 24 for r in made.table.to_pylist())


def test_observation_is_asked_for_and_ends_the_follow_up() -> None:
    design = Design(target="", outcome="", to_hours=48, observation="SELECT", observed_days=1)
    told = {"target": periods([("a", 0, 30), ("b", 0, 30), ("c", 0, 30)]), "outcome": events([])}
    seen = periods([("a", 0, 200), ("b", 20, 200), ("c", 0, 60)])
    made = build(design, {**told, "observation": seen}, at(500))  # type: ignore[arg-type]
    assert [(r["subject_id"], r["label"]) for r in made.table.to_pylist()] == [("a", False), ("c", None)]
    assert made.attrition["not_observed"] == 1
    assert made.table.column("days_at_risk").to_pylist() == [2.0, 1.25]


def test_columns_are_asked_for() -> None:
    design = Design(target="", outcome="", to_hours=1)
    with pytest.raises(Invalid, match="lacks the column"):
        build(design, {"target": events([]), "outcome": events([])}, DAY0)
    wrong = periods([]).set_column(1, "start_time", pa.array([], pa.binary()))
    with pytest.raises(Invalid, match="another type"):
        build(design, {"target": wrong, "outcome": events([])}, DAY0)
