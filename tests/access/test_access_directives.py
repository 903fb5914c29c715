"""What Consents come to, and which permits ask for it: the readings of docs/consent.md, one by one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy import text

from carelake.access.consents import asked_of, resolved
from carelake.access.directives import read_consent
from carelake.access.gate import Gate
from carelake.access.policy import Policies, Request, policy_texts
from carelake.access.principals import DEFAULTS, Principal
from carelake.access.purposes import PURPOSES
from carelake.apps.wiring import import_tables
from carelake.core.errors import Refused
from carelake.core.settings import ConsentSettings
from carelake.vault.upgrading import run_migrations

REASON = "http://terminology.hl7.org/CodeSystem/v3-ActReason"
OPERATOR = next(one for one in DEFAULTS if "operator" in one.roles)


def consent(provision: Any = None, policy: str = "", scope: str = "patient-privacy", **said: Any) -> dict[str, Any]:
    coding = [{"system": "http://terminology.hl7.org/CodeSystem/consentscope", "code": scope}]
    rule = [{"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": policy}]
    told = {
        "resourceType": "Consent",
        "status": "active",
        "scope": {"coding": coding},
        "policyRule": {"coding": rule},
    }
    return {**told, **({} if provision is None else {"provision": provision}), **said}


def purposes(*codes: str) -> list[dict[str, str]]:
    return [{"system": REASON, "code": code} for code in codes]


@pytest.mark.parametrize(
    ("told", "word", "rules"),
    [
        (consent(policy="OPTIN"), "rules", {(False, "")}),
        (consent(policy="OPTOUT"), "rules", {(True, "")}),
        (consent(policy="OPTOUT", scope="research"), "rules", {(True, "HRESCH")}),
        (consent(policy="OPTIN", scope="treatment"), "other scope", set()),
        (consent(policy="OPTIN", scope="of-ours"), "rules", set()),
        (consent(policy="OPTOUT", scope="of-ours"), "rules", {(True, "")}),
        (consent({"type": "deny", "purpose": purposes("CLINTRCH")}), "rules", {(True, "HRESCH")}),
        (consent({"type": "permit", "purpose": purposes("CLINTRCH")}), "rules", set()),
        (consent({"type": "deny", "purpose": purposes("NOSUCH")}), "rules", {(True, "")}),
        (
            consent({"type": "permit", "purpose": purposes("NOSUCH", "TREAT")}),
            "rules",
            {(False, "ETREAT"), (False, "TREAT")},
        ),
        (consent({"type": "deny"}, implicitRules="http://x"), "rules", {(True, "")}),
        (consent({"type": "permit"}, implicitRules="http://x"), "rules", set()),
        (consent({"type": "deny", "purpose": purposes("TREAT"), "modifierExtension": [{}]}), "rules", {(True, "")}),
        (consent({"period": {"start": "2026"}}), "unclear", set()),
        (consent({"type": "refuse"}), "unreadable", {(True, "")}),
        (consent({"type": "deny", "purpose": "TREAT"}), "unreadable", {(True, "")}),
        (consent({"type": "deny", "period": {"start": "soon"}}), "unreadable", {(True, "")}),
        (consent({"type": "deny", "period": {"start": "2027", "end": "2026"}}), "rules", {(True, "")}),
        (consent({"type": "permit", "period": {"start": "2027", "end": "2026"}}), "rules", set()),
        (
            consent(policyRule={"coding": [{"system": "http://hl7.org/fhir/v3/ActCode", "code": "OPTOUT"}]}),
            "rules",
            {(True, "")},
        ),
        (consent(policyRule={"coding": [{"code": "optout"}]}), "rules", {(True, "")}),
        (consent(policyRule={"coding": [{"code": "OPTIN"}]}), "unclear", set()),
        (consent([]), "unreadable", {(True, "")}),
        (consent({"type": "permit"}, status="draft"), "not active", set()),
    ],
)
def test_a_consent_is_read_on_the_safe_side(told: dict[str, Any], word: str, rules: set[tuple[bool, str]]) -> None:
    found = read_consent(told, "p1")
    assert (found.word, {(rule.denies, rule.purpose) for rule in found.rules}) == (word, rules)
    assert read_consent(told, "").rules == ()
    assert all(rule.low < rule.high for rule in found.rules)


def test_what_is_too_much_denies_all() -> None:
    actors = [{"reference": {"reference": f"Practitioner/{n}"}} for n in range(500)]
    wide = read_consent(consent({"type": "deny", "actor": actors}), "p1")
    assert [(rule.denies, rule.actor) for rule in wide.rules] == [(True, "")]
    assert (wide.widened, read_consent(consent({"type": "permit", "actor": actors}), "p1").rules) == (1, ())
    many = consent({"type": "permit", "provision": [{"type": "permit"}] * 300})
    assert read_consent(many, "p1").word == "unreadable"
    deep: dict[str, Any] = {"type": "permit"}
    for _ in range(5000):
        deep = {"type": "permit", "provision": [deep]}
    assert [rule.denies for rule in read_consent(consent(deep), "p1").rules] == [True]


def test_no_policy_for_consent_permits_what_none_else_does() -> None:
    texts = policy_texts(Path("/nonexistent"))
    every = Policies(texts)
    others = Policies({name: said for name, said in texts.items() if name != "withheld.cedar"})
    roles = (
        "operator",
        "clinician",
        "application",
        "pipeline",
        "analyst",
        "researcher",
        "billing",
        "development",
        "reviewer",
    )
    asking = 0
    for role in roles:
        for action in (
            "record:read",
            "record:export",
            "record:write",
            "lake:query",
            "lake:analyse",
            "features:build",
        ):
            for purpose in PURPOSES:
                for granted in ((), ("g",)):
                    who = Principal("x", "person", (role,), ("production",))
                    asked = Request(who, action, "production", purpose, grants=granted)
                    now, before = every.decide(asked), others.decide(asked)
                    assert now.allowed == before.allowed, (role, action, purpose)
                    assert set(before.scope) <= set(now.scope) <= {*before.scope, "account", "consent"}
                    assert not (purpose == "ETREAT" and "consent" in now.scope)
                    asking += "consent" in now.scope
    assert asking > 20
    for role, granted, purpose in (("operator", (), "HRESCH"), ("reviewer", ("g",), "HOPERAT")):
        who = Principal("x", "person", (role,), ("production",))
        asked = Request(who, "lake:analyse", "production", purpose, grants=granted)
        assert {"consent", "deidentified"} <= set(every.decide(asked).scope)
    away = Request(replace(OPERATOR, accounts=("production",)), "record:read", "research", "TREAT")
    assert not every.decide(away).allowed


def test_a_policy_that_asks_it_of_a_door_without_it_denies(vault: Any) -> None:
    when = 'when { principal.roles.contains("operator") };'
    body = f'permit (principal, action == Action::"record:ingest", resource) {when}'
    policies = Policies(
        {**policy_texts(Path("/nonexistent")), "workspace:own.cedar": f'@id("own")\n@scope("consent")\n{body}'}
    )
    assert not policies.decide(Request(OPERATOR, "record:ingest", "production", "HOPERAT")).allowed


def test_the_permit_tells_what_holds_and_as_whom(gate: Gate, vault: Any) -> None:
    def scope(purpose: str, action: str = "record:read") -> tuple[str, ...]:
        with gate.enter(OPERATOR, action, "record", purpose, account="production") as permit:
            return permit.scope

    assert scope("TREAT") == ("account", "consent:out")
    assert scope("ETREAT") == ("account",)
    assert scope("TREAT", "record:write") == ("account", "consent:out")
    assert scope("TREAT", "record:ingest") == ("account",)
    told = ConsentSettings(opt_in=("HRESCH",), actors={"Organization/us": "*", "Practitioner/1": "ann"})
    assert resolved(told, ("consent",), "HRESCH", {"bob", "*"}) == (
        'consent:in:[["Organization/us"],["Organization/us","Practitioner/1"]]',
    )
    assert resolved(told, ("consent", "deidentified"), "HRESCH", ())[0].startswith("consent:out:")
    assert resolved(told, ("account",), "HRESCH", ()) == ("account",)


@pytest.mark.parametrize("scope", [("consent",), ("consent:",), ("consent:maybe",), ("consent:in", "consent:out")])
def test_a_scope_that_cannot_be_read_denies(vault: Any, permit_for: Any, scope: tuple[str, ...]) -> None:
    permit = permit_for("rows:read", scope=scope)
    with vault.database.reading(permit) as tx, pytest.raises(Refused):
        asked_of(permit, tx)


def test_an_older_workspace_is_marked_until_its_consents_are_projected() -> None:
    import_tables()
    engine = sqlalchemy.create_engine("sqlite://")
    with engine.begin() as connection:
        run_migrations(connection, "0004")
        for space, said in (("kind:production", "Consent"), ("kind:research", "Patient"), ("term", "Consent")):
            connection.execute(text("INSERT INTO symbol (space, text) VALUES (:s, :t)"), {"s": space, "t": said})
        run_migrations(connection, "0005")
        found = connection.execute(text("SELECT account, consent FROM access_consent")).all()
    assert [tuple(row) for row in found] == [("production", "")]
