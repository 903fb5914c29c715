"""Binary as the bytes that it is, and as a resource."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterator

import httpx
import pytest
from tests.apps.served import bearer, calling, outcome, own_workspace

from carelake.apps.wiring import Workspace
from carelake.fhir.compartment import owner

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    with own_workspace(tmp_path_factory.mktemp("binary")) as made:
        yield made


@pytest.fixture(scope="module")
def client(workspace: Workspace) -> Iterator[httpx.Client]:
    with calling(workspace, "operator") as one:
        yield one


def made(client: httpx.Client, content: bytes = PNG, media_type: str = "image/png", **heads: str) -> str:
    answer = client.post("/Binary", content=content, headers={"Content-Type": media_type, **heads})
    assert answer.status_code == 201, answer.text
    return str(answer.headers["Location"]).rsplit("/", 3)[-3]


@pytest.mark.parametrize("accept", ["*/*", "image/png", "image/*;q=0.8, text/html", "application/octet-stream, */*"])
def test_what_was_sent_as_it_is_comes_back_as_it_is(client: httpx.Client, accept: str) -> None:
    answer = client.get(f"/Binary/{made(client)}", headers={"Accept": accept})
    assert (answer.status_code, answer.content) == (200, PNG)
    assert answer.headers["Content-Type"] == "image/png"
    assert answer.headers["ETag"] == 'W/"1"'


@pytest.mark.parametrize("accept", ["application/fhir+json", "application/json", "image/png, application/fhir+json"])
def test_the_resource_for_who_names_json_of_fhir(client: httpx.Client, accept: str) -> None:
    told = client.get(f"/Binary/{made(client)}", headers={"Accept": accept}).json()
    assert (told["resourceType"], told["contentType"], b64decode(told["data"])) == ("Binary", "image/png", PNG)


def test_a_format_in_the_address_is_as_good(client: httpx.Client) -> None:
    key = made(client)
    assert client.get(f"/Binary/{key}", params={"_format": "json"}).json()["id"] == key


def test_a_resource_sent_as_json_is_content_too(client: httpx.Client) -> None:
    sent = {"resourceType": "Binary", "contentType": "text/plain", "data": b64encode(b"said").decode()}
    key = client.post("/Binary", json=sent).json()["id"]
    assert client.get(f"/Binary/{key}").content == b"said"


def test_an_update_by_content(client: httpx.Client) -> None:
    key = made(client)
    answer = client.put(f"/Binary/{key}", content=b"%PDF-", headers={"Content-Type": "application/pdf"})
    assert (answer.status_code, answer.headers["ETag"]) == (200, 'W/"2"')
    found = client.get(f"/Binary/{key}")
    assert (found.content, found.headers["Content-Type"]) == (b"%PDF-", "application/pdf")
    assert client.get(f"/Binary/{key}", headers={"If-None-Match": 'W/"2"'}).status_code == 304


def test_other_media_types_than_accepted_are_refused(client: httpx.Client) -> None:
    answer = client.get(f"/Binary/{made(client)}", headers={"Accept": "application/pdf"})
    outcome(answer, 406, "http.format")


def test_a_content_is_never_a_page_of_this_server(client: httpx.Client) -> None:
    key = made(client, b"<script>alert(1)</script>", "text/html")
    headers = client.get(f"/Binary/{key}").headers
    assert headers["Content-Disposition"] == "attachment"
    assert "sandbox" in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("media_type", ["image", "image/", ""])
def test_a_content_without_a_media_type_is_refused(client: httpx.Client, media_type: str) -> None:
    answer = client.post("/Binary", content=b"1", headers={"Content-Type": media_type})
    outcome(answer, 415, "http.media_type")


def test_a_content_type_that_is_kept_wrong_is_not_told(client: httpx.Client) -> None:
    sent = {"resourceType": "Binary", "contentType": "nonsense", "data": b64encode(b"1").decode()}
    key = client.post("/Binary", json=sent).json()["id"]
    assert client.get(f"/Binary/{key}").headers["Content-Type"] == "application/octet-stream"


def test_absent_and_unnamed(client: httpx.Client) -> None:
    assert client.get("/Binary/none").status_code == 404
    assert client.get("/Binary/none", headers={"Authorization": ""}).status_code == 401
    assert client.post("/Binary", content=PNG, headers={"Authorization": ""}).status_code == 401


def test_whose_it_is(client: httpx.Client) -> None:
    key = made(client, **{"X-Security-Context": "Patient/hers"})
    told = client.get(f"/Binary/{key}", headers={"Accept": "application/fhir+json"}).json()
    assert told["securityContext"] == {"reference": "Patient/hers"}
    assert owner(told) == "hers"
    wrong = client.post("/Binary", content=PNG, headers={"Content-Type": "image/png", "X-Security-Context": "hers"})
    outcome(wrong, 400, "http.security_context")


def test_in_the_sight_of_one_patient(client: httpx.Client, workspace: Workspace) -> None:
    """The security context is looked at as if it were asked for itself (https://hl7.org/fhir/R4/binary.html#security)."""
    for name in ("his", "other"):
        client.put(f"/Patient/{name}", json={"resourceType": "Patient", "id": name})
    mine = made(client, **{"X-Security-Context": "Patient/his"})
    others = made(client, **{"X-Security-Context": "Patient/other"})
    headers = bearer(workspace, "operator", scope="patient/*.read", patient="his")
    assert client.get(f"/Binary/{mine}", headers=headers).content == PNG
    assert client.get(f"/Binary/{others}", headers=headers).status_code == 404
