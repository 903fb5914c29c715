"""The check of an endpoint: over what it really captured, with a finding whatever comes of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import select

from carelake.events.tables import event
from carelake.monitor.check import Monitor, report
from carelake.monitor.withheld import least_of, without_small_cells


@pytest.fixture
def endpoint(place, permit):
    place.endpoints.deploy(place.author, "readmission", place.approved())
    return place.endpoints.load(permit, "readmission")


@pytest.fixture
def monitor(place) -> Monitor:
    return Monitor(place.vault, place.nouns, place.outbox)


def _ask(place, permit, endpoint, rows):
    since = place.clock.now()
    place.clock.move(minutes=1)
    place.endpoints.predict(permit, endpoint, rows)
    place.clock.move(minutes=1)
    return since


def test_it_fires_on_a_shifted_population_only(place, permit, endpoint, monitor, rows_of: Callable) -> None:
    since = _ask(place, permit, endpoint, rows_of(400, 21))
    calm = monitor.check(permit, endpoint, since)
    assert (calm.finding.state, calm.check.violations) == ("ok", [])
    since = _ask(place, permit, endpoint, rows_of(400, 22, shift=1.0))
    found = monitor.check(permit, endpoint, since)
    assert found.finding.state == "drift"
    named = {v["feature_name"] for v in found.check.violations}
    assert {"age", "n_admissions_12m", "prediction"} <= named
    assert "noise" not in named
    assert "columns differ" in report(found)
    assert found.finding.made_from == (endpoint.ref, endpoint.files.ref)


def test_too_few_predictions_are_a_finding_too(place, permit, endpoint, monitor, rows_of: Callable) -> None:
    since = _ask(place, permit, endpoint, rows_of(50, 23, shift=3.0))
    found = monitor.check(permit, endpoint, since)
    assert found.finding.state == "unknown"
    assert "too few" in report(found)
    nothing = monitor.check(permit, endpoint, place.clock.now())
    assert nothing.finding.state == "unknown"


def test_each_check_is_kept_and_announced(place, permit, endpoint, monitor, rows_of: Callable) -> None:
    since = _ask(place, permit, endpoint, rows_of(300, 24))
    found = monitor.check(permit, endpoint, since)
    with place.vault.database.reading(permit) as tx:
        (kept,) = place.nouns.find(tx, "finding", "production")
        kinds = tx.scalars(select(event.c.type).where(event.c.subject == kept.ref)).all()
    assert kept.ref == found.finding.ref
    assert kinds == ["carelake.monitor.ok", "carelake.monitor.finding"]
    assert kept.ref in permit.log.writes
    assert found.as_json()["finding"] == kept.ref


def test_erased_patients_are_left_out_and_counted(
    place, permit, permit_for, endpoint, monitor, rows_of: Callable
) -> None:
    since = _ask(place, permit, endpoint, rows_of(300, 25))
    eraser = permit_for("rows:read", "rows:write", "rows:erase")
    with place.vault.database.transaction(eraser) as tx:
        place.vault.sealer.forget(eraser, tx, "pat-25-7")
    found = monitor.check(permit, endpoint, since)
    assert (found.erased, found.check.rows) == (1, 299)


def test_findings_and_reports_have_no_small_cells_and_who_checks_has_them() -> None:
    cards = {"model": "m", "version": "1", "cards": 40, "accepted": 36, "overridden": 4, "unanswered": 0}
    rates = {"acceptance_rate": 0.9, "override_rate": 0.1, "reasons": {"not-at-risk": 4}}
    few = {"group": "race", "value": "few", "n": 12, "events": 2, "patients": 6, "auroc": None, "intervals": {}}
    many = {"group": "race", "value": "many", "n": 500, "events": 90, "patients": 400, "auroc": 0.7, "intervals": {}}
    more = [{**many, "value": "more", "n": 300, "reason": None}, {**many, "reason": None}, {**few, "reason": "few"}]
    told = {
        "rows": 812,
        "late": 3,
        "erased": 0,
        "estimate": {"rows": 7},
        "cards": [{**cards, **rates}],
        "subgroups": more,
    }
    shown = without_small_cells(told, least_of(11))
    assert (shown["rows"], shown["late"], shown["erased"], shown["estimate"]) == (812, None, 0, {"rows": None})
    assert "not shown" in shown["withheld"]
    (card,) = shown["cards"]
    assert (card["cards"], card["accepted"], card["overridden"], card["override_rate"]) == (40, None, None, None)
    assert card["reasons"] == {}
    assert [one["n"] for one in shown["subgroups"]] == [None, 500, None]
    assert "patients" not in shown["subgroups"][0]
    assert told["subgroups"] == more
    assert least_of(50) == 50
    large = {**cards, **rates, "accepted": 300, "overridden": 80, "unanswered": 20, "cards": 400, "reasons": {}}
    assert without_small_cells({"cards": [large]}, 20)["cards"] == [large]
    of_two = {**large, "reasons": {"known": 77, "not-at-risk": 3}}
    assert without_small_cells({"cards": [of_two]}, 20)["cards"][0]["reasons"] == {}, "80 less 77 would be told"
    assert without_small_cells({"rows": 400, "events": 395}, 20)["events"] is None, "5 would be the rest"
    assert without_small_cells({"rows": 400, "events": 380}, 20) == {"rows": 400, "events": 380}
