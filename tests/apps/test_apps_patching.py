"""PATCH over HTTP (https://hl7.org/fhir/R4/http.html#patch), on a real server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count
from typing import Any

import httpx
import pytest
from tests.apps.served import admit, calling, outcome, own_workspace

JSON_PATCH = "application/json-patch+json"
FHIR = "application/fhir+json"
CANARY = "Zyxwvutsrq"
_numbers = count()


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with own_workspace(tmp_path_factory.mktemp("patching")) as workspace:
        admit(workspace, "service", writer="application")
        with calling(workspace, "writer") as made:
            yield made


@pytest.fixture
def key(client: httpx.Client) -> str:
    body = {"resourceType": "Patient", "identifier": [{"system": "urn:p", "value": f"n{next(_numbers)}"}]}
    answer = client.post("/Patient", content=json.dumps(body), headers={"Content-Type": FHIR})
    assert answer.status_code == 201, answer.text
    made: str = answer.json()["id"]
    return made


def patch(client: httpx.Client, url: str, body: Any, media_type: str = JSON_PATCH, **heads: str) -> httpx.Response:
    return client.patch(url, content=json.dumps(body), headers={"Content-Type": media_type, **heads})


def gender(value: str = "male") -> list[dict[str, Any]]:
    return [{"op": "add", "path": "/gender", "value": value}]


def by_path(value: str) -> dict[str, Any]:
    parts = [
        {"name": "type", "valueCode": "add"},
        {"name": "path", "valueString": "Patient"},
        {"name": "name", "valueString": "gender"},
        {"name": "value", "valueCode": value},
    ]
    return {"resourceType": "Parameters", "parameter": [{"name": "operation", "part": parts}]}


@pytest.mark.parametrize(("body", "media_type"), [(gender(), JSON_PATCH), (by_path("male"), FHIR)])
def test_a_patch_makes_the_next_version(client: httpx.Client, key: str, body: Any, media_type: str) -> None:
    answer = patch(client, f"/Patient/{key}", body, f"{media_type}; charset=utf-8")
    assert answer.status_code == 200, answer.text
    assert answer.headers["etag"] == 'W/"2"'
    assert "last-modified" in answer.headers
    assert answer.json()["gender"] == "male"
    assert client.get(f"/Patient/{key}").json() == answer.json()
    assert "gender" not in client.get(f"/Patient/{key}/_history/1").json()


def test_a_patch_that_changes_nothing_makes_no_version(client: httpx.Client, key: str) -> None:
    body = [{"op": "test", "path": "/meta/versionId", "value": "1"}]
    assert patch(client, f"/Patient/{key}", body).headers["etag"] == 'W/"1"'
    body = [{"op": "replace", "path": "/meta/versionId", "value": "7"}]
    assert patch(client, f"/Patient/{key}", body).headers["etag"] == 'W/"1"'


def test_preferences(client: httpx.Client, key: str) -> None:
    answer = patch(client, f"/Patient/{key}", gender(), Prefer="return=minimal")
    assert (answer.status_code, answer.content) == (200, b"")
    answer = patch(client, f"/Patient/{key}", gender("female"), Prefer="return=OperationOutcome")
    assert answer.json()["resourceType"] == "OperationOutcome"


def test_if_match(client: httpx.Client, key: str) -> None:
    old = {"If-Match": 'W/"7"'}
    assert patch(client, f"/Patient/{key}", gender(), **old).status_code == 412
    assert patch(client, f"/Patient/{key}", gender(), **{"If-Match": 'W/"1"'}).status_code == 200
    assert patch(client, f"/Patient/{key}", gender("other"), **{"If-Match": 'W/"1"'}).status_code == 412
    assert client.get(f"/Patient/{key}").json()["gender"] == "male"


def test_conditional_patch(client: httpx.Client, key: str) -> None:
    value = client.get(f"/Patient/{key}").json()["identifier"][0]["value"]
    where = f"/Patient?identifier=urn:p|{value}"
    assert patch(client, where, gender()).json()["id"] == key
    none = patch(client, f"/Patient?identifier=urn:p|{CANARY}", gender())
    outcome(none, 404, "http.no_match")
    many = patch(client, "/Patient?identifier=urn:p|", gender())
    client.post("/Patient", json={"resourceType": "Patient", "identifier": [{"system": "urn:p", "value": "z"}]})
    many = patch(client, "/Patient?identifier=urn:p|", gender())
    outcome(many, 412, "http.several_matches")
    assert patch(client, "/Patient", gender()).status_code == 400


def test_there_must_be_one(client: httpx.Client, key: str) -> None:
    assert patch(client, "/Patient/none-such", gender()).status_code == 404
    assert client.delete(f"/Patient/{key}").status_code in (200, 204)
    assert patch(client, f"/Patient/{key}", gender()).status_code == 410
    assert patch(client, "/Nosuch/1", gender()).status_code == 404


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ([{"op": "replace", "path": "/id", "value": CANARY}], 422),
        ([{"op": "remove", "path": "/id"}], 422),
        ([{"op": "replace", "path": "/resourceType", "value": "Observation"}], 422),
        ([{"op": "add", "path": "", "value": {"resourceType": "Patient"}}], 422),
        ([{"op": "add", "path": "", "value": [CANARY]}], 422),
        ([{"op": "add", "path": "/gender", "value": CANARY}], 422),
        ([{"op": "add", "path": "/nosuch", "value": CANARY}], 422),
        ([{"op": "test", "path": "/identifier/0/value", "value": CANARY}], 422),
        ([{"op": "remove", "path": f"/{CANARY}"}], 422),
        ([{"op": CANARY, "path": "/id"}], 400),
        ({"op": CANARY}, 400),
        (CANARY, 400),
    ],
)
def test_what_must_not_be_is_refused_without_a_word_of_it(
    client: httpx.Client, key: str, body: Any, status: int
) -> None:
    before = client.get(f"/Patient/{key}").json()
    answer = patch(client, f"/Patient/{key}", body)
    assert answer.status_code == status, answer.text
    assert CANARY not in answer.text
    assert client.get(f"/Patient/{key}").json() == before


def test_issues_of_an_invalid_result_are_listed(client: httpx.Client, key: str) -> None:
    answer = patch(client, f"/Patient/{key}", by_path("no such code"), FHIR)
    assert answer.status_code == 422
    assert answer.json()["issue"][0]["expression"] == ["Patient.gender"]


@pytest.mark.parametrize("media_type", ["application/xml-patch+xml", "application/vnd.other+json", "text/plain"])
def test_other_patches_are_not_offered(client: httpx.Client, key: str, media_type: str) -> None:
    answer = client.patch(f"/Patient/{key}", content=b"<diff/>", headers={"Content-Type": media_type})
    assert answer.status_code in (400, 415)
    body = patch(client, f"/Patient/{key}", gender(), media_type)
    assert body.status_code == 415
    assert body.json()["issue"][0]["code"] == "not-supported"


def test_a_removal_leaves_no_empty_list(client: httpx.Client, key: str) -> None:
    answer = patch(client, f"/Patient/{key}", [{"op": "remove", "path": "/identifier/0"}])
    assert answer.status_code == 200, answer.text
    assert "identifier" not in answer.json()


def test_a_bomb_is_bounded(client: httpx.Client, key: str) -> None:
    begun = [{"op": "add", "path": "/extension", "value": []}]
    body = [*begun, *[{"op": "copy", "from": "", "path": "/extension/-"}] * 40]
    answer = patch(client, f"/Patient/{key}", body)
    outcome(answer, 422, "fhir.patch_limit")
