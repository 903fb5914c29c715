"""Alarms say what is wrong, what is well, and when there is too little to tell."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carelake.core.settings import ServingSettings
from carelake.monitor import baseline
from carelake.serving import windows
from carelake.serving.alarms import ALARM, INSUFFICIENT, OK, Alarm, Profile, distances, evaluate

BOUNDS = ServingSettings()
RANDOM = np.random.default_rng(5)


def risks(count: int, shift: float = 0.0) -> np.ndarray:
    return 1 / (1 + np.exp(-(RANDOM.normal(-2.0 + shift, 0.8, count))))


def metrics(**counts: dict[int, int] | list[int]) -> dict[str, Counter[int]]:
    found: dict[str, Counter[int]] = defaultdict(Counter)
    for name, told in counts.items():
        found[name] = Counter(told)
    return found


def told(
    name: str, profile: Profile | None = None, *, beside: bool = True, **counts: dict[int, int] | list[int]
) -> Alarm:
    names = ("age", "sodium")
    (alarm,) = evaluate(metrics(**counts), names, profile or Profile(), BOUNDS, (name,), paired=beside)
    return alarm


def scored(p: np.ndarray) -> list[int]:
    return windows.histogram(p)


@pytest.fixture(scope="module")
def profile() -> Profile:
    x = np.column_stack([RANDOM.normal(size=4000), np.where(RANDOM.random(4000) < 0.1, np.nan, 1.0)])
    return Profile.of({"spread": _plain(baseline.profile(x, risks(4000), ("age", "sodium"), "test rows"))})


def _plain(made: baseline.Baseline) -> dict:
    import json

    return json.loads(made.to_bytes())["spread"]


def test_scores_that_moved_ring_and_those_that_did_not_are_well(profile: Profile) -> None:
    rows = 500
    assert told("score-distribution", profile, score=scored(risks(rows))).state == OK
    moved = told("score-distribution", profile, score=scored(risks(rows, 1.0)))
    assert moved.state == ALARM
    assert moved.figures["baseline"]["linf"] > 0.1
    assert told("score-distribution", profile, score=scored(risks(50, 3.0))).state == INSUFFICIENT
    assert told("score-distribution", score=scored(risks(rows))).state == INSUFFICIENT


def test_a_population_that_moved_does_not_blame_the_new_version(profile: Profile) -> None:
    now = risks(500, 1.0)
    same = {"score": scored(now), "paired": scored(now), "peer": scored(now)}
    assert told("score-distribution", profile, **same).state == OK
    assert told("score-distribution", profile, beside=False, **same).state == ALARM
    other = {**same, "peer": scored(risks(500))}
    assert told("score-distribution", profile, **other).state == ALARM


def test_unshifted_scores_ring_hardly_ever(profile: Profile) -> None:
    rung = sum(told("score-distribution", profile, score=scored(risks(150))).state == ALARM for _ in range(300))
    assert rung <= 2


def test_errors_and_latency() -> None:
    quick = {windows.latency_bin(0.004): 100}
    assert told("errors", latency=quick).state == OK
    assert told("errors", latency=quick, error={5: 20}).state == ALARM
    assert told("errors", latency=quick, error={4: 90}).state == OK
    assert told("errors", latency={0: 3}).state == INSUFFICIENT
    assert told("latency", latency=quick).figures["p95_ms"] == 4.0
    assert told("latency", latency={windows.latency_bin(2.0): 100}).state == ALARM
    assert told("latency", latency={windows.latency_bin(99.0): 100}).figures["p95_ms"] is None


def test_missing_features_are_named_without_values(profile: Profile) -> None:
    assert told("missingness", profile, rows={0: 200}, missing={1: 22}).state == OK
    found = told("missingness", profile, rows={0: 200}, missing={1: 120})
    assert (found.state, list(found.figures["fallen"])) == (ALARM, ["sodium"])
    assert told("missingness", rows={0: 200}).state == INSUFFICIENT


@pytest.mark.parametrize(("observed", "state"), [(20, OK), (24, OK), (45, ALARM), (4, ALARM)])
def test_calibration_needs_distance_and_no_accident(observed: int, state: str) -> None:
    counts = {"expected": {0: 20_000_000}, "spread": {0: 16_000_000}, "labelled": {0: 100}}
    assert told("calibration", observed={0: observed}, **counts).state == state
    assert told("calibration", observed={0: observed}, **{**counts, "labelled": {0: 99}}).state == INSUFFICIENT


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(0, 500), min_size=64, max_size=64), st.lists(st.integers(0, 500), min_size=64, max_size=64)
)
def test_counts_of_windows_add_up(one: list[int], two: list[int]) -> None:
    here, other = np.asarray(one, dtype=float), np.asarray(two, dtype=float)
    psi, linf, *_ = distances(here + other, here + other)
    assert (psi, linf) == (pytest.approx(0), pytest.approx(0))
    assert 0 <= distances(here, other)[1] <= 1
