"""Emergency access: for minutes, with a reason that the trail does not tell, reviewed by another."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from carelake.access.gate import Gate
from carelake.access.glass import BrokenGlass, Glasses
from carelake.access.principals import Principal, Principals
from carelake.audit.readings import Acts
from carelake.core.clock import FixedClock
from carelake.core.errors import CarelakeError, Conflict, Invalid, Refused

BOB = Principal("bob", "person", ("administrator",), ("production",))
CAROL = Principal("carol", "person", ("administrator",), ("production",))
REASON = "Jane Doe is unconscious in bed 4"


@pytest.fixture(autouse=True)
def people(vault: Any, gate: Gate) -> None:
    with vault.database.ledger() as connection:
        for who in (BOB, CAROL):
            Principals(connection).add(who)


def smash(vault: Any, gate: Gate, who: Principal = BOB, **other: Any) -> BrokenGlass:
    said: dict[str, Any] = {
        "name": vault.ids.new(),
        "account": "production",
        "reason": REASON,
        "minutes": 10,
        "most_minutes": 60,
        "review_days": 3,
        "now": vault.clock.now(),
        **other,
    }
    with (
        gate.enter(who, "access:break-glass", "access", "ETREAT", account="production") as permit,
        vault.database.transaction(permit) as tx,
    ):
        return Glasses(tx).smash(
            who,
            purpose=said.pop("purpose", permit.purpose),
            reference=lambda text: vault.keyring.reference(permit, "reason", text),
            seal=lambda name, text: vault.sealer.seal(permit, tx, "", name.encode(), text.encode()),
            **said,
        )


def read(gate: Gate, who: Principal = BOB, purpose: str = "ETREAT", action: str = "record:read") -> Any:
    return gate.enter(who, action, "Patient", purpose, account="production")


def close(vault: Any, name: str, by: Principal = CAROL, verdict: str = "justified") -> BrokenGlass:
    with vault.database.ledger() as connection:
        return Glasses(connection).close(name, by, verdict, account="production", now=vault.clock.now())


def test_it_opens_the_record_for_its_minutes_and_marks_each_act(vault: Any, gate: Gate, clock: FixedClock) -> None:
    with pytest.raises(Refused), read(gate):
        pass
    glass = smash(vault, gate)
    clock.move(minutes=4)
    with read(gate) as permit:
        assert permit.expires == clock.now() + timedelta(minutes=6)
    with vault.database.ledger_reading() as connection:
        (act,) = list(Acts(connection).find(action="record:read", phase="done"))
    assert act["break_glass"] == glass.id
    assert any(said.startswith(f"break-glass {glass.id}") for said in act["reasons"])
    clock.move(minutes=6)
    with pytest.raises(Refused), read(gate):
        pass


def test_it_opens_no_more_than_that(vault: Any, gate: Gate) -> None:
    smash(vault, gate)
    for who, purpose, action in (
        (BOB, "TREAT", "record:read"),
        (BOB, "ETREAT", "record:write"),
        (BOB, "ETREAT", "lake:query"),
        (CAROL, "ETREAT", "record:read"),
    ):
        with pytest.raises(Refused), read(gate, who, purpose, action):
            pass


def test_the_reason_is_sealed_and_the_trail_does_not_tell_it(vault: Any, gate: Gate) -> None:
    glass = smash(vault, gate)
    with vault.database.ledger_reading() as connection:
        sealed = Glasses(connection).sealed_reason(glass.id)
        told = list(Acts(connection).find())
    assert b"Jane" not in sealed
    assert "Jane" not in str(told)
    assert glass.reason_ref.startswith("reason:")


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"minutes": 61}, "access.break_glass"),
        ({"minutes": 0}, "access.break_glass"),
        ({"reason": "   because "}, "access.reason"),
        ({"reason": "x" * 2001}, "access.reason"),
        ({"purpose": "TREAT"}, "access.break_glass"),
    ],
)
def test_it_needs_a_reason_and_has_an_end(vault: Any, gate: Gate, wrong: dict[str, Any], code: str) -> None:
    with pytest.raises(Invalid) as caught:
        smash(vault, gate, **wrong)
    assert caught.value.code == code


def test_whoever_may_not_break_it_does_not(vault: Any, gate: Gate) -> None:
    with pytest.raises(Refused):
        smash(vault, gate, Principal("auditor", "person", ("auditor",), ("production",)))


def test_another_reviews_it_and_that_ends_it(vault: Any, gate: Gate) -> None:
    glass = smash(vault, gate)
    for by, verdict, kind in ((BOB, "justified", Refused), (CAROL, "fine", Invalid)):
        with pytest.raises(CarelakeError) as caught:
            close(vault, glass.id, by, verdict)
        assert type(caught.value) is kind
    done = close(vault, glass.id, verdict="unjustified")
    assert (done.reviewed_by, done.verdict, done.state(vault.clock.now())) == ("carol", "unjustified", "reviewed")
    with pytest.raises(Refused), read(gate):
        pass
    with pytest.raises(Conflict):
        close(vault, glass.id)


def test_what_nobody_reviews_is_overdue(vault: Any, gate: Gate, clock: FixedClock) -> None:
    glass = smash(vault, gate)
    states = []
    for minutes in (0, 10, 3 * 24 * 60):
        clock.move(minutes=minutes)
        states.append(glass.state(clock.now()))
    assert states == ["active", "to review", "overdue"]
