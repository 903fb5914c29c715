"""The gate against those who reuse, outlive or overreach what it gave them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from carelake.access.gate import Gate
from carelake.access.grants import Grant, Grants
from carelake.access.groups import Groups
from carelake.access.identity import Identity
from carelake.access.policy import Policies
from carelake.access.principals import ANONYMOUS, Principal, Principals
from carelake.access.targets import shown_target
from carelake.audit.readings import Acts
from carelake.core.clock import FixedClock
from carelake.core.errors import Refused
from carelake.core.permit import Permit, check

ANN = Principal("ann", "person", ("clinician",), ("production",))
BOB = Principal("bob", "person", ("administrator",), ("production",))


@pytest.fixture
def people(vault: Any, gate: Gate) -> None:
    with vault.database.ledger() as connection:
        for who in (ANN, BOB):
            Principals(connection).add(who)


def enter(gate: Gate, who: Principal, action: str = "record:read", purpose: str = "TREAT", **other: Any) -> Any:
    return gate.enter(who, action, "Patient", purpose, account="production", **other)


def refused(gate: Gate, who: Principal, action: str = "record:read", purpose: str = "TREAT") -> list[str]:
    with pytest.raises(Refused) as caught, enter(gate, who, action, purpose):
        pass
    assert caught.value.code == "access.denied"
    reasons = caught.value.facts["reasons"]
    assert isinstance(reasons, list)
    return reasons


def change(vault: Any, work: Callable[[Principals], object]) -> None:
    with vault.database.ledger() as connection:
        work(Principals(connection))


def acts(vault: Any, **equal: Any) -> list[dict[str, Any]]:
    with vault.database.ledger_reading() as connection:
        return list(Acts(connection).find(**equal))


def opens(permit: Permit, grant: str, now: Any) -> str:
    try:
        check(permit, grant, now=now)
    except Refused as error:
        return error.code
    return "opens"


@pytest.mark.usefixtures("people")
class TestPermits:
    def test_a_permit_that_has_expired_opens_nothing(self, vault: Any, gate: Gate, clock: FixedClock) -> None:
        with enter(gate, ANN) as permit:
            assert opens(permit, "rows:read", clock.now()) == "opens"
            clock.move(seconds=vault.settings.access.permit_seconds)
            assert opens(permit, "rows:read", clock.now()) == "permit.expired"
            with pytest.raises(Refused), vault.database.reading(permit):
                pass

    def test_a_permit_ends_by_the_clock_and_with_its_block(self, vault: Any, gate: Gate, clock: FixedClock) -> None:
        with enter(gate, ANN) as permit:
            kept = permit
            assert opens(kept, "rows:read", clock.now() + timedelta(days=1)) == "permit.expired"
        assert opens(kept, "rows:read", clock.now()) == "permit.ended"

    def test_a_permit_for_another_action_does_not_open(self, gate: Gate, clock: FixedClock) -> None:
        with enter(gate, BOB, "status:read", "HSYSADMIN") as permit:
            assert opens(permit, "clinical:read", clock.now()) == "permit.grant"
            assert opens(permit, "rows:write", clock.now()) == "permit.grant"

    @pytest.mark.parametrize(
        "altered",
        [
            {"grants": frozenset({"rows:read", "rows:write", "clinical:read"})},
            {"account": "research"},
            {"purpose": "TREAT"},
            {"principal": "ann"},
            {"act": "0" * 32},
            {"scope": ()},
        ],
    )
    def test_an_altered_permit_is_forged(self, gate: Gate, clock: FixedClock, altered: dict[str, Any]) -> None:
        with enter(gate, BOB, "status:read", "HSYSADMIN") as permit:
            assert opens(replace(permit, **altered), "rows:read", clock.now()) == "permit.forged"

    def test_a_permit_ends_with_the_session(self, gate: Gate, clock: FixedClock) -> None:
        until = clock.now() + timedelta(seconds=90)
        with enter(gate, replace(ANN, until=until, credential="token:" + "a" * 32)) as permit:
            assert permit.expires == until
        clock.move(seconds=90)
        assert refused(gate, replace(ANN, until=until)) == ["the session has ended"]

    def test_the_unlogged_permits_open_what_they_are_for(self, gate: Gate, clock: FixedClock) -> None:
        assert gate.sealing().grants == {"audit:read", "audit:write"}
        assert gate.probing().grants == {"rows:read"}
        assert gate.vouching().grants == {"rows:read", "rows:write"}
        assert {p.account for p in (gate.sealing(), gate.probing(), gate.vouching())} == {"security"}
        assert opens(gate.sealing(), "rows:write", clock.now()) == "permit.grant"


@pytest.mark.usefixtures("people")
class TestStanding:
    def test_a_disabled_principal_is_refused_at_once(self, vault: Any, gate: Gate) -> None:
        elsewhere = Gate(vault, gate.policies)
        for one in (gate, elsewhere):
            with enter(one, ANN):
                pass
        change(vault, lambda table: table.disable("ann"))
        for one in (gate, elsewhere):
            assert any("disabled" in said for said in refused(one, ANN))
        change(vault, lambda table: table.enable("ann"))
        with enter(gate, ANN), enter(elsewhere, ANN):
            pass

    def test_a_change_that_is_undone_was_none(self, vault: Any, gate: Gate) -> None:
        def undone(table: Principals) -> None:
            table.disable("ann")
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            change(vault, undone)
        with enter(gate, ANN):
            pass

    def test_a_role_that_was_taken_is_gone(self, vault: Any, gate: Gate) -> None:
        change(vault, lambda table: table.remove_role("ann", "clinician"))
        refused(gate, ANN)

    def test_nobody_is_more_than_what_is_written(self, gate: Gate) -> None:
        refused(gate, replace(ANN, roles=("operator",)))
        refused(gate, replace(ANN, accounts=("production",)), "record:ingest")
        refused(gate, Principal("ghost", "person", ("operator",), ("production",)))
        refused(gate, ANONYMOUS)

    def test_a_caller_may_be_less_than_what_is_written(self, vault: Any, gate: Gate) -> None:
        change(vault, lambda table: table.add_role("ann", "operator"))
        both = Identity(vault).named("ann", ANN)
        with enter(gate, both, "record:ingest"):
            pass
        refused(gate, replace(both, roles=("clinician",)), "record:ingest")

    def test_a_disabled_speaker_speaks_for_nobody(self, vault: Any, gate: Gate) -> None:
        spoken = Identity(vault).named("ann", BOB)
        with enter(gate, spoken):
            pass
        change(vault, lambda table: table.disable("bob"))
        assert any("disabled" in said for said in refused(gate, spoken))

    def test_groups_give_roles_and_take_them(self, vault: Any, gate: Gate, clock: FixedClock) -> None:
        with vault.database.ledger() as connection:
            Principals(connection).add(Principal("cy", "person", (), ("production",)))
            Groups(connection).add("ward", ["clinician"], at=clock.now())
            Groups(connection).join("ward", "cy")
        cy = Identity(vault).named("cy", ANN)
        assert (cy.roles, cy.groups) == (("clinician",), ("ward",))
        with enter(gate, cy):
            pass
        with vault.database.ledger() as connection:
            Groups(connection).leave("ward", "cy")
        refused(gate, cy)


@pytest.mark.usefixtures("people")
class TestJobs:
    def test_a_job_stops_at_the_page_after_its_right_is_withdrawn(self, vault: Any, gate: Gate) -> None:
        with pytest.raises(Refused) as caught:
            self._pages(vault, gate)
        assert caught.value.code == "access.withdrawn"
        phases = [act["phase"] for act in acts(vault, action="record:ingest")]
        assert sorted(phases) == ["failed", "page", "start"]

    def _pages(self, vault: Any, gate: Gate) -> None:
        operator = Principal("operator", "person", ("operator",), ("production",))
        with enter(gate, operator, "record:ingest", job=True) as permit:
            self._page(vault, permit)
            change(vault, lambda table: table.remove_role("operator", "operator"))
            self._page(vault, permit)

    def test_a_change_of_somebody_else_stops_nobody(self, vault: Any, gate: Gate) -> None:
        operator = Principal("operator", "person", ("operator",), ("production",))
        with enter(gate, operator, "record:ingest", job=True) as permit:
            change(vault, lambda table: table.disable("ann"))
            self._page(vault, permit)
        assert {act["phase"] for act in acts(vault, action="record:ingest")} == {"start", "page", "done"}

    @staticmethod
    def _page(vault: Any, permit: Permit) -> None:
        with vault.database.transaction(permit):
            permit.log.count(stored=1)


@pytest.mark.usefixtures("people")
class TestTrail:
    def test_the_act_tells_by_what_and_as_what(self, vault: Any, gate: Gate) -> None:
        with enter(gate, replace(ANN, credential="token:" + "b" * 32)):
            pass
        (act,) = acts(vault, principal="ann")
        assert (act["roles"], act["credential"]) == (["clinician"], "token:" + "b" * 32)
        assert "break_glass" not in act

    @pytest.mark.parametrize(
        ("target", "shown"),
        [
            ("zone/landing", "zone/landing"),
            ("zone/Jane Doe", "(other)"),
            ("Jane Doe", "(other)"),
            ("key/production/clinical", "key/production/clinical"),
            ("key/production/jane", "(other)"),
            ("grant/" + "a" * 32, "grant/" + "a" * 32),
            ("grant/jane doe", "(other)"),
            ("principal/ann", "principal/ann"),
            ("principal/" + "a" * 200, "(other)"),
            ("Patient", "Patient"),
            ("", "(other)"),
        ],
    )
    def test_targets_that_people_type_are_not_told(self, target: str, shown: str) -> None:
        assert shown_target(target) == shown

    def test_an_action_on_a_zone_is_meant_by_its_target(self, vault: Any, gate: Gate) -> None:
        with gate.enter(
            Principal("operator", "person", ("operator",), ("production",)),
            "object:read",
            "zone/landing",
            "HOPERAT",
            account="production",
        ) as permit:
            assert permit.action == "object:read@landing"
            assert "landing:read" in permit.grants
            assert "clinical:read" not in permit.grants


def grant(clock: FixedClock, **other: Any) -> Grant:
    said: dict[str, Any] = {
        "id": "a" * 32,
        "principal": "ann",
        "action": "record:read",
        "account": "research",
        "purpose": "HRESCH",
        "days": 2,
        "requested_by": "bob",
        "requested": clock.now(),
    }
    return Grant(**{**said, **other})


def ask(vault: Any, made: Grant) -> None:
    with vault.database.ledger() as connection:
        Grants(connection).ask(made, most_days=30, seal=lambda name: b"sealed")


def approve(vault: Any, clock: FixedClock, by: str = "carol", account: str = "research") -> None:
    who = Principal(by, "person", ("administrator",), (account,))
    with vault.database.ledger() as connection:
        Grants(connection).approve("a" * 32, who, account=account, now=clock.now())


@pytest.mark.usefixtures("people")
class TestGrants:
    def read(self, gate: Gate, who: Principal = ANN, purpose: str = "HRESCH", account: str = "research") -> Any:
        return gate.enter(who, "record:read", "Patient", purpose, account=account)

    def test_a_grant_opens_another_account_while_it_lasts(self, vault: Any, gate: Gate, clock: FixedClock) -> None:
        ask(vault, grant(clock))
        with pytest.raises(Refused), self.read(gate):
            pass
        approve(vault, clock)
        with self.read(gate) as permit:
            assert permit.account == "research"
        (act,) = acts(vault, account="research", phase="done")
        assert act["grants"] == ["a" * 32]
        assert any(said.startswith("grant " + "a" * 32) for said in act["reasons"])
        for who, purpose, account in ((BOB, "HRESCH", "research"), (ANN, "TREAT", "research")):
            with pytest.raises(Refused), self.read(gate, who, purpose, account):
                pass
        clock.move(days=2)
        with pytest.raises(Refused), self.read(gate):
            pass

    def test_a_permit_by_grant_ends_with_it(self, vault: Any, gate: Gate, clock: FixedClock) -> None:
        ask(vault, grant(clock, days=1))
        approve(vault, clock)
        clock.move(days=1, minutes=-1)
        with self.read(gate) as permit:
            assert permit.expires == clock.now() + timedelta(minutes=1)

    def test_a_revoked_grant_is_none(self, vault: Any, gate: Gate, clock: FixedClock) -> None:
        ask(vault, grant(clock))
        approve(vault, clock)
        with vault.database.ledger() as connection:
            Grants(connection).revoke("a" * 32, BOB, account="research", now=clock.now())
        with pytest.raises(Refused), self.read(gate):
            pass

    @pytest.mark.parametrize("by", ["bob", "ann"])
    def test_nobody_approves_their_own(self, vault: Any, clock: FixedClock, by: str) -> None:
        ask(vault, grant(clock))
        with pytest.raises(Refused) as caught:
            approve(vault, clock, by)
        assert caught.value.code == "access.second_principal"

    def test_it_is_approved_where_it_opens(self, vault: Any, clock: FixedClock) -> None:
        ask(vault, grant(clock))
        with pytest.raises(Refused) as caught:
            approve(vault, clock, account="production")
        assert caught.value.code == "access.not_your_account"

    @pytest.mark.parametrize("action", ["ReadIdentified", "record:read"])
    def test_a_guardrail_stands_above_a_grant(self, vault: Any, gate: Gate, clock: FixedClock, action: str) -> None:
        ask(vault, grant(clock, account="development", action=action))
        approve(vault, clock, account="development")
        with pytest.raises(Refused) as caught, self.read(gate, account="development"):
            pass
        assert "guardrail" in caught.value.message

    def test_an_act_that_needed_no_grant_names_none(self, vault: Any, gate: Gate, clock: FixedClock) -> None:
        ask(vault, grant(clock, account="production", purpose="TREAT"))
        approve(vault, clock, account="production")
        with self.read(gate, purpose="TREAT", account="production") as permit:
            assert permit.expires > clock.now() + timedelta(minutes=30)
        assert "grants" not in acts(vault, phase="done")[0]

    def test_a_policy_of_the_workspace_sees_what_was_given(self, vault: Any, clock: FixedClock) -> None:
        own = '@id("own") @scope("account") permit (principal, action, resource) when { context.granted };'
        strict = Gate(vault, Policies({"own.cedar": own}))
        with pytest.raises(Refused), self.read(strict):
            pass
        ask(vault, grant(clock))
        approve(vault, clock)
        with self.read(strict):
            pass
