"""``/sql``: pages that stay, forms, limits, cancelling, and results that nobody else reads and that do not stay."""

from __future__ import annotations

import csv
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pytest
from sqlalchemy import select, update
from tests.apps.asked import EACH, PATIENTS, SECRET, asked_workspace, operator, patient
from tests.apps.served import Lines, acts_of, admit, bearer, fill, known, serving

from carelake.access.identity import Caller
from carelake.access.principals import ROLES, Principal
from carelake.apps.wiring import Workspace
from carelake.pipelines.export import drop_copies
from carelake.store.jobs import Jobs
from carelake.store.jobs_tables import bulk_job

ENDLESS = "SELECT count(*) FROM range(1000000000000) WHERE sin(range) > 2"
PURPOSES = ("TREAT", "HPAYMT", "HOPERAT", "HRESCH", "PUBHLTH", "ETREAT", "HSYSADMIN", "")
MANY = "SELECT range AS n, 'a' AS t FROM range(3500)"
Ask = Callable[..., httpx.Response]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    told = {"CARELAKE_LAKE__STATEMENTS": "2", "CARELAKE_LAKE__MEMORY_LIMIT": "100MB", "CARELAKE_LAKE__SECONDS": "2"}
    with asked_workspace(tmp_path_factory.mktemp("sql"), **told) as made:
        yield made


@pytest.fixture(scope="module")
def client(workspace: Workspace, address: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=address, headers=bearer(workspace, "operator"), timeout=30) as made:
        yield made


@pytest.fixture
def ask(client: httpx.Client) -> Ask:
    def asked(statement: str, *, headers: dict[str, str] | None = None, **more: Any) -> httpx.Response:
        return client.post("/sql", json={"statement": statement, **more}, headers=headers)

    return asked


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def objects(workspace: Workspace) -> list[str]:
    with workspace.enter(operator(workspace), "lake:ask", "lake") as permit:
        return [one.name for one in workspace.vault.objects.list(permit, "lake", "bulk/")]


def finished(client: httpx.Client, address: str, **more: Any) -> httpx.Response:
    until = time.monotonic() + 20
    while (answer := client.get(address, **more)).status_code == 202:
        assert time.monotonic() < until
        time.sleep(0.05)
    return answer


def test_a_small_result_is_one_page_and_is_not_kept(ask: Ask, workspace: Workspace) -> None:
    answer = ask("SELECT id, gender FROM Patient ORDER BY id LIMIT ?", parameters=[2])
    assert answer.status_code == 200, answer.text
    assert answer.json() == {
        "id": None,
        "state": "done",
        "columns": [{"name": "id", "type": "string"}, {"name": "gender", "type": "string"}],
        "rows": [["p0", "female"], ["p1", "female"]],
        "total": 2,
        "limited": False,
        "next": None,
    }
    assert "content-location" not in answer.headers
    assert objects(workspace) == []
    with workspace.vault.database.ledger_reading() as tx:
        assert not tx.execute(select(bulk_job.c.id).where(bulk_job.c.state.not_in(("running", "accepted")))).all()


def test_parameters_and_values(ask: Ask) -> None:
    answer = ask(
        "SELECT $a AS a, 1.10::DECIMAL(4,2) AS d, DATE '2020-01-02' AS day, 'x'::BLOB AS b, [1, NULL] AS l, "
        "{'k': 1} AS s",
        parameters={"a": "'; DROP TABLE x; --"},
    )
    assert answer.text.count("1.10") == 1
    (row,) = answer.json()["rows"]
    assert row == ["'; DROP TABLE x; --", 1.1, "2020-01-02", "eA==", [1, None], {"k": 1}]


def test_pages_are_stable(ask: Ask, client: httpx.Client, workspace: Workspace) -> None:
    answer = ask(MANY, rows=1000)
    first, address = answer.json(), answer.headers["content-location"]
    assert (first["total"], len(first["rows"]), answer.status_code) == (3500, 1000, 200)
    assert len(objects(workspace)) == 1
    seen, page = list(first["rows"]), first
    pages = []
    while page["next"]:
        told = client.get(address, params={"page": page["next"]})
        assert told.status_code == 200, told.text
        page = told.json()
        pages.append(page)
        seen += page["rows"]
    assert [row[0] for row in seen] == list(range(3500))
    again = client.get(address, params={"page": first["next"]}).json()
    assert again["rows"] == pages[0]["rows"]
    assert client.get(address).json()["rows"] == first["rows"]
    assert client.delete(address).status_code == 204
    assert code(client.get(address)) == (404, "store.no_such_job")
    assert objects(workspace) == []


def test_a_page_is_for_its_result_and_its_caller(ask: Ask, client: httpx.Client, workspace: Workspace) -> None:
    one, other = ask(MANY), ask(MANY)
    token = one.json()["next"]
    address = other.headers["content-location"]
    for wrong in (token, token[:-2] + "AA", "x", ""):
        assert code(client.get(address, params={"page": wrong})) == (400, "http.page")
    headers = bearer(workspace, "doctor")
    assert code(client.get(one.headers["content-location"], headers=headers)) == (404, "store.no_such_job")
    assert code(client.delete(one.headers["content-location"], headers=headers)) == (404, "store.no_such_job")
    assert client.get(address, headers=bearer(workspace, "auditor")).status_code == 403
    for each in (one, other):
        assert client.delete(each.headers["content-location"]).status_code == 204


@pytest.mark.parametrize("rows", [3, 3500, 20_000])
@pytest.mark.parametrize("by", ["accept", "format"])
def test_whole_results_in_each_form(ask: Ask, client: httpx.Client, rows: int, by: str) -> None:
    statement = f"SELECT range AS n, 'ä,\"' AS t, [range] AS l, range AS n FROM range({rows})"
    if rows > 4000 and by == "format":
        statement = statement.replace("20000", "4000")
        rows = 4000
    for form, media in (
        ("arrow", "application/vnd.apache.arrow.stream"),
        ("csv", "text/csv"),
        ("ndjson", "application/x-ndjson"),
    ):
        told: dict[str, Any] = {"headers": {"Accept": media}} if by == "accept" else {"format": form}
        answer = ask(statement, **told)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"].startswith(media)
        if form == "arrow":
            table = pa.ipc.open_stream(answer.content).read_all()
            assert (table.column_names, len(table)) == (["n", "t", "l", "n"], rows)
            assert table.column(0).to_pylist() == list(range(rows))
        elif form == "csv":
            found = list(csv.reader(io.StringIO(answer.text)))
            assert found[0] == ["n", "t", "l", "n"]
            assert len(found) == rows + 1
            assert found[2] == ["1", 'ä,"', "[1]", "1"]
        else:
            lines = answer.text.splitlines()
            assert len(lines) == rows
            assert json.loads(lines[-1]) == {"n": rows - 1, "t": 'ä,"', "l": [rows - 1], "n_1": rows - 1}
        if address := answer.headers.get("content-location"):
            assert client.get(address, headers={"Accept": media}).content == answer.content
            assert client.delete(address).status_code == 204


def test_forms_that_there_are_not(ask: Ask) -> None:
    assert code(ask("SELECT 1", headers={"Accept": "image/png"})) == (406, "http.format")
    assert code(ask("SELECT 1", format="xml")) == (406, "http.format")
    assert ask("SELECT 1", headers={"Accept": "text/html, */*;q=0.1"}).json()["rows"] == [[1]]


def test_a_limit_of_rows_is_told(ask: Ask) -> None:
    answer = ask(MANY, limit=10).json()
    assert (len(answer["rows"]), answer["total"], answer["limited"], answer["next"]) == (10, 10, True, None)
    assert ask("SELECT 1", limit=1).json()["limited"] is False
    assert ask("SELECT 1", limit=0).json()["rows"] == []
    assert code(ask("SELECT 1", limit=-1)) == (400, "http.body")


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"statement": f"SELECT {SECRET}"}, 400, "lake.sql"),
        ({"statement": f"SELECT CAST('{SECRET}' AS INT)"}, 400, "lake.sql"),
        ({"statement": "SELECT ?", "parameters": [{"a": SECRET}]}, 400, "lake.parameter"),
        ({"statement": "DELETE FROM Patient"}, 400, "lake.sql"),
        ({"statement": "SELECT 1", "as_of": SECRET}, 400, "lake.as_of"),
        ({"statement": "SELECT 1", "as_of": "nothing"}, 404, "lake.no_tag"),
        ({"statement": "SELECT 1", "more": SECRET}, 400, "http.body"),
        ({"statement": ENDLESS}, 503, "lake.too_long"),
        ({"statement": "SELECT len(list(range)) FROM range(500000000)"}, 503, "lake.memory"),
    ],
)
def test_what_goes_wrong_says_no_value(
    client: httpx.Client, log: Lines, body: dict[str, Any], status: int, said: str
) -> None:
    answer = client.post("/sql", json=body)
    assert code(answer) == (status, said)
    assert SECRET not in answer.text
    assert SECRET not in repr(log.said)
    assert not [one for one in log.said if one["event"] == "fault"]


def test_it_runs_on_when_nobody_waits(ask: Ask, client: httpx.Client) -> None:
    answer = ask("SELECT id FROM Patient ORDER BY id", headers={"Prefer": "respond-async"})
    assert (answer.status_code, answer.json()["state"]) == (202, "running")
    address = answer.headers["location"]
    assert address.endswith(answer.json()["id"])
    told = finished(client, address).json()
    assert (told["total"], told["rows"][0], told["next"]) == (PATIENTS, ["p0"], None)
    assert client.delete(address).status_code == 204
    failing = ask(ENDLESS, headers={"Prefer": "respond-async, wait=0"}).headers["location"]
    answer = finished(client, failing)
    assert code(answer) == (409, "http.statement_failed")
    assert answer.json()["failed"] == "lake.too_long"


def test_a_running_statement_is_cancelled(ask: Ask, client: httpx.Client, workspace: Workspace) -> None:
    address = ask(ENDLESS, headers={"Prefer": "wait=0"}).headers["location"]
    assert client.get(address).status_code == 202
    began = time.monotonic()
    assert client.delete(address).status_code == 204
    assert code(client.get(address)) == (404, "store.no_such_job")
    while running(workspace):
        assert time.monotonic() - began < 1.5, "it ran on to its own end"
        time.sleep(0.02)


def running(workspace: Workspace) -> list[Any]:
    """Threads that watch over a statement."""
    return [one for one in threading.enumerate() if one.name == "carelake-lake-stop"]


def test_only_so_many_of_one_caller_run(ask: Ask, client: httpx.Client, workspace: Workspace) -> None:
    held = [ask(ENDLESS, headers={"Prefer": "wait=0"}).headers["location"] for _ in range(2)]
    refused = ask("SELECT 1")
    assert code(refused) == (429, "lake.too_many")
    assert refused.headers["retry-after"]
    other = client.post("/sql", json={"statement": "SELECT 1"}, headers=bearer(workspace, "doctor"))
    assert other.status_code == 200
    for one in held:
        assert client.delete(one).status_code == 204
    assert ask("SELECT 1").status_code == 200


def test_each_statement_and_each_reading_is_an_act(ask: Ask, client: httpx.Client, workspace: Workspace) -> None:
    answer = ask("SELECT id FROM Patient WHERE id <> ?", parameters=[SECRET])
    found = acts_of(workspace, answer)
    assert {one["phase"] for one in found} == {"start", "page", "done"}
    assert {one["action"] for one in found} == {"lake:ask"}
    said = next(one for one in found if "counts" in one)
    assert said["counts"]["rows"] == PATIENTS
    assert SECRET not in repr(found)
    assert [one for one in found if one.get("changed", {}).get("statement", "").startswith("statement:")]
    kept = ask(MANY)
    page = client.get(kept.headers["content-location"], params={"page": kept.json()["next"]})
    (act,) = acts_of(workspace, page)
    assert (act["action"], act["phase"], act["counts"]) == ("lake:query", "done", {"rows": 1000})
    refused = client.post("/sql", json={"statement": "SELECT 1"}, headers=bearer(workspace, "auditor"))
    assert code(refused) == (403, "access.denied")
    assert [one["phase"] for one in acts_of(workspace, refused)] == ["refused"]
    assert httpx.post(f"{client.base_url}/sql", json={"statement": "SELECT 1"}).status_code == 401
    client.delete(kept.headers["content-location"])


def test_nothing_of_it_lies_in_the_clear(ask: Ask, client: httpx.Client, workspace: Workspace, log: Lines) -> None:
    statement = f"SELECT CAST(name AS VARCHAR) AS n, '{SECRET}' AS s FROM Patient, range(100)"
    answer = ask(statement, rows=10)
    assert SECRET in answer.text
    for path in Path(workspace.vault.root).rglob("*"):
        if path.is_file():
            assert SECRET.encode() not in path.read_bytes(), path
    assert SECRET not in repr(log.said)
    client.delete(answer.headers["content-location"])


def test_an_erasure_drops_results(ask: Ask, client: httpx.Client, workspace: Workspace) -> None:
    address = ask(MANY).headers["content-location"]
    running = ask(ENDLESS, headers={"Prefer": "wait=0"}).headers["location"]
    with workspace.enter(operator(workspace), "record:erase", "record") as permit:
        assert drop_copies(workspace.vault, permit, frozenset({"p1"}))["bulk_jobs"] >= 2
    assert code(client.get(address)) == (404, "store.no_such_job")
    assert code(client.get(running)) == (404, "store.no_such_job")
    assert objects(workspace) == []


def test_results_expire_and_those_of_dead_processes_are_told(tmp_path: Path) -> None:
    told = {"CARELAKE_LAKE__KEEP_SECONDS": "1", "CARELAKE_BULK__POLL_SECONDS": "0.1"}
    with (
        asked_workspace(tmp_path, **told) as workspace,
        serving(workspace, Lines()) as url,
        httpx.Client(base_url=url, headers=bearer(workspace, "operator"), timeout=30) as client,
    ):
        address = client.post("/sql", json={"statement": MANY}).headers["content-location"]
        assert objects(workspace)
        until = time.monotonic() + 20
        while client.get(address).status_code == 200 or objects(workspace):
            assert time.monotonic() < until
            time.sleep(0.1)
        left = abandoned(workspace)
        answer = finished(client, f"/sql/{left}")
        assert (code(answer), answer.json()["failed"]) == ((409, "http.statement_failed"), "lake.interrupted")


def test_a_result_whose_time_is_over_is_gone_before_it_is_swept(
    ask: Ask, client: httpx.Client, workspace: Workspace
) -> None:
    address = ask(MANY).headers["content-location"]
    assert client.get(address).status_code == 200
    with (
        workspace.enter(operator_in(workspace), "lake:ask", "lake") as permit,
        workspace.vault.database.transaction(permit) as tx,
    ):
        over = update(bulk_job).where(bulk_job.c.id == address.rpartition("/")[2])
        tx.execute(over.values(expires="2020-01-01T00:00:00Z"))
    assert code(client.get(address)) == (404, "store.no_such_job")


def abandoned(workspace: Workspace) -> str:
    """A statement whose process is gone."""
    with (
        workspace.enter(operator_in(workspace), "lake:ask", "lake") as permit,
        workspace.vault.database.transaction(permit) as tx,
    ):
        job = Jobs(workspace.vault).begin(permit, tx, "sql", {"scope": list(permit.scope)})
        Jobs(workspace.vault).release(tx, job)
    return job


def operator_in(workspace: Workspace) -> Any:
    """The operator with the purpose of its tokens here."""
    return Caller(known(workspace, "operator"), "TREAT", "production")


def test_observations_are_there(ask: Ask) -> None:
    answer = ask("SELECT patient, count(*) AS n FROM Observation GROUP BY ALL ORDER BY ALL").json()
    assert answer["rows"][0] == ["p0", EACH]


def test_to_keep_a_result_is_decided_as_to_ask(workspace: Workspace) -> None:
    """Whoever may do the one may do the other, in the same sight: a policy that names one of them names both."""
    for role in sorted(ROLES):
        who = Principal("somebody", "person", (role,), ("production", "research", "development"))
        for purpose, account in product(PURPOSES, who.accounts):
            for one, other in (("lake:query", "lake:ask"), ("lake:analyse", "lake:ask-deidentified")):
                asked, kept = (workspace.gate.explain(who, name, account, purpose) for name in (one, other))
                assert (asked.allowed, sorted(asked.scope)) == (kept.allowed, sorted(kept.scope)), (role, purpose)


@pytest.mark.parametrize(
    ("name", "role", "purpose"), [("ana", "analyst", "HOPERAT"), ("res", "researcher", "HRESCH")]
)
def test_who_sees_less_pages_through_that(
    client: httpx.Client, workspace: Workspace, name: str, role: str, purpose: str
) -> None:
    admit(workspace, "person", **{name: role})
    headers = bearer(workspace, name, purpose)
    refused = client.post("/sql", json={"statement": "SELECT name FROM Patient"}, headers=headers)
    assert code(refused) in {(400, "lake.sql"), (400, "lake.cells")}
    told = {"statement": "SELECT gender, count(*) AS n FROM deidentified.Patient WHERE gender <> ? GROUP BY gender"}
    asked = client.post("/sql", json={**told, "parameters": ["x"]}, headers={**headers, "Prefer": "wait=0"})
    address = asked.headers["location"]
    assert finished(client, address, headers=headers).json()["rows"] == [["female", PATIENTS]]
    assert code(client.get(address)) == (404, "store.no_such_job")
    assert client.delete(address, headers=headers).status_code == 204


def test_fresh_rows_are_for_who_may_sync(ask: Ask, client: httpx.Client, workspace: Workspace) -> None:
    fill(workspace, patient(77))
    count = "SELECT count(*) FROM Patient WHERE id = 'p77'"
    assert ask(count).json()["rows"] == [[0]]
    refused = client.post("/sql", json={"statement": count, "fresh": True}, headers=bearer(workspace, "doctor"))
    assert code(refused) == (403, "access.denied")
    assert ask(count, fresh=True).json()["rows"] == [[1]]
    assert ask(count).json()["rows"] == [[1]]
    assert ask(count, as_of="2001-01-01").status_code == 404
