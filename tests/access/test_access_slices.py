"""Slicing changes no verdict: what is left out could neither decide nor err."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carelake.access.actions import actions
from carelake.access.policy import Policies, Request, policy_texts
from carelake.access.principals import ROLES, Principal

NAMES = ["ann", "bob", "cy"]
GROUPS = ["ward", "lab"]
ROLE_NAMES = ["clinician", "operator", "auditor"]
ACCOUNTS = ["production", "research", "development"]
ACTIONS = ["record:read", "record:search", "audit:read", "object:read@landing", "object:read@models"]
ACTION_GROUPS = ["ReadIdentified", "Prove", "Hold", "Identified"]
PURPOSES = ["TREAT", "HRESCH", "ETREAT"]


def _said(kind: str, names: list[str]) -> st.SearchStrategy[str]:
    return st.sampled_from(names).map(lambda name: f'{kind}::"{name}"')


_who = st.one_of(
    st.just("principal"),
    _said("principal == Principal", NAMES),
    _said("principal in Group", GROUPS),
    _said("principal is Principal in Group", GROUPS),
    st.just("principal is Principal"),
    _said("principal in Principal", NAMES),
)
_what = st.one_of(
    st.just("action"),
    _said("action == Action", ACTIONS),
    _said("action in Action", ACTION_GROUPS),
    st.lists(_said("Action", ACTIONS + ACTION_GROUPS), min_size=1, max_size=3).map(
        lambda names: f"action in [{', '.join(names)}]"
    ),
)
_where = st.one_of(
    st.just("resource"),
    _said("resource == Account", ACCOUNTS),
    _said("resource in Account", ACCOUNTS),
    st.just("resource is Account"),
)
# The last two err when they are evaluated: an overflow.
_simple = st.one_of(
    st.sampled_from(ROLE_NAMES).map(lambda name: f'principal.roles.contains("{name}")'),
    st.sampled_from(GROUPS).map(lambda name: f'principal.groups.contains("{name}")'),
    st.sampled_from(ACCOUNTS).map(lambda name: f'principal.accounts.contains("{name}")'),
    st.sampled_from(ACCOUNTS).map(lambda name: f'resource.account == "{name}"'),
    st.sampled_from(ACCOUNTS).map(lambda name: f'"{name}" == resource.account'),
    st.sampled_from(PURPOSES).map(lambda name: f'context.purpose == "{name}"'),
    st.sampled_from(
        ["context.granted", "context.glass", "principal.disabled", "!principal.disabled", "true", "false"]
    ),
    st.just("principal.accounts.contains(resource.account)"),
    st.just("9223372036854775807 + 1 == 2"),
    st.sampled_from(ROLE_NAMES).map(
        lambda name: f'(9223372036854775807 + 1 == 2 || principal.roles.contains("{name}"))'
    ),
)
_test = st.recursive(
    _simple,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(lambda two: f"({two[0]} && {two[1]})"),
        st.tuples(inner, inner).map(lambda two: f"({two[0]} || {two[1]})"),
        inner.map(lambda one: f"!({one})"),
        st.tuples(inner, inner, inner).map(lambda three: f"(if {three[0]} then {three[1]} else {three[2]})"),
    ),
    max_leaves=4,
)
_condition = st.tuples(st.sampled_from(["when", "unless"]), st.lists(_test, min_size=1, max_size=3)).map(
    lambda pair: f"{pair[0]} {{ {' && '.join(pair[1])} }}"
)
_effect = st.sampled_from(["permit", "permit", "forbid"])
_policy = st.tuples(_effect, _who, _what, _where, st.lists(_condition, max_size=3)).map(
    lambda said: f'@scope("account") {said[0]} ({said[1]}, {said[2]}, {said[3]}) {" ".join(said[4])};'
)
_requests = st.builds(
    Request,
    st.builds(
        Principal,
        name=st.sampled_from(NAMES),
        kind=st.just("person"),
        roles=st.lists(st.sampled_from(ROLE_NAMES), max_size=2, unique=True).map(tuple),
        accounts=st.lists(st.sampled_from(ACCOUNTS), max_size=2, unique=True).map(tuple),
        groups=st.lists(st.sampled_from(GROUPS), max_size=2, unique=True).map(tuple),
        disabled=st.booleans(),
    ),
    st.sampled_from(ACTIONS),
    st.sampled_from(ACCOUNTS),
    st.sampled_from(PURPOSES),
    grants=st.sampled_from([(), ("g",)]),
    glass=st.sampled_from(["", "b"]),
)


def _loaded(said: list[str]) -> Policies:
    # An impossible policy is refused by the schema, which is right and not what is tested here.
    policies: list[str] = []
    for one in said:
        try:
            Policies({"own.cedar": one})
        except Exception:
            continue
        policies.append(one)
    return Policies({"own.cedar": "\n".join(policies)})


_some = given(st.lists(_policy, min_size=1, max_size=12), st.lists(_requests, min_size=1, max_size=12))


@_some
@settings(max_examples=50, deadline=None)
def test_a_slice_decides_as_all_policies_do(said: list[str], requests: list[Request]) -> None:
    _alike(said, requests)


@pytest.mark.soak
@_some
@settings(max_examples=1_000, deadline=None)
def test_many_slices_decide_as_all_policies_do(said: list[str], requests: list[Request]) -> None:
    _alike(said, requests)


def _alike(said: list[str], requests: list[Request]) -> None:
    policies = _loaded(said)
    for request in requests:
        whole = policies.evaluate(request, every=True)
        assert policies.evaluate(request) == whole
        assert policies.decide(request) == whole
        assert policies.decide(request) == whole


SHIPPED = Policies.load(Path("/nonexistent"))


@given(
    st.lists(st.sampled_from(sorted(ROLES)), max_size=3, unique=True),
    st.lists(st.sampled_from(ACCOUNTS), max_size=3, unique=True),
    st.sampled_from(sorted(actions())),
    st.sampled_from(ACCOUNTS),
    st.sampled_from([*PURPOSES, "HOPERAT", "HSYSADMIN", "FUN"]),
    st.sampled_from([(), ("g",)]),
    st.sampled_from(["", "b"]),
)
def test_the_shipped_policies_too(
    roles: list[str],
    accounts: list[str],
    action: str,
    account: str,
    purpose: str,
    grants: tuple[str, ...],
    glass: str,
) -> None:
    who = Principal("ann", "person", tuple(roles), tuple(accounts))
    request = Request(who, action, account, purpose, grants, glass)
    assert SHIPPED.evaluate(request) == SHIPPED.evaluate(request, every=True)


def test_a_slice_is_small_where_policies_say_whom_they_are_for() -> None:
    own = "\n".join(
        f'@id("own {n}") @scope("account") permit (principal == Principal::"user{n}", action, resource);'
        for n in range(300)
    )
    policies = Policies({**policy_texts(Path("/nonexistent")), "own.cedar": own})
    request = Request(Principal("user7", "person", (), ("production",)), "record:read", "production", "TREAT")
    assert policies.decide(request).reasons == ("own 7",)
    assert len(policies.may_apply(request)) < 20


@pytest.mark.parametrize(
    "condition",
    [
        'when { principal.roles.contains("clinician") && 9223372036854775807 + 1 == 2 }',
        'when { 9223372036854775807 + 1 == 2 && principal.roles.contains("clinician") }',
    ],
)
def test_a_policy_that_errs_before_it_asks_for_a_role_is_not_left_out(condition: str) -> None:
    text = f'@scope("account") permit (principal, action, resource) {condition};'
    policies = Policies({"own.cedar": text + '@id("all") @scope("account") permit (principal, action, resource);'})
    request = Request(Principal("ann", "person", ("auditor",), ("production",)), "record:read", "production", "TREAT")
    assert policies.decide(request).allowed == condition.startswith("when { principal")


def test_verdicts_are_kept_by_all_that_they_depend_on() -> None:
    base = Request(Principal("ann", "person", ("clinician",), ("production",)), "record:read", "production", "TREAT")
    assert SHIPPED.decide(base).allowed
    for other in (
        Request(Principal("ann", "person", (), ("production",)), "record:read", "production", "TREAT"),
        Request(Principal("ann", "person", ("clinician",), ()), "record:read", "production", "TREAT"),
        Request(
            Principal("ann", "person", ("clinician",), ("production",), True), "record:read", "production", "TREAT"
        ),
        Request(base.principal, "record:ingest", "production", "TREAT"),
        Request(base.principal, "record:read", "research", "TREAT"),
        Request(base.principal, "record:read", "production", "HRESCH"),
    ):
        assert not SHIPPED.decide(other).allowed
    assert SHIPPED.decide(Request(base.principal, "record:read", "research", "TREAT", grants=("g",))).allowed, (
        "a grant is part of the question"
    )
