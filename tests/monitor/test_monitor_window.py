"""Windows are put together of days that were counted before; the kinds of checks, their findings and their report."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from html.parser import HTMLParser

import numpy as np
import pyarrow as pa
import pytest
from sqlalchemy import func, select

from carelake.core.errors import Invalid
from carelake.events.tables import event
from carelake.monitor import erase, outcomes
from carelake.monitor.check import KINDS, Monitor
from carelake.monitor.report import gather, html
from carelake.monitor.tables import profile
from carelake.serving import capture


@pytest.fixture
def endpoint(place, permit):
    place.endpoints.deploy(place.author, "readmission", place.approved())
    return place.endpoints.load(permit, "readmission")


@pytest.fixture
def monitor(place) -> Monitor:
    return Monitor(place.vault, place.nouns, place.outbox)


def _days(place, permit, endpoint, rows_of, days: int, each: int = 150) -> None:
    for day in range(days):
        place.endpoints.predict(permit, endpoint, rows_of(each, 50 + day))
        place.clock.move(days=1)


def _profiles(place, permit) -> int:
    with place.vault.database.reading(permit) as tx:
        return int(tx.execute(select(func.count()).select_from(profile)).scalar_one())


def test_a_day_is_read_once_and_added_up_after_that(place, permit_for, endpoint, monitor, rows_of: Callable) -> None:
    permit = permit_for(
        "clinical:write", "models:read", "rows:read", "rows:write", "rows:erase", principal="endpoint",
        expires=place.clock.now() + timedelta(days=30),
    )  # fmt: skip
    since = place.clock.now() - timedelta(days=1)
    _days(place, permit, endpoint, rows_of, 3)
    place.endpoints.predict(permit, endpoint, rows_of(5, 60))  # a day of few, which is not kept
    place.clock.move(days=1)
    first = monitor.window(permit, endpoint, since, place.clock.now())
    again = monitor.window(permit, endpoint, since, place.clock.now())
    assert (first.rows, first.patients, first.merged) == (455, 455, 0)
    assert (again.rows, again.merged, _profiles(place, permit)) == (455, 3, 3)
    for name, counts in first.seen.items():
        assert counts.cells.tolist() == again.seen[name].cells.tolist()
    # What a day was like is not told by the table, but by the key of the account.
    with place.vault.database.reading(permit) as tx:
        sealed = tx.execute(select(profile.c.sealed)).scalars().first()
    assert b"hemoglobin" not in sealed

    with place.vault.database.transaction(permit) as tx:
        assert erase.forget(tx, "production", "pat-51-7") == 1
        place.vault.sealer.forget(permit, tx, "pat-51-7")
        capture.forget(tx, "production", "pat-51-7")
    assert _profiles(place, permit) == 2
    less = monitor.window(permit, endpoint, since, place.clock.now())
    assert (less.rows, less.merged, less.erased) == (454, 2, 0)


def _labels(captured: capture.Seen, random: np.random.Generator, ended: float) -> pa.Table:
    """Outcomes as the risks say, for a part of the stays."""
    label = [bool(random.random() < p) if random.random() < ended else None for p in captured.p]
    told = {"encounter_id": list(captured.encounter), "label": pa.array(label, pa.bool_())}
    sex = random.choice(["female", "male"], len(label)).tolist()
    return pa.table({**told, "sex": sex, "race": ["unknown"] * len(label), "age_group": ["65-79"] * len(label)})


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [str(value) for name, value in attrs if name in ("src", "href")]


def test_every_kind_makes_a_finding_and_they_make_a_page(place, permit, endpoint, monitor, rows_of: Callable) -> None:
    since = place.clock.now()
    rows = rows_of(1_500, 31)
    place.endpoints.predict(permit, endpoint, rows)
    place.clock.move(minutes=1)
    real = rows.column("label").to_pylist()
    known = pa.array([None if at % 5 == 0 else one for at, one in enumerate(real)], pa.bool_())
    labels = rows.select(["encounter_id", "sex", "age_group"]).append_column("label", known)
    runs = [monitor.run(permit, endpoint, kind, since, labels=labels) for kind in KINDS]
    assert [(run.kind, run.finding.state) for run in runs] == [(kind, "ok") for kind in KINDS]
    data, quality, bias, why = runs
    assert set(data.files) == {"statistics.json", "constraints.json", "constraint_violations.json"}
    assert quality.files["statistics.json"]["binary_classification_metrics"]["auc"]["value"] > 0.6
    assert quality.told["rows"] + quality.told["waiting"] == 1_500
    assert quality.told["estimate"]["figures"]["auc"]["value"] > 0.6
    assert quality.told["calibration"]["slope"] == pytest.approx(1.0, abs=0.4)
    assert {one["value"] for one in quality.told["subgroups"] if one["group"] == "sex"} == {"female", "male"}
    assert "sex" in bias.told["bias"]
    assert "pre_training_bias_metrics" in bias.files["analysis.json"]
    assert why.told["ndcg"] > 0.95
    json.dumps([run.as_json() for run in runs], allow_nan=False)
    assert all(run.finding.body["kind"] == run.kind for run in runs)

    seen = monitor.window(permit, endpoint, since, place.clock.now())
    page = html(gather(endpoint, seen, runs, monitor.findings(permit, endpoint.ref), place.clock.now()))
    read = _Page()
    read.feed(page)
    assert read.links == []
    assert "script" not in read.tags
    assert read.tags.count("svg") >= 4 + 4
    assert "pat-31-" not in page
    assert "enc-31-" not in page


def test_a_model_that_lost_its_meaning_alarms(place, permit, endpoint, monitor, rows_of: Callable) -> None:
    since = place.clock.now()
    place.endpoints.predict(permit, endpoint, rows_of(1_500, 33))
    place.clock.move(minutes=1)
    with place.vault.database.reading(permit) as tx:
        captured = capture.replay(permit, tx, place.vault, endpoint.ref, since, place.clock.now())
    random = np.random.default_rng(2)
    labels = _labels(captured, random, 1.0)
    coin = pa.array((random.random(len(labels)) < 0.5).tolist(), pa.bool_())
    spoiled = labels.set_column(1, "label", coin)
    found = monitor.run(permit, endpoint, "ModelQuality", since, labels=spoiled)
    assert found.finding.state == "drift"
    assert {"auc", "calibration_intercept"} <= {one["metric_name"] for one in found.violations}
    unknown = monitor.run(permit, endpoint, "ModelQuality", since)
    assert (unknown.finding.state, unknown.told["waiting"]) == ("unknown", 1_500)
    with place.vault.database.reading(permit) as tx:
        kinds = tx.scalars(select(event.c.type).where(event.c.subject == found.finding.ref)).all()
    assert kinds == ["carelake.monitor.drift", "carelake.monitor.finding", "carelake.monitor.alarm"]
    with pytest.raises(Invalid):
        monitor.run(permit, endpoint, "Weather", since)


def _seen(
    stays: list[str], at: list[str], y: list[float] | None = None, asked: list[str] | None = None
) -> capture.Seen:
    n = len(stays)
    p = np.linspace(0.1, 0.9, n)
    told = np.asarray(y if y is not None else [np.nan] * n)
    return capture.Seen(
        np.zeros((n, 1)), p, np.arange(n), 0, told, tuple(at), tuple("r" * n), tuple(stays), tuple(asked or at)
    )


def test_only_a_follow_up_that_has_ended_counts() -> None:
    labels = pa.table({"encounter_id": ["a", "b", "c"], "label": [True, None, False], "sex": ["f", "m", None]})
    # b came back early, and is not over: no outcome. d is in no cohort. a was asked twice: the later answer counts.
    seen = _seen(["a", "b", "c", "d", "a"], ["2026-01-01", "2026-01-01", "2026-01-02", "2026-01-02", "2026-01-03"])
    found = outcomes.join(seen, labels, 0.5)
    assert (found.seen.y.tolist(), found.seen.p.tolist()) == ([False, True], pytest.approx([0.5, 0.9]))
    assert found.waiting.tolist() == pytest.approx([0.3])
    assert (found.outside, found.replaced) == (1, 1)
    assert found.groups["sex"].tolist() == ["unknown", "f"]


def test_who_is_asked_about_weeks_later_has_not_come_back_and_does_not_count() -> None:
    labels = pa.table({"encounter_id": ["a", "b"], "label": [False, True]})
    # a was asked about in time, and again after a month; b after a month only.
    month = "2026-02-01"
    seen = _seen(["a", "b", "a"], ["2026-01-01"] * 3, asked=[month, month, "2026-01-02"])
    found = outcomes.join(seen, labels, 0.5)
    assert (found.seen.y.tolist(), found.seen.p.tolist()) == ([False], pytest.approx([0.9]))
    assert (found.late, found.replaced) == (2, 0)


def test_outcomes_that_serving_joined_come_first() -> None:
    seen = _seen(["a", "b"], ["2026-01-01", "2026-01-01"], [1.0, np.nan])
    found = outcomes.join(seen, None, 0.5)
    assert (found.seen.y.tolist(), len(found.waiting), found.outside) == ([True], 1, 0)


def test_early_returns_alone_would_flatter_and_are_left_out() -> None:
    # All have a risk of 0.3 in 30 days; half of the stays are 15 days old, of whom a half of the returns came.
    random = np.random.default_rng(7)
    n = 4_000
    returned, old = random.random(n) < 0.3, np.arange(n) % 2 == 0
    label = [bool(back) if over else None for back, over in zip(returned, old, strict=True)]
    stays = [str(number) for number in range(n)]
    labels = pa.table({"encounter_id": stays, "label": pa.array(label, pa.bool_())})
    found = outcomes.join(_seen(stays, ["2026-01-01"] * n), labels, 0.5)
    assert found.seen.y.mean() == pytest.approx(0.3, abs=0.03)
    assert (len(found.seen), len(found.waiting)) == (2_000, 2_000)
