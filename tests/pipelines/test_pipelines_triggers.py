"""What starts pipelines by itself: schedules that name the right times, events that start one execution each."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any

import pytest
from executing import Home, processing, text
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select, update

from carelake.access.identity import Caller
from carelake.audit.readings import Acts
from carelake.core import canonical
from carelake.core.clock import iso
from carelake.core.errors import Conflict, Invalid, NotFound, Unsupported
from carelake.events.backoff import Backoff
from carelake.events.delivery import Delivery
from carelake.events.drivers.choice import Choice
from carelake.events.tables import event
from carelake.pipelines.execution.rows import Rows
from carelake.pipelines.execution.schedule import next_after
from carelake.pipelines.execution.triggers import Handlers, Triggers, _after
from carelake.pipelines.tables import trigger

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)  # a Friday


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("at(2026-02-01T06:00:00)", "2026-02-01T06:00"),
        ("at(2025-02-01T06:00:00)", None),
        ("cron(0 6 * * ? *)", "2026-01-02T06:00"),
        ("cron(0/15 * * * ? *)", "2026-01-02T03:15"),
        ("cron(0 6 ? * MON-FRI *)", "2026-01-02T06:00"),
        ("cron(0 3 ? * SUN *)", "2026-01-04T03:00"),
        ("cron(30 2 L * ? *)", "2026-01-31T02:30"),
        ("cron(0 0 29 2 ? *)", "2028-02-29T00:00"),
        ("cron(0 0 1 JAN,JUL ? 2026-2030)", "2026-07-01T00:00"),
        ("cron(0 0 1 1 ? 2020)", None),
    ],
)
def test_the_next_time_that_a_schedule_names(schedule: str, expected: str | None) -> None:
    found = next_after(schedule, NOW)
    assert (found.isoformat()[:16] if found else None) == expected


def test_a_rate_is_from_now_on() -> None:
    assert next_after("rate(2 hours)", NOW) == NOW + timedelta(hours=2)


WRONG = ["daily", "rate(0 days)", "rate(1 week)", "cron(0 6 * * * *)", "cron(60 6 * * ? *)", "cron(0 6 ? * ? *)"]
WRONG += [
    "cron(0 6 * * ?)",
    "at(2026-13-01T00:00:00)",
    "cron(0 6-2 * * ? *)",
    "cron(0 6 1-x * ? *)",
    "cron(0/00 6 * * ? *)",
]


@pytest.mark.parametrize("schedule", WRONG)
def test_what_is_no_schedule(schedule: str) -> None:
    with pytest.raises(Invalid) as caught:
        next_after(schedule, NOW)
    assert caught.value.code == "pipelines.schedule"
    for unsupported in ("cron(0 6 3W * ? *)", "cron(0 6 ? * 2#1 *)"):
        with pytest.raises(Unsupported):
            next_after(unsupported, NOW)


@given(st.integers(0, 59), st.integers(0, 23), st.integers(1, 7), st.integers(0, 10_000_000))
def test_a_weekly_time_is_the_first_of_its_kind_ahead(minute: int, hour: int, day: int, later: int) -> None:
    moment = NOW + timedelta(seconds=later)
    found = next_after(f"cron({minute} {hour} ? * {day} *)", moment)
    assert found is not None
    assert timedelta(0) < found - moment <= timedelta(days=7)
    assert (found.minute, found.hour, found.isoweekday() % 7 + 1) == (minute, hour, day)


@pytest.fixture
def home(vault: Any) -> Home:
    made = Home(vault)
    number = {"Name": "N", "Type": "Integer", "DefaultValue": 1}
    made.define(text(processing("a", number={"Get": "Parameters.N"}), parameters=[number]))
    return made


def started(home: Home) -> list[str]:
    with home.enter("pipeline:read") as permit, home.vault.database.reading(permit) as tx:
        return [one.cause for one in Rows(tx, "production").executions("small")]


def fire(home: Home) -> int:
    with home.enter() as permit:
        return Triggers(home.vault).fire(permit)


def test_a_schedule_starts_once_each_time_and_makes_up_for_one_that_was_missed(home: Home) -> None:
    triggers, clock = Triggers(home.vault), home.vault.clock
    with home.enter("pipeline:define") as permit:
        triggers.add(permit, "hourly", "small", schedule="cron(0 * * * ? *)", parameters={"N": "4"})
    assert fire(home) == 0
    clock.move(hours=1)
    assert (fire(home), fire(home)) == (1, 0)
    with home.enter() as permit, home.vault.database.reading(permit) as tx:
        (one,) = Rows(tx, "production").executions("small")
    assert (dict(one.parameters), one.cause, one.principal) == ({"N": "4"}, "hourly", "operator")
    assert home.carry(one.id).status == "Succeeded"
    clock.move(hours=5)  # nobody looked
    assert (fire(home), fire(home)) == (1, 0)
    clock.move(hours=1)
    assert fire(home) == 0  # the one before it has not begun yet, and will see what is there
    with home.enter("pipeline:define") as permit:
        triggers.set_state(permit, "hourly", "DISABLED")
    clock.move(hours=1)
    assert fire(home) == 0
    with home.enter("pipeline:define") as permit:
        triggers.remove(permit, "hourly")
        with pytest.raises(NotFound):
            triggers.get(permit, "hourly")


def test_a_time_missed_for_months_costs_no_more_than_one(home: Home) -> None:
    due, now = NOW, NOW + timedelta(days=400, seconds=1)
    began = monotonic()
    for schedule, expected in (
        ("cron(* * * * ? *)", "2027-02-06T03:05"),
        ("rate(1 minute)", "2027-02-06T03:05"),
        ("at(2026-02-01T06:00:00)", None),
    ):
        found = _after(schedule, due, now)
        assert (found.isoformat()[:16] if found else None) == expected
    assert monotonic() - began < 1.0


def test_what_no_longer_fits_its_pipeline_is_not_confirmed_and_an_execution_of_it_fails(home: Home) -> None:
    with home.enter("pipeline:define") as permit:
        Triggers(home.vault).add(permit, "hourly", "small", schedule="cron(0 * * * ? *)", parameters={"N": "4"})
    home.vault.clock.move(hours=1)
    assert fire(home) == 1
    home.define(text(processing("a", number=1), parameters=[{"Name": "M", "Type": "Integer"}]))
    with home.enter("pipeline:define") as permit, pytest.raises(Invalid) as caught:
        Triggers(home.vault).confirm(permit, "hourly")
    assert caught.value.code == "pipelines.parameter"
    (one,) = executions(home)
    with home.enter() as permit, home.vault.database.transaction(permit) as tx:
        Rows(tx, "production").change_execution(one, version=2)  # as a trigger did before it was pinned
    done = home.carry(one)
    assert (done.status, done.reason[:19]) == ("Failed", "pipelines.parameter")


def deliver(home: Home) -> None:
    choice = Choice(home.vault.settings.events, source="urn:x", clock=home.vault.clock, handlers=Handlers(home.vault))
    delivery = Delivery(home.vault, choice, backoff=Backoff(first=1, cap=1, tries=2), lease_seconds=60)
    for told in delivery.waiting():
        with home.enter("event:manage") as permit:
            delivery.turn(permit, told.name)


def happen(home: Home, kind: str, **data: str) -> None:
    with home.enter() as permit, home.vault.database.transaction(permit) as tx:
        home.platform.outbox.publish(tx, "production", kind, "endpoint:" + "0" * 64, data)


def test_an_event_starts_its_pipeline_where_its_data_are_those_that_were_meant(home: Home) -> None:
    happen(home, "monitor.alarm", endpoint="readmission")  # before anybody followed
    with home.enter("pipeline:define") as permit:
        Triggers(home.vault).add(permit, "drift", "small", event="monitor.alarm", wanted={"endpoint": "readmission"})
        with pytest.raises(Conflict):
            Triggers(home.vault).add(permit, "drift", "small", event="monitor.alarm")
    deliver(home)
    assert started(home) == []
    happen(home, "monitor.alarm", endpoint="another")
    happen(home, "monitor.finding", endpoint="readmission")
    deliver(home)
    assert started(home) == []
    happen(home, "monitor.alarm", endpoint="readmission")
    happen(home, "monitor.alarm", endpoint="readmission")
    deliver(home)
    deliver(home)
    assert started(home) == ["drift"]  # one, which has not begun, sees what both told of
    with home.enter("pipeline:define") as permit:
        Triggers(home.vault).remove(permit, "drift")
    happen(home, "monitor.alarm", endpoint="readmission")
    deliver(home)
    assert started(home) == ["drift"]


def test_a_trigger_is_checked_when_it_is_added(home: Home) -> None:
    triggers = Triggers(home.vault)
    wrong: list[tuple[dict[str, Any], str]] = [
        ({}, "pipelines.trigger"),
        ({"schedule": "rate(1 day)", "event": "model.state"}, "pipelines.trigger"),
        ({"schedule": "often"}, "pipelines.schedule"),
        ({"schedule": "rate(1 day)", "parameters": {"N": "many"}}, "pipelines.parameter"),
        ({"event": "Model State"}, "events.filter"),
    ]
    for said, code in wrong:
        with home.enter("pipeline:define") as permit, pytest.raises(Invalid) as caught:
            triggers.add(permit, "one", "small", **said)
        assert caught.value.code == code
    with home.enter("pipeline:define") as permit, pytest.raises(NotFound):
        triggers.add(permit, "one", "none", schedule="rate(1 day)")


def redefined(home: Home, number: int = 2) -> None:
    """Somebody who may define pipelines gives it a new version."""
    given = [{"Name": "N", "Type": "Integer", "DefaultValue": 1}]
    home.define(text(processing("a", number=number), parameters=given))


def test_a_pipeline_that_was_changed_is_not_started_until_somebody_confirms_it(home: Home) -> None:
    triggers = Triggers(home.vault)
    with home.enter("pipeline:define") as permit:
        triggers.add(permit, "hourly", "small", schedule="cron(0 * * * ? *)", parameters={"N": "4"})
        assert triggers.add(permit, "drift", "small", event="monitor.alarm")["held"] is None
    redefined(home)
    with home.enter("pipeline:read") as permit:
        told = {one["name"]: (one["held"], one["version"]) for one in triggers.all(permit)}
        with home.vault.database.reading(permit) as tx:
            (said,) = tx.execute(select(event).where(event.c.type == "carelake.pipeline.trigger")).all()
            acts = Acts(tx).find(action="pipeline:define")
    assert told == dict.fromkeys(("hourly", "drift"), ("pipelines.trigger_changed", 2))
    assert canonical.load(said.data)["triggers"] == ["drift", "hourly"]
    assert [act["changed"]["held"] for act in acts if "held" in act.get("changed", {})] == [["drift", "hourly"]]
    home.vault.clock.move(hours=1)
    happen(home, "monitor.alarm")
    deliver(home)
    assert (fire(home), started(home)) == (0, [])

    # Whoever confirms it lends their own rights to it, and not those of who added it.
    confirmer = home.platform.identity.register.standing("pipeline")
    assert confirmer is not None
    with home.enter("pipeline:define") as permit, pytest.raises(Conflict) as caught:
        triggers.confirm(permit, "hourly", version=1)
    assert caught.value.code == "pipelines.trigger_changed"
    mine, home.caller = home.caller, Caller(confirmer.principal, "HOPERAT", "production")
    with home.enter("pipeline:define") as permit:
        assert triggers.confirm(permit, "hourly", version=2)["principal"] == "pipeline"
    home.caller = mine
    home.vault.clock.move(hours=1)
    assert (fire(home), started(home)) == (1, ["hourly"])
    with home.enter() as permit, home.vault.database.reading(permit) as tx:
        (one,) = Rows(tx, "production").executions("small")
    assert (one.principal, one.version) == ("pipeline", 2)
    assert canonical.load(one.bounds or "") == {"roles": ["pipeline"], "narrowed": None}


def test_what_was_pinned_is_what_it_says_and_not_its_number(home: Home) -> None:
    triggers = Triggers(home.vault)
    with home.enter("pipeline:define") as permit:
        triggers.add(permit, "drift", "small", event="monitor.alarm")
    with home.enter("pipeline:define") as permit, home.vault.database.transaction(permit) as tx:
        first = Rows(tx, "production").definition("small", 1).definition
    redefined(home)
    home.define(first)  # back as it was, as version 3
    happen(home, "monitor.alarm")
    deliver(home)
    assert started(home) == ["drift"]
    # Deleted and made anew under its name; and one that was added before anything was pinned.
    (execution,) = executions(home)
    home.carry(execution)
    with home.enter("pipeline:define") as permit:
        home.pipelines.delete_pipeline(permit, {"PipelineName": "small"})
        assert triggers.get(permit, "drift")["held"] == "pipelines.no_such_pipeline"
    home.vault.clock.move(seconds=1)
    redefined(home)
    for bounds in ({"roles": ["operator"], "narrowed": None, "definition": "0" * 64}, None):
        with home.enter("pipeline:define") as permit, home.vault.database.transaction(permit) as tx:
            tx.execute(update(trigger).values(bounds=canonical.dump(bounds).decode() if bounds else None))
        with home.enter("pipeline:read") as permit:
            assert triggers.get(permit, "drift")["held"] == "pipelines.trigger_changed"
    home.vault.clock.move(seconds=1)
    with home.enter("pipeline:define") as permit, home.vault.database.transaction(permit) as tx:
        tx.execute(update(trigger).values(created=iso(home.vault.clock.now())))
    happen(home, "monitor.alarm")
    deliver(home)
    assert len(started(home)) == 2


def executions(home: Home) -> list[str]:
    with home.enter("pipeline:read") as permit, home.vault.database.reading(permit) as tx:
        return [one.id for one in Rows(tx, "production").executions("small", status=("Executing",))]
