"""Delivery: order per stream, retries, dead letters, replay, one owner at a time."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Column, Integer, MetaData, String, Table, insert, select

from carelake.core.errors import Conflict, Invalid, NotFound, Unavailable
from carelake.events.backoff import Backoff
from carelake.events.drivers.local import Local
from carelake.events.letters import Letters
from carelake.events.port import DONE, dead, retry

effect = Table("a_consumers_own", MetaData(), Column("n", Integer, primary_key=True), Column("id", String(32)))


def had(desk: Any) -> list[str]:
    with desk.vault.database.reading(desk.permit()) as tx:
        return list(tx.execute(select(effect.c.id).order_by(effect.c.n)).scalars())


@pytest.fixture
def local(desk: Any) -> Local:
    with desk.vault.database.ledger() as tx:
        effect.create(tx)
    desk.add(driver="local", target={"handler": "x"})
    return Local(lambda tx, one: tx.execute(insert(effect).values(id=one.id)) and None)


def test_a_stream_waits_for_its_first_and_the_others_go_on(desk: Any, clock: Any) -> None:
    desk.add()
    for kind in ("a", "b", "a", "b", "a"):
        desk.publish(kind)
    got = desk.receiver(fails={1: [retry("x.down"), retry("x.down")]})
    report = desk.turn(got)
    assert got.sequences == [2, 4]
    assert (report.tally.delivered, report.tally.retried, report.tally.held) == (2, 1, 2)
    [blocked] = desk.standing().blocked
    assert (blocked["type"], blocked["attempts"], blocked["reason"]) == ("carelake.a", 1, "x.down")
    assert desk.standing().offset == 0
    assert desk.standing().lag == 3
    desk.turn(got)
    assert got.sequences == [2, 4], "not before it is due"
    clock.move(seconds=1)
    desk.turn(got)
    clock.move(seconds=2)
    desk.turn(got)
    assert got.sequences == [2, 4, 1, 3, 5]
    assert (desk.standing().offset, desk.standing().lag, desk.standing().blocked) == (5, 0, [])


def test_after_the_last_try_it_is_a_dead_letter_and_the_stream_goes_on(desk: Any, clock: Any) -> None:
    desk.add()
    desk.publish()
    desk.publish()
    got = desk.receiver(fails={1: 3 * [retry("x.down")], 2: []})
    for _ in range(4):
        desk.turn(got)
        clock.move(minutes=1)
    assert got.sequences == [2]
    [letter] = desk.letters()
    assert (letter.sequence, letter.reason, letter.attempts, letter.state) == (1, "x.down", 3, "dead")
    assert desk.standing().dead == 1


def test_what_is_bad_for_good_is_dead_at_once(desk: Any) -> None:
    desk.add()
    desk.publish()
    desk.publish()
    got = desk.receiver(fails={1: [dead("x.bad")]})
    desk.turn(got)
    assert got.sequences == [2]
    assert [(one.sequence, one.attempts) for one in desk.letters()] == [(1, 1)]


def test_dead_letters_are_tried_again_or_dropped(desk: Any, clock: Any) -> None:
    desk.add()
    for _ in range(3):
        desk.publish()
    got = desk.receiver(
        fails={1: [dead("x.bad"), retry("x.down")], 2: [dead("x.bad"), dead("x.worse")], 3: [dead("x")]}
    )
    desk.turn(got)
    with desk.vault.database.transaction(desk.permit()) as tx:
        assert Letters(tx, "lab").again([1, 2]) == 2
        assert Letters(tx, "lab").drop([3]) == 1
        with pytest.raises(NotFound):
            Letters(tx, "lab").drop([77])
    desk.turn(got)
    assert [(one.sequence, one.state, one.reason) for one in desk.letters()] == [
        (1, "again", "x.down"),
        (2, "dead", "x.worse"),
    ]
    clock.move(minutes=1)
    desk.turn(got)
    assert got.sequences == [1]
    assert [one.sequence for one in desk.letters()] == [2]


def test_a_batch_that_failed_in_part_is_not_sent_again_in_whole(desk: Any, clock: Any) -> None:
    """As EventBridge does it: each entry has its own fate, whatever its stream."""
    desk.add()
    for _ in range(4):
        desk.publish()
    got = desk.receiver(fails={2: [retry("x.throttled")], 3: [dead("x.bad")]})
    got.deliver = lambda events, tx: [  # type: ignore[method-assign]
        (fate.pop(0) if (fate := got.fails.get(one.seq)) else got.got.append(one)) or DONE for one in events
    ]
    desk.turn(got)
    assert got.sequences == [1, 4]
    assert [one.sequence for one in desk.letters()] == [3]
    clock.move(minutes=1)
    desk.turn(got)
    assert got.sequences == [1, 4, 2]
    assert desk.standing().lag == 0
    assert desk.replay("1") == 4
    assert desk.letters() == []
    desk.turn(got)
    assert got.sequences == [1, 4, 2, 1, 2, 3, 4]


def test_an_effect_in_our_database_is_had_once_however_often_it_is_replayed(desk: Any, local: Local) -> None:
    for _ in range(3):
        desk.publish()
    desk.turn(local)
    once = had(desk)
    assert len(once) == 3
    assert desk.replay("beginning") == 3
    assert desk.replay("beginning") == 3
    report = desk.turn(local)
    assert report.tally.known == 3
    assert had(desk) == once


def test_a_handler_that_fails_leaves_nothing_and_holds_its_stream(desk: Any, local: Local, clock: Any) -> None:
    down = [True]

    def handle(tx: Any, one: Any) -> None:
        tx.execute(insert(effect).values(id=one.id))
        if one.seq == 2 and down:
            raise Unavailable("test.down", "Down.")
        if one.seq == 3:
            raise Invalid("test.bad", "Bad.")

    for _ in range(4):
        desk.publish()
    report = desk.turn(Local(handle))
    assert (report.tally.delivered, report.tally.held) == (1, 2)
    assert len(had(desk)) == 1
    down.clear()
    clock.move(minutes=1)
    desk.turn(Local(handle))
    assert len(had(desk)) == 3
    assert [one.reason for one in desk.letters()] == ["test.bad"]


def test_a_fault_tells_its_type_and_never_its_text(desk: Any, local: Local) -> None:
    def handle(tx: Any, one: Any) -> None:
        raise ValueError("Zebulon Canary")

    desk.publish()
    report = desk.turn(Local(handle), tries=1)
    assert report.tally.reasons == {"local.ValueError": 1}
    assert "Zebulon" not in repr(desk.letters())


def test_one_owner_at_a_time_and_another_after_its_death(desk: Any, clock: Any) -> None:
    desk.add()
    desk.publish()
    got = desk.receiver()
    other = desk.worker(got)
    seen = []
    mine = desk.receiver(before=lambda: seen.append(other.turn(desk.permit(), "lab").busy))
    desk.turn(mine)
    assert seen == [True]
    assert (mine.sequences, got.sequences) == ([1], [])

    # One that dies on the way keeps its lease until it ends.
    desk.publish()
    dies = desk.receiver()
    worker = desk.worker(dies)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("carelake.events.delivery.leases.release", lambda *_: None)
        dies.deliver = lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)  # type: ignore[method-assign]
        with pytest.raises(KeyboardInterrupt):
            worker.turn(desk.permit(), "lab")
    assert other.turn(desk.permit(), "lab").busy
    clock.move(seconds=61)
    assert not other.turn(desk.permit(), "lab").busy
    assert got.sequences == [2]


def test_who_slept_past_the_lease_settles_nothing(desk: Any, clock: Any) -> None:
    """The fence: what it delivered comes again, but what it knows no longer counts."""
    desk.add()
    desk.publish()
    desk.publish()
    got = desk.receiver()
    other = desk.worker(got)

    def sleep() -> None:
        clock.move(seconds=61)
        assert not other.turn(desk.permit(), "lab").busy

    late = desk.receiver(before=sleep)
    with pytest.raises(Conflict) as caught:
        desk.turn(late)
    assert caught.value.code == "events.lease_lost"
    assert got.sequences == [1, 2]
    assert desk.standing().lag == 0


def test_a_replay_under_way_is_not_undone_by_who_delivers(desk: Any) -> None:
    desk.add()
    for _ in range(3):
        desk.publish()
    desk.turn(desk.receiver())
    desk.publish()
    with pytest.raises(Conflict):
        desk.turn(desk.receiver(before=lambda: desk.replay("1") and None))
    got = desk.receiver()
    desk.turn(got)
    assert got.sequences == [1, 2, 3, 4]


def test_a_paused_consumer_waits_and_a_removed_one_is_gone(desk: Any) -> None:
    desk.add()
    desk.publish()
    with desk.vault.database.transaction(desk.permit()) as tx:
        desk.subscriptions(tx).set_state("lab", "paused")
    assert desk.turn(desk.receiver()).busy
    assert desk.worker(desk.receiver()).waiting() == []
    with desk.vault.database.transaction(desk.permit()) as tx:
        desk.subscriptions(tx).remove("lab")
    with pytest.raises(NotFound):
        desk.turn(desk.receiver())


def test_waits_double_and_are_drawn_by_chance() -> None:
    waits = [Backoff(first=1, cap=10, tries=6, chance=lambda c=c: c) for c in (0.0, 1.0)]
    assert [waits[0].seconds(n) for n in range(1, 7)] == [0.5, 1, 2, 4, 5, None]
    assert [waits[1].seconds(n) for n in range(1, 7)] == [1, 2, 4, 8, 10, None]
    assert waits[0].seconds(1, asked=7) == 7
    assert waits[0].seconds(1, asked=1e9) == 10
