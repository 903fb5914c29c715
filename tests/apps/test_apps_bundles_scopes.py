"""Patches, batches and transactions by who is narrowed to one patient, or to some interactions."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from tests.apps.served import Lines, admit, callers, own_workspace, serving

FHIR = {"Content-Type": "application/fhir+json"}
As = Callable[[str, str], httpx.Client]


def observation(subject: str, **more: Any) -> dict[str, Any]:
    body = {"resourceType": "Observation", "status": "final", "code": {"text": "c"}}
    return {**body, "subject": {"reference": subject}, **more}


def entry(method: str, url: str, resource: Any = None, **request: Any) -> dict[str, Any]:
    whole = {"resource": resource} if resource is not None else {}
    return {**whole, "request": {"method": method, "url": url, **request}}


def send(client: httpx.Client, *entries: dict[str, Any], kind: str = "transaction") -> httpx.Response:
    bundle = {"resourceType": "Bundle", "type": kind, "entry": list(entries)}
    return client.post("", content=json.dumps(bundle), headers=FHIR)


@pytest.fixture(scope="module")
def as_(tmp_path_factory: pytest.TempPathFactory) -> Iterator[As]:
    """A client by SMART scopes and the patient they are about; no scopes: not narrowed."""
    with (
        own_workspace(tmp_path_factory.mktemp("scopes")) as workspace,
        serving(workspace, Lines()) as url,
        callers(workspace, url) as narrowed,
    ):
        admit(workspace, "service", writer="application")

        def of(scope: str, patient: str) -> httpx.Client:
            return narrowed("writer", scope=scope, patient=patient) if scope else narrowed("writer")

        free = of("", "")
        for key in ("p1", "p2"):
            assert (
                send(free, entry("PUT", f"Patient/{key}", {"resourceType": "Patient", "id": key})).status_code == 200
            )
            put = entry("PUT", f"Observation/of-{key}", observation(f"Patient/{key}", id=f"of-{key}"))
            assert send(free, put).status_code == 200
        yield of


def total(client: httpx.Client) -> int:
    found: int = client.get("/Observation?_summary=count").json()["total"]
    return found


def test_a_transaction_stays_in_the_patients_record(as_: As) -> None:
    free, own = as_("", ""), as_("patient/*.cruds", "p1")
    before = total(free)
    for reference in ("Patient/p2", "Patient/none"):
        both = [entry("POST", "Observation", observation(one)) for one in ("Patient/p1", reference)]
        answer = send(own, *both)
        assert answer.status_code == 403
        assert answer.json()["issue"][0]["expression"] == ["Bundle.entry[1]"]
    assert total(free) == before
    assert send(own, entry("POST", "Observation", observation("Patient/p1"))).status_code == 200
    assert total(free) == before + 1


def test_what_is_not_in_sight_is_not_there(as_: As) -> None:
    own = as_("patient/*.cruds", "p1")
    hidden = own.patch(
        "/Observation/of-p2",
        content=json.dumps([{"op": "test", "path": "/status", "value": "final"}]),
        headers={"Content-Type": "application/json-patch+json"},
    )
    absent = own.patch("/Observation/none", content="[]", headers={"Content-Type": "application/json-patch+json"})
    assert (hidden.status_code, absent.status_code) == (404, 404)
    assert hidden.json()["issue"][0]["diagnostics"] == absent.json()["issue"][0]["diagnostics"]
    for method in ("DELETE", "PUT"):
        put = observation("Patient/p1", id="of-p2") if method == "PUT" else None
        answer = send(own, entry(method, "Observation/of-p2", put))
        assert answer.status_code in (200, 404)
    assert as_("", "").get("/Observation/of-p2").json()["subject"] == {"reference": "Patient/p2"}


def test_a_patch_does_not_move_a_resource_to_another_patient(as_: As) -> None:
    body = json.dumps([{"op": "replace", "path": "/subject/reference", "value": "Patient/p2"}])
    heads = {"Content-Type": "application/json-patch+json"}
    own = as_("patient/*.cruds", "p1")
    assert own.patch("/Observation/of-p1", content=body, headers=heads).status_code == 403
    assert as_("", "").get("/Observation/of-p1").json()["subject"] == {"reference": "Patient/p1"}


@pytest.mark.parametrize(
    ("scope", "asked", "status"),
    [
        ("system/Observation.c", entry("POST", "Observation", observation("Patient/p1")), 200),
        ("system/Observation.c", entry("POST", "Patient", {"resourceType": "Patient"}), 403),
        ("system/Observation.c", entry("DELETE", "Observation/of-p1"), 403),
        ("system/Observation.cud", entry("DELETE", "Observation?code:text=c"), 403),
        ("system/Observation.cud", entry("POST", "Observation", observation("Patient?_id=p1")), 403),
        ("system/Observation.rs", entry("POST", "Observation", observation("Patient/p1")), 403),
    ],
)
def test_letters_bound_a_transaction(as_: As, scope: str, asked: dict[str, Any], status: int) -> None:
    client, free = as_(scope, ""), as_("", "")
    before = total(free)
    answer = send(client, asked)
    assert answer.status_code == status, answer.text
    assert total(free) == before + (status == 200)


def test_a_narrowed_transaction_does_not_read_and_a_batch_does(as_: As) -> None:
    client = as_("system/Observation.cruds", "")
    entries = [entry("POST", "Observation", observation("Patient/p1")), entry("GET", "Observation/of-p1")]
    assert send(client, *entries).status_code == 400
    found = send(client, *entries, entry("GET", "Patient/p1"), kind="batch").json()["entry"]
    assert [one["response"]["status"].split()[0] for one in found] == ["201", "200", "403"]
