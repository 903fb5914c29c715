"""What clients do though R4 does not say so, and what stays an error all the same."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from tests.apps.served import Lines, known, serving

from carelake.apps.wiring import Workspace

MARKED = {"resourceType": "Patient", "identifier": [{"system": "http://m", "value": "1"}], "gender": "female"}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("habits")
    made = Workspace.create(folder / "workspace", {"CARELAKE_KEY_DIR": str(folder / "keys")})
    token = made.identity.issue(known(made, "operator"), purpose="TREAT", account="production", seconds=900)
    headers = {"Authorization": f"Bearer {token}"}
    with serving(made, Lines()) as url, httpx.Client(base_url=f"{url}/fhir", headers=headers, timeout=20) as one:
        one.put("/Patient/one", json={**MARKED, "id": "one"})
        yield one
    made.close()


def outcome(answer: httpx.Response, status: int, code: str) -> None:
    assert (answer.status_code, answer.json()["issue"][0]["details"]["text"]) == (status, code), answer.text


@pytest.mark.parametrize(
    "path", ["/Patient/", "/Patient/one/", "/metadata/", "/", "/Patient/one/_history/", "/Patient/one/$everything/"]
)
def test_a_slash_at_the_end(client: httpx.Client, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 200, answer.text
    assert answer.json()["resourceType"] in ("Bundle", "Patient", "CapabilityStatement")


def test_a_transaction_to_the_base_with_a_slash(client: httpx.Client) -> None:
    entry = {"request": {"method": "GET", "url": "Patient/one"}}
    answer = client.post("/", json={"resourceType": "Bundle", "type": "transaction", "entry": [entry]})
    assert (answer.status_code, answer.json()["type"]) == (200, "transaction-response")


def test_two_slashes_are_another_address(client: httpx.Client) -> None:
    assert client.get("/Patient//").status_code == 404


def test_the_condition_of_a_create_in_the_query(client: httpx.Client) -> None:
    known_ = client.post("/Patient", params={"identifier": "http://m|1"}, json=MARKED)
    assert (known_.status_code, known_.json()["id"]) == (200, "one")
    new = client.post("/Patient", params={"identifier": "http://m|2"}, json={"resourceType": "Patient"})
    assert new.status_code == 201
    outcome(client.post("/Patient", params={"colour": "red"}, json=MARKED), 400, "search.unknown_parameter")
    both = {"If-None-Exist": "identifier=http://m|1"}
    answer = client.post("/Patient", params={"identifier": "http://m|2"}, json=MARKED, headers=both)
    outcome(answer, 400, "http.unknown_parameter")


@pytest.mark.parametrize("media_type", ["application/merge-patch+json", "application/json"])
def test_a_merge_patch(client: httpx.Client, media_type: str) -> None:
    told = {"Content-Type": media_type}
    client.put("/Patient/two", json={"resourceType": "Patient", "id": "two", "gender": "female", "active": True})
    answer = client.patch("/Patient/two", json={"gender": None, "birthDate": "1980-02-13"}, headers=told)
    assert answer.status_code == 200, answer.text
    assert {name for name in answer.json() if name != "meta"} == {"resourceType", "id", "active", "birthDate"}
    stale = client.patch("/Patient/two", json={"active": False}, headers={**told, "If-Match": 'W/"1"'})
    assert stale.status_code == 412
    outcome(client.patch("/Patient/two", json={"id": "three"}, headers=told), 422, "http.patch_identity")
    invalid = client.patch("/Patient/two", json={"gender": "nonsense"}, headers=told)
    assert invalid.status_code == 422
    assert client.patch("/Patient/two", json=[1], headers=told).status_code == 415


def test_counting_as_fhirpy_does(client: httpx.Client) -> None:
    answer = client.get("/Patient", params={"_totalMethod": "count", "_count": "1", "identifier": "http://m|"})
    assert (answer.json()["total"], len(answer.json()["entry"])) == (1, 1)
    outcome(client.get("/Patient", params={"_totalMethod": "guess"}), 400, "search.bad_value")
