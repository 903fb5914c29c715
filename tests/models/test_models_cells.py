"""Small cells are not there, nor what they could be worked out of."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from carelake.models import cells


def group(value: str, n: int, events: int, **more: Any) -> dict[str, Any]:
    figures = {"auroc": 0.7, "intervals": {"auroc": [0.6, 0.8]}, "reason": None}
    return {"group": "race", "value": value, "n": n, "events": events, **figures, **more}


def test_a_group_of_few_patients_has_no_figures_and_its_number_is_not_the_rest() -> None:
    found = [group("a", 900, 200, alert={"ppv": 0.5}), group("b", 60, 30, alert={"ppv": 0.5}), group("c", 30, 25)]
    shown = cells.suppressed(found, [800, 50, 6])
    assert [one["n"] for one in shown] == [900, None, None], "900 and the total would tell the small one"
    assert (shown[2]["auroc"], shown[2]["intervals"], shown[2]["reason"]) == (None, {}, "fewer than 20 patients")
    assert (shown[1]["auroc"], shown[1]["reason"]) == (0.7, None)
    assert "not shown" in shown[1]["withheld"]
    assert (shown[0]["alert"], shown[1]["alert"]) == ({"ppv": 0.5}, None), "what an alert did tells how many"
    assert "withheld" not in shown[0]


def test_events_are_hidden_where_these_or_the_others_are_few() -> None:
    found = [group("a", 900, 200), group("b", 400, 3), group("c", 300, 290), group("d", 500, 100)]
    assert [one["events"] for one in cells.suppressed(found, [900, 400, 300, 500])] == [200, None, None, 100]
    assert cells.suppressed(found[:1], [900]) == found[:1]
    assert cells.count(0) == 0
    assert [cells.count(1), cells.count(19), cells.count(20)] == [None, None, 20]


def test_hidden_groups_that_are_few_together_are_not_the_rest_of_the_total() -> None:
    found = [group("a", 900, 200), group("b", 60, 30), group("c", 1, 0), group("d", 1, 1)]
    shown = cells.suppressed(found, [800, 50, 1, 1])
    assert [one["n"] for one in shown] == [900, None, None, None], "of two that are two together, each is one"
    assert [one["events"] for one in shown] == [200, None, None, None]


@given(st.lists(st.tuples(st.integers(1, 60), st.integers(0, 60)), min_size=1, max_size=6), st.integers(2, 30))
def test_no_small_count_is_left_and_none_follows_from_the_total(rows: list[tuple[int, int]], least: int) -> None:
    found = [group(str(at), n, min(n, events)) for at, (n, events) in enumerate(rows)]
    shown = cells.suppressed(found, [one["n"] for one in found], least)
    assert not [one for one in shown if one["n"] is not None and one["n"] < least]
    for key in ("n", "events"):
        hidden = sum(one[key] is None for one in shown)
        assert hidden != 1 or len(shown) == 1
        together = sum(was[key] for was, one in zip(found, shown, strict=True) if one[key] is None)
        assert not 0 < hidden < len(shown) or together >= least, "the rest tells what is few together"
    for one in shown:
        if one["events"] is not None and one["n"] is not None:
            assert min(one["events"], one["n"] - one["events"]) >= least
