"""Batches and transactions over HTTP, by https://hl7.org/fhir/R4/http.html#transaction, on a real server."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count, permutations
from typing import Any

import httpx
import pytest
from msgspec import structs
from tests.apps.served import act_of, admit, outcome, own_workspace

from carelake.apps.wiring import Workspace
from carelake.core.settings import ValidationSettings

FHIR = {"Content-Type": "application/fhir+json"}
_numbers = count()


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    with own_workspace(tmp_path_factory.mktemp("bundles")) as made:
        admit(made, "service", writer="application", loader="pipeline")
        admit(made, "person", doctor="clinician")
        yield made


@pytest.fixture(scope="module")
def client(as_: Callable[[str], httpx.Client]) -> httpx.Client:
    return as_("writer")


def number() -> str:
    return f"b{next(_numbers)}"


def patient(value: str = "", **more: Any) -> dict[str, Any]:
    own = {"system": "urn:test", "value": value or number()}
    return {"resourceType": "Patient", "identifier": [own], "active": True, **more}


def observation(subject: str, **more: Any) -> dict[str, Any]:
    coding = {"system": "http://loinc.org", "code": "8867-4"}
    body = {"resourceType": "Observation", "status": "final", "code": {"coding": [coding]}}
    return {**body, "subject": {"reference": subject}, **more}


def entry(method: str, url: str, resource: Any = None, full: str = "", **request: Any) -> dict[str, Any]:
    found = {"fullUrl": full} if full else {}
    whole = {"resource": resource} if resource is not None else {}
    return {**found, **whole, "request": {"method": method, "url": url, **request}}


def send(client: httpx.Client, *entries: dict[str, Any], kind: str = "transaction", **heads: str) -> httpx.Response:
    bundle = {"resourceType": "Bundle", "type": kind, "entry": list(entries)}
    return client.post("", content=json.dumps(bundle), headers={**FHIR, **heads})


def answers(answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["entry"]
    return found


def where(entry: dict[str, Any]) -> str:
    """``Patient/1`` of an entry's location."""
    location: str = entry["response"]["location"]
    return location.partition("/_history")[0]


def test_a_transaction_rewrites_links_between_its_entries(client: httpx.Client) -> None:
    urn = "urn:uuid:8f9a4c5e-0000-4000-8000-000000000001"
    div = f'<div xmlns="http://www.w3.org/1999/xhtml"><a href="{urn}">p</a></div>'
    note = observation(urn, text={"status": "generated", "div": div})
    found = answers(send(client, entry("POST", "Observation", note), entry("POST", "Patient", patient(), urn)))
    made = client.get(f"/{where(found[0])}").json()
    assert made["subject"]["reference"] == where(found[1])
    assert f'href="{where(found[1])}"' in made["text"]["div"]
    assert [one["response"]["status"] for one in found] == ["201 Created"] * 2
    assert found[0]["response"]["etag"] == 'W/"1"'
    assert "resource" not in found[0]


def test_one_act_tells_of_a_transaction(workspace: Workspace, client: httpx.Client) -> None:
    answer = send(client, entry("POST", "Patient", patient()), entry("POST", "Patient", patient()))
    act = act_of(workspace, answer)
    assert (act["phase"], act["action"]) == ("done", "record:write")


def test_nothing_is_kept_of_a_transaction_that_fails(client: httpx.Client) -> None:
    value = number()
    wrong = {**patient(), "gender": "no such code"}
    answer = send(client, entry("POST", "Patient", patient(value)), entry("POST", "Patient", wrong))
    assert answer.status_code == 400 or answer.status_code == 422
    issue = answer.json()["issue"][0]
    assert issue["expression"] == ["Bundle.entry[1].resource.gender"]
    assert client.get(f"/Patient?identifier=urn:test|{value}&_summary=count").json()["total"] == 0


def test_errors_name_the_entry(client: httpx.Client) -> None:
    key = number()
    put = entry("PUT", f"Patient/{key}", patient(id=key), ifMatch='W/"7"')
    answer = send(client, entry("POST", "Patient", patient()), put)
    assert answer.status_code == 412
    assert answer.json()["issue"][0]["expression"] == ["Bundle.entry[1]"]


def test_conditional_create_in_a_transaction_links_to_what_is_there(client: httpx.Client) -> None:
    value, urn = number(), "urn:uuid:8f9a4c5e-0000-4000-8000-000000000002"
    first = where(answers(send(client, entry("POST", "Patient", patient(value))))[0])
    again = entry("POST", "Patient", patient(value), urn, ifNoneExist=f"identifier=urn:test|{value}")
    found = answers(send(client, again, entry("POST", "Observation", observation(urn))))
    assert found[0]["response"]["status"] == "200 OK"
    assert where(found[0]) == first
    assert client.get(f"/{where(found[1])}").json()["subject"]["reference"] == first


def test_conditional_references_are_resolved_also_to_entries(client: httpx.Client) -> None:
    value = number()
    by = observation(f"Patient?identifier=urn:test|{value}")
    found = answers(send(client, entry("POST", "Observation", by), entry("POST", "Patient", patient(value))))
    assert client.get(f"/{where(found[0])}").json()["subject"]["reference"] == where(found[1])
    none = send(client, entry("POST", "Observation", observation(f"Patient?identifier=urn:test|{number()}")))
    assert none.status_code == 412
    assert none.json()["issue"][0]["expression"] == ["Bundle.entry[0]"]
    two = [entry("POST", "Patient", patient(value)), entry("POST", "Observation", by)]
    assert send(client, *two).status_code == 412


def test_entries_are_done_in_the_standards_order(client: httpx.Client) -> None:
    value = number()
    old = where(answers(send(client, entry("POST", "Patient", patient(value))))[0])
    found = answers(
        send(
            client,
            entry("GET", f"Patient?identifier=urn:test|{value}"),
            entry("PUT", f"Patient?identifier=urn:test|{value}", patient(value)),
            entry("DELETE", old),
        )
    )
    # The deletion went first, so the conditional update met nothing, and the search sees what it made.
    assert found[1]["response"]["status"] == "201 Created"
    assert [one["resource"]["id"] for one in found[0]["resource"]["entry"]] == [where(found[1]).split("/")[1]]
    assert found[2]["response"]["status"] == "204 No Content"
    assert client.get(f"/{old}").status_code == 410


def test_two_entries_for_one_resource_are_refused(client: httpx.Client) -> None:
    value = number()
    key = where(answers(send(client, entry("POST", "Patient", patient(value))))[0]).split("/")[1]
    put = entry("PUT", f"Patient/{key}", patient(value, id=key, gender="male"))
    by = entry("PUT", f"Patient?identifier=urn:test|{value}", patient(value))
    for pair in ([put, put], [put, by], [put, entry("DELETE", f"Patient/{key}")], [by, by]):
        answer = send(client, *pair)
        outcome(answer, 400, "fhir.bundle_overlap")
    assert client.get(f"/Patient/{key}").headers["etag"] == 'W/"1"'


def test_one_condition_written_in_two_ways_makes_nothing_twice(client: httpx.Client) -> None:
    value = number()
    wanted = f"identifier=urn:test|{value}"
    first = entry("POST", "Patient", patient(value), ifNoneExist=wanted)
    for text in (f"Patient?{wanted}", f"{client.base_url}Patient?{wanted}", wanted.replace("|", "%7C")):
        answer = send(client, first, entry("POST", "Patient", patient(value), ifNoneExist=text))
        outcome(answer, 400, "fhir.bundle_overlap")


def test_patches_in_a_transaction(client: httpx.Client) -> None:
    first, second = (where(one) for one in answers(send(client, *[entry("POST", "Patient", patient())] * 2)))
    operations = [{"op": "add", "path": "/gender", "value": "female"}]
    binary = {
        "resourceType": "Binary",
        "contentType": "application/json-patch+json",
        "data": b64encode(json.dumps(operations).encode()).decode(),
    }
    parts = [
        {"name": "type", "valueCode": "add"},
        {"name": "path", "valueString": "Patient"},
        {"name": "name", "valueString": "birthDate"},
        {"name": "value", "valueDate": "1970-01-01"},
    ]
    path = {"resourceType": "Parameters", "parameter": [{"name": "operation", "part": parts}]}
    sent = send(client, entry("PATCH", first, binary), entry("PATCH", second, path), Prefer="return=representation")
    found = answers(sent)
    assert found[0]["resource"]["gender"] == "female"
    assert found[1]["resource"]["birthDate"] == "1970-01-01"
    assert found[1]["response"]["etag"] == 'W/"2"'
    assert sent.headers["preference-applied"] == "return=representation"


def test_reads_in_a_transaction_see_its_writes(client: httpx.Client) -> None:
    key = number()
    found = answers(
        send(
            client,
            entry("GET", f"Patient/{key}"),
            entry("HEAD", f"Patient/{key}"),
            entry("PUT", f"Patient/{key}", patient(id=key)),
        )
    )
    assert found[0]["resource"]["id"] == key
    assert "resource" not in found[1]
    assert found[2]["response"]["status"] == "201 Created"
    missing = send(client, entry("GET", f"Patient/{number()}"), entry("POST", "Patient", patient()))
    assert missing.status_code == 404
    assert missing.json()["issue"][0]["expression"] == ["Bundle.entry[0]"]


def test_who_may_not_do_one_entry_does_none(as_: Callable[[str], httpx.Client], client: httpx.Client) -> None:
    value = number()
    assert send(as_("doctor"), entry("POST", "Patient", patient(value))).status_code == 403
    # The pipeline writes and may not search: no condition answers it.
    loader = as_("loader")
    assert send(loader, entry("POST", "Patient", patient(value))).status_code == 200
    if_none = entry("POST", "Patient", patient(), ifNoneExist=f"identifier=urn:test|{value}")
    assert send(loader, entry("POST", "Patient", patient()), if_none).status_code == 403
    assert send(loader, entry("GET", "Patient"), entry("POST", "Patient", patient())).status_code == 403
    assert client.get(f"/Patient?identifier=urn:test|{value}&_summary=count").json()["total"] == 1


def test_a_batch_answers_each_entry_for_itself(workspace: Workspace, client: httpx.Client) -> None:
    value, key = number(), number()
    found = answers(
        send(
            client,
            entry("POST", "Patient", patient(value)),
            entry("POST", "Patient", {**patient(), "gender": "no such code"}),
            entry("PUT", f"Patient/{key}", patient(id=key)),
            entry("GET", f"Patient?identifier=urn:test|{value}"),
            entry("GET", "Patient/none-such"),
            entry("GET", "Patient?nosuch=1"),
            entry("DELETE", f"Patient/{key}"),
            entry("GET", f"Patient/{key}/_history"),
            entry("POST", "", {"resourceType": "Bundle", "type": "batch"}),
            entry("GET", "metadata"),
            kind="batch",
        )
    )
    statuses = [one["response"]["status"].split()[0] for one in found]
    assert statuses == ["201", "400", "201", "200", "404", "400", "204", "200", "404", "200"]
    assert found[1]["response"]["outcome"]["issue"][0]["expression"] == ["Patient.gender"]
    assert found[3]["resource"]["entry"][0]["resource"]["id"] == where(found[0]).split("/")[1]
    assert found[0]["response"]["etag"] == 'W/"1"'
    assert "lastModified" in found[0]["response"]
    assert "resource" not in found[0]


def test_a_batch_may_be_denied_in_part(as_: Callable[[str], httpx.Client]) -> None:
    found = answers(send(as_("doctor"), entry("POST", "Patient", patient()), entry("GET", "Patient"), kind="batch"))
    assert [one["response"]["status"].split()[0] for one in found] == ["403", "200"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"resourceType": "Bundle", "type": "searchset"}, 400),
        ({"resourceType": "Patient"}, 400),
        ([], 400),
        ({"resourceType": "Bundle", "type": "transaction", "entry": [1]}, 400),
        ({"resourceType": "Bundle", "type": "transaction", "entry": {}}, 400),
        ({"resourceType": "Bundle", "type": "transaction", "entry": [entry("GET", "Patient/1/$everything")]}, 400),
        ({"resourceType": "Bundle", "type": "transaction", "entry": [entry("DELETE", "Patient")]}, 400),
        (
            {"resourceType": "Bundle", "type": "transaction", "entry": [entry("DELETE", "http://other/x/Patient/1")]},
            400,
        ),
        ({"resourceType": "Bundle", "type": "transaction", "entry": [entry("GET", "metadata")] * 1001}, 400),
        ({"resourceType": "Bundle", "type": "transaction"}, 200),
    ],
)
def test_what_is_no_bundle_is_refused(client: httpx.Client, body: Any, status: int) -> None:
    assert client.post("", content=json.dumps(body), headers=FHIR).status_code == status


def test_the_order_of_entries_does_not_matter(client: httpx.Client) -> None:
    for number_of, order in enumerate(permutations(range(4))):
        value, urn = number(), "urn:uuid:8f9a4c5e-0000-4000-8000-000000000003"
        old = where(answers(send(client, entry("POST", "Patient", patient(value))))[0])
        entries = [
            entry("DELETE", old),
            entry("PUT", f"Patient?identifier=urn:test|{value}", patient(value, gender="male"), urn),
            entry("POST", "Observation", observation(urn)),
            entry("POST", "Observation", observation(f"Patient?identifier=urn:test|{value}")),
        ]
        found = answers(send(client, *(entries[at] for at in order)))
        by = {at: found[place] for place, at in enumerate(order)}
        new = where(by[1])
        assert new != old
        for at in (2, 3):
            assert client.get(f"/{where(by[at])}").json()["subject"]["reference"] == new
        if number_of == 7:
            break


def test_references_to_what_comes_with_them_are_there(
    workspace: Workspace, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With ``validation.references`` on, what an entry refers to may be made by another; all else must be there."""
    changed = structs.replace(workspace.settings, validation=ValidationSettings(references="on"))
    monkeypatch.setattr(workspace, "settings", changed)
    monkeypatch.setattr(workspace.vault, "settings", changed)
    key, value = number(), number()
    note = entry("POST", "Observation", observation("urn:uuid:1"))
    put = entry("PUT", f"Patient/{key}", patient(id=key), "urn:uuid:1")
    other = entry("POST", "Observation", observation(f"Patient/{key}"))
    assert send(client, note, put, other).status_code == 200
    wrong = entry("POST", "Observation", observation("Patient/none"))
    answer = send(client, entry("POST", "Patient", patient(value)), wrong)
    assert answer.status_code == 422
    assert answer.json()["issue"][0]["expression"] == ["Bundle.entry[1].resource.subject.reference"]
    assert client.get(f"/Patient?identifier=urn:test|{value}&_summary=count").json()["total"] == 0


def test_a_condition_met_twice_is_the_same_resource(client: httpx.Client) -> None:
    value, other = number(), number()
    two = {"system": "urn:test", "value": other}
    whole = patient(value)
    whole["identifier"].append(two)
    first = where(answers(send(client, entry("POST", "Patient", whole)))[0])
    found = answers(
        send(
            client,
            entry("POST", "Patient", patient(value), ifNoneExist=f"identifier=urn:test|{value}"),
            entry("POST", "Patient", patient(other), ifNoneExist=f"identifier=urn:test|{other}"),
        )
    )
    assert [where(one) for one in found] == [first, first]
    assert client.get(f"/{first}").headers["etag"] == 'W/"1"'


def test_keys_given_twice_are_refused(client: httpx.Client) -> None:
    body = json.dumps({"resourceType": "Bundle", "type": "batch", "entry": []}).replace("{", '{"type":"batch",', 1)
    assert client.post("", content=body, headers=FHIR).status_code == 400


def test_many_at_once_make_one_and_lose_nothing(client: httpx.Client) -> None:
    value = number()
    ensure = entry("POST", "Patient", patient(value), "urn:uuid:1", ifNoneExist=f"identifier=urn:test|{value}")

    def once(at: int) -> str:
        found = answers(send(client, ensure, entry("POST", "Observation", observation("urn:uuid:1"))))
        url = f"/{where(found[0])}"
        body = [{"op": "add", "path": "/identifier/-", "value": {"system": "urn:many", "value": str(at)}}]
        answer = client.patch(url, content=json.dumps(body), headers={"Content-Type": "application/json-patch+json"})
        assert answer.status_code == 200, answer.text
        return url

    with ThreadPoolExecutor(8) as pool:
        (url,) = set(pool.map(once, range(16)))
    whole = client.get(url)
    assert {one["value"] for one in whole.json()["identifier"][1:]} == {str(at) for at in range(16)}
    assert whole.headers["etag"] == 'W/"17"'
    assert client.get(f"/Observation?subject={url[1:]}&_summary=count").json()["total"] == 16


def test_an_entry_that_asks_for_nothing_known_is_refused_alone_in_a_batch(client: httpx.Client) -> None:
    wrong = [
        {"request": {"method": "FETCH", "url": "Patient"}},
        {"request": {"method": "POST", "url": "Patient"}},
        {"resource": patient()},
        {"request": {"method": "GET", "url": "http://elsewhere.test/fhir/Patient"}},
        "no entry",
    ]
    good = {"request": {"method": "POST", "url": "Patient"}, "resource": patient()}
    body = {"resourceType": "Bundle", "type": "batch", "entry": [*wrong, good]}
    answer = client.post("", json=body, headers=FHIR)
    assert (answer.status_code, answer.json()["type"]) == (200, "batch-response"), answer.text
    told = [entry["response"] for entry in answer.json()["entry"]]
    assert [one["status"] for one in told] == ["400 Bad Request"] * len(wrong) + ["201 Created"]
    assert told[1]["outcome"]["issue"][0]["expression"] == ["Bundle.entry[1]"]
    answer = client.post("", json={**body, "type": "transaction"}, headers=FHIR)
    assert (answer.status_code, answer.json()["resourceType"]) == (400, "OperationOutcome")


def test_an_entry_of_a_batch_was_modified_when_its_resource_was(client: httpx.Client) -> None:
    made = client.post("/Patient", json=patient(), headers=FHIR).json()
    asked = [
        {"request": {"method": "GET", "url": f"Patient/{made['id']}"}},
        {"request": {"method": "POST", "url": "Patient"}, "resource": patient()},
    ]
    heads = {**FHIR, "Prefer": "return=representation"}
    answer = client.post("", json={"resourceType": "Bundle", "type": "batch", "entry": asked}, headers=heads)
    for entry in answer.json()["entry"]:
        assert entry["response"]["lastModified"] == entry["resource"]["meta"]["lastUpdated"]
        assert entry["fullUrl"] == f"{client.base_url}Patient/{entry['resource']['id']}"


@pytest.mark.parametrize("kind", ["batch", "transaction"])
def test_an_entry_tells_the_same_in_whole_and_in_part(client: httpx.Client, kind: str) -> None:
    (made,) = answers(send(client, entry("POST", "Patient", patient()), kind=kind))
    read, head = answers(send(client, entry("GET", where(made)), entry("HEAD", where(made)), kind=kind))
    assert read["fullUrl"] == f"{client.base_url}{where(made)}"
    assert [one["response"]["status"] for one in (made, read, head)] == ["201 Created", "200 OK", "200 OK"]
    assert not any("resource" in one for one in (made, head))
    updated = read["resource"]["meta"]["lastUpdated"]
    assert [one["response"]["lastModified"] for one in (made, read, head)] == [updated] * 3


@pytest.mark.parametrize("kind", ["batch", "transaction"])
def test_an_entry_reads_a_binary_as_a_resource(client: httpx.Client, kind: str) -> None:
    body = {"resourceType": "Binary", "contentType": "text/plain", "data": b64encode(b"x").decode()}
    (made,) = answers(send(client, entry("POST", "Binary", body), kind=kind, Accept="*/*"))
    (read,) = answers(send(client, entry("GET", where(made)), kind=kind, Accept="*/*"))
    assert read["resource"]["data"] == body["data"]


@pytest.mark.parametrize("kind", ["batch", "transaction"])
def test_an_entry_may_not_search_by_nothing_where_that_is_to_be_an_error(client: httpx.Client, kind: str) -> None:
    asked = entry("GET", "Patient?identifier=&_id=none")
    (lax,) = answers(send(client, asked, kind=kind))
    assert lax["resource"]["entry"][0]["search"]["mode"] == "outcome"
    strict = send(client, asked, kind=kind, Prefer="handling=strict")
    told = strict.json()["entry"][0]["response"]["outcome"] if kind == "batch" else strict.json()
    assert told["issue"][0]["details"]["text"] == "search.bad_value"


@pytest.mark.parametrize("kind", ["batch", "transaction"])
def test_a_condition_of_an_entry_may_be_a_whole_address(client: httpx.Client, kind: str) -> None:
    value = number()
    where_it_is = f"{client.base_url}Patient?identifier=urn:test|{value}"
    asked = entry("POST", "Patient", patient(value), ifNoneExist=where_it_is)
    told = [answers(send(client, asked, kind=kind))[0]["response"]["status"] for _ in range(2)]
    assert told == ["201 Created", "200 OK"]


def test_an_operation_without_parameters_needs_no_resource_in_a_batch(client: httpx.Client) -> None:
    made = client.post("/Patient", json=patient(), headers=FHIR).json()
    asked = [{"request": {"method": "POST", "url": f"Patient/{made['id']}/$meta"}}]
    body = {"resourceType": "Bundle", "type": "batch", "entry": asked}
    (told,) = client.post("", json=body, headers=FHIR).json()["entry"]
    assert (told["response"]["status"], told["resource"]["resourceType"]) == ("200 OK", "Parameters")
    assert client.post("", json={**body, "type": "transaction"}, headers=FHIR).status_code == 400
