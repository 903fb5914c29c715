"""History over HTTP (https://hl7.org/fhir/R4/http.html#history), against a real server on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from tests.apps.served import admit, calling, own_workspace

from carelake.fhir.validate import validate

FHIR = {"Content-Type": "application/fhir+json"}
TIMES = 5


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with own_workspace(tmp_path_factory.mktemp("history")) as made:
        admit(made, "service", writer="application")
        with calling(made, "writer") as client:
            history(client)
            yield client


def history(client: httpx.Client) -> None:
    for number in range(TIMES):
        for key in ("a", "b"):
            sent = {"resourceType": "Patient", "id": key, "multipleBirthInteger": number}
            assert client.put(f"/Patient/{key}", json=sent, headers=FHIR).status_code in (200, 201)
    client.delete("/Patient/b")
    client.put("/Patient/b", json={"resourceType": "Patient", "id": "b"}, headers=FHIR)
    client.delete("/Patient/b")
    client.post("/Basic", json={"resourceType": "Basic", "code": {"text": "x"}}, headers=FHIR)


def pages(client: httpx.Client, path: str) -> list[dict[str, Any]]:
    """All bundles, from link to link."""
    found = []
    while path:
        answer = client.get(path)
        assert answer.status_code == 200, answer.text
        found.append(answer.json())
        path = next((link["url"] for link in found[-1]["link"] if link["relation"] == "next"), "")
    return found


def told(bundles: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [
        (entry["fullUrl"].rpartition("/fhir/")[2], entry["response"]["etag"])
        for bundle in bundles
        for entry in bundle.get("entry", ())
    ]


def test_history_of_one_resource(client: httpx.Client) -> None:
    (bundle,) = pages(client, "/Patient/a/_history")
    assert (bundle["resourceType"], bundle["type"], bundle["total"]) == ("Bundle", "history", TIMES)
    assert told([bundle]) == [("Patient/a", f'W/"{n}"') for n in range(TIMES, 0, -1)]
    assert [one["resource"]["meta"]["versionId"] for one in bundle["entry"]] == ["5", "4", "3", "2", "1"]
    assert [one["resource"]["multipleBirthInteger"] for one in bundle["entry"]] == [4, 3, 2, 1, 0]
    for entry in bundle["entry"]:
        assert entry["response"]["lastModified"] == entry["resource"]["meta"]["lastUpdated"]
        number = entry["resource"]["meta"]["versionId"]
        assert client.get(f"/Patient/a/_history/{number}").json() == entry["resource"]
    assert bundle["entry"][0]["request"] == {"method": "PUT", "url": "Patient/a"}
    assert not [issue for issue in validate(bundle) if issue.bad]


def test_history_tells_of_deletions_and_returns(client: httpx.Client) -> None:
    (bundle,) = pages(client, "/Patient/b/_history")
    said = [(one["request"]["method"], one["response"]["status"][:3], "resource" in one) for one in bundle["entry"]]
    assert said[:4] == [
        ("DELETE", "204", False),
        ("PUT", "201", True),
        ("DELETE", "204", False),
        ("PUT", "200", True),
    ]
    assert said[-1] == ("PUT", "201", True)  # under an id of the client's own
    assert bundle["entry"][-1]["request"]["url"] == "Patient/b"
    assert bundle["total"] == TIMES + 3
    assert not [issue for issue in validate(bundle) if issue.bad]


def test_history_of_a_type_and_of_all(client: httpx.Client) -> None:
    (patients,) = pages(client, "/Patient/_history")
    (everything,) = pages(client, "/_history")
    assert told([patients])[:3] == [("Patient/b", 'W/"8"'), ("Patient/b", 'W/"7"'), ("Patient/b", 'W/"6"')]
    assert len(patients["entry"]) == patients["total"] == 2 * TIMES + 3
    assert everything["entry"][0]["request"] == {"method": "POST", "url": "Basic"}
    assert everything["entry"][1:] == patients["entry"]
    times = [one["response"]["lastModified"] for one in everything["entry"]]
    assert times == sorted(times, reverse=True)
    (empty,) = pages(client, "/Observation/_history")
    assert (empty["total"], empty.get("entry")) == (0, None)


@pytest.mark.parametrize("path", ["/Patient/a/_history", "/Patient/_history", "/_history"])
@pytest.mark.parametrize("size", [1, 4, 5, 100])
def test_pages_hold_everything_once(client: httpx.Client, path: str, size: int) -> None:
    whole = told(pages(client, path))
    found = pages(client, f"{path}?_count={size}")
    assert told(found) == whole
    assert [len(page["entry"]) for page in found[:-1]] == [size] * (len(found) - 1)
    assert client.get(path, params={"_count": 0}).json().get("entry") is None


def test_pages_do_not_move_when_more_is_written(client: httpx.Client) -> None:
    before = told(pages(client, "/Patient/_history"))
    first = client.get("/Patient/_history?_count=2").json()
    client.put("/Patient/later", json={"resourceType": "Patient", "id": "later"}, headers=FHIR)
    following = next(link["url"] for link in first["link"] if link["relation"] == "next")
    assert told([first]) + told(pages(client, following)) == before
    client.delete("/Patient/later")


def test_since(client: httpx.Client) -> None:
    (bundle,) = pages(client, "/Patient/a/_history")
    third = bundle["entry"][2]["response"]["lastModified"]
    for path in ("/Patient/a/_history", "/Patient/_history", "/_history"):
        whole = [
            one for page in pages(client, path) for one in page["entry"] if one["response"]["lastModified"] >= third
        ]
        found = pages(client, f"{path}?_since={third}&_count=3")
        assert [one for page in found for one in page["entry"]] == whole
    (none,) = pages(client, "/Patient/_history?_since=2999-01-01T00:00:00Z")
    assert (none["total"], none.get("entry")) == (0, None)
    assert client.get("/Patient/never/_history").status_code == 404


def test_at(client: httpx.Client) -> None:
    for path in ("/Patient/a/_history", "/Patient/_history", "/_history"):
        everything = [one for page in pages(client, path) for one in page["entry"]]
        (now,) = pages(client, f"{path}?_at=2999-01-01T00:00:00Z")
        newest: dict[str, Any] = {}
        for one in everything:
            newest.setdefault(one["fullUrl"], one)
        assert now.get("entry", []) == [one for one in newest.values() if "resource" in one]
        (never,) = pages(client, f"{path}?_at=1999")
        assert never.get("entry") is None
        (all_year,) = pages(client, f"{path}?_at={everything[0]['response']['lastModified'][:4]}")
        assert all_year["entry"] == everything


@pytest.mark.parametrize(
    "query", ["_since=soon", "_at=x", "_count=-1", "_count=x", "_sort=_id", "_list=1", "_page=x"]
)
def test_what_is_wrong_is_refused(client: httpx.Client, query: str) -> None:
    for path in ("/Patient/a/_history", "/Patient/_history", "/_history"):
        answer = client.get(f"{path}?{query}")
        assert (answer.status_code, answer.json()["resourceType"]) == (400, "OperationOutcome")


def test_a_page_is_of_one_history(client: httpx.Client) -> None:
    first = client.get("/Patient/a/_history?_count=1").json()
    token = next(link["url"] for link in first["link"] if link["relation"] == "next").rpartition("_page=")[2]
    for path in ("/Patient/b/_history", "/Patient/_history", "/_history", "/Patient/a/_history?_since=2020"):
        sign = "&" if "?" in path else "?"
        assert client.get(f"{path}{sign}_page={token}").status_code == 400
    assert client.get(f"/Patient/a/_history?_page={token}").status_code == 200
    assert client.get(f"/Patient/a/_history?_count=2&_page={token}").status_code == 200
