"""Writes over HTTP, by the rules of https://hl7.org/fhir/R4/http.html, against a real server on loopback."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from itertools import count
from typing import Any

import httpx
import msgspec
import pytest
from tests.apps.served import act_of, admit, outcome, own_workspace

from carelake.apps.wiring import Workspace
from carelake.core.settings import ValidationSettings

FHIR = {"Content-Type": "application/fhir+json"}
CANARY = "Zyxwvutsrq"
_numbers = count()


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    with own_workspace(tmp_path_factory.mktemp("writing")) as made:
        admit(made, "service", writer="application", loader="pipeline")
        admit(made, "person", doctor="clinician")
        yield made


@pytest.fixture(scope="module")
def client(as_: Callable[[str], httpx.Client]) -> httpx.Client:
    return as_("writer")


def patient(**more: Any) -> dict[str, Any]:
    """One with an identifier of its own."""
    own = {"system": "urn:test", "value": f"n{next(_numbers)}"}
    return {"resourceType": "Patient", "identifier": [own], "active": True, **more}


def named(resource: dict[str, Any]) -> str:
    return f"identifier=urn:test|{resource['identifier'][0]['value']}"


def make(client: httpx.Client, **more: Any) -> dict[str, Any]:
    answer = client.post("/Patient", json=patient(**more), headers=FHIR)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def versions(client: httpx.Client, key: str) -> list[str]:
    answer = client.get(f"/Patient/{key}/_history")
    return [entry["response"]["etag"] for entry in answer.json().get("entry", ())]


# --- create -------------------------------------------------------------------------------------------------------


def test_create_gives_a_new_id_and_tells_where(client: httpx.Client, address: str) -> None:
    sent = patient(id="mine", meta={"versionId": "77", "lastUpdated": "1999-01-01T00:00:00Z", "source": "urn:here"})
    answer = client.post("/Patient", json=sent, headers=FHIR)
    assert answer.status_code == 201
    made = answer.json()
    assert made["id"] != "mine"
    assert made["meta"]["versionId"] == "1"
    assert made["meta"]["lastUpdated"] > "2020"
    assert made["meta"]["source"] == "urn:here"
    assert answer.headers["Location"] == f"{address}/fhir/Patient/{made['id']}/_history/1"
    assert answer.headers["ETag"] == 'W/"1"'
    assert parsedate_to_datetime(answer.headers["Last-Modified"])
    assert answer.headers["Content-Type"].startswith("application/fhir+json")
    read = client.get(f"/Patient/{made['id']}")
    assert (read.json(), read.headers["ETag"]) == (made, 'W/"1"')
    assert read.headers["Last-Modified"] == answer.headers["Last-Modified"]
    assert client.get(answer.headers["Location"]).json() == made
    assert client.get("/Patient/mine").status_code == 404


def test_digits_come_back_as_they_were_sent(client: httpx.Client) -> None:
    body = '{"resourceType":"Observation","status":"final","code":{"text":"x"},"valueQuantity":{"value":1.10}}'
    answer = client.post("/Observation", content=body, headers=FHIR)
    assert '"value":1.10' in answer.text
    assert '"value":1.10' in client.get(f"/Observation/{answer.json()['id']}").text


@pytest.mark.parametrize(
    ("preferred", "status", "body"),
    [("minimal", 201, ""), ("representation", 201, "Patient"), ("OperationOutcome", 201, "OperationOutcome")],
)
def test_what_is_preferred_is_returned(client: httpx.Client, preferred: str, status: int, body: str) -> None:
    answer = client.post("/Patient", json=patient(), headers={**FHIR, "Prefer": f"respond-x, return={preferred}"})
    assert answer.status_code == status
    assert answer.headers["Preference-Applied"] == f"return={preferred}"
    assert (answer.json()["resourceType"] if answer.content else "") == body
    assert answer.headers["Location"]
    assert answer.headers["ETag"]


def test_an_unknown_preference_is_ignored(client: httpx.Client) -> None:
    answer = client.post("/Patient", json=patient(), headers={**FHIR, "Prefer": "return=everything"})
    assert (answer.status_code, answer.json()["resourceType"]) == (201, "Patient")
    assert "Preference-Applied" not in answer.headers


def test_create_where_nothing_matches(client: httpx.Client) -> None:
    sent = patient()
    first = client.post("/Patient", json=sent, headers={**FHIR, "If-None-Exist": named(sent)})
    again = client.post("/Patient", json={**sent, "active": False}, headers={**FHIR, "If-None-Exist": named(sent)})
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.headers["Location"] == first.headers["Location"]
    assert again.json() == first.json()
    assert again.headers["ETag"] == 'W/"1"'
    other = client.post("/Patient", json=sent, headers=FHIR).json()
    several = client.post("/Patient", json=sent, headers={**FHIR, "If-None-Exist": named(sent)})
    outcome(several, 412, "http.several_matches")
    assert several.json()["issue"][0]["code"] == "multiple-matches"
    assert client.delete(f"/Patient/{other['id']}").status_code == 204
    assert client.post("/Patient", json=sent, headers={**FHIR, "If-None-Exist": named(sent)}).status_code == 200


def test_a_condition_may_be_a_whole_address(client: httpx.Client, address: str) -> None:
    sent = patient()
    answers = [
        client.post("/Patient", json=sent, headers={**FHIR, "If-None-Exist": f"{before}{named(sent)}"})
        for before in ("", "Patient?", f"{address}/fhir/Patient?")
    ]
    assert [one.status_code for one in answers] == [201, 200, 200]
    for before in (f"{address}/fhir/Group?", "http://other.test/fhir/Patient?"):
        heads = {**FHIR, "If-None-Exist": f"{before}{named(sent)}"}
        outcome(client.post("/Patient", json=sent, headers=heads), 400, "store.criteria")


@pytest.mark.parametrize(
    "criteria", ["", "unknown=1", "_count=1", "identifier", "Observation?code=1", "_include=*", "identifier="]
)
def test_a_condition_must_be_one(client: httpx.Client, criteria: str) -> None:
    answer = client.post("/Patient", json=patient(), headers={**FHIR, "If-None-Exist": criteria})
    assert answer.status_code == 400


# --- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"\xff", 400),
        (b"[]", 400),
        (b'"Patient"', 400),
        (b"{}", 400),
        (b'{"resourceType": "Nothing"}', 400),
        (b'{"resourceType": "Observation", "status": "final", "code": {"text": "x"}}', 400),
        (b'{"resourceType": "Patient", "active": "Zyxwvutsrq"}', 400),
        (b'{"resourceType": "Patient", "active": true, "active": false}', 400),
        (b"[" * 5000, 400),
    ],
)
def test_what_is_no_resource_of_this_type_is_refused(
    client: httpx.Client, workspace: Workspace, body: bytes, status: int
) -> None:
    before = client.get("/Patient?_summary=count").json()["total"]
    for method, path in (("POST", "/Patient"), ("PUT", "/Patient/refused")):
        answer = client.request(method, path, content=body, headers=FHIR)
        assert answer.status_code == status
        issue = answer.json()["issue"][0]
        assert issue["severity"] in ("error", "fatal")
        assert CANARY not in answer.text
        act = act_of(workspace, answer)
        assert act["phase"] == "failed"
        assert CANARY not in json.dumps(act)
    assert client.get("/Patient?_summary=count").json()["total"] == before
    assert client.get("/Patient/refused").status_code == 404


def test_a_refusal_tells_expression_line_and_column(client: httpx.Client) -> None:
    body = b'{"resourceType": "Patient",\n  "birthDate": "20",\n "contact": [{"gender": 1}]}'
    answer = client.post("/Patient", content=body, headers=FHIR)
    issues = answer.json()["issue"]
    places = {
        issue["expression"][0]: [one["valueInteger"] for one in issue["extension"]]
        for issue in issues
        if issue.get("expression")
    }
    assert places["Patient.birthDate"] == [2, 3]
    assert places["Patient.contact[0].gender"] == [3, 15]


@pytest.mark.parametrize("sent", [{"id": "other"}, {}])
def test_the_id_must_be_there_and_be_the_one_of_the_address(client: httpx.Client, sent: dict[str, Any]) -> None:
    answer = client.put("/Patient/this", json=patient(**sent), headers=FHIR)
    assert answer.status_code == 400
    assert client.get("/Patient/this").status_code == 404


@pytest.mark.parametrize("kind", ["Nothing", "patient", "Parameters", "OperationOutcome"])
def test_types_that_cannot_be_kept(client: httpx.Client, kind: str) -> None:
    answer = client.post(f"/{kind}", json={"resourceType": kind}, headers=FHIR)
    assert answer.status_code in (400, 404)


def test_xml_is_not_taken(client: httpx.Client) -> None:
    heads = {"Content-Type": "application/fhir+xml"}
    assert client.post("/Patient", content=b"<Patient/>", headers=heads).status_code == 415
    assert client.put("/Patient/x", content=b"<Patient/>", headers=heads).status_code == 415
    assert client.post("/Patient", json=patient(), headers={**FHIR, "Accept": "text/html"}).status_code == 406


def test_unknown_parameters_are_refused(client: httpx.Client) -> None:
    assert client.post("/Patient?x=1", json=patient(), headers=FHIR).status_code == 400
    assert client.put("/Patient/x?x=1", json=patient(id="x"), headers=FHIR).status_code == 400
    assert client.delete("/Patient/x?x=1").status_code == 400
    assert client.get("/Patient/_history?x=1").status_code == 400


# --- update -------------------------------------------------------------------------------------------------------


def test_update_makes_the_next_version(client: httpx.Client) -> None:
    made = make(client)
    changed = {**made, "active": False}
    answer = client.put(f"/Patient/{made['id']}", json=changed, headers=FHIR)
    assert answer.status_code == 200
    assert (answer.headers["ETag"], answer.json()["meta"]["versionId"]) == ('W/"2"', "2")
    assert answer.json()["active"] is False
    assert "Location" not in answer.headers
    assert client.get(f"/Patient/{made['id']}").json() == answer.json()
    assert client.get(f"/Patient/{made['id']}/_history/1").json() == made


def test_an_update_that_changes_nothing_makes_no_version(client: httpx.Client) -> None:
    made = make(client)
    answer = client.put(f"/Patient/{made['id']}", json=made, headers=FHIR)
    assert (answer.status_code, answer.headers["ETag"]) == (200, 'W/"1"')
    assert versions(client, made["id"]) == ['W/"1"']


def test_update_creates_under_the_clients_id(client: httpx.Client, address: str) -> None:
    answer = client.put("/Patient/client-made.1", json=patient(id="client-made.1"), headers=FHIR)
    assert (answer.status_code, answer.headers["ETag"]) == (201, 'W/"1"')
    assert answer.headers["Location"] == f"{address}/fhir/Patient/client-made.1/_history/1"


@pytest.mark.parametrize("key", ["a" * 65, "a_b", "%C3%A9"])
def test_an_id_must_be_one(client: httpx.Client, key: str) -> None:
    assert client.put(f"/Patient/{key}", json=patient(id=key), headers=FHIR).status_code in (400, 404)
    assert client.delete(f"/Patient/{key}").status_code == 404


@pytest.mark.parametrize(
    ("match", "status"),
    [
        ('W/"1"', 200),
        ('"1"', 200),
        ("1", 200),
        ('W/"5", W/"1"', 200),
        ("*", 200),
        ('W/"2"', 412),
        ('W/"x"', 412),
        ('W/"01"', 412),
        ('W/"5", W/"6"', 412),
        ("W/1", 400),
        ("rubbish", 400),
    ],
)
def test_if_match(client: httpx.Client, match: str, status: int) -> None:
    made = make(client)
    heads = {**FHIR, "If-Match": match}
    answer = client.put(f"/Patient/{made['id']}", json={**made, "active": False}, headers=heads)
    assert answer.status_code == status
    assert versions(client, made["id"]) == (['W/"2"', 'W/"1"'] if status == 200 else ['W/"1"'])
    if status == 412:
        outcome(answer, 412, "store.version_conflict")


def test_if_match_of_what_is_not_there(client: httpx.Client) -> None:
    for match in ('W/"1"', "*"):
        answer = client.put("/Patient/none", json=patient(id="none"), headers={**FHIR, "If-Match": match})
        assert answer.status_code == 412
    made = make(client)
    client.delete(f"/Patient/{made['id']}")
    for match in ('W/"1"', 'W/"2"', "*"):
        answer = client.put(f"/Patient/{made['id']}", json=made, headers={**FHIR, "If-Match": match})
        assert answer.status_code == 412


def test_if_none_match_creates_only(client: httpx.Client) -> None:
    heads = {**FHIR, "If-None-Match": "*"}
    sent = patient(id="only-once")
    assert client.put("/Patient/only-once", json=sent, headers=heads).status_code == 201
    again = client.put("/Patient/only-once", json={**sent, "active": False}, headers=heads)
    outcome(again, 412, "http.precondition")
    assert versions(client, "only-once") == ['W/"1"']
    heads["If-None-Match"] = 'W/"1"'
    assert client.put("/Patient/only-once", json={**sent, "active": False}, headers=heads).status_code == 412
    client.delete("/Patient/only-once")
    heads["If-None-Match"] = "*"
    assert client.put("/Patient/only-once", json=sent, headers=heads).status_code == 201


def test_update_of_what_was_deleted_brings_it_back(client: httpx.Client) -> None:
    made = make(client)
    client.delete(f"/Patient/{made['id']}")
    answer = client.put(f"/Patient/{made['id']}", json=made, headers=FHIR)
    assert (answer.status_code, answer.headers["ETag"]) == (201, 'W/"3"')
    assert answer.headers["Location"].endswith("/_history/3")
    assert client.get(f"/Patient/{made['id']}").status_code == 200
    assert client.get(f"/Patient/{made['id']}/_history/2").status_code == 410


def test_conditional_update(client: httpx.Client) -> None:
    sent = patient()
    first = client.put(f"/Patient?{named(sent)}", json=sent, headers=FHIR)
    assert first.status_code == 201
    key = first.json()["id"]
    assert client.get(f"/Patient/{key}").status_code == 200
    again = client.put(f"/Patient?{named(sent)}", json={**sent, "active": False}, headers=FHIR)
    assert (again.status_code, again.json()["id"], again.headers["ETag"]) == (200, key, 'W/"2"')
    own = client.put(f"/Patient?{named(sent)}", json={**sent, "id": key, "gender": "other"}, headers=FHIR)
    assert (own.status_code, own.headers["ETag"]) == (200, 'W/"3"')
    wrong = client.put(f"/Patient?{named(sent)}", json={**sent, "id": "another"}, headers=FHIR)
    outcome(wrong, 400, "http.id")
    stale = client.put(f"/Patient?{named(sent)}", json=sent, headers={**FHIR, "If-Match": 'W/"1"'})
    assert stale.status_code == 412
    client.post("/Patient", json=sent, headers=FHIR)
    several = client.put(f"/Patient?{named(sent)}", json=sent, headers=FHIR)
    outcome(several, 412, "http.several_matches")
    assert versions(client, key) == ['W/"3"', 'W/"2"', 'W/"1"']


def test_conditional_update_under_an_id(client: httpx.Client) -> None:
    sent = patient(id="chosen")
    assert client.put(f"/Patient?{named(sent)}", json=sent, headers=FHIR).status_code == 201
    assert client.get("/Patient/chosen").status_code == 200
    taken = client.put("/Patient?identifier=urn:test|nobody", json=sent, headers=FHIR)
    outcome(taken, 409, "http.id_taken")
    assert versions(client, "chosen") == ['W/"1"']
    stale = {**FHIR, "If-Match": 'W/"1"'}
    nobody = client.put("/Patient?identifier=urn:test|nobody", json=patient(), headers=stale)
    assert nobody.status_code == 412


def test_without_an_id_there_must_be_a_condition(client: httpx.Client) -> None:
    for method in ("PUT", "DELETE"):
        more = {"json": patient(), "headers": FHIR} if method == "PUT" else {}
        answer = client.request(method, "/Patient", **more)
        outcome(answer, 400, "http.no_condition")
        for criteria in ("nothing=1", "identifier=", "identifier=urn:x%7C1&family="):
            assert client.request(method, f"/Patient?{criteria}", **more).status_code == 400


# --- delete -------------------------------------------------------------------------------------------------------


def test_delete(client: httpx.Client) -> None:
    made = make(client)
    answer = client.delete(f"/Patient/{made['id']}")
    assert (answer.status_code, answer.content, answer.headers["ETag"]) == (204, b"", 'W/"2"')
    gone = client.get(f"/Patient/{made['id']}")
    assert (gone.status_code, gone.json()["issue"][0]["code"]) == (410, "deleted")
    assert client.get(f"/Patient?{named(made)}").json()["total"] == 0
    assert client.get(f"/Patient/{made['id']}/_history/1").json() == made
    again = client.delete(f"/Patient/{made['id']}")
    assert (again.status_code, again.headers["ETag"]) == (204, 'W/"2"')
    assert client.delete("/Patient/never-there").status_code == 204


def test_delete_at_a_version(client: httpx.Client) -> None:
    made = make(client)
    for match in ('W/"2"', 'W/"x"'):
        assert client.delete(f"/Patient/{made['id']}", headers={"If-Match": match}).status_code == 412
    assert client.get(f"/Patient/{made['id']}").status_code == 200
    assert client.delete(f"/Patient/{made['id']}", headers={"If-Match": 'W/"1"'}).status_code == 204


def test_a_deletion_with_an_outcome(client: httpx.Client) -> None:
    heads = {"Prefer": "return=OperationOutcome"}
    for key in (make(client)["id"], "never-there"):
        answer = client.delete(f"/Patient/{key}", headers=heads)
        assert (answer.status_code, answer.json()["resourceType"]) == (200, "OperationOutcome")


def test_conditional_delete(client: httpx.Client) -> None:
    made = make(client)
    assert client.delete(f"/Patient?{named(made)}", headers={"If-Match": 'W/"9"'}).status_code == 412
    assert client.delete(f"/Patient?{named(made)}").status_code == 204
    assert client.get(f"/Patient/{made['id']}").status_code == 410
    assert client.delete(f"/Patient?{named(made)}").status_code == 204
    pair = patient()
    kept = [client.post("/Patient", json=pair, headers=FHIR).json()["id"] for _ in range(2)]
    several = client.delete(f"/Patient?{named(pair)}")
    outcome(several, 412, "http.several_matches")
    assert [client.get(f"/Patient/{key}").status_code for key in kept] == [200, 200]


# --- conditional read ---------------------------------------------------------------------------------------------


def test_conditional_read(client: httpx.Client) -> None:
    made = make(client)
    path = f"/Patient/{made['id']}"
    told = client.get(path).headers
    for heads, status in (
        ({"If-None-Match": 'W/"1"'}, 304),
        ({"If-None-Match": '"1"'}, 304),
        ({"If-None-Match": 'W/"7", W/"1"'}, 304),
        ({"If-None-Match": "*"}, 304),
        ({"If-None-Match": 'W/"2"'}, 200),
        ({"If-None-Match": "rubbish"}, 200),
        ({"If-Modified-Since": told["Last-Modified"]}, 304),
        ({"If-Modified-Since": "Wed, 01 Jan 2020 00:00:00 GMT"}, 200),
        ({"If-Modified-Since": "rubbish"}, 200),
        # What is said of versions goes before what is said of dates (RFC 9110).
        ({"If-None-Match": 'W/"2"', "If-Modified-Since": told["Last-Modified"]}, 200),
    ):
        answer = client.get(path, headers=heads)
        assert (answer.status_code, bool(answer.content)) == (status, status == 200), heads
        assert answer.headers["ETag"] == 'W/"1"'
        assert client.get(f"{path}/_history/1", headers=heads).status_code == status


def test_head_is_get_without_the_body(client: httpx.Client) -> None:
    made = make(client)
    for path in (f"/Patient/{made['id']}", f"/Patient/{made['id']}/_history", f"/Patient?{named(made)}", "/metadata"):
        got, head = client.get(path), client.head(path)
        assert (head.status_code, head.content) == (200, b"")
        for name in ("ETag", "Last-Modified", "Content-Type"):
            assert head.headers.get(name) == got.headers.get(name)
    assert client.head("/Patient/never-there").status_code == 404


# --- who may ------------------------------------------------------------------------------------------------------


def test_who_may_not_write_does_not(client: httpx.Client, as_: Callable[[str], httpx.Client]) -> None:
    made, doctor = make(client), as_("doctor")
    for answer in (
        doctor.post("/Patient", json=patient(), headers=FHIR),
        doctor.put(f"/Patient/{made['id']}", json={**made, "active": False}, headers=FHIR),
        doctor.delete(f"/Patient/{made['id']}"),
        doctor.put(f"/Patient?{named(made)}", json=made, headers=FHIR),
        doctor.delete(f"/Patient?{named(made)}"),
    ):
        outcome(answer, 403, "access.denied")
    assert versions(client, made["id"]) == ['W/"1"']


def test_who_may_not_search_has_no_conditions(client: httpx.Client, as_: Callable[[str], httpx.Client]) -> None:
    loader, sent = as_("loader"), patient()
    assert loader.post("/Patient", json=sent, headers=FHIR).status_code == 201
    assert loader.get(f"/Patient?{named(sent)}").status_code == 403
    for answer in (
        loader.post("/Patient", json=sent, headers={**FHIR, "If-None-Exist": named(sent)}),
        loader.put(f"/Patient?{named(sent)}", json=sent, headers=FHIR),
        loader.delete(f"/Patient?{named(sent)}"),
    ):
        outcome(answer, 403, "access.denied")
    assert client.get(f"/Patient?{named(sent)}").json()["total"] == 1


def test_a_write_is_one_act_that_names_no_patient(client: httpx.Client, workspace: Workspace) -> None:
    sent = patient(name=[{"family": CANARY}])
    answer = client.post("/Patient", json=sent, headers={**FHIR, "If-None-Exist": named(sent)})
    act = act_of(workspace, answer)
    assert (act["phase"], act["action"], act["target"], act["principal"]) == (
        "done",
        "record:write",
        "Patient",
        "writer",
    )
    told = json.dumps(act)
    assert CANARY not in told
    assert answer.json()["id"] not in told
    assert sent["identifier"][0]["value"] not in told


# --- what is validated --------------------------------------------------------------------------------------------


@pytest.fixture
def validating(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def ask(**settings: str) -> None:
        told = msgspec.convert(settings, ValidationSettings)
        changed = msgspec.structs.replace(workspace.settings, validation=told)
        monkeypatch.setattr(workspace, "settings", changed)
        monkeypatch.setattr(workspace.vault, "settings", changed)

    return ask


@pytest.mark.parametrize(
    ("level", "statuses"), [("strict", (422, 400)), ("structure", (201, 400)), ("minimal", (201, 201))]
)
def test_levels(client: httpx.Client, validating: Callable[..., None], level: str, statuses: tuple[int, int]) -> None:
    validating(write=level)
    rule = patient(contact=[{"gender": "male"}])
    for sent, status in zip((rule, {**rule, "nickname": "x"}), statuses, strict=True):
        answer = client.post("/Patient", json=sent, headers=FHIR)
        assert answer.status_code == status, answer.text
        if status >= 400:
            assert answer.json()["issue"][0]["expression"]


@pytest.mark.parametrize("level", ["strict", "structure"])
def test_references_must_lead_somewhere_where_that_is_asked(
    client: httpx.Client, validating: Callable[..., None], level: str
) -> None:
    made = make(client)
    weight = {"resourceType": "Observation", "status": "final", "code": {"text": "x"}}
    lost = {**weight, "subject": {"reference": "Patient/lost"}}
    there = {**weight, "subject": {"reference": f"Patient/{made['id']}"}}
    assert client.post("/Observation", json=lost, headers=FHIR).status_code == 201
    validating(write=level, references="on")
    refused = client.post("/Observation", json=lost, headers=FHIR)
    assert refused.status_code == 422
    assert "Observation.subject.reference" in refused.json()["issue"][0]["expression"]
    assert client.post("/Observation", json=there, headers=FHIR).status_code == 201
    client.delete(f"/Patient/{made['id']}")
    assert client.post("/Observation", json=there, headers=FHIR).status_code == 422


def test_an_id_that_none_can_have_is_no_address_of_an_update(client: httpx.Client) -> None:
    for key in ("under_score", "x" * 65):
        answer = client.put(f"/Patient/{key}", json=patient(id=key), headers=FHIR)
        outcome(answer, 400, "http.id")


def test_a_conditional_create_tells_where_what_it_found_is(client: httpx.Client, address: str) -> None:
    made = make(client)
    heads = {**FHIR, "If-None-Exist": named(made), "Prefer": "return=minimal"}
    answer = client.post("/Patient", json=patient(), headers=heads)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["Location"] == f"{address}/fhir/Patient/{made['id']}/_history/1"


@pytest.mark.parametrize(
    ("query", "kept"),
    [
        ("_summary=true", {"resourceType", "id", "meta", "identifier", "active"}),
        ("_summary=data", {"resourceType", "id", "meta", "identifier", "active", "maritalStatus"}),
        ("_summary=text", {"resourceType", "id", "meta", "text"}),
        ("_summary=false", {"resourceType", "id", "meta", "text", "identifier", "active", "maritalStatus"}),
        ("_elements=active", {"resourceType", "id", "meta", "active"}),
    ],
)
def test_a_part_of_one_resource(client: httpx.Client, query: str, kept: set[str]) -> None:
    text = {"status": "generated", "div": '<div xmlns="http://www.w3.org/1999/xhtml">x</div>'}
    made = make(client, text=text, maritalStatus={"text": "M"}, meta={"tag": [{"code": "t"}]})
    for path in (f"/Patient/{made['id']}", f"/Patient/{made['id']}/_history/1"):
        answer = client.get(f"{path}?{query}&_pretty=true")
        assert (answer.status_code, set(answer.json()), answer.headers["ETag"]) == (200, kept, 'W/"1"')
        tags = [tag["code"] for tag in answer.json()["meta"]["tag"]]
        assert tags == (["t"] if query == "_summary=false" else ["t", "SUBSETTED"])
    assert client.get(f"/Patient/{made['id']}?_summary=few").status_code == 400
