"""Rights that somebody gives to themselves with SQL: the trail tells of all that were given, and of no other."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, insert, select

from carelake.access import tables
from carelake.apps.cli import clients, credentials, emergency, rights, who
from carelake.apps.cli.session import Options, Session
from carelake.apps.wiring import Workspace
from carelake.audit.acts import ActHeader, write
from carelake.audit.tables import act
from carelake.core.errors import Invalid, Refused

Do = Callable[..., Any]
REASON = "unconscious in bed four, no relative"
ISSUER = {"issuer": "https://id.example.org", "subject": "u-1"}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith("CARELAKE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CARELAKE_KEY_DIR", str(tmp_path / "keys"))
    Workspace.create(tmp_path / "ws", os.environ).close()
    return tmp_path / "ws"


@pytest.fixture
def do(root: Path, monkeypatch: pytest.MonkeyPatch) -> Do:
    """A command, by whom and for what purpose; answers the last thing that it printed."""
    said: list[Any] = []
    for shelf in (who, rights, emergency, credentials, clients):
        monkeypatch.setattr(shelf, "answer", said.append)

    def call(work: Callable[..., Any], by: str | None = None, purpose: str = "HOPERAT", **arguments: Any) -> Any:
        session = Session(Options(root, by, purpose, None))
        try:
            work(session, json_out=True, **arguments)
        finally:
            session.close()
        return said[-1]

    return call


@pytest.fixture
def given(do: Do) -> dict[str, str]:
    """Rights of every kind, given and taken by the commands; ids by what they are."""
    do(who.group, name="ward", roles=["clinician"])
    one = {"kind": "person", "accounts": ["production"]}
    do(who.add, name="ann", roles=["clinician"], groups=["ward"], **one)
    do(who.add, name="bob", roles=["administrator"], groups=[], **one)
    do(who.add, name="carol", roles=["administrator"], groups=[], **one)
    do(who.add, name="dan", roles=["clinician"], groups=[], **one)
    do(who.group, name="empty", roles=["auditor"])
    do(who.group, name="empty", roles=[])
    for change in ("disable", "enable", "disable"):
        do(who.change, name="dan", change=change)
    do(who.change, name="ann", change="add_role", role="auditor")
    do(who.change, name="ann", change="remove_role", role="auditor")
    do(who.member, name="bob", group="ward", joins=True)
    do(who.member, name="bob", group="ward", joins=False)
    ask: dict[str, Any] = {"to": "ann", "action": "record:read", "reason": REASON, "days": 2}
    ids = {name: do(rights.ask, "bob", "TREAT", **ask)["id"] for name in ("asked", "good", "over")}
    for name in ("good", "over"):
        do(rights.approve, "carol", "TREAT", grant=ids[name])
    do(rights.revoke, "carol", "TREAT", grant=ids["over"])
    for name in ("running", "ended", "reviewed"):
        ids[name] = do(emergency.begin, "bob", "ETREAT", reason=REASON, minutes=20)["id"]
    do(emergency.end, "bob", "ETREAT", glass=ids["ended"])
    do(emergency.close, "carol", glass=ids["reviewed"], verdict="unjustified")
    ids["first"] = do(credentials.key_add, name="ann", role="clinician")["id"]
    ids["key"] = do(credentials.key_rotate, name="ann", key=ids["first"])["id"]
    ids["other"] = do(credentials.key_add, name="bob", role="")["id"]
    do(credentials.key_disable, key=ids["other"])
    for _ in range(2):
        do(credentials.revoke, token="0123456789abcdef0123456789abcdef")
    do(credentials.link, name="ann", remove=False, **ISSUER)
    do(credentials.link, name="bob", remove=False, issuer="https://id.example.org", subject="u-2")
    do(credentials.link, name="bob", remove=True, issuer="https://id.example.org", subject="u-2")
    with suppress(Refused):
        do(who.change, "bob", name="bob", change="add_role", role="auditor")
    for name in ("loads-1", "ended-1"):
        keys = f"https://{name}.example.org/jwks"
        do(clients.add, name="pipeline", jwks=keys, scope="system/*.rs", client=name)
    do(clients.disable, client="ended-1")
    return ids


@pytest.fixture
def workspace(root: Path, given: dict[str, str]) -> Iterator[Workspace]:
    opened = Workspace.open(root, os.environ)
    yield opened
    opened.close()


def told(workspace: Workspace) -> dict[str, str]:
    workspace.trail.seal(workspace.gate.sealing())
    found = workspace.trail.verify(workspace.gate.sealing()).problems
    assert {one.kind for one in found} <= {"right"}
    return {one.name: one.reason for one in found}


def test_a_right_that_was_edited_in_the_database_is_named(workspace: Workspace, given: dict[str, str]) -> None:
    assert told(workspace) == {}
    everyone = '["production","research","development","security"]'
    principal, glass, key = tables.principal, tables.access_break_glass, tables.access_key
    grant, client = tables.access_grant, tables.access_client
    far, past = "2999-01-01T00:00:00.000Z", "2020-01-01T00:00:00.000Z"
    attacks: list[tuple[Any, dict[str, str], dict[str, Any] | None, str, str]] = [
        (principal, {"name": "ann"}, {"roles": '["clinician","operator"]'}, "principal/ann", "roles"),
        (principal, {"name": "ann"}, {"accounts": everyone}, "principal/ann", "accounts"),
        (principal, {"name": "dan"}, {"disabled": False}, "principal/dan", "disabled"),
        (principal, {"name": "endpoint"}, {"uid": 4242}, "principal/endpoint", "uid"),
        (principal, {"name": "pipeline"}, {"roles": '["operator"]'}, "principal/pipeline", "roles"),
        (principal, {"name": "auditor"}, {"kind": "service"}, "principal/auditor", "kind"),
        (principal, {"name": "auditor"}, {"roles": "nonsense"}, "principal/auditor", "roles"),
        (principal, {"name": "dan"}, None, "principal/dan", "gone"),
        (tables.access_group, {"name": "ward"}, {"roles": '["operator"]'}, "group/ward", "roles"),
        (tables.access_member, {"principal": "ann"}, {"principal": "bob"}, "principal/bob in group/ward", "no act"),
        (tables.access_member, {"principal": "ann"}, None, "principal/ann in group/ward", "gone"),
        (grant, {"id": given["asked"]}, {"approved_by": "carol", "expires": far}, f"grant/{given['asked']}", "expir"),
        (grant, {"id": given["good"]}, {"expires": far}, f"grant/{given['good']}", "expires"),
        (grant, {"id": given["good"]}, {"action": "record:export"}, f"grant/{given['good']}", "action"),
        (grant, {"id": given["good"]}, {"principal": "dan"}, f"grant/{given['good']}", "principal"),
        (grant, {"id": given["over"]}, {"revoked": None}, f"grant/{given['over']}", "revoked_by"),
        (glass, {"id": given["running"]}, {"expires": far}, f"glass/{given['running']}", "expires"),
        (glass, {"id": given["ended"]}, {"ended": None}, f"glass/{given['ended']}", "ended"),
        (glass, {"id": given["running"]}, {"reviewed": past, "reviewed_by": "x"}, f"glass/{given['running']}", "rev"),
        (glass, {"id": given["reviewed"]}, {"verdict": "justified"}, f"glass/{given['reviewed']}", "verdict"),
        (glass, {"id": given["ended"]}, None, f"glass/{given['ended']}", "gone"),
        (key, {"id": given["first"]}, {"disabled": False}, f"access-key/{given['first']}", "disabled"),
        (key, {"id": given["key"]}, {"principal": "bob"}, f"access-key/{given['key']}", "principal"),
        (key, {"id": given["key"]}, {"role": ""}, f"access-key/{given['key']}", "role"),
        (key, {"id": given["key"]}, {"created": far}, f"access-key/{given['key']}", "created"),
        (tables.access_revoked, {}, None, "token/0123456789abcdef0123456789abcdef", "gone"),
        (tables.access_revoked, {}, {"expires": past}, "token/0123456789abcdef0123456789abcdef", "expires"),
        (client, {"id": "loads-1"}, {"scopes": "system/*.cruds"}, "client/loads-1", "digest"),
        (client, {"id": "loads-1"}, {"keys_url": "https://evil.example.org/jwks"}, "client/loads-1", "digest"),
        (client, {"id": "loads-1"}, {"keys": '{"keys":[]}', "keys_url": ""}, "client/loads-1", "digest"),
        (client, {"id": "loads-1"}, {"principal": "operator"}, "client/loads-1", "principal"),
        (client, {"id": "loads-1"}, {"purpose": "TREAT"}, "client/loads-1", "purpose"),
        (client, {"id": "loads-1"}, {"id": "mine-1"}, "client/mine-1", "no act"),
        (client, {"id": "ended-1"}, {"disabled": False}, "client/ended-1", "disabled"),
        (client, {"id": "ended-1"}, None, "client/ended-1", "gone"),
        (principal, {"name": "pipeline"}, {"disabled": True}, "principal/pipeline", "disabled"),
        (tables.access_link, {}, {"principal": "operator"}, "link/", "principal"),
        (tables.access_link, {}, {"subject": "u-2"}, "link/", "no act"),
    ]
    for table, where, values, name, why in attacks:
        kept = edit(workspace, table, where, values)
        found = told(workspace)
        assert any(one.startswith(name) and why in reason for one, reason in found.items()), (name, values, found)
        put_back(workspace, table, kept)
    assert told(workspace) == {}


def test_a_right_that_was_added_in_the_database_is_named(workspace: Workspace) -> None:
    with workspace.vault.database.ledger() as tx:
        (row,) = tx.execute(select(tables.principal).where(tables.principal.c.name == "bob")).mappings()
        tx.execute(insert(tables.principal).values({**row, "name": "mallory"}))
        tx.execute(insert(tables.access_member).values(group_name="ward", principal="dan"))
        tx.execute(insert(tables.access_group).values(name="mine", roles='["operator"]', created="2026"))
    found = told(workspace)
    assert set(found) == {"principal/mallory", "principal/dan in group/ward", "group/mine"}
    assert set(found.values()) == {"no act tells that it was given"}


def test_what_people_are_called_is_no_false_alarm(root: Path, do: Do) -> None:
    one = {"kind": "person", "accounts": ["production"], "roles": ["clinician"]}
    do(who.group, name="ward", roles=["clinician"])
    do(who.add, name="ann", groups=["ward"], **one)
    do(who.add, name="ann in group/ward", groups=[], **one)
    with closing(Workspace.open(root, os.environ)) as workspace:
        assert told(workspace) == {}


@pytest.mark.parametrize("name", ["Chalmers", "é" * 20, "a" * 65, "0123456789abcdef-"])
def test_what_is_no_id_of_a_token_is_not_put_on_the_trail(root: Path, do: Do, name: str) -> None:
    with pytest.raises(Invalid, match="token"):
        do(credentials.revoke, token=name)


def test_a_token_that_an_earlier_version_revoked_by_an_odd_id(root: Path, do: Do) -> None:
    with closing(Workspace.open(root, os.environ)) as workspace:
        far = "2999-01-01T00:00:00.000Z"
        with workspace.vault.database.ledger() as tx:
            tx.execute(insert(tables.access_revoked).values(id="short", principal="", expires=far, at=far))
            said = {"change": "revoke-token", "token": "short", "expires": far, "swept": "2020-01-01T00:00:00.000Z"}
            header = ActHeader(32 * "a", "operator", "security", "HSYSADMIN", "credential:manage", "(other)")
            write(tx, header, "done", workspace.vault.clock, {"changed": said})
        assert told(workspace) == {}


def test_an_act_whose_facts_were_spoilt_does_not_stop_the_rest(root: Path, do: Do) -> None:
    with closing(Workspace.open(root, os.environ)) as workspace:
        for number, facts in enumerate(("[]", '{"changed":[]}', '{"changed":{"change":"add","roles":5}}')):
            header = ActHeader(f"{number:032x}", "operator", "security", "HSYSADMIN", "access:manage", "principal/x")
            with workspace.vault.database.ledger() as tx:
                write(tx, header, "done", workspace.vault.clock, {})
                tx.execute(act.update().where(act.c.correlation == header.correlation).values(facts=facts))
        edit(workspace, tables.principal, {"name": "pipeline"}, {"roles": '["operator"]'})
        assert set(told(workspace)) == {"principal/pipeline"}


def edit(workspace: Workspace, table: Any, where: dict[str, str], values: dict[str, Any] | None) -> list[Any]:
    """Change or remove rows past the gate; answers the rows as they were."""
    with workspace.vault.database.ledger() as tx:
        kept = [dict(row) for row in tx.execute(select(table)).mappings()]
        work = delete(table) if values is None else table.update().values(**values)
        for column, value in where.items():
            work = work.where(table.c[column] == value)
        assert tx.execute(work).rowcount
    return kept


def put_back(workspace: Workspace, table: Any, rows: list[Any]) -> None:
    with workspace.vault.database.ledger() as tx:
        tx.execute(delete(table))
        tx.execute(insert(table), rows)
