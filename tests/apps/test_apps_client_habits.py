"""What clients do though R4 does not say so, and what stays an error all the same."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from tests.apps.served import calling, outcome, own_workspace

MARKED = {"resourceType": "Patient", "identifier": [{"system": "http://m", "value": "1"}], "gender": "female"}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with own_workspace(tmp_path_factory.mktemp("habits")) as made, calling(made, "operator") as one:
        one.put("/Patient/one", json={**MARKED, "id": "one"})
        yield one


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


def test_an_operation_by_post_needs_no_body(client: httpx.Client) -> None:
    whole = client.post("/Patient/one/$everything")
    assert (whole.status_code, whole.json()["resourceType"]) == (200, "Bundle"), whole.text
    for body in ({}, {"content": b"", "headers": {"Content-Type": "application/fhir+json"}}):
        told = client.post("/Patient/one/$validate?mode=delete", **body)
        assert (told.status_code, told.json()["issue"][0]["severity"]) == (200, "information"), told.text
    assert client.post("/Patient/none/$validate?mode=delete").json()["issue"][0]["code"] == "not-found"
    assert client.post("/Patient").status_code == 400
    wrong = client.post("/Patient", content=b"<Patient/>", headers={"Content-Type": "application/fhir+xml"})
    outcome(wrong, 415, "http.media_type")


def test_a_part_of_the_statement(client: httpx.Client) -> None:
    """Firely's client asks so for the version, before anything else."""
    short = client.get("/metadata?_summary=true&_pretty=true").json()
    assert (short["fhirVersion"], short["kind"]) == ("4.0.1", "instance")
    assert short["meta"]["tag"][0]["code"] == "SUBSETTED"
    told = client.get("/metadata?_elements=fhirVersion").json()
    assert set(told) == {"resourceType", "meta", "status", "date", "kind", "fhirVersion", "format"}
    assert client.get("/metadata?_summary=false").json() == client.get("/metadata").json()
    assert client.get("/metadata?_summary=few").status_code == 400


def test_bulk_data_is_told_of_as_its_guide_asks(client: httpx.Client) -> None:
    said = client.get("/metadata").json()
    assert said["instantiates"] == ["http://hl7.org/fhir/uv/bulkdata/CapabilityStatement/bulk-data"]
    told = {one["type"]: {op["name"] for op in one["operation"]} for one in said["rest"][0]["resource"]}
    assert "export" in told["Patient"] & told["Group"] & {op["name"] for op in said["rest"][0]["operation"]}


@pytest.mark.parametrize(("version", "status"), [("4.0", 201), ('"4.0.1"', 201), ("3.0", 415)])
def test_a_body_of_another_version_of_fhir(client: httpx.Client, version: str, status: int) -> None:
    said = {"Content-Type": f"application/fhir+json; fhirVersion={version}; charset=utf-8"}
    assert client.post("/Patient", content=b'{"resourceType":"Patient"}', headers=said).status_code == status


def test_what_was_deleted_tells_its_version(client: httpx.Client) -> None:
    client.put("/Patient/gone", json={"resourceType": "Patient", "id": "gone"})
    assert client.delete("/Patient/gone").headers["ETag"] == 'W/"2"'
    for path in ("/Patient/gone", "/Patient/gone/_history/2"):
        answer = client.get(path)
        assert (answer.status_code, answer.headers["ETag"]) == (410, 'W/"2"')
