"""Events leave with the data they tell of (decision D12)."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import delete

from carelake.core.errors import Conflict, Gone, Invalid, NotFound, Refused
from carelake.events.port import dead, retry
from carelake.events.retention import trim
from carelake.events.tables import stream


def test_an_event_goes_out_as_a_cloudevent(desk: Any) -> None:
    desk.publish("record.changed", subject="landing:1f")
    desk.add()
    got = desk.receiver()
    desk.turn(got)
    told = got.got[0].cloudevent("urn:carelake:w1")
    assert {name: told[name] for name in ("specversion", "type", "source", "subject", "data", "sequence")} == {
        "specversion": "1.0",
        "type": "carelake.record.changed",
        "source": "urn:carelake:w1",
        "subject": "landing:1f",
        "data": {"n": 1},
        "sequence": "1",
    }
    # https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md#naming-conventions
    assert all(re.fullmatch("[a-z0-9]{1,20}", name) for name in told)


def test_an_event_of_a_rolled_back_cause_never_was(desk: Any) -> None:
    def fail() -> None:
        with desk.vault.database.transaction(desk.permit()) as tx:
            desk.outbox.publish(tx, "production", "n", "model:1", {})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    desk.add()
    got = desk.receiver()
    desk.turn(got)
    assert got.sequences == []


def test_a_consumer_takes_the_types_and_kinds_it_asked_for(desk: Any) -> None:
    desk.add("models", types=("model",))
    desk.add("landings", kinds=("landing",))
    for kind, subject in (("model.state", "model:1"), ("modelling", "model:2"), ("record.changed", "landing:3")):
        desk.publish(kind, subject=subject)
    found = {}
    for name in ("models", "landings"):
        got = desk.receiver()
        desk.turn(got, name)
        found[name] = got.sequences
        assert desk.standing(name).lag == 0
    assert found == {"models": [1], "landings": [3]}


def test_accounts_are_apart(desk: Any) -> None:
    desk.publish(account="production")
    desk.publish(account="research")
    desk.add("own", account="research")
    desk.add("watch", account="security")
    with pytest.raises(Refused, match="security"):
        desk.add("spy", account="research", accounts=("production",))
    own, watch = desk.receiver(), desk.receiver()
    desk.turn(own, "own", account="research")
    desk.turn(watch, "watch", account="security")
    assert (own.sequences, watch.sequences) == ([2], [1, 2])
    with pytest.raises(NotFound):
        desk.turn(own, "own", account="production")


@pytest.mark.parametrize(
    ("start", "wanted"),
    [("now", [4]), ("beginning", [1, 2, 3, 4]), ("2", [2, 3, 4]), ("2026-01-02T03:05:00Z", [3, 4])],
)
def test_a_consumer_starts_where_it_said(desk: Any, clock: Any, start: str, wanted: list[int]) -> None:
    desk.publish()
    desk.publish("record.changed")
    clock.move(minutes=2)
    desk.publish()
    desk.add(start=start)
    desk.publish("another.kind")
    got = desk.receiver()
    desk.turn(got)
    assert got.sequences == wanted


@pytest.mark.parametrize("start", ["yesterday", "-1", "2026-01-02", "2026-01-02T03:05:00", "9", ""])
def test_a_start_that_is_none_is_refused(desk: Any, start: str) -> None:
    with pytest.raises(Invalid) as caught:
        desk.add(start=start)
    assert caught.value.code == "events.start"


@pytest.mark.parametrize("name", ["", "Lab", "a b", "x" * 65, "../x"])
def test_a_name_is_a_plain_word(desk: Any, name: str) -> None:
    with pytest.raises(Invalid):
        desk.add(name)
    desk.add("lab")
    with pytest.raises(Conflict):
        desk.add("lab")


def test_what_is_old_and_delivered_is_trimmed_and_no_more(desk: Any, clock: Any) -> None:
    desk.add("slow")
    desk.add("quick")
    for _ in range(4):
        desk.publish()
    clock.move(days=40)
    desk.publish()
    quick, slow = desk.receiver(), desk.receiver(fails={2: [dead("x.bad")], 4: [retry("x.down")]})
    desk.turn(quick, "quick")
    desk.turn(slow, "slow")

    def trimmed() -> int:
        with desk.vault.database.transaction(desk.permit()) as tx:
            return trim(tx, desk.subscriptions(tx).all(), clock.now() - timedelta(days=1))

    assert trimmed() == 2, "1 and 3; 2 is a dead letter, 4 is waited for"
    clock.move(minutes=5)
    desk.turn(slow, "slow")
    assert slow.sequences == [1, 3, 4, 5]
    assert trimmed() == 1, "4; 5 is too young"
    with pytest.raises(Gone):
        desk.replay("1", "quick")
    with pytest.raises(Gone):
        desk.replay("2026-01-02T03:00:00Z", "quick")
    assert desk.replay("beginning", "quick") == 2
    assert desk.replay("5", "quick") == 2, "never on"


def test_events_of_before_there_were_streams_are_found(desk: Any) -> None:
    desk.publish()
    with desk.vault.database.ledger() as tx:
        tx.execute(delete(stream))
    desk.add()
    got = desk.receiver()
    desk.turn(got)
    assert got.sequences == [1]
