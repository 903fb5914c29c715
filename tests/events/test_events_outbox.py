"""Events leave with the data they tell of, in order, at least once (decision D12)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from carelake.core.permit import Permit
from carelake.events.outbox import Outbox


@pytest.fixture
def outbox(vault: Any) -> Outbox:
    return Outbox(vault.clock, vault.ids, workspace="w1")


@pytest.fixture
def permit(permit_for: Callable[..., Permit]) -> Permit:
    return permit_for("rows:read", "rows:write")


def test_an_event_is_a_cloudevent(vault: Any, outbox: Outbox, permit: Permit) -> None:
    with vault.database.transaction(permit) as tx:
        outbox.publish(tx, "production", "record.changed", "landing:1", {"stored": 3})
    with vault.database.reading(permit) as tx:
        [told] = outbox.read(tx, "lake")
    assert told["specversion"] == "1.0"
    assert told["type"] == "carelake.record.changed"
    assert told["source"] == "urn:carelake:w1"
    assert told["data"] == {"stored": 3}
    assert {"id", "time", "subject", "datacontenttype"} <= told.keys()


def test_an_event_of_a_rolled_back_cause_never_was(vault: Any, outbox: Outbox, permit: Permit) -> None:
    def fail() -> None:
        with vault.database.transaction(permit) as tx:
            outbox.publish(tx, "production", "record.changed", "landing:1", {})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with vault.database.reading(permit) as tx:
        assert outbox.read(tx, "lake") == []


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.sampled_from(["publish", "read", "crash"]), max_size=30))
def test_consumers_miss_nothing_and_keep_the_order(
    vault: Any, outbox: Outbox, permit: Permit, steps: list[str]
) -> None:
    consumer = vault.ids.new()
    published: list[str] = []
    seen: list[int] = []
    with vault.database.reading(permit) as tx:
        for told in outbox.read(tx, consumer, limit=1_000_000):
            published.append(told["id"])
    for number, step in enumerate(steps):
        if step == "publish":
            with vault.database.transaction(permit) as tx:
                outbox.publish(tx, "production", "n", f"landing:{number}", {"n": number})
            continue
        with vault.database.reading(permit) as tx:
            coming = outbox.read(tx, consumer, limit=2)
        seen += [told["sequence"] for told in coming]
        if step == "read" and coming:
            with vault.database.transaction(permit) as tx:
                outbox.done(tx, consumer, coming[-1]["sequence"])
    with vault.database.reading(permit) as tx:
        rest = [told["sequence"] for told in outbox.read(tx, consumer, limit=1_000_000)]
        every = [told["sequence"] for told in outbox.read(tx, "another", limit=1_000_000)]
    assert set(every) == set(seen) | set(rest), "an event was missed"
    assert rest == sorted(rest)
    first_seen = list(dict.fromkeys(seen))
    assert first_seen == sorted(first_seen), "out of order"


def test_an_offset_never_moves_back(vault: Any, outbox: Outbox, permit: Permit) -> None:
    with vault.database.transaction(permit) as tx:
        for number in range(3):
            outbox.publish(tx, "production", "n", f"landing:{number}", {})
        outbox.done(tx, "lake", 2)
        outbox.done(tx, "lake", 1)
    with vault.database.reading(permit) as tx:
        assert [told["sequence"] for told in outbox.read(tx, "lake")] == [3]
