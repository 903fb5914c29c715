"""Attacks by those who hold some right and reach for more of it: each is refused."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from carelake.access.gate import Gate
from carelake.access.glass import Glasses
from carelake.access.grants import Grant, Grants
from carelake.access.groups import Groups
from carelake.access.identity import Identity
from carelake.access.oidc import Links
from carelake.access.policy import Policies
from carelake.access.principals import Principal, Principals
from carelake.apps.cli import credentials, emergency, rights, who
from carelake.apps.cli.keys import destroy
from carelake.apps.cli.session import Options, Session
from carelake.apps.wiring import CONFIG, Workspace, read_settings
from carelake.audit.readings import Acts
from carelake.core.clock import FixedClock
from carelake.core.errors import Invalid, NotFound, Refused

ALL = ("production", "research", "development", "security")
PEOPLE = (
    Principal("dev", "person", ("development", "reviewer"), ("production",)),
    Principal("cmp", "person", ("compliance", "clinician"), ("production",)),
    Principal("bob", "person", ("administrator",), ("production",)),
    Principal("carol", "person", ("administrator",), ("production",)),
    Principal("far", "person", ("clinician",), ("production", "research")),
)
BOB = PEOPLE[2]
LIMITS = [
    "ACCESS__GLASS_MAX_MINUTES",
    "ACCOUNTS__PRODUCTION__JURISDICTION",
    "AUDIT__ANCHOR",
    "KEYS__WAITING",
    "AUDIT",
]


@pytest.fixture(autouse=True)
def people(vault: Any, gate: Gate) -> None:
    with vault.database.ledger() as connection:
        for one in PEOPLE:
            Principals(connection).add(one)


def granted(vault: Any, to: str, action: str, *, account: str = "production", purpose: str, days: int = 2) -> str:
    now = vault.clock.now()
    name = str(vault.ids.new())
    with vault.database.ledger() as connection:
        asked = Grant(name, to, action, account, purpose, days, "operator", now)
        Grants(connection).ask(asked, most_days=30, seal=lambda _: b"")
        Grants(connection).approve(name, PEOPLE[3], account=account, now=now)
    return name


def smashed(vault: Any, one: Principal, minutes: int = 60) -> str:
    name = str(vault.ids.new())
    with vault.database.ledger() as connection:
        Glasses(connection).smash(
            one,
            name=name,
            account="production",
            purpose="ETREAT",
            reason="unconscious in bed four",
            minutes=minutes,
            most_minutes=60,
            review_days=3,
            now=vault.clock.now(),
            reference=lambda _: "r",
            seal=lambda *_: b"",
        )
    return name


def enter(gate: Gate, one: Principal, action: str, purpose: str, account: str = "production") -> Any:
    return gate.enter(one, action, "Patient", purpose, account=account)


def refused(gate: Gate, one: Principal, action: str, purpose: str, account: str = "production") -> str:
    with pytest.raises(Refused) as caught, enter(gate, one, action, purpose, account):
        pass
    return str(caught.value.facts["reasons"])


@pytest.mark.parametrize(("name", "role"), [("dev", "reviewer"), ("cmp", "clinician")])
def test_a_token_for_fewer_roles_lifts_no_guardrail(vault: Any, gate: Gate, name: str, role: str) -> None:
    granted(vault, name, "record:search", purpose="HRESCH")
    identity = Identity(vault)
    own = identity.named(name, identity.nobody())
    assert "guardrail" in refused(gate, replace(own, via=""), "record:search", "HRESCH")
    told: dict[str, Any] = {"purpose": "HRESCH", "account": "production", "seconds": 60}
    caller = identity.bearer(identity.issue(own, role=role, **told)).principal
    assert caller.roles == (role,)
    assert "sees" in refused(gate, caller, "record:search", "HRESCH")
    assert "sees" in refused(gate, replace(caller, roles=()), "record:search", "HRESCH")


def test_a_guardrail_of_the_workspace_is_not_lifted_either(vault: Any, gate: Gate, tmp_path: Path) -> None:
    forbid = 'forbid (principal, action, resource) when { principal.roles.contains("reviewer") };'
    (tmp_path / "own.cedar").write_text(f'@id("own: no reviewer")\n{forbid}\n')
    own = Gate(vault, Policies.load(tmp_path))
    narrowed = replace(PEOPLE[0], roles=("development",))
    assert "own: no reviewer" in refused(own, narrowed, "model:read", "HOPERAT")
    with enter(gate, narrowed, "model:read", "HOPERAT"):
        pass


def test_an_auditor_reads_the_trail_of_their_accounts(vault: Any, gate: Gate) -> None:
    aud = Principal("aud", "person", ("auditor",), ("development",))
    with vault.database.ledger() as connection:
        Principals(connection).add(aud)
    refused(gate, aud, "audit:read", "HOPERAT", "production")
    with enter(gate, aud, "audit:read", "HOPERAT", "development"):
        pass


def test_one_account_takes_no_backup_of_all(vault: Any, gate: Gate) -> None:
    granted(vault, "dev", "workspace:backup", purpose="HOPERAT")
    for one in (BOB, PEOPLE[0]):
        assert "belongs to all" in refused(gate, one, "workspace:backup", "HOPERAT")


@pytest.mark.parametrize("change", ["remove_role", "disable"])
def test_an_emergency_ends_with_the_right_to_it(vault: Any, gate: Gate, change: str) -> None:
    smashed(vault, BOB)
    with enter(gate, BOB, "record:read", "ETREAT"):
        pass
    with vault.database.ledger() as connection:
        getattr(Principals(connection), change)("bob", *(["administrator"] if change == "remove_role" else []))
    refused(gate, BOB, "record:read", "ETREAT")


def test_an_emergency_ends_when_the_group_is_left(vault: Any, gate: Gate, clock: FixedClock) -> None:
    cy = Principal("cy", "person", (), ("production",))
    with vault.database.ledger() as connection:
        Principals(connection).add(cy)
        Groups(connection).add("ward", ["clinician"], at=clock.now())
        Groups(connection).join("ward", "cy")
    cy = replace(Identity(vault).named("cy", cy), via="")
    smashed(vault, cy)
    with enter(gate, cy, "record:read", "ETREAT"):
        pass
    with vault.database.ledger() as connection:
        Groups(connection).leave("ward", "cy")
    refused(gate, cy, "record:read", "ETREAT")


def test_a_permit_ends_with_the_emergency_not_with_a_grant_beside_it(
    vault: Any, gate: Gate, clock: FixedClock
) -> None:
    smashed(vault, BOB, minutes=1)
    granted(vault, "bob", "record:read", purpose="ETREAT")
    with enter(gate, BOB, "record:read", "ETREAT") as permit:
        assert permit.expires == clock.now() + timedelta(minutes=1)


def test_nobody_takes_a_guarding_role_off_themselves(vault: Any, clock: FixedClock) -> None:
    both = Principal("two", "person", ("administrator", "compliance"), ALL)
    with vault.database.ledger() as connection:
        people, groups = Principals(connection), Groups(connection)
        people.add(both)
        groups.add("watch", ["compliance"], at=clock.now())
        groups.join("watch", "two")
        for attack in (
            lambda: people.remove_role("two", "compliance", by=both),
            lambda: groups.leave("watch", "two", by=both),
            lambda: groups.add("watch", [], at=clock.now(), by=both),
        ):
            with pytest.raises(Refused) as caught:
                attack()
            assert caught.value.code == "access.not_yourself"


def test_groups_and_links_of_other_accounts_are_left_alone(vault: Any, clock: FixedClock) -> None:
    with vault.database.ledger() as connection:
        groups, links = Groups(connection), Links(connection)
        groups.add("ward", ["clinician"], at=clock.now())
        groups.join("ward", "far")
        links.add("https://id.example.org", "u-1", "far")
        links.add("https://id.example.org", "u-2", "carol")
        attacks: list[Callable[[], object]] = [
            lambda: groups.add("ward", [], at=clock.now(), by=BOB),
            lambda: links.remove("https://id.example.org", "u-1", "far", by=BOB),
        ]
        for attack in attacks:
            with pytest.raises(Refused) as caught:
                attack()
            assert caught.value.code == "access.not_your_account"
        with pytest.raises(NotFound):  # named as the one that may be changed
            links.remove("https://id.example.org", "u-1", "carol", by=BOB)
        links.remove("https://id.example.org", "u-2", "carol", by=BOB)


@pytest.mark.parametrize("name", ["sealer", "Vault", "probe", "access", "upgrade", "init", "anonymous", "Zoe\u0308"])
def test_nobody_takes_a_name_of_ours_or_two_texts_for_one(vault: Any, name: str) -> None:
    with vault.database.ledger() as connection, pytest.raises(Invalid) as caught:
        Principals(connection).add(Principal(name, "person", ("auditor",), ("production",)))
    assert caught.value.code == "access.principal_name"


def test_a_speaker_who_is_no_operator_any_more_is_silent(vault: Any, gate: Gate) -> None:
    with vault.database.ledger() as connection:
        Principals(connection).add(Principal("boss", "person", ("operator",), ALL), uid=4711)
    lent = Identity(vault).local(4711, "bob")
    with enter(gate, lent, "access:read", "HOPERAT"):
        pass
    with vault.database.ledger() as connection:
        Principals(connection).remove_role("boss", "operator")
    refused(gate, lent, "access:read", "HOPERAT")


def test_an_act_still_names_grant_and_emergency(vault: Any, gate: Gate) -> None:
    glass, grant = smashed(vault, BOB), granted(vault, "bob", "record:read", purpose="ETREAT")
    with enter(gate, BOB, "record:read", "ETREAT"):
        pass
    with vault.database.ledger_reading() as connection:
        (act,) = list(Acts(connection).find(action="record:read", phase="done"))
    assert (act["break_glass"], act["grants"]) == (glass, [grant])


@pytest.mark.parametrize("name", LIMITS)
def test_a_limit_is_not_overridden_untold(tmp_path: Path, name: str) -> None:
    (tmp_path / CONFIG).write_text('workspace = "w1"\nformat = 2\n')
    with pytest.raises(Invalid) as caught:
        read_settings(tmp_path, {f"CARELAKE_{name}": "999999"})
    assert (caught.value.code, f"CARELAKE_{name}" in caught.value.message) == ("apps.settings", True)


class Typed:
    """Commands of one workspace, in this process; each answers its JSON."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._root, self._capsys = folder / "typed", capsys
        environment = {**os.environ, "CARELAKE_KEY_DIR": str(folder / "typed-keys")}
        Workspace.create(self._root, environment).close()

    def __call__(self, as_: str | None, work: Callable[..., Any], account: str = "production", **said: Any) -> Any:
        session = Session(Options(self._root, as_, "HOPERAT", account))
        try:
            self._capsys.readouterr()
            work(session, json_out=True, **said)
            return json.loads(self._capsys.readouterr().out)
        finally:
            session.close()

    def add(self, name: str, role: str, *accounts: str, groups: tuple[str, ...] = ()) -> None:
        roles = [role] if role else []
        said: dict[str, Any] = {"roles": roles, "accounts": list(accounts), "kind": "person", "groups": list(groups)}
        self(None, who.add, name=name, **said)


@pytest.fixture
def typed(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Typed:
    monkeypatch.setenv("CARELAKE_KEY_DIR", str(tmp_path / "typed-keys"))
    return Typed(tmp_path, capsys)


@pytest.mark.slow
def test_an_administrator_of_one_account_sees_rights_of_that_one(typed: Typed) -> None:
    typed.add("devadm", "administrator", "development")
    typed.add("adm", "administrator", "production")
    typed.add("ann", "clinician", "production")
    typed(None, who.group, name="ward", roles=["clinician"])
    typed.add("cy", "", "production", groups=("ward",))
    key = typed(None, credentials.key_add, name="cy", role="clinician")  # a role that its group gives
    typed(None, credentials.link, name="ann", issuer="https://id.example.org", subject="u", remove=False)
    asked: dict[str, Any] = {"to": "ann", "action": "record:read", "reason": "protocol 12 of the board", "days": 2}
    typed("adm", rights.ask, **asked)
    assert [one["id"] for one in typed("adm", credentials.report)] == [key["id"]]
    far: dict[str, Any] = {"as_": "devadm", "account": "development"}
    for work in (credentials.report, credentials.links, rights.grants):
        assert len(typed(None, work)) == 1
        assert typed(work=work, **far) == []
    assert typed(work=emergency.reviews, only_open=False, **far) == []
    assert {one["name"] for one in typed(work=who.principals, **far)} == {"auditor", "devadm", "operator"}
    assert typed(work=who.groups, **far)[0]["members"] == []
    assert "ann" not in json.dumps(typed(work=who.accounts, **far))
    explained = {"action": "record:read", "target": "Patient", "purpose": "TREAT"}
    shown: list[tuple[Callable[..., Any], dict[str, Any]]] = [(who.show_one, {}), (rights.explain, explained)]
    for look, said in shown:
        with pytest.raises(NotFound):
            typed(work=look, name="ann", **far, **said)
    attacks: list[tuple[Callable[..., Any], dict[str, Any]]] = [
        (credentials.revoke, {"token": "0123456789abcdef"}),
        (who.group, {"name": "ward", "roles": []}),
        (destroy, {"name": None, "days": None, "dry_run": False, "due": True}),
        (credentials.link, {"name": "ann", "issuer": "https://id.example.org", "subject": "u", "remove": True}),
    ]
    for attack, said in attacks:
        with pytest.raises(Refused) as caught:
            typed(work=attack, **far, **said)
        assert caught.value.code == "access.not_your_account"
