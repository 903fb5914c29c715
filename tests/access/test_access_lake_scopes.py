"""Predicates that the lake alone has: named for other actions they deny; and what a door does instead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from carelake.access.actions import actions
from carelake.access.policy import Policies, Request, policy_texts
from carelake.access.principals import Principal, Principals
from carelake.core.errors import Refused

_TEXT = """
@id("anything: by {scope}")
@scope("{scope}")
permit (principal, action, resource) when {{ principal.roles.contains("analyst") }};
"""
ANALYST = Principal("ana", "person", ("analyst",), ("production",))


def policies(scope: str) -> Policies:
    shipped = {name: text for name, text in policy_texts(Path("/nonexistent")).items() if "guardrails" in name}
    return Policies({**shipped, "own.cedar": _TEXT.format(scope=scope)})


@pytest.mark.parametrize("scope", ["deidentified", "cells", "minimum", "account cells", "everything"])
def test_a_predicate_denies_where_no_door_has_it(scope: str) -> None:
    for name, action in actions().items():
        found = policies(scope).decide(Request(ANALYST, name, "production", "HRESCH"))
        known = set(scope.split()) <= {"account", *action.scopes}
        assert found.allowed <= known, name
    found = policies(scope).decide(Request(ANALYST, "lake:query", "production", "HRESCH"))
    assert found.allowed is (scope != "everything")


def test_an_action_on_what_is_not_identified_carries_its_predicate_whoever_permits_it() -> None:
    for name in ("lake:analyse", "lake:ask-deidentified"):
        found = policies("account").decide(Request(ANALYST, name, "production", "HRESCH"))
        assert found.scope == ("account", "deidentified")
        assert not actions()[name].identified


def test_actions_name_what_there_is() -> None:
    for one in actions().values():
        assert set(one.always) <= set(one.scopes)
        assert not one.instead or one.instead in actions()


def test_a_door_does_instead_what_the_caller_may(vault: Any, gate: Any) -> None:
    with vault.database.ledger() as connection:
        Principals(connection).add(ANALYST)
    with gate.enter(ANALYST, "lake:query", "lake", "HRESCH", account="production") as permit:
        assert permit.action == "lake:analyse"
        assert {"cells", "deidentified"} <= set(permit.scope)
    with gate.enter(ANALYST, "lake:ask", "lake", "HRESCH", account="production", job=True) as permit:
        assert permit.action == "lake:ask-deidentified"
    for purpose in ("TREAT", "HPAYMT"):
        with (
            pytest.raises(Refused) as caught,
            gate.enter(ANALYST, "lake:query", "lake", purpose, account="production"),
        ):
            pass
        assert "query the lake" in caught.value.message
