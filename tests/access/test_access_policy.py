"""``decide``: deny by default, forbid wins, errors deny, reasons always (decision D10)."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from carelake.access.actions import actions
from carelake.access.policy import Policies, Request
from carelake.access.principals import DEFAULTS, ROLES, Principal
from carelake.core.errors import Invalid

NOWHERE = Path("/nonexistent")
SHIPPED = Policies.load(NOWHERE)
WHO = {who.name: who for who in DEFAULTS}
PURPOSES = ["TREAT", "HPAYMT", "HOPERAT", "HRESCH", "PUBHLTH", "ETREAT", "HSYSADMIN"]


def decide(name: str, action: str, account: str = "production", purpose: str = "HOPERAT") -> tuple[bool, str]:
    decision = SHIPPED.decide(Request(WHO[name], action, account, purpose))
    return decision.allowed, "; ".join(decision.reasons)


@pytest.mark.parametrize(
    ("name", "action", "account", "purpose", "allowed", "because"),
    [
        ("operator", "record:search", "production", "TREAT", True, "operator"),
        ("operator", "record:search", "production", "", False, "a purpose is required"),
        ("operator", "record:search", "production", "FUN", False, "guardrail: a purpose"),
        ("operator", "record:search", "development", "TREAT", False, "development account never"),
        ("operator", "record:search", "security", "TREAT", False, "security account"),
        ("operator", "record:search", "production", "HSYSADMIN", False, "system administration"),
        ("operator", "record:search", "elsewhere", "TREAT", False, "no such account"),
        ("auditor", "audit:read", "elsewhere", "TREAT", False, "no such account"),
        ("operator", "model:approve", "production", "HOPERAT", False, "no policy permits"),
        ("operator", "no:such", "production", "HOPERAT", False, "no such action"),
        ("pipeline", "model:train", "production", "HOPERAT", True, "pipeline"),
        ("pipeline", "model:approve", "production", "HOPERAT", False, "no policy permits"),
        ("pipeline", "record:search", "production", "HOPERAT", False, "no policy permits"),
        ("reviewer", "model:approve", "production", "HOPERAT", True, "reviewer"),
        ("reviewer", "record:search", "production", "TREAT", False, "no policy permits"),
        ("auditor", "audit:verify", "production", "HOPERAT", True, "auditor"),
        ("auditor", "record:read", "production", "TREAT", False, "no policy permits"),
        ("endpoint", "endpoint:invoke", "production", "TREAT", True, "endpoint"),
        ("endpoint", "record:search", "production", "TREAT", False, "no policy permits"),
    ],
)
def test_who_may_what(name: str, action: str, account: str, purpose: str, allowed: bool, because: str) -> None:
    verdict, reasons = decide(name, action, account, purpose)
    assert verdict is allowed
    assert because in reasons


_ANYONE = st.builds(
    Principal,
    name=st.text(min_size=1, max_size=20),
    kind=st.sampled_from(["person", "service"]),
    roles=st.lists(st.sampled_from(sorted(ROLES)), max_size=3, unique=True).map(tuple),
    accounts=st.lists(st.sampled_from(["production", "research", "development", "security"]), unique=True).map(tuple),
    disabled=st.booleans(),
)


@settings(deadline=None)
@example(Principal("nobody", "service", (), ("production",)), "token:exchange", "TREAT", None)
@given(_ANYONE, st.sampled_from(sorted(actions())), st.sampled_from([*PURPOSES, "", "X"]), st.data())
def test_the_guardrails_hold_for_everyone(
    who: Principal, action: str, purpose: str, data: st.DataObject | None
) -> None:
    accounts = ["production", "research", "development", "security", "other"]
    account = data.draw(st.sampled_from(accounts)) if data is not None else "production"
    decision = SHIPPED.decide(Request(who, action, account, purpose))
    assert decision.reasons, "a verdict without a reason"
    if decision.allowed:
        assert purpose in PURPOSES
        assert not who.disabled
        assert who.roles
        assert decision.scope == ("account",)
        if actions()[action].identified:
            assert account in {"production", "research"}
            assert account in who.accounts
            assert purpose != "HSYSADMIN"


def test_a_workspace_policy_cannot_undo_a_guardrail(tmp_path: Path) -> None:
    (tmp_path / "all.cedar").write_text('@id("all") @scope("account") permit (principal, action, resource);')
    policies = Policies.load(tmp_path)
    assert policies.digest != SHIPPED.digest
    assert policies.decide(Request(WHO["auditor"], "record:read", "production", "TREAT")).allowed
    assert not policies.decide(Request(WHO["auditor"], "record:read", "development", "TREAT")).allowed


def test_a_policy_that_errs_denies(tmp_path: Path) -> None:
    (tmp_path / "bad.cedar").write_text(
        '@id("bad") @scope("account") permit (principal, action, resource) when { 9223372036854775807 + 1 == 2 };'
    )
    decision = Policies.load(tmp_path).decide(Request(WHO["operator"], "record:read", "production", "TREAT"))
    assert not decision.allowed
    assert decision.reasons == ("a policy could not be evaluated",)


@pytest.mark.parametrize("scope", ["", '@scope("everything")', '@scope("account everything")'])
def test_a_permit_without_a_known_scope_denies(tmp_path: Path, scope: str) -> None:
    (tmp_path / "own.cedar").write_text(f'@id("own") {scope} permit (principal, action, resource);')
    decision = Policies.load(tmp_path).decide(Request(WHO["auditor"], "record:read", "production", "TREAT"))
    assert not decision.allowed
    assert "no known scope" in decision.reasons[-1]


def test_policies_that_do_not_parse_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "broken.cedar").write_text("permit (")
    with pytest.raises(Invalid) as caught:
        Policies.load(tmp_path)
    assert caught.value.code == "access.policy"


def test_every_action_is_in_a_group_that_a_policy_names() -> None:
    named = set(actions())
    for name in named:
        assert actions()[name].groups
        reached = [w for w in DEFAULTS for p in PURPOSES if SHIPPED.decide(Request(w, name, "production", p)).allowed]
        assert reached, f"nobody may ever {name}"
