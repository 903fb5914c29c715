"""The HTTP door over a real server on loopback: who is let in, what is answered, and what is never written down."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.apps.served import Lines, act_of, admit, outcome, own_workspace, recording

from carelake.apps.http.app import create_app
from carelake.apps.http.server import make_server, serve
from carelake.apps.wiring import Workspace
from carelake.audit.readings import Acts
from carelake.core.errors import Unavailable, Unsupported

CANARY = "Zyxwvutsrq"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    patient = {"resourceType": "Patient", "gender": "female", "name": [{"family": CANARY}]}
    weight = {"resourceType": "Observation", "id": "o", "status": "final", "code": {"text": "weight"}}
    with own_workspace(tmp_path_factory.mktemp("http")) as made:
        admit(made, "person", doctor="clinician")
        with recording(made) as (permit, tx):
            for number in range(5):
                made.resources.update(permit, tx, {**patient, "id": f"p{number}"})
            made.resources.update(permit, tx, {"resourceType": "Patient", "id": "p0", "gender": "male"})
            made.resources.delete(permit, tx, "Patient", "p4")
            made.resources.update(permit, tx, {**weight, "valueQuantity": {"value": Decimal("1.10")}})
        yield made


@pytest.fixture
def client(address: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=address, timeout=20) as made:
        yield made


def acts(workspace: Workspace, **equal: str) -> list[dict[str, Any]]:
    with workspace.vault.database.ledger() as connection:
        return Acts(connection).find(limit=20, **equal)


# --- who is let in ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/fhir/Patient/1"),
        ("GET", "/fhir/Patient?gender=female"),
        ("POST", "/fhir/Patient/_search"),
        ("GET", "/fhir/Patient/1/_history/1"),
    ],
)
def test_no_token_is_refused_with_the_way_to_one(
    client: httpx.Client, workspace: Workspace, method: str, path: str
) -> None:
    answer = client.request(method, path)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert "carelake token --as NAME --purpose TREAT" in answer.json()["issue"][0]["diagnostics"]
    refused = act_of(workspace, answer)
    assert (refused["phase"], refused["principal"], refused["error"]) == ("refused", "anonymous", "http.no_token")


def test_predictions_need_a_token_too(client: httpx.Client) -> None:
    answer = client.post("/predict/readmission", json={"patient": "1"})
    assert (answer.status_code, answer.headers["Content-Type"]) == (401, "application/problem+json")
    assert answer.json()["code"] == "http.no_token"


def test_a_forged_token_is_refused(client: httpx.Client, token: Callable[..., dict[str, str]]) -> None:
    scheme, _, text = token()["Authorization"].partition(" ")
    head, claims, seal = text.split(".")
    forged = f"{head}.{claims}.{seal[:-4]}AAAA"
    for bad in (forged, "x", f"{head}.{claims}.", "a.b.c"):
        answer = client.get("/fhir/Patient/1", headers={"Authorization": f"{scheme} {bad}"})
        outcome(answer, 401, "access.token")


@pytest.mark.parametrize(
    ("who", "purpose"), [("doctor", "HRESCH"), ("doctor", ""), ("reviewer", "TREAT"), ("auditor", "HOPERAT")]
)
def test_who_may_not_is_refused_with_reasons_and_it_is_on_the_trail(
    client: httpx.Client, workspace: Workspace, token: Callable[..., dict[str, str]], who: str, purpose: str
) -> None:
    answer = client.get("/fhir/Patient/1", headers=token(who, purpose))
    assert answer.status_code == 403
    issues = answer.json()["issue"]
    assert issues[0]["details"]["text"] == "access.denied"
    refused = act_of(workspace, answer)
    assert (refused["phase"], refused["principal"]) == ("refused", who)
    assert refused["reasons"] == [issue["diagnostics"] for issue in issues[1:]]
    assert refused["reasons"]


def test_another_account_is_refused(client: httpx.Client, token: Callable[..., dict[str, str]]) -> None:
    assert client.get("/fhir/Patient/1", headers=token(account="research")).status_code == 403


# --- what is answered ---------------------------------------------------------------------------------------------


def test_read_has_the_version_and_its_validators(
    client: httpx.Client, workspace: Workspace, token: Callable[..., dict[str, str]]
) -> None:
    answer = client.get("/fhir/Patient/p0", headers=token())
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"] == "application/fhir+json; charset=utf-8"
    assert (answer.json()["gender"], answer.json()["meta"]["versionId"]) == ("male", "2")
    assert answer.headers["ETag"] == 'W/"2"'
    assert answer.headers["Last-Modified"].endswith("GMT")
    same = client.get("/fhir/Patient/p0", headers={**token(), "If-None-Match": 'W/"1", W/"2"'})
    assert (same.status_code, same.content) == (304, b"")
    act = act_of(workspace, answer)
    assert (act["action"], act["principal"], act["purpose"], act["target"]) == (
        "record:read",
        "doctor",
        "TREAT",
        "Patient",
    )
    assert len(act["read"]) == 1


def test_a_version_is_read(client: httpx.Client, token: Callable[..., dict[str, str]]) -> None:
    first = client.get("/fhir/Patient/p0/_history/1", headers=token())
    assert (first.json()["gender"], first.headers["ETag"]) == ("female", 'W/"1"')
    assert client.get("/fhir/Patient/p0/_history/9", headers=token()).status_code == 404


def test_numbers_keep_their_digits(client: httpx.Client, token: Callable[..., dict[str, str]]) -> None:
    assert '"value":1.10' in client.get("/fhir/Observation/o", headers=token()).text


def test_what_was_deleted_is_gone(client: httpx.Client, token: Callable[..., dict[str, str]]) -> None:
    answer = client.get("/fhir/Patient/p4", headers=token())
    assert (answer.status_code, answer.json()["issue"][0]["code"]) == (410, "deleted")


def test_search_pages_by_links(client: httpx.Client, token: Callable[..., dict[str, str]]) -> None:
    url, found = "/fhir/Patient?gender=female&_total=accurate&_count=2", []
    for _ in range(5):
        bundle = client.get(url, headers=token()).json()
        assert (bundle["type"], bundle["total"]) == ("searchset", 3)
        found += [entry["resource"]["id"] for entry in bundle["entry"]]
        links = {link["relation"]: link["url"] for link in bundle["link"]}
        assert links["self"].endswith(url.partition("?")[2])
        if "next" not in links:
            break
        url = links["next"]
    assert sorted(found) == ["p1", "p2", "p3"]


def test_search_by_post_is_the_same_search(client: httpx.Client, token: Callable[..., dict[str, str]]) -> None:
    asked = {"family": CANARY, "_sort": "_id"}
    by_get = client.get("/fhir/Patient", params=asked, headers=token()).json()
    by_post = client.post("/fhir/Patient/_search", data=asked, headers=token()).json()
    assert by_post["entry"] == by_get["entry"]
    assert by_get["entry"][0]["fullUrl"].endswith("/fhir/Patient/p1")
    wrong = client.post("/fhir/Patient/_search", json=asked, headers=token())
    assert wrong.json()["issue"][0]["details"]["text"] == "http.media_type"


def test_unknown_parameters_are_errors(client: httpx.Client, token: Callable[..., dict[str, str]]) -> None:
    for query in ("gendre=female", "gender:fuzzy=x", "_include=Patient:colour", "birthdate=soon", "_page=x"):
        answer = client.get(f"/fhir/Patient?{query}", headers=token())
        assert (answer.status_code, answer.json()["resourceType"]) == (400, "OperationOutcome"), query


def test_what_is_not_there(client: httpx.Client, token: Callable[..., dict[str, str]]) -> None:
    assert client.get("/fhir/Patient/none", headers=token()).status_code == 404
    assert client.get("/fhir/Patience/1", headers=token()).json()["resourceType"] == "OperationOutcome"
    assert client.get("/nothing").json()["code"] == "http.no_route"
    wrong = client.post("/fhir/Patient/1")
    assert wrong.status_code == 405
    assert {"GET", "HEAD", "PUT", "DELETE"} <= set(wrong.headers["Allow"].split(", "))


@pytest.mark.parametrize(
    ("path", "headers", "status", "code"),
    [
        ("/fhir/Patient/1?_summary=count", {}, 400, "http.parameter"),
        ("/fhir/Patient/1?_format=xml", {}, 406, "http.format"),
        ("/fhir/Patient/1", {"Accept": "application/fhir+xml"}, 406, "http.format"),
        ("/fhir/Patient?%ff=1", {}, 400, "http.query"),
        ("/fhir/metadata?mode=normative", {}, 400, "http.mode"),
    ],
)
def test_what_is_not_offered_is_an_error(
    client: httpx.Client,
    token: Callable[..., dict[str, str]],
    path: str,
    headers: dict[str, str],
    status: int,
    code: str,
) -> None:
    answer = client.get(path, headers={**token(), **headers})
    outcome(answer, status, code)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b"\xff",
        b'{"patient": 1}',
        b'{"patient": "1", "days": 3}',
        b"{}",
        b'{"list": true, "days": 0}',
        b'{"list": true, "days": 1e9}',
        b'{"patient": "1", "other": 1}',
        b"[" * 100_000,
    ],
)
def test_a_wrong_body_is_an_error_that_does_not_quote_it(
    client: httpx.Client, token: Callable[..., dict[str, str]], body: bytes
) -> None:
    answer = client.post(
        "/predict/readmission", headers={**token(), "Content-Type": "application/json"}, content=body
    )
    assert answer.status_code == 400
    assert answer.json()["code"].startswith("http.")


def test_a_long_body_is_refused(client: httpx.Client, token: Callable[..., dict[str, str]]) -> None:
    headers = {**token(), "Content-Type": "application/json"}
    said = client.post("/predict/readmission", headers=headers, content=b" " * (5 * 1024 * 1024 + 1))
    assert (said.status_code, said.json()["code"]) == (413, "http.body_too_large")

    def chunks() -> Iterator[bytes]:
        for _ in range(90):
            yield b" " * 65536

    unsaid = client.post("/predict/readmission", headers=headers, content=chunks())
    assert (unsaid.status_code, unsaid.json()["code"]) == (413, "http.body_too_large")


def test_capabilities_are_those_of_the_parameters(client: httpx.Client) -> None:
    answer = client.get("/fhir/metadata")
    assert answer.headers["Content-Type"].startswith("application/fhir+json")
    said = answer.json()
    assert (said["resourceType"], said["fhirVersion"]) == ("CapabilityStatement", "4.0.1")
    types = {one["type"]: one for one in said["rest"][0]["resource"]}
    assert {"name", "birthdate", "_id"} <= {one["name"] for one in types["Patient"]["searchParam"]}
    offered = {one["code"] for one in types["Patient"]["interaction"]}
    assert {"read", "vread", "create", "update", "delete", "history-type", "search-type"} <= offered


def test_openapi_lists_every_route(client: httpx.Client, workspace: Workspace) -> None:
    said = client.get("/openapi.json").json()
    routes = {
        (method.lower(), route.path)
        for route in create_app(workspace, log=Lines()).routes
        if not route.path.startswith("/aws")  # type: ignore[attr-defined]  # botocore's models describe them
        for method in route.methods - {"HEAD"}  # type: ignore[attr-defined]
    }
    assert {(method, path) for path, methods in said["paths"].items() for method in methods} == routes


def test_an_unknown_endpoint_is_not_found(client: httpx.Client, token: Callable[..., dict[str, str]]) -> None:
    for name in ("none", "no%20name", "x" * 97):
        answer = client.post(f"/predict/{name}", headers=token(), json={"patient": "p1"})
        assert (answer.status_code, answer.json()["code"]) == (404, "serving.no_such_endpoint")


# --- probes and the start page ------------------------------------------------------------------------------------


def test_probes(client: httpx.Client) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ok", "checks": {"database": "ok", "trail": "ok"}}


def test_start_page_shows_the_state_and_nothing_from_elsewhere(client: httpx.Client, workspace: Workspace) -> None:
    answer = client.get("/")
    assert answer.status_code == 200
    assert "The chain" in answer.text
    assert "script" not in answer.text
    assert "src=" not in answer.text
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'; style-src 'sha256-")
    act = act_of(workspace, answer)
    assert (act["action"], act["principal"], act["via"]) == ("status:read", "endpoint", "anonymous")


@pytest.mark.parametrize(
    "headers", [{"Host": "evil.example"}, {"Host": "127.0.0.1.evil.example:80"}, {"X-Forwarded-For": "127.0.0.1"}]
)
def test_start_page_is_for_this_machine(client: httpx.Client, headers: dict[str, str]) -> None:
    assert client.get("/", headers=headers).status_code == 403


# --- what every answer has, and what is never written down ----------------------------------------------------------


def test_a_client_finds_its_own_name_for_a_request(client: httpx.Client) -> None:
    for path, told in (("/fhir/Patient/none", "a.B-1:2_3"), ("/fhir/nothing/at/all/here", "1"), ("/healthz", "1")):
        headers = client.get(path, headers={"X-Request-Id": told}).headers
        assert headers.get("X-Correlation-Id") == (told if path.startswith("/fhir") else None)
        assert headers["X-Request-Id"] != told
    for odd in ("a b", "<x>", "a" * 129):
        assert "X-Correlation-Id" not in client.get("/fhir/metadata", headers={"X-Request-Id": odd}).headers


def test_a_statement_that_is_the_same_is_not_sent_again(client: httpx.Client) -> None:
    tag = client.get("/fhir/metadata").headers["ETag"]
    assert client.get("/fhir/metadata").headers["ETag"] == tag
    again = client.get("/fhir/metadata", headers={"If-None-Match": tag})
    assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", tag)
    assert client.get("/fhir/metadata?_summary=true", headers={"If-None-Match": tag}).status_code == 200
    assert (
        client.get("/fhir/metadata", headers={"If-Modified-Since": "Mon, 23 Nov 2037 06:06:56 GMT"}).status_code
        == 200
    )


@pytest.mark.parametrize("path", ["/", "/healthz", "/metrics", "/openapi.json", "/fhir/metadata", "/nothing"])
def test_every_answer_is_guarded(client: httpx.Client, path: str) -> None:
    headers = client.get(path).headers
    assert len(headers["X-Request-Id"]) == 32
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert "server" not in headers


def test_nothing_that_a_caller_writes_is_logged_counted_or_answered(
    client: httpx.Client, log: Lines, token: Callable[..., dict[str, str]], workspace: Workspace
) -> None:
    for path in (
        f"/fhir/Patient?name={CANARY}",
        f"/fhir/Patient/{CANARY}",
        f"/fhir/Patient/{CANARY}/_history/{CANARY}",
        f"/fhir/{CANARY}/1",
        f"/fhir/Patient?birthdate={CANARY}",
        f"/{CANARY}",
        f"/healthz?{CANARY}",
    ):
        answer = client.get(path, headers=token())
        assert answer.status_code != 500, path
        if answer.status_code != 200:
            assert CANARY not in answer.text, path
    client.post("/fhir/Patient/_search", headers=token(), data={"name": CANARY})
    client.post(f"/predict/{CANARY}%20x", headers=token(), json={"patient": CANARY})
    client.request(CANARY.upper(), "/fhir/Patient")
    assert CANARY.lower() not in json.dumps(log.said).lower()
    assert CANARY.lower() not in client.get("/metrics").text.lower()
    assert CANARY not in json.dumps(acts(workspace))


def test_the_log_line_names_route_and_act(client: httpx.Client, log: Lines) -> None:
    answer = client.get("/fhir/Patient/1")
    until = time.monotonic() + 2  # the line is written after the answer has left
    while not (lines := [line for line in log.said if line["act"] == answer.headers["X-Request-Id"]]):
        assert time.monotonic() < until
        time.sleep(0.01)
    (line,) = lines
    assert (line["method"], line["route"], line["status"]) == ("GET", "/fhir/{type}/{id}", 401)


def test_metrics_count_by_route(client: httpx.Client) -> None:
    client.get("/healthz")
    page = client.get("/metrics").text
    assert 'carelake_http_requests_total{method="GET",route="/healthz",status="200"}' in page


def test_the_trail_is_sealed_while_serving(client: httpx.Client, workspace: Workspace) -> None:
    act = client.get("/fhir/Patient/1").headers["X-Request-Id"]
    until = time.monotonic() + 5
    (row,) = acts(workspace, correlation=act)
    while time.monotonic() < until:
        with workspace.vault.database.ledger() as connection:
            sealed = connection.exec_driver_sql("SELECT max(last) FROM segment").scalar() or 0
        if sealed >= row["seq"]:
            return
        time.sleep(0.1)
    pytest.fail("the act was not sealed within 5 s")


def test_a_slow_sender_is_cut_off_and_others_are_served(address: str, client: httpx.Client) -> None:
    host, _, port = address.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=5) as slow:
        slow.sendall(b"POST /predict/readmission HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        assert client.get("/healthz").status_code == 200


def test_a_taken_port_and_a_foreign_host_are_errors(workspace: Workspace, address: str) -> None:
    with pytest.raises(Unavailable, match="port"):
        serve(workspace, port=int(address.rpartition(":")[2]))
    for host in ("0.0.0.0", "example.org", "::"):
        with pytest.raises(Unsupported, match="loopback"):
            make_server(workspace, host=host)


SERVES = """
import sys
from pathlib import Path
from carelake.apps.http.server import serve
from carelake.apps.wiring import Workspace

folder = Path(sys.argv[1])
workspace = Workspace.create(folder / "workspace", {"CARELAKE_KEY_DIR": str(folder / "keys")})
try:
    serve(workspace, port=0, started=lambda url: print(url, flush=True))
finally:
    workspace.close()
    print("closed", flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_gracefully(tmp_path: Path, ending: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SERVES, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert httpx.get(f"{url}/readyz", timeout=10).status_code == 200
        process.send_signal(ending)
        out, err = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, out.strip()) == (0, "closed"), err
    assert "Traceback" not in err
