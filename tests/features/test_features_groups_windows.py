"""Declared features over time: what is computed step by step is what is computed from scratch, at every moment."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carelake.core.errors import Invalid
from carelake.features.groups.declaration import load, request_of, shipped
from carelake.features.groups.facts import Facts, facts_of
from carelake.features.groups.values import micros
from carelake.features.groups.windows import Steps, differences, nothing, steps, value_at
from carelake.lake.flat import flatten

TAKES = ("any", "count", "distinct", "first", "last", "max", "mean", "min", "slope", "sum")
DECLARED = load(
    'name = "g"\n'
    + "".join(
        f'[[feature]]\nname = "{take}_{window}"\nview = "observations"\nreading = "heart_rate"\ntake = "{take}"\n'
        + (f'window = "{window}"\n' if window != "ever" else "")
        for take in TAKES
        for window in ("2h", "ever")
    )
)
HOUR = timedelta(hours=1)
START = datetime(2026, 1, 1, tzinfo=UTC)


def view(rows: list[dict[str, Any]]) -> dict[str, pa.Table]:
    schema = flatten([], ["observations"])["observations"].schema
    whole = [{**dict.fromkeys(schema.names), **row} for row in rows]
    return {"observations": pa.Table.from_pylist(whole, schema)}


def row(key: str, time: int, issued: int | None, value: float) -> dict[str, Any]:
    def at(minutes: int) -> datetime:
        return (START + timedelta(minutes=minutes)).replace(tzinfo=None)

    return {
        "observation_id": key,
        "component": 0,
        "subject_id": "p",
        "status": "final",
        "code": "8867-4",
        "unit": "/min",
        "time": at(time),
        "issued": None if issued is None else at(issued),
        "value": value,
    }


def brute(rows: list[dict[str, Any]], moment: int) -> tuple[Any, ...]:
    """From scratch, by the words of the declaration."""
    made: list[Any] = []
    for item in DECLARED.feature:
        seen = []
        for one in rows:
            time = micros(one["time"].replace(tzinfo=UTC))
            known = max(time, micros((one["issued"] or one["time"]).replace(tzinfo=UTC)))
            if known <= moment and (item.micros is None or time > moment - item.micros):
                seen.append((time, f"{one['observation_id']}/0", one["value"]))
        seen.sort()
        values = [value for *_, value in seen]
        n = len(values)
        days = [(time - seen[0][0]) / 86_400_000_000 for time, *_ in seen]
        below = math.fsum((day - math.fsum(days) / n) ** 2 for day in days) if n else 0
        slope = None
        if n > 1 and below:
            mean_day, mean = math.fsum(days) / n, math.fsum(values) / n
            slope = math.fsum((d - mean_day) * (v - mean) for d, v in zip(days, values, strict=True)) / below
        made.append(
            {
                "any": int(n > 0),
                "count": n,
                "distinct": len(set(values)),
                "first": values[0] if n else None,
                "last": values[-1] if n else None,
                "max": max(values, default=None),
                "mean": math.fsum(values) / n if n else None,
                "min": min(values, default=None),
                "slope": slope,
                "sum": math.fsum(values),
            }[item.take]
        )
    return tuple(made)


def own(rows: list[dict[str, Any]]) -> list[Facts | None]:
    return [one.get("p") for one in facts_of(DECLARED, view(rows))]


facts = st.builds(
    row,
    st.sampled_from("abcdefgh"),
    st.integers(0, 300),
    st.none() | st.integers(0, 400),
    st.sampled_from([0.1, 0.2, 0.3, 60.0, 61.5, 1e9]),
)
arrivals = st.lists(st.tuples(st.integers(0, 500), facts, st.booleans()), max_size=10)


@settings(max_examples=25, deadline=None)
@given(arrivals, st.lists(st.integers(0, 900), min_size=1, max_size=4))
def test_steps_are_what_is_computed_from_scratch(
    came: list[tuple[int, dict[str, Any], bool]], looks: list[int]
) -> None:
    """Rows arrive late, are corrected and go; computed now and then, the records say what is true at every moment."""
    empty = nothing(DECLARED)
    written: list[tuple[int, int, tuple[Any, ...]]] = []
    online: tuple[int, tuple[Any, ...]] | None = None
    for turn, minute in enumerate(sorted(looks)):
        now = micros(START + timedelta(minutes=minute))
        there: dict[str, dict[str, Any]] = {}
        for at, one, stays in sorted(came, key=lambda each: each[0]):
            if at <= minute:
                there[one["observation_id"]] = one
                if not stays and at < minute - 100:
                    del there[one["observation_id"]]
        rows = list(there.values())
        seen = own(rows)
        new = steps(DECLARED, seen, now)
        beliefs: dict[int, tuple[Any, ...]] = {}
        for _, moment, values in written:
            beliefs[moment] = values
        moments = sorted(beliefs)
        old = Steps(moments, [beliefs[one] for one in moments], None)
        for moment, values in differences(old, new, empty, now, online[1] if online else None):
            written.append((turn, moment, values))
            if online is None or moment > online[0]:
                online = (moment, values)
        beliefs |= {moment: values for _, moment, values in written}
        for back in (0, 1, 60, 119, 120, 240, minute):
            moment = now - back * 60_000_000
            known = [one for one in sorted(beliefs) if one <= moment]
            found = beliefs[known[-1]] if known else empty
            assert found == brute(rows, moment)
            said = tuple(value_at(item, facts, moment) for item, facts in zip(DECLARED.feature, seen, strict=True))
            assert said == found
        assert (online[1] if online else empty) == brute(rows, now)
        # Nothing is written twice.
        again = Steps(sorted(beliefs), [beliefs[one] for one in sorted(beliefs)], None)
        assert differences(again, new, empty, now, online[1] if online else None) == []


@settings(max_examples=20, deadline=None)
@given(st.lists(facts, max_size=8, unique_by=lambda one: one["observation_id"]), st.integers(0, 900))
def test_what_is_due_is_the_next_change(rows: list[dict[str, Any]], minute: int) -> None:
    now = micros(START + timedelta(minutes=minute))
    made = steps(DECLARED, own(rows), now)
    assert all(moment <= now for moment in made.moments)
    if made.due is None:
        assert brute(rows, now) == brute(rows, now + 10**12)
    else:
        assert made.due > now
        assert brute(rows, now) == brute(rows, made.due - 1_000)


def test_what_is_no_fact_does_not_count() -> None:
    good = row("a", 10, None, 60.0)
    rows = [good, {**good, "observation_id": "b", "status": "entered-in-error"}]
    rows += [{**good, "observation_id": "c", "comparator": "<"}, {**good, "observation_id": "d", "unit": "Hz"}]
    rows += [{**good, "observation_id": "e", "code": "1"}, {**good, "observation_id": "f", "subject_id": None}]
    made = steps(DECLARED, own(rows), micros(START + HOUR))
    assert dict(zip((one.name for one in DECLARED.feature), made.rows[-1], strict=True))["count_ever"] == 1


def test_shipped_declarations_are_groups() -> None:
    assert {"patient-utilisation", "patient-vitals-7d"} <= set(shipped())
    for name, text in shipped().items():
        declared = load(text)
        assert declared.name == name == request_of(declared)["FeatureGroupName"]
        assert all(one.description for one in declared.feature)
        facts_of(declared, flatten([], declared.views))


@pytest.mark.parametrize(
    "wrong",
    ['take = "median"', 'window = "7y"', 'view = "claims"', 'reading = "mood"', "text = true", "surprise = 1"],
)
def test_a_declaration_that_is_wrong_is_refused(wrong: str) -> None:
    lines = {"take": 'take = "mean"', "view": 'view = "observations"', "name": 'name = "x"'}
    lines[wrong.split(" ")[0]] = wrong
    with pytest.raises(Invalid) as caught:
        load('name = "g"\n[[feature]]\n' + "\n".join(lines.values()))
    assert caught.value.code == "features.declaration"
