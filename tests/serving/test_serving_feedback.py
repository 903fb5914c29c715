"""Cards and what was done about them: the card's form, whose cards feedback reaches, rates, and forgetting."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Connection

from carelake.core.errors import NotFound
from carelake.serving import capture, feedback
from carelake.serving.cards import card, note_on_calibration
from carelake.serving.feedback import Told
from carelake.serving.predictions import Prediction


@pytest.fixture
def shown(place, permit, rows_of: Callable) -> tuple[list[str], list[Prediction]]:
    """Cards of six predictions, two of the second model version."""
    place.endpoints.deploy(place.author, "readmission", place.approved())
    endpoint = place.endpoints.load(permit, "readmission")
    uuids = [str(uuid4()) for _ in range(6)]

    def along(tx: Connection, answers: Sequence[Prediction]) -> None:
        for number, (uuid, one) in enumerate(zip(uuids, answers, strict=True)):
            version = ("readmission", "1" if number < 4 else "2")
            feedback.shown(permit, tx, place.vault, one, uuid, "service", version)

    return uuids, place.endpoints.predict(permit, endpoint, rows_of(6, 3), along=along)


def tell(place: Any, permit: Any, *told: Told, service: str = "service") -> int:
    with place.vault.database.transaction(permit) as tx:
        return feedback.tell(permit, tx, place.vault, service, told)


def test_rates_by_model_version(place, permit, shown) -> None:
    uuids, _ = shown
    now = place.clock.now()
    tell(
        place,
        permit,
        Told(uuids[0], "accepted", now),
        Told(uuids[1], "accepted", now - timedelta(hours=1)),
        Told(uuids[1], "overridden", now, "declined"),
        Told(uuids[4], "overridden", now, "other", {"userComment": "no"}),
    )
    with place.vault.database.reading(permit) as tx:
        soon, end = now - timedelta(days=1), now + timedelta(days=1)
        first, second = feedback.rates(tx, "production", "readmission", soon, end)
        assert feedback.rates(tx, "production", "readmission", end, end) == []
        assert feedback.rates(tx, "research", "readmission", soon, end) == []
        assert feedback.beside(permit, tx, place.vault, uuids[4]) == {"userComment": "no"}
        assert feedback.beside(permit, tx, place.vault, uuids[0]) == {}
    assert (first.version, first.cards, first.accepted, first.overridden, first.unanswered) == ("1", 4, 1, 1, 2)
    assert first.as_json()["override_rate"] == 0.5
    assert (second.reasons, second.as_json()["acceptance_rate"]) == ({"other": 1}, 0.0)


def test_feedback_stays_in_the_sight_of_the_caller(place, permit, permit_for: Callable, shown) -> None:
    uuids, predictions = shown
    now = place.clock.now()
    mine = permit_for(*permit.grants, scope=("account", f"patient:{predictions[0].subject}"))
    assert tell(place, mine, Told(uuids[0], "accepted", now)) == 1
    elsewhere = permit_for(*permit.grants, account="research")
    for other, told, service in (
        (mine, [Told(uuids[1], "accepted", now)], "service"),
        (mine, [Told(uuids[0], "accepted", now), Told(uuids[1], "accepted", now)], "service"),
        (permit_for(*permit.grants, scope=("department:4",)), [Told(uuids[0], "accepted", now)], "service"),
        (elsewhere, [Told(uuids[0], "accepted", now)], "service"),
        (permit, [Told(uuids[0], "accepted", now)], "another"),
        (permit, [Told(str(uuid4()), "accepted", now)], "service"),
    ):
        with pytest.raises(NotFound) as caught:
            tell(place, other, *told, service=service)
        assert caught.value.code == "serving.no_such_card"


def test_what_is_told_twice_is_kept_once(place, permit, shown) -> None:
    uuids, _ = shown
    now = place.clock.now()
    assert tell(place, permit, Told(uuids[0], "accepted", now)) == 1
    assert tell(place, permit, Told(uuids[0], "accepted", now)) == 0
    assert tell(place, permit, Told(uuids[0], "overridden", now - timedelta(seconds=1))) == 0


def test_an_erased_patient_leaves_no_card(place, permit, shown) -> None:
    uuids, predictions = shown
    tell(place, permit, Told(uuids[0], "overridden", place.clock.now(), "other", {"userComment": "x"}))
    with place.vault.database.transaction(permit) as tx:
        assert capture.forget(tx, "production", predictions[0].subject) == 1
        assert feedback.beside(permit, tx, place.vault, uuids[0]) == {}
    with pytest.raises(NotFound):
        tell(place, permit, Told(uuids[0], "accepted", place.clock.now() + timedelta(hours=1)))


@pytest.mark.parametrize(
    ("probability", "indicator", "said"),
    [(0.0, "info", "under 1 %"), (0.2, "info", "20 %"), (0.3, "warning", "30 %"), (1.0, "warning", "over 99 %")],
)
def test_indicators(shown, probability: float, indicator: str, said: str) -> None:
    one = replace(shown[1][0], probability=probability, threshold=0.3, flagged=probability >= 0.3)
    told = card(one, str(uuid4()), "m" * 300, "", "")
    assert (told["indicator"], told["summary"].startswith(f"{said} risk")) == (indicator, True)
    assert len(told["summary"]) < 140
    assert ("suggestions" in told) == ("selectionBehavior" in told) == (indicator == "warning")
    assert "links" not in told


def test_calibration_that_was_not_measured() -> None:
    assert note_on_calibration({}) == "Its calibration was not measured."
    assert note_on_calibration({"calibration_slope": None, "ici": 0.1, "n": 5}) == "Its calibration was not measured."
    assert "2.0 points" in note_on_calibration({"calibration_slope": 1.01, "ici": 0.02, "n": 5})
