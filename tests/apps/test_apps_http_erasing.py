"""``$erase`` and ``$purge`` over a real server: what is answered, who may, and that the server goes on rightly."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from tests.apps.served import Lines, known, serving

from carelake.access.principals import Principal, Principals
from carelake.apps.wiring import Workspace

FHIR = {"Content-Type": "application/fhir+json"}


def patient(key: str, word: str) -> dict[str, Any]:
    return {"resourceType": "Patient", "id": key, "name": [{"family": word}], "identifier": [{"value": word}]}


def condition(key: str, of: str, display: str) -> dict[str, Any]:
    code = {"coding": [{"system": "urn:test", "code": "c1", "display": display}]}
    active = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/condition-clinical", "code": "active"}]}
    told = {"clinicalStatus": active, "code": code, "subject": {"reference": f"Patient/{of}"}}
    return {"resourceType": "Condition", "id": key, **told}


@pytest.fixture
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    folder = tmp_path_factory.mktemp("erasing")
    made = Workspace.create(folder / "workspace", {"CARELAKE_KEY_DIR": str(folder / "keys")})
    with made.vault.database.ledger() as connection:
        Principals(connection).add(Principal("doctor", "person", ("clinician",), ("production",)))
    yield made
    made.close()


@pytest.fixture
def log() -> Lines:
    return Lines()


@pytest.fixture
def client(workspace: Workspace, log: Lines) -> Iterator[httpx.Client]:
    with serving(workspace, log) as url, httpx.Client(base_url=url, timeout=30, headers=FHIR) as made:
        yield made


@pytest.fixture
def token(workspace: Workspace) -> Callable[..., dict[str, str]]:
    def issue(name: str, purpose: str) -> dict[str, str]:
        text = workspace.identity.issue(known(workspace, name), purpose=purpose, account="production", seconds=600)
        return {"Authorization": f"Bearer {text}"}

    return issue


def parts(answer: httpx.Response) -> dict[str, Any]:
    told = {}
    for one in answer.json()["parameter"]:
        value = [one[key] for key in one if key.startswith("value")]
        told[one["name"]] = value[0] if value else {p["name"]: p["valueInteger"] for p in one["part"]}
    return told


def put(client: httpx.Client, headers: dict[str, str], *resources: dict[str, Any]) -> None:
    for one in resources:
        answer = client.put(f"/fhir/{one['resourceType']}/{one['id']}", json=one, headers=headers)
        assert answer.status_code in (200, 201), answer.text


@pytest.mark.parametrize("name", ["erase", "purge"])
def test_a_patient_is_gone_and_may_come_back(
    client: httpx.Client, token: Callable[..., dict[str, str]], log: Lines, name: str
) -> None:
    me = token("operator", "HOPERAT")
    put(client, me, patient("p1", "Qxword"), patient("p2", "Other"), condition("c1", "p1", "Strange wording"))
    put(client, me, condition("c2", "p2", "Usual wording"))
    assert client.get("/fhir/Condition?code:text=strange", headers=me).json()["entry"]

    answer = client.post(f"/fhir/Patient/p1/${name}?reason=asked", headers=me)
    assert answer.status_code == 200, answer.text
    told = parts(answer)
    assert told["jobStatus"] == "COMPLETED"
    assert told["complete"] is True
    assert told["totalResourcesDeleted"] == 2
    assert told["counts"]["code_texts"] == 1
    asked = client.get(f"/fhir/${name}/{told['jobId']}", headers=me)
    assert parts(asked)["proof"] == told["proof"]

    for path in ("Patient/p1", "Condition/c1", "Patient/p1/_history", "Condition/c1/_history/1"):
        assert client.get(f"/fhir/{path}", headers=me).status_code in (404, 410), path
    assert not client.get("/fhir/Condition?code:text=strange", headers=me).json().get("entry")
    assert client.get("/fhir/Condition?code:text=usual", headers=me).json()["entry"]
    assert client.post(f"/fhir/Patient/p1/${name}", headers=me).status_code == 404

    # The same process remembers symbols and texts: none of those that went may be used again.
    put(client, me, patient("p1", "Again"), condition("c1", "p1", "Strange wording"))
    assert client.get("/fhir/Patient/p1", headers=me).json()["name"] == [{"family": "Again"}]
    assert client.get("/fhir/Condition?patient=p1", headers=me).json()["entry"]
    assert client.get("/fhir/Condition?code:text=strange", headers=me).json()["entry"]
    assert "Qxword" not in str(log.said)


def test_who_may_not_is_refused(client: httpx.Client, token: Callable[..., dict[str, str]]) -> None:
    me = token("operator", "HOPERAT")
    put(client, me, patient("p1", "Qxword"))
    for headers in (token("doctor", "TREAT"), token("operator", "TREAT")):
        assert client.post("/fhir/Patient/p1/$erase", headers=headers).status_code == 403
    assert client.post("/fhir/Patient/p1/$erase").status_code == 401
    assert client.post("/fhir/Patient/p1/$erase?colour=red", headers=me).status_code == 400
    assert client.post("/fhir/Patient/p1/$erase?deleteAuditEvent=true", headers=me).status_code in (400, 501)
    assert client.post("/fhir/Patient/none/$erase", headers=me).status_code == 404
    assert client.get("/fhir/$erase/none", headers=me).status_code == 404
    assert client.get("/fhir/Patient/p1", headers=me).status_code == 200
