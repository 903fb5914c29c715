"""The commands of access, each a process of its own, as acceptance calls them."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import forked

_JOURNEYS = Path(__file__).parents[1] / "journeys" / "conftest.py"
_spec = importlib.util.spec_from_file_location("access_journeys", _JOURNEYS)
assert _spec is not None
assert _spec.loader is not None
_journeys: Any = importlib.util.module_from_spec(_spec)
sys.modules["access_journeys"] = _journeys
_spec.loader.exec_module(_journeys)


@dataclass(frozen=True)
class Said:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Said]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    home = _journeys.Home(tmp_path_factory.mktemp("commands"))
    home.json("init", home.workspace)

    def command(*arguments: str, typed: str = "") -> Said:
        done = forked.run(*arguments, env=home.environment, given=typed)
        assert "Traceback" not in done.stderr
        return Said(done.returncode, done.stdout, done.stderr)

    for name, role, account in (
        ("app", "application", "production"),
        ("dev", "development", "development"),
        ("adm", "administrator", "production"),
        ("eve", "administrator", "production"),
        ("cmp", "compliance", "production"),
        ("ann", "clinician", "research"),
    ):
        assert command("principal", "add", name, "--role", role, "--account", account, "--json").code == 0
    return command


@pytest.mark.slow
def test_the_four_tiers_at_the_command_line(run: Run) -> None:
    for name, command, code in (
        ("app", ("search", "Patient", "--purpose", "TREAT"), 0),
        ("app", ("search", "Patient", "--purpose", "HRESCH"), 3),
        ("app", ("principal", "list"), 3),
        ("dev", ("search", "Patient", "--purpose", "TREAT"), 3),
        ("adm", ("search", "Patient", "--purpose", "TREAT"), 3),
        ("adm", ("principal", "list"), 0),
        ("cmp", ("audit", "list"), 0),
        ("cmp", ("search", "Patient", "--purpose", "TREAT"), 3),
        ("cmp", ("principal", "disable", "app"), 3),
    ):
        assert run("--as", name, *command, "--json").code == code, (name, command)


@pytest.mark.slow
def test_a_token_carries_one_role_and_can_be_revoked(run: Run) -> None:
    said = run("token", "--as", "app", "--role", "application", "--purpose", "TREAT", "--json").json
    assert (said["principal"], said["roles"], said["purpose"]) == ("app", ["application"], "TREAT")
    assert run("token", "--as", "app", "--role", "operator", "--purpose", "TREAT").code == 3
    bare = run("token", "--purpose", "TREAT", "--as", "app").out.strip()
    assert bare.count(".") == 2
    assert run("token", "revoke", "-", "--json", typed=bare).json["revoked"] is True
    assert run("token", "revoke", "x y").code == 2


@pytest.mark.slow
def test_a_token_may_be_narrowed_by_scopes(run: Run) -> None:
    base = ("token", "--as", "app", "--purpose", "TREAT", "--json")
    said = run(*base, "--scope", "openid patient/*.rs", "--patient", "p1").json
    assert said["scope"] == "openid patient/*.rs"
    for wrong in (("--scope", "patient/*.rs"), ("--scope", "user/Obs.r"), ("--patient", "p1"), ("--scope", "")):
        refused = run(*base, *wrong)
        assert (refused.code, "access.scope" in refused.err) == (2, True), wrong
    assert "scope" not in run(*base).json


@pytest.mark.slow
def test_clients_are_registered_listed_and_ended(run: Run) -> None:
    from cryptography.hazmat.primitives.asymmetric import ec
    from jwt.algorithms import ECAlgorithm

    public = ec.generate_private_key(ec.SECP384R1()).public_key()
    keys = json.dumps({"keys": [{**ECAlgorithm.to_jwk(public, as_dict=True), "kid": "k"}]})
    assert run("principal", "add", "svc", "--kind", "service", "--role", "application").code == 0
    add = ("principal", "client", "add", "svc", "--purpose", "TREAT", "--json")
    made = run(*add, "--jwks", "-", "--id", "svc-1", typed=keys).json
    assert (made["id"], made["scope"], made["keys"]) == ("svc-1", "system/*.rs", "registered")
    assert run(*add, "--jwks", "-", "--id", "svc-1", typed=keys).code == 5
    assert run(*add, "--jwks", "-", "--scope", "user/*.rs", typed=keys).code == 2
    assert run(*add, "--jwks", "https://c.example.org/jwks.json").json["keys"] == "https://c.example.org/jwks.json"
    assert run("--as", "dev", *add, "--jwks", "-", typed=keys).code == 3
    assert run("principal", "client", "disable", "svc-1", "--json").json["disabled"] is True
    assert [one["disabled"] for one in run("principal", "client", "list", "--json").json] == [True, False]


@pytest.mark.slow
def test_explain_answers_with_the_way_to_a_yes(run: Run) -> None:
    good = run("access", "explain", "app", "record:search", "Patient", "TREAT", "--json").json
    assert (good["allowed"], good["changes"]) == (True, [])
    assert good["policies"][0]["file"] == "tiers.cedar"
    bad = run("access", "explain", "ann", "record:read", "Patient", "TREAT", "--json")
    assert (bad.code, bad.json["allowed"]) == (0, False)
    changes = {one["change"]: one["to"] for one in bad.json["changes"]}
    assert changes["account"] == ["research"]
    assert changes["membership"] == ["production"]
    assert changes["grant"] == ["record:read"]
    zone = run("access", "explain", "dev", "object:read", "zone/landing", "HOPERAT", "--json").json
    assert (zone["action"], zone["allowed"]) == ("object:read@landing", False)
    assert all("guardrail" in reason for reason in zone["reasons"])
    assert run("access", "explain", "nobody", "record:read", "Patient", "TREAT", "--json").code == 4
    assert run("access", "test", "--json").json["failed"] == 0


@pytest.mark.slow
def test_an_emergency_is_told_and_reviewed_by_another(run: Run) -> None:
    reason = "Zyxwvutsrq unconscious in bed 4"
    begin = ("access", "break-glass", "--as", "adm", "--reason", reason, "--minutes", "5", "--json")
    assert run(*begin).code == 3
    assert run(*begin, "--purpose", "ETREAT", "--as", "cmp").code == 3
    glass = run(*begin, "--purpose", "ETREAT").json
    assert glass["state"] == "active"
    assert run("search", "Patient", "--as", "adm", "--purpose", "ETREAT").code == 0
    (act,) = [
        a
        for a in run("audit", "list", "--json").json
        if a["action"] == "record:search" and a["phase"] == "done" and a["principal"] == "adm"
    ]
    assert act["break_glass"] == glass["id"]
    assert "Zyx" not in run("audit", "list", "--json").out + run("access", "review", "list", "--json").out
    close = ("access", "review", "close", glass["id"], "--verdict", "justified", "--json")
    assert run(*close, "--as", "adm").code == 3
    assert run("access", "review", "show", glass["id"], "--as", "eve", "--json").json["reason"] == reason
    assert run(*close, "--as", "eve").json["state"] == "reviewed"
    assert run("search", "Patient", "--as", "adm", "--purpose", "ETREAT").code == 3


@pytest.mark.slow
def test_a_grant_needs_two_and_opens_another_account(run: Run) -> None:
    read = ("search", "Patient", "--as", "ann", "--purpose", "HRESCH", "--account", "production")
    assert run(*read).code == 3
    ask = ("access", "grant", "add", "--to", "ann", "--action", "record:search", "--account", "production")
    asked = run(
        *ask, "--purpose", "HRESCH", "--days", "2", "--reason", "protocol 12 of the board", "--as", "adm", "--json"
    )
    made = asked.json
    assert made["state"] == "requested"
    assert run("access", "grant", "approve", made["id"], "--as", "adm").code == 3
    assert run(*read).code == 3
    assert run("access", "grant", "approve", made["id"], "--as", "eve", "--json").json["state"] == "active"
    assert run(*read).code == 0
    assert run("access", "grant", "revoke", made["id"], "--as", "eve", "--json").json["state"] == "revoked"
    assert run(*read).code == 3


@pytest.mark.slow
def test_keys_groups_and_accounts(run: Run) -> None:
    key = run("principal", "key", "add", "app", "--purpose", "TREAT", "--role", "application", "--json").json
    assert (len(key["id"]), len(key["secret"])) == (20, 40)
    other = run("principal", "key", "rotate", "app", key["id"], "--json").json
    listed = {one["id"]: one["state"] for one in run("access", "credentials", "--json").json}
    assert listed == {key["id"]: "disabled", other["id"]: "ok"}
    assert run("principal", "group", "ward", "--role", "clinician", "--json").code == 0
    assert run("principal", "join", "cmp", "ward", "--json").json["groups"] == ["ward"]
    assert run("principal", "show", "cmp", "--json").json["effective_roles"] == ["compliance", "clinician"]
    assert "cmp" in next(a for a in run("account", "list", "--json").json if a["name"] == "production")["principals"]
