"""Nobody gets in without a role, a purpose and an account, by any door; the trail tells of each refusal and why."""

from __future__ import annotations

import json
import os
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from carelake.audit.readings import Acts

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def home(small: Any, tmp_path_factory: Any) -> Iterator[Any]:
    """A workspace with three patients, and principals of each kind."""
    made = small.home.copy(tmp_path_factory.mktemp("refusals") / "copy")
    lines = [{"resourceType": "Patient", "id": f"p{n}", "gender": "female"} for n in range(3)]
    source = made.folder / "patients.ndjson"
    source.write_text("\n".join(map(json.dumps, lines)))
    assert made.json("ingest", source)["stored"] == 3
    made.json("principal", "add", "dr-who", "--role", "clinician")
    made.json("principal", "add", "elsewhere", "--role", "clinician", "--in", "research")
    made.json("principal", "add", "gone", "--role", "clinician")
    made.json("principal", "disable", "gone")
    yield made
    made.remove()


def refused(home: Any, *arguments: str) -> Any:
    """The refusal of a command, and the act that tells of it."""
    before = acts(home)
    done = home.run(*arguments, "--json", expect=3)
    assert done.out == ""
    told = [act for act in acts(home)[len(before) :] if act["phase"] == "refused"]
    assert len(told) == 1, told
    return done.error, told[0]


def acts(home: Any) -> list[dict[str, Any]]:
    """The whole trail, read without leaving another act on it."""
    with home.opened() as workspace, workspace.vault.database.ledger_reading() as connection:
        return list(Acts(connection).after(0))


def test_a_role_that_may_not_search_is_refused_with_the_reason(home: Any) -> None:
    error, act = refused(home, "search", "Patient?gender=female", "--as", "reviewer")
    assert error["code"] == "access.denied"
    assert act["principal"] == "reviewer"
    assert act["via"] == "operator"
    assert act["action"] == "record:search"
    assert act["target"] == "Patient"
    assert act["reasons"]
    assert act["reasons"][0] in error["message"]


@pytest.mark.parametrize(
    ("purpose", "told"), [("", ""), ("CURIOSITY", "CURIOSITY"), ("treat", "(other)"), ("TREAT ", "(other)")]
)
def test_no_purpose_or_an_unknown_one_is_refused(home: Any, purpose: str, told: str) -> None:
    """What is no code goes not on the trail: it may be anything that was typed in the place of one."""
    error, act = refused(home, "search", "Patient", "--purpose", purpose)
    assert error["code"] == "access.denied"
    assert act["purpose"] == told
    assert any("purpose" in reason for reason in act["reasons"])


def test_an_empty_purpose_from_the_environment_is_refused_too(home: Any) -> None:
    done = type(home)(home.folder, {"CARELAKE_PURPOSE": ""}).run("search", "Patient", "--json", expect=3)
    assert done.error["code"] == "access.denied"


def test_a_purpose_that_the_role_does_not_serve_is_refused(home: Any) -> None:
    refused(home, "search", "Patient", "--as", "dr-who", "--purpose", "HRESCH")
    assert home.json("search", "Patient", "--as", "dr-who", "--purpose", "TREAT")["total"] == 3


@pytest.mark.parametrize("account", ["research", "security", "nowhere", ""])
def test_another_account_is_refused_or_empty(home: Any, account: str) -> None:
    """``dr-who`` is of production alone."""
    error, act = refused(home, "search", "Patient", "--as", "dr-who", "--purpose", "TREAT", "--account", account)
    assert error["code"] == "access.denied"
    assert act["account"] == (account if account in ("research", "security") else "(other)")


def test_the_accounts_are_apart(home: Any) -> None:
    who = ("--as", "elsewhere", "--purpose", "TREAT")
    refused(home, "search", "Patient", *who)
    assert home.json("search", "Patient", *who, "--account", "research")["total"] == 0
    assert home.run("read", "Patient/p1", *who, "--account", "research", "--json", expect=4).out == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ("search", "Patient"),
        ("read", "Patient/p1"),
        ("ingest", "patients.ndjson"),
        ("lake", "sync"),
        ("quarantine", "list"),
    ],
)
def test_the_development_account_sees_no_identified_data_ever(home: Any, arguments: tuple[str, ...]) -> None:
    error, act = refused(home, *arguments, "--account", "development")
    assert error["code"] == "access.denied"
    assert any("development" in reason for reason in act["reasons"])


def test_system_administration_is_no_purpose_to_read(home: Any) -> None:
    refused(home, "search", "Patient", "--purpose", "HSYSADMIN")


def test_an_unknown_principal_is_anonymous_on_the_trail(home: Any) -> None:
    error, act = refused(home, "search", "Patient", "--as", "nobody-i-know")
    assert error["code"] == "access.unknown_principal"
    assert act["principal"] == "anonymous"
    assert act["error"] == "access.unknown_principal"
    assert "nobody-i-know" not in json.dumps(act)


def test_a_disabled_principal_is_refused(home: Any) -> None:
    error, act = refused(home, "search", "Patient", "--as", "gone", "--purpose", "TREAT")
    assert error["code"] == "access.denied"
    assert any("disabled" in reason for reason in act["reasons"])


def test_who_is_no_operator_speaks_for_nobody(home: Any) -> None:
    """The operating-system user is bound to a clinician here."""
    copy = home.copy(home.folder / "bound")
    with copy.opened() as workspace, workspace.vault.database.ledger() as connection:
        connection.exec_driver_sql("UPDATE principal SET uid = NULL WHERE name = 'operator'")
        connection.exec_driver_sql("UPDATE principal SET uid = ? WHERE name = 'dr-who'", (os.getuid(),))
    assert copy.json("search", "Patient", "--purpose", "TREAT")["total"] == 3
    for other in ("operator", "reviewer"):
        done = copy.run("search", "Patient", "--as", other, "--purpose", "TREAT", "--json", expect=3)
        assert done.error["code"] == "access.may_not_speak_for"
    done = copy.run("token", "--as", "operator", "--purpose", "TREAT", "--json", expect=3)
    assert done.out == ""
    with copy.opened() as workspace, workspace.vault.database.ledger() as connection:
        connection.exec_driver_sql("UPDATE principal SET uid = NULL")
    assert copy.run("search", "Patient", "--json", expect=3).error["code"] == "access.unknown_user"
    told = [(act["principal"], act["error"]) for act in acts(copy)[-4:]]
    assert told == 3 * [("anonymous", "access.may_not_speak_for")] + [("anonymous", "access.unknown_user")]


@pytest.mark.parametrize(
    "arguments",
    [
        ("audit", "verify", "--as", "dr-who", "--purpose", "TREAT"),
        ("principal", "add", "friend", "--role", "operator", "--as", "reviewer"),
        ("token", "--as", "dr-who", "--purpose", "TREAT", "--role", "operator"),
        ("lake", "sync", "--as", "auditor"),
        ("ingest", "patients.ndjson", "--as", "auditor"),
    ],
)
def test_each_door_of_the_command_line_asks(home: Any, arguments: tuple[str, ...]) -> None:
    assert home.run(*arguments, "--json", expect=3).out == ""


def test_a_role_not_held_is_no_token_and_is_on_the_trail(home: Any) -> None:
    home.run("token", "--as", "dr-who", "--purpose", "TREAT", "--role", "operator", "--json", expect=3)
    [act] = home.json("audit", "list", "--action", "token:issue", "--limit", "1")
    assert act["phase"] == "failed"
    assert act["error"] == "access.role_not_held"


def test_global_options_stand_anywhere(home: Any) -> None:
    name = str(home.workspace)
    for line in (
        ["-w", name, "--as", "dr-who", "--purpose", "TREAT", "search", "Patient", "--json"],
        ["search", "--as", "dr-who", "Patient", "-w", name, "--json", "--purpose=TREAT"],
        ["search", "Patient", "--json", "--purpose", "TREAT", "--as=dr-who", "--workspace", name],
    ):
        assert home.run(*line, expect=0).json["total"] == 3
    [act] = home.json("audit", "list", "--limit", "1", "--principal", "dr-who")
    assert (act["purpose"], act["via"]) == ("TREAT", "operator")


# -- the HTTP door ---------------------------------------------------------------------------------------------------


@dataclass
class Server:
    home: Any
    url: str

    def get(self, path: str, token: str | None = None, body: Any = None) -> tuple[int, Any]:
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read())

    def token(self, *arguments: str) -> str:
        said: str = self.home.json("token", *arguments)["token"]
        return said


@pytest.fixture(scope="module")
def server(home: Any) -> Iterator[Server]:
    running, url = home.serve()
    yield Server(home, url)
    running.kill(signal.SIGTERM)
    done = running.wait(30.0)
    assert done.code == 0
    assert "Traceback" not in done.err


TREAT = ("--as", "dr-who", "--purpose", "TREAT")


def test_an_entitled_token_gets_an_answer(server: Server) -> None:
    status, bundle = server.get("/fhir/Patient?gender=female", server.token(*TREAT))
    assert status == 200
    assert bundle["total"] == 3


def test_no_token_is_401_and_on_the_trail(server: Server) -> None:
    before = len(acts(server.home))
    for path, body in (
        ("/fhir/Patient", None),
        ("/fhir/Patient/p1", None),
        ("/predict/readmission", {"patient": "p1"}),
    ):
        assert server.get(path, None, body)[0] == 401
    told = acts(server.home)[before:]
    assert {act["error"] for act in told} == {"http.no_token"}
    assert {act["action"] for act in told} == {"record:search", "record:read", "endpoint:invoke"}


def test_a_bad_token_is_401(server: Server, place: Path) -> None:
    good = server.token(*TREAT)
    head, body, signature = good.split(".")
    flipped = signature[:-4] + ("AAAA" if signature[-4:] != "AAAA" else "BBBB")
    other = server.home.copy(place)
    stranger = type(other)(place.parent / "stranger")
    stranger.json("init", stranger.workspace)
    stranger.json("principal", "add", "dr-who", "--role", "clinician")
    unsigned = "eyJhbGciOiJub25lIn0." + body + "."
    for token in (f"{head}.{body}.{flipped}", stranger.json("token", *TREAT)["token"], unsigned, "x", "a.b.c"):
        status, told = server.get("/fhir/Patient", token)
        assert status == 401, told
        assert told["issue"][0]["details"]["text"] == "access.token"


def test_an_expired_token_is_401(server: Server) -> None:
    token = server.token(*TREAT, "--seconds", "1")
    time.sleep(2.1)
    assert server.get("/fhir/Patient", token)[0] == 401


def test_a_token_serves_its_own_purpose_role_and_account_only(server: Server) -> None:
    for arguments in (
        ("--as", "reviewer", "--purpose", "HOPERAT"),
        ("--as", "dr-who", "--purpose", "HRESCH"),
        ("--as", "dr-who", "--purpose", ""),
        ("--as", "elsewhere", "--purpose", "TREAT"),
        ("--as", "operator", "--purpose", "HOPERAT", "--account", "development"),
        ("--as", "operator", "--purpose", "HSYSADMIN"),
        ("--as", "gone", "--purpose", "TREAT"),
    ):
        made = server.home.run("token", *arguments, "--json")
        if made.code != 0:
            assert made.code == 3, made.err
            continue
        status, told = server.get("/fhir/Patient", made.json["token"])
        assert status == 403, (arguments, told)
        assert told["issue"][0]["details"]["text"] == "access.denied"
        assert [issue for issue in told["issue"] if issue["severity"] == "information"]


def test_a_principal_disabled_meanwhile_is_refused_with_the_token_it_holds(server: Server) -> None:
    server.home.json("principal", "add", "leaver", "--role", "clinician")
    token = server.token("--as", "leaver", "--purpose", "TREAT")
    assert server.get("/fhir/Patient", token)[0] == 200
    server.home.json("principal", "disable", "leaver")
    status, _ = server.get("/fhir/Patient", token)
    assert status == 403
    [act] = server.home.json("audit", "list", "--phase", "refused", "--principal", "leaver", "--limit", "1")
    assert any("disabled" in reason for reason in act["reasons"])


def test_the_trail_of_all_this_is_whole(server: Server) -> None:
    told = server.home.json("audit", "verify")
    assert told["intact"] is True
    assert told["first_bad"] is None
