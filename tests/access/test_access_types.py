"""Decisions about types of resources: policies may name them, and a search that touches several needs all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from carelake.access.cases import Case, run_case
from carelake.access.gate import Gate
from carelake.access.policy import Policies
from carelake.access.principals import Principal, Principals
from carelake.audit.readings import Acts
from carelake.core.errors import Refused
from carelake.core.permit import Permit

NO_NOTES = """
@id("research reads no notes")
forbid (principal, action in Action::"ReadIdentified", resource)
when { context.type == "DocumentReference" };

@id("students see no diagnoses")
forbid (principal, action, resource)
when { principal.roles.contains("clinician") && ["Condition", "Observation"].contains(context.type) };
"""

CLINICIAN = Principal("cora", "person", ("clinician",), ("production",))
OPERATOR = Principal("olaf", "person", ("operator",), ("production",))


@pytest.fixture
def typed(vault: Any, tmp_path: Path) -> Gate:
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "types.cedar").write_text(NO_NOTES)
    with vault.database.ledger() as connection:
        for who in (CLINICIAN, OPERATOR):
            Principals(connection).add(who)
    return Gate(vault, Policies.load(folder))


def acts(vault: Any) -> list[dict[str, Any]]:
    with vault.database.ledger() as connection:
        return Acts(connection).find(limit=20)


def search(gate: Gate, who: Principal, target: str, *types: str) -> Permit:
    with gate.enter(who, "record:search", target, "TREAT", account="production") as permit:
        return gate.widen(permit, types)


def test_a_policy_may_forbid_a_type(vault: Any, typed: Gate) -> None:
    search(typed, OPERATOR, "Condition")
    with pytest.raises(Refused) as told:
        search(typed, OPERATOR, "DocumentReference")
    assert told.value.facts["reasons"] == ["research reads no notes"]
    act = acts(vault)[0]
    assert (act["phase"], act["target"], act["reasons"]) == (
        "refused",
        "DocumentReference",
        ["research reads no notes"],
    )


def test_several_types_are_one_act_that_names_them(vault: Any, typed: Gate) -> None:
    before = len(acts(vault))
    permit = search(typed, OPERATOR, "Observation", "Patient", "Condition", "Observation")
    act = acts(vault)[0]
    assert len(acts(vault)) == before + 1
    assert (act["phase"], act["target"], act["correlation"]) == ("done", "Observation", permit.act)
    assert act["types"] == ["Condition", "Observation", "Patient"]


def test_one_denied_type_refuses_the_whole(vault: Any, typed: Gate) -> None:
    before = len(acts(vault))
    with pytest.raises(Refused) as told:
        search(typed, CLINICIAN, "Patient", "Observation", "Condition", "DocumentReference", "Encounter")
    assert told.value.facts["reasons"] == ["students see no diagnoses", "research reads no notes"]
    assert "(here Condition, DocumentReference, Observation)" in told.value.message
    act = acts(vault)[0]
    assert len(acts(vault)) == before + 1
    assert (act["phase"], act["error"], act["target"]) == ("refused", "access.denied", "Patient")
    assert act["reasons"] == told.value.facts["reasons"]
    assert told.value.facts["act"] == act["correlation"]
    assert act["scope"] == []


def test_what_is_denied_later_keeps_what_was_seen_before(vault: Any, typed: Gate) -> None:
    def seen_and_denied() -> None:
        with typed.enter(CLINICIAN, "record:search", "Patient", "TREAT", account="production") as permit:
            permit.log.read("resource:" + "0" * 32)
            typed.widen(permit, ["Observation"])

    with pytest.raises(Refused):
        seen_and_denied()
    act = acts(vault)[0]
    assert (act["phase"], len(act["read"])) == ("refused", 1)


def test_a_wider_permit_is_good_inside_its_block_only(vault: Any, typed: Gate) -> None:
    permit = search(typed, OPERATOR, "Patient", "Encounter")
    with pytest.raises(Refused) as told:
        vault.database.reading(permit).__enter__()
    assert told.value.code == "permit.ended"
    with pytest.raises(Refused) as told:
        typed.widen(permit, ["Group"])
    assert told.value.code == "permit.ended"
    with pytest.raises(Refused) as told:
        typed.widen(None, ["Group"])  # type: ignore[arg-type]
    assert told.value.code == "permit.forged"


def test_no_longer_than_the_first(vault: Any, typed: Gate, clock: Any) -> None:
    with typed.enter(OPERATOR, "record:search", "Patient", "TREAT", account="production") as permit:
        clock.move(seconds=600)
        assert typed.widen(permit, ["Encounter"]).expires == permit.expires
        assert typed.widen(permit, ["Patient"]).expires == permit.expires


def test_rights_that_were_withdrawn_meanwhile_widen_nothing(vault: Any, typed: Gate) -> None:
    def withdrawn() -> None:
        with typed.enter(OPERATOR, "record:search", "Patient", "TREAT", account="production") as permit:
            with vault.database.ledger() as connection:
                Principals(connection).disable("olaf")
            typed.widen(permit, ["Encounter"])

    with pytest.raises(Refused) as told:
        withdrawn()
    assert told.value.code == "access.denied"


def test_policy_tests_may_name_a_type(tmp_path: Path) -> None:
    (tmp_path / "types.cedar").write_text(NO_NOTES)
    policies = Policies.load(tmp_path)
    said = {"roles": ("operator",), "action": "record:read", "purpose": "TREAT"}
    cases = [
        Case(**said, expect="deny", type="DocumentReference", because="notes"),  # type: ignore[arg-type]
        Case(**said, expect="allow", type="Patient"),  # type: ignore[arg-type]
        Case(**said, expect="allow"),  # type: ignore[arg-type]
    ]
    assert all(run_case(policies, "x", number, case).passed for number, case in enumerate(cases))
