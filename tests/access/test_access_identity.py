"""Who calls is resolved once at a door: the local user, or a signed token (decision D13)."""

from __future__ import annotations

import base64
import json
from typing import Any

import jwt
import pytest

from carelake.access.identity import Identity
from carelake.access.principals import Principal, Principals
from carelake.core.clock import FixedClock
from carelake.core.errors import CarelakeError, Conflict, Invalid, Refused, Unauthenticated

ME = 4242


@pytest.fixture
def identity(vault: Any) -> Identity:
    made = Identity(vault)
    made.bind_defaults(ME)
    return made


def token(identity: Identity, name: str = "auditor", **other: Any) -> str:
    who = identity.named(name, identity.nobody())
    said: dict[str, Any] = {"purpose": "HOPERAT", "account": "production", "seconds": 60, **other}
    return identity.issue(who, **said)


def test_the_bound_user_is_the_operator(identity: Identity) -> None:
    assert identity.local(ME, None).name == "operator"
    assert identity.local(ME, "operator").via == ""


def test_the_operator_speaks_for_others_on_record(identity: Identity) -> None:
    who = identity.local(ME, "reviewer")
    assert (who.name, who.via, who.roles) == ("reviewer", "operator", ("reviewer",))


@pytest.mark.parametrize(("uid", "name", "kind"), [(1, None, Unauthenticated), (ME, "nobody-here", Unauthenticated)])
def test_strangers_are_not_let_in(identity: Identity, uid: int, name: str | None, kind: type[CarelakeError]) -> None:
    with pytest.raises(kind):
        identity.local(uid, name)


def test_only_an_operator_speaks_for_others(vault: Any, identity: Identity) -> None:
    with vault.database.ledger() as connection:
        Principals(connection).add(Principal("ann", "person", ("clinician",), ("production",)), uid=7)
    assert identity.local(7, None).name == "ann"
    with pytest.raises(Refused) as caught:
        identity.local(7, "operator")
    assert caught.value.code == "access.may_not_speak_for"


def test_a_token_names_its_caller(identity: Identity) -> None:
    caller = identity.bearer(token(identity, purpose="TREAT", account="research"))
    assert (caller.principal.name, caller.purpose, caller.account) == ("auditor", "TREAT", "research")


def test_a_token_narrows_to_a_role_that_is_held(identity: Identity) -> None:
    assert identity.bearer(token(identity, role="auditor")).principal.roles == ("auditor",)
    with pytest.raises(Refused) as caught:
        token(identity, role="operator")
    assert caught.value.code == "access.role_not_held"


def _with(text: str, **claims: Any) -> str:
    head, body, signature = text.split(".")
    said = json.loads(base64.urlsafe_b64decode(body + "=="))
    forged = base64.urlsafe_b64encode(json.dumps({**said, **claims}).encode()).rstrip(b"=").decode()
    return f"{head}.{forged}.{signature}"


@pytest.mark.parametrize(
    "forge",
    [
        lambda text: _with(text, sub="operator"),
        lambda text: _with(text, exp=4_000_000_000),
        lambda text: text[:-4] + "AAAA",
        lambda text: text.rsplit(".", 1)[0] + ".",
        lambda text: jwt.encode({"sub": "operator"}, "x" * 32, algorithm="HS256"),
        lambda text: jwt.encode({"sub": "operator"}, "", algorithm="none"),
        lambda text: "",
        lambda text: "a.b.c",
    ],
)
def test_a_forged_token_is_worth_nothing(identity: Identity, forge: Any) -> None:
    with pytest.raises(Unauthenticated) as caught:
        identity.bearer(forge(token(identity)))
    assert caught.value.code == "access.token"


def test_a_token_ends(identity: Identity, clock: FixedClock) -> None:
    text = token(identity, seconds=60)
    clock.move(seconds=55)
    assert identity.bearer(text)
    clock.move(seconds=5)
    with pytest.raises(Unauthenticated):
        identity.bearer(text)


@pytest.mark.parametrize("seconds", [0, -5, 43_201])
def test_a_token_is_short(identity: Identity, seconds: int) -> None:
    with pytest.raises(Invalid) as caught:
        token(identity, seconds=seconds)
    assert caught.value.code == "access.token_seconds"


def test_a_token_of_a_disabled_principal_opens_nothing(vault: Any, identity: Identity) -> None:
    text = token(identity)
    with vault.database.ledger() as connection:
        Principals(connection).disable("auditor")
    assert identity.bearer(text).principal.disabled


def test_names_and_roles_are_checked(vault: Any, identity: Identity) -> None:
    with vault.database.ledger() as connection:
        for who, kind in [
            (Principal("operator", "person", (), ()), Conflict),
            (Principal("x", "person", ("king",), ()), Invalid),
            (Principal("", "person", (), ()), Invalid),
            (Principal("a\nb", "person", (), ()), Invalid),
            (Principal("anonymous", "person", (), ()), Invalid),
        ]:
            with pytest.raises(kind):
                Principals(connection).add(who)


def test_rights_are_given_only_in_accounts_of_ones_own(vault: Any, identity: Identity) -> None:
    by = Principal("res", "person", ("operator",), ("research",))
    with vault.database.ledger() as connection:
        principals = Principals(connection)
        with pytest.raises(Refused) as caught:
            principals.add(Principal("evil", "person", ("operator",), ("production",)), by=by)
        assert caught.value.code == "access.not_your_account"
        with pytest.raises(Refused):
            principals.disable("operator", by=by)
        with pytest.raises(Invalid):
            principals.add(Principal("x", "person", (), ("nosuch",)), by=by)
        principals.add(Principal("fine", "person", ("clinician",), ("research",)), by=by)
