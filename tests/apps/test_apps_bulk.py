"""Bulk export over HTTP: the asynchronous pattern, what is in the files, and who gets them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.apps.served import admit, bearer, own_workspace, recording

from carelake.apps.wiring import Workspace

POLICY = """
@id("other exports no practitioners")
forbid (principal, action == Action::"record:export", resource)
when { principal.name == "other" && ["Practitioner", "Basic"].contains(context.type) };
"""
ASYNC = {"Prefer": "respond-async", "Accept": "application/fhir+json"}


def patient(key: str, **more: Any) -> dict[str, Any]:
    return {"resourceType": "Patient", "id": key, "gender": "female", **more}


def observation(key: str, of: str, code: str = "a", **more: Any) -> dict[str, Any]:
    told = {"status": "final", "code": {"coding": [{"system": "http://x", "code": code}]}, **more}
    return {"resourceType": "Observation", "id": key, "subject": {"reference": f"Patient/{of}"}, **told}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    folder = tmp_path_factory.mktemp("bulk")
    (folder / "inbox").mkdir()
    members = [{"entity": {"reference": "Patient/p1"}}, {"entity": {"reference": "Patient/p2"}, "inactive": True}]
    group = {"resourceType": "Group", "id": "g", "type": "person", "actual": True, "member": members}
    both = {"resourceType": "Appointment", "id": "both", "status": "proposed"}
    both["participant"] = [{"actor": {"reference": f"Patient/p{n}"}, "status": "accepted"} for n in (1, 2)]
    kept = (
        patient("p1", name=[{"family": "Ada"}]),
        patient("p2"),
        patient("p3"),
        observation("o1", "p1"),
        observation("o2", "p2", "b"),
        observation("o3", "p3"),
        {"resourceType": "Practitioner", "id": "d", "active": True},
        group,
        both,
    )
    with own_workspace(folder, POLICY, CARELAKE_BULK__IMPORT_FOLDER=str(folder / "inbox")) as made:
        admit(made, "person", doctor="clinician", other="operator")
        with recording(made) as (permit, tx):
            for one in kept:
                made.resources.update(permit, tx, one)
            made.resources.delete(permit, tx, "Patient", "p3")
        yield made


@pytest.fixture(scope="module")
def client(address: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=address, timeout=20) as made:
        yield made


@pytest.fixture(scope="module")
def token(workspace: Workspace) -> Callable[..., dict[str, str]]:
    def issue(name: str = "operator", purpose: str = "HOPERAT", **narrowed: str) -> dict[str, str]:
        return bearer(workspace, name, purpose, **narrowed)

    return issue


class Exported:
    """An export that is done: its manifest and its files, parsed."""

    def __init__(self, client: httpx.Client, headers: dict[str, str], path: str, **asked: Any) -> None:
        self.client, self.headers = client, headers
        begun = client.request(asked.pop("method", "GET"), path, headers={**ASYNC, **headers}, **asked)
        assert begun.status_code == 202, begun.text
        self.address = begun.headers["content-location"]
        for _ in range(200):
            told = client.get(self.address, headers=headers)
            if told.status_code != 202:
                break
            assert "%" in told.headers["x-progress"]
            assert told.headers["retry-after"]
            time.sleep(0.05)
        assert told.status_code == 200, told.text
        self.headers_of_status = told.headers
        self.manifest = told.json()
        self.files = {
            role: [(one, self.lines(one["url"])) for one in self.manifest[role]]
            for role in ("output", "deleted", "error")
        }

    def lines(self, url: str) -> list[dict[str, Any]]:
        found = self.client.get(url, headers=self.headers)
        assert found.status_code == 200, found.text
        assert found.headers["content-type"] == "application/fhir+ndjson"
        return [json.loads(line) for line in found.text.splitlines()]

    @property
    def refs(self) -> list[str]:
        return sorted(f"{one['resourceType']}/{one['id']}" for _, lines in self.files["output"] for one in lines)


def test_all_of_the_record_is_exported_as_it_is_read(client: httpx.Client, token: Any) -> None:
    done = Exported(client, token(), "/fhir/$export")
    assert done.refs == [
        "Appointment/both", "Group/g", "Observation/o1", "Observation/o2", "Observation/o3", "Patient/p1",
        "Patient/p2", "Practitioner/d",
    ]  # fmt: skip
    assert done.manifest["requiresAccessToken"] is True
    assert done.manifest["request"].endswith("/fhir/$export")
    assert done.manifest["error"] == done.manifest["deleted"] == []
    assert "expires" in done.headers_of_status
    for told, lines in done.files["output"]:
        assert told["count"] == len(lines)
        for one in lines:
            assert one["resourceType"] == told["type"]
            read = client.get(f"/fhir/{one['resourceType']}/{one['id']}", headers=token()).json()
            assert one == read


def test_patients_and_groups_are_compartments(client: httpx.Client, token: Any) -> None:
    everyone = Exported(client, token(), "/fhir/Patient/$export").refs
    assert everyone == [
        "Appointment/both", "Group/g", "Observation/o1", "Observation/o2", "Observation/o3", "Patient/p1",
        "Patient/p2",
    ]  # fmt: skip
    group = Exported(client, token(), "/fhir/Group/g/$export", params={"_type": "Patient,Observation,Appointment"})
    assert group.refs == ["Appointment/both", "Observation/o1", "Patient/p1"]
    chosen = {
        "resourceType": "Parameters",
        "parameter": [{"name": "patient", "valueReference": {"reference": "Patient/p2"}}],
    }
    chosen["parameter"].append({"name": "_type", "valueString": "Patient"})
    assert Exported(client, token(), "/fhir/Patient/$export", method="POST", json=chosen).refs == ["Patient/p2"]
    assert Exported(client, token(), "/fhir/Group/g/$export", method="POST", json=chosen).refs == []


def test_filters_are_alternatives_and_elements_are_marked(client: httpx.Client, token: Any) -> None:
    asked = [("_type", "Patient,Observation"), ("_typeFilter", "Observation?code=http://x|b")]
    assert Exported(client, token(), "/fhir/$export", params=asked).refs == [
        "Observation/o2",
        "Patient/p1",
        "Patient/p2",
    ]
    asked.append(("_typeFilter", "Observation?subject:Patient.name=ada"))
    several = r"Observation?code=http://x|b,none\,Patient?x,Observation?subject:Patient.name=ada&status=final"
    listed = [("_type", "Observation"), ("_typeFilter", several)]
    assert Exported(client, token(), "/fhir/$export", params=listed).refs == ["Observation/o1", "Observation/o2"]
    asked.append(("_elements", "Observation.code,id"))
    done = Exported(client, token(), "/fhir/$export", params=asked)
    assert done.refs == ["Observation/o1", "Observation/o2", "Patient/p1", "Patient/p2"]
    (only,) = [lines for told, lines in done.files["output"] if told["type"] == "Observation"]
    assert set(only[0]) == {"resourceType", "id", "meta", "code", "status"}
    assert only[0]["meta"]["tag"][0]["code"] == "SUBSETTED"


def test_since_gives_what_changed_after_and_what_was_deleted(
    workspace: Workspace, client: httpx.Client, token: Any
) -> None:
    first = Exported(client, token(), "/fhir/$export")
    again = Exported(client, token(), "/fhir/$export", params={"_since": first.manifest["transactionTime"]})
    assert again.refs == []
    assert again.manifest["deleted"] == []
    with recording(workspace) as (permit, tx):
        workspace.resources.update(permit, tx, observation("o9", "p1"))
        workspace.resources.delete(permit, tx, "Observation", "o9")
        workspace.resources.update(permit, tx, observation("o8", "p1"))
    later = Exported(client, token(), "/fhir/$export", params={"_since": first.manifest["transactionTime"]})
    assert later.refs == ["Observation/o8"]
    ((told, bundles),) = later.files["deleted"]
    assert told["type"] == "Bundle"
    assert [one["entry"][0]["request"] for one in bundles] == [{"method": "DELETE", "url": "Observation/o9"}]
    assert (
        Exported(client, token(), "/fhir/$export", params={"_until": first.manifest["transactionTime"]}).refs
        == first.refs
    )


def test_a_job_is_for_who_asked(client: httpx.Client, token: Any) -> None:
    done = Exported(client, token(), "/fhir/$export", params={"_type": "Patient"})
    file = done.manifest["output"][0]["url"]
    for headers, status in (
        (token("other"), 404),
        (token(purpose="TREAT"), 404),
        (token("doctor", "TREAT"), 403),
        ({}, 401),
    ):
        for address in (done.address, file):
            assert client.get(address, headers=headers).status_code == status
    assert client.delete(done.address, headers=token("other")).status_code == 404
    assert client.delete(done.address, headers=token()).status_code == 202
    assert client.get(done.address, headers=token()).status_code == 404
    assert client.get(file, headers=token()).status_code == 404


def test_a_type_that_policy_denies_is_left_out_and_told(client: httpx.Client, token: Any) -> None:
    done = Exported(client, token("other"), "/fhir/$export")
    assert "Patient/p1" in done.refs
    assert "Practitioner/d" not in done.refs
    ((told, outcomes),) = done.files["error"]
    assert (told["type"], told["count"]) == ("OperationOutcome", 2)
    # There is no Basic: what is left out tells of policy, and not of what there is.
    named = [one["issue"][0]["diagnostics"].partition(" ")[0] for one in outcomes]
    assert named == ["Basic", "Practitioner"]
    both = {"_type": "Patient,Practitioner"}
    refused = client.get("/fhir/$export", params=both, headers={**ASYNC, **token("other")})
    assert refused.status_code == 403
    # Neither does a filter tell of what may not be exported.
    filtered = {"_type": "Patient", "_typeFilter": "Patient?general-practitioner:Practitioner.active=true"}
    refused = client.get("/fhir/$export", params=filtered, headers={**ASYNC, **token("other")})
    assert refused.status_code == 403


def test_a_token_that_opens_less_exports_less_and_gets_no_other_job(client: httpx.Client, token: Any) -> None:
    whole = Exported(client, token(), "/fhir/$export", params={"_type": "Patient"})
    narrow = token(scope="system/Patient.rs system/Observation.rs?code=http://x|b")
    done = Exported(client, narrow, "/fhir/$export")
    assert done.refs == ["Observation/o2", "Patient/p1", "Patient/p2"]
    for address in (whole.address, whole.manifest["output"][0]["url"]):
        assert client.get(address, headers=narrow).status_code in (403, 404)
    patients = token(scope="patient/*.rs", patient="p1")
    found = Exported(client, patients, "/fhir/Patient/$export").refs
    assert {"Observation/o1", "Patient/p1"} <= set(found) <= {"Observation/o1", "Observation/o8", "Patient/p1"}
    assert client.get(done.address, headers=patients).status_code == 404


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/fhir/$export", {"Accept": "application/fhir+json"}, 400),
        ("/fhir/$export?_type=Nonsense", ASYNC, 400),
        ("/fhir/Patient/$export?_type=Organization,Location", ASYNC, 400),
        ("/fhir/Group/g/$export?_type=Organization", ASYNC, 400),
        ("/fhir/$export?_outputFormat=text/csv", ASYNC, 400),
        ("/fhir/$export?_since=yesterday", ASYNC, 400),
        ("/fhir/$export?_unheard=1", ASYNC, 400),
        ("/fhir/$export?_typeFilter=Patient", ASYNC, 400),
        ("/fhir/$export?" + "&".join(["_typeFilter=Patient%3Factive%3Dtrue"] * 101), ASYNC, 400),
        ("/fhir/$export?_typeFilter=Patient?_sort=name", ASYNC, 400),
        ("/fhir/$export?_typeFilter=Patient?nonsense=1", ASYNC, 400),
        ("/fhir/$export?_typeFilter=Patient?name=", ASYNC, 400),
        ("/fhir/$export?_typeFilter=Patient?name=a,Patient?gender=", ASYNC, 400),
        ("/fhir/$export?_typeFilter=Patient?name=a,Starship?name=b", ASYNC, 400),
        ("/fhir/$export?_elements=a-b", ASYNC, 400),
        ("/fhir/Group/none/$export", ASYNC, 404),
        ("/fhir/$export/none", {}, 404),
        ("/fhir/$export/%00", {}, 404),
        ("/fhir/$export/%00/%00", {}, 404),
        ("/fhir/$export?_since=2026-12-31T23:59:60Z", ASYNC, 400),
        ("/fhir/$export?_since=0001-01-01T00:00:00%2B14:00", ASYNC, 400),
        (f"/fhir/$export?_typeFilter={'Patient?' + '%26_id=a' * 200}", ASYNC, 400),
        ("/fhir/$export?_typeFilter=Nonsense?_id=a", ASYNC, 400),
        ("/fhir/$export?patient=Patient/p1", ASYNC, 400),
    ],
)
def test_what_is_wrong_is_refused(
    client: httpx.Client, token: Any, path: str, headers: dict[str, str], status: int
) -> None:
    answer = client.get(path, headers={**headers, **token()})
    assert answer.status_code == status
    assert answer.json()["resourceType"] == "OperationOutcome"


# -- import ------------------------------------------------------------------------------------------------------


def imported(client: httpx.Client, headers: dict[str, str], body: dict[str, Any]) -> dict[str, Any]:
    begun = client.post("/fhir/$import", json=body, headers={**ASYNC, **headers})
    assert begun.status_code == 202, begun.text
    for _ in range(200):
        told = client.get(begun.headers["content-location"], headers=headers)
        if told.status_code != 202:
            break
        time.sleep(0.05)
    assert told.status_code == 200, told.text
    manifest: dict[str, Any] = told.json()
    for role in ("output", "error"):
        manifest[role] = [
            json.loads(line)
            for one in manifest[role]
            for line in client.get(one["url"], headers=headers).text.splitlines()
        ]
    return manifest


def parameters(*urls: str, **more: str) -> dict[str, Any]:
    def listed(url: str) -> dict[str, Any]:
        return {"name": "input", "part": [{"name": "type", "valueCode": "Patient"}, {"name": "url", "valueUrl": url}]}

    told = [{"name": name, "valueCode": value} for name, value in more.items()]
    return {"resourceType": "Parameters", "parameter": [*told, *map(listed, urls)]}


def test_files_of_the_folder_are_imported_and_each_line_is_told(
    workspace: Workspace, client: httpx.Client, token: Any
) -> None:
    lines = [patient("i1"), {"resourceType": "Patient", "id": "i2", "unheard": 1}, patient("i3")]
    (Path(workspace.settings.bulk.import_folder) / "a.ndjson").write_text(
        "\n".join(map(json.dumps, lines)) + "\n{broken\n"
    )
    told = imported(client, token(), parameters("a.ndjson", inputFormat="application/fhir+ndjson"))
    assert [(one["lineId"], one["statusCode"], one["resource"]) for one in told["output"]] == [
        (1, 201, "Patient/i1/_history/1"),
        (3, 201, "Patient/i3/_history/1"),
    ]
    assert [(one["lineId"], one["status"], one["statusCode"]) for one in told["error"]] == [
        (2, "FAILURE", 422),
        (4, "FAILURE", 422),
    ]
    assert all(one["outcome"]["issue"][0]["severity"] == "error" for one in told["error"])
    again = imported(client, token(), parameters("a.ndjson"))
    assert again["output"] == again["error"] == []
    assert client.get("/fhir/Patient/i1/_history", headers=token()).json()["total"] == 1


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (parameters("../a.ndjson"), 400),
        (parameters("/etc/passwd"), 400),
        (parameters("https://example.org/a.ndjson"), 400),
        (parameters("none.ndjson"), 400),
        (parameters("http://["), 400),
        (parameters("a\x00.ndjson"), 400),
        (parameters("file:///etc/passwd"), 400),
        (parameters("file://elsewhere/a.ndjson"), 400),
        ({"input": [{"url": "a.ndjson"}], "mode": 1}, 400),
        ([1], 400),
        (parameters(inputFormat="text/csv"), 400),
        ({"resourceType": "Parameters"}, 400),
        ({"input": "x"}, 400),
        ({"input": [{"url": 1}]}, 400),
    ],
)
def test_no_other_file_is_read(client: httpx.Client, token: Any, body: Any, status: int) -> None:
    answer = client.post("/fhir/$import", json=body, headers={**ASYNC, **token()})
    assert answer.status_code == status
    assert "passwd" not in answer.text
